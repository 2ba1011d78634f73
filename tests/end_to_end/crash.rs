//! The whole process killed under load, and a disk that fills up.

use std::path::{Path, PathBuf};
use std::process::Command;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::fleet::{self, Fleet};
use crate::harness::{self, Pipeline};

/// Where a process ends itself, and how often the place is passed before at most.
const POINTS: [(&str, u32); 13] = [
    ("gateway.append", 6),
    ("gateway.acknowledge", 6),
    ("embedded.write.after", 60),
    ("embedded.sync.before", 30),
    ("embedded.sync.after", 30),
    ("embedded.commit.before", 20),
    ("embedded.commit.after", 20),
    ("runner.commit.before", 12),
    ("runner.commit.after", 12),
    ("archive.before_files", 3),
    ("archive.before_delta_commit", 3),
    ("archive.after_delta_commit", 3),
    // Never reached: killed from outside, wherever it is.
    ("", 1),
];
/// Small and often, so that every kind of commit is under way at any time.
const SETTINGS: &str = r#"
[archive]
linger = "200ms"
compact_commits = 4
"#;
const DEVICES: usize = 4;
const ROWS: usize = 40;
/// Requests that a life may take before it is killed from outside: where a place ends it, and where none
/// does.
const REQUESTS: [usize; 2] = [200, 12];

/// Kills until each place was the end of a life so many times (`DRIFTLINE_CRASHES` for more).
fn rounds() -> usize {
    std::env::var("DRIFTLINE_CRASHES").map_or(1, |text| text.parse().unwrap())
}

fn seed() -> u64 {
    std::env::var("DRIFTLINE_SEED").map_or(20_260_105, |text| text.parse().unwrap())
}

struct Lives {
    dir: PathBuf,
    address: String,
    ended_at: Vec<&'static str>,
}

impl Lives {
    fn begin(&self, point: &str) -> Result<Pipeline, String> {
        let environment = [
            ("DRIFTLINE_GATEWAY__LISTEN", self.address.as_str()),
            ("DRIFTLINE_FAILPOINT", point),
        ];
        Pipeline::try_start(&self.dir, SETTINGS, &environment)
    }

    /// Devices measure and send until the process has ended, by itself or by us.
    fn live(&mut self, point: &'static str, count: u32, fleet: &mut Fleet, rng: &mut ChaCha8Rng) {
        let mut pipeline = match self.begin(&format!("{point}:{count}")) {
            Ok(pipeline) => pipeline,
            // It met the place while it was starting.
            Err(said) => {
                assert!(!said.contains("panicked"), "{said}");
                self.ended_at.push(point);
                return;
            }
        };
        for _ in 0..REQUESTS[usize::from(point.is_empty())] {
            let at = rng.random_range(0..fleet.len());
            fleet.measure(at, rng.random_range(1..ROWS), rng);
            fleet.send(at, || pipeline.ended().is_none());
            if let Some(status) = pipeline.ended() {
                assert!(!status.success());
                self.ended_at.push(point);
                return;
            }
        }
        let said = pipeline.kill();
        assert!(!said.contains("panicked"), "{said}");
        self.ended_at.push("");
    }
}

/// Scenario: devices send rows and labels while the process aborts at every place around a write, a
/// sync, a commit of the log, a commit of the lake and an acknowledgement, the n-th time it is passed
/// (n by the seed), or is killed from outside; devices send again what was not acknowledged.
/// Guarantee: after the last start every acknowledged row and label is in the lake once, under its own
/// identity, and in the profiles once.
#[test]
fn killed_anywhere_every_row_counts_once() {
    let seed = seed();
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let bundle = fleet::bundle(folder.path(), &mut rng);
    let dir = folder.path().join("data");
    let pipeline = Pipeline::start(&dir, SETTINGS, &[]);
    harness::told(&dir, &["model", "register", &bundle]);
    let mut fleet = Fleet::join(&pipeline, &bundle, DEVICES);
    let mut lives = Lives {
        dir,
        address: pipeline.url.trim_start_matches("http://").to_owned(),
        ended_at: Vec::new(),
    };
    pipeline.kill();
    for _ in 0..rounds() {
        for (point, most) in POINTS {
            lives.live(point, rng.random_range(1..=most), &mut fleet, &mut rng);
        }
    }
    let pipeline = lives.begin("").unwrap();
    for at in 0..fleet.len() {
        assert!(fleet.send(at, || true));
    }
    fleet::assert_counted_once(&pipeline, &fleet);
    println!(
        "{} kills, {} rows, {} requests sent again; ended at {:?}",
        lives.ended_at.len(),
        fleet.ids.len(),
        fleet.retries(),
        lives.ended_at
    );
    let own = lives.ended_at.iter().filter(|point| !point.is_empty());
    assert!(
        own.count() * 2 >= lives.ended_at.len(),
        "places are reached"
    );
    assert!(fleet.retries() > 0);
}

/// A file system of its own, as large as we like; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path.to_owned())),
            _ => {
                eprintln!("SKIPPED: a file system of a given size needs the right to mount one");
                None
            }
        }
    }

    fn resize(&self, megabytes: u32) {
        let options = format!("remount,size={megabytes}m");
        let done = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Scenario: the disk under the log and the lake fills up while devices send; later there is room.
/// Guarantee: from then on nothing is acknowledged and the process says why; with room again it goes
/// on (after a restart, where it had ended), and every acknowledged row counts once.
#[test]
fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let bundle = fleet::bundle(folder.path(), &mut rng);
    let dir = folder.path().join("small");
    let Some(mount) = Mount::new(&dir, 24) else {
        return;
    };
    let mut pipeline = Pipeline::start(&dir, SETTINGS, &[]);
    let address = pipeline.url.trim_start_matches("http://").to_owned();
    harness::told(&dir, &["model", "register", &bundle]);
    let mut fleet = Fleet::join(&pipeline, &bundle, 1);
    fleet.measure(0, 100, &mut rng);
    assert!(fleet.send(0, || true));
    // Filled by somebody else, to the last page.
    let filler = dir.join("filler");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096"])
        .arg(format!("of={}", filler.display()))
        .output()
        .unwrap();
    assert!(!filled.status.success(), "there was no end to the disk");
    let before = fleet.acknowledged();
    let mut refused = false;
    // What the log holds in reserve may still take some.
    for _ in 0..400 {
        fleet.measure(0, 500, &mut rng);
        let mut tries = 0;
        let gave_up = !fleet.send(0, || {
            tries += 1;
            tries < 8 && pipeline.ended().is_none()
        });
        if gave_up {
            refused = true;
            break;
        }
    }
    assert!(refused, "a full disk was written to");
    let at_full = fleet.acknowledged();
    println!("{before:?} rows before, {at_full:?} when it was full");
    assert!(at_full.0 < fleet.ids.len() as u64);
    mount.resize(256);
    std::fs::remove_file(&filler).unwrap();
    let ended = pipeline.ended().is_some();
    println!(
        "the process {}",
        if ended { "had ended" } else { "went on" }
    );
    if ended {
        pipeline = Pipeline::start(&dir, SETTINGS, &[("DRIFTLINE_GATEWAY__LISTEN", &address)]);
    }
    harness::until("an acknowledgement", || {
        match fleet.send(0, || pipeline.ended().is_none()) {
            true => Ok(()),
            false => {
                if pipeline.ended().is_some() {
                    pipeline =
                        Pipeline::start(&dir, SETTINGS, &[("DRIFTLINE_GATEWAY__LISTEN", &address)]);
                }
                Err("not yet".into())
            }
        }
    });
    fleet::assert_counted_once(&pipeline, &fleet);
    let (status, said) = pipeline.terminate();
    assert!(status.success(), "{said}");
    drop(mount);
}
