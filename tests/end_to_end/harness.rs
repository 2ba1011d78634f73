//! The binary as a user runs it: commands, a pipeline under way, questions to the lake.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long something that must come true may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A command on a data folder, not run yet.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftline"));
    command
        .arg("--dir")
        .arg(dir)
        .env_remove("DRIFTLINE_CONFIG")
        .env_remove("DRIFTLINE_DIR");
    command
}

/// Runs a command to its end.
pub(crate) fn driftline(dir: &Path, arguments: &[&str]) -> Output {
    command(dir).args(arguments).output().unwrap()
}

/// The JSON that a command printed.
pub(crate) fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {text}\n{said}")
    })
}

/// Runs a command that must succeed; its JSON.
pub(crate) fn told(dir: &Path, arguments: &[&str]) -> Value {
    let output = command(dir)
        .args(["--format", "json"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    json(&output)
}

/// Rows that a statement gives.
pub(crate) fn sql(dir: &Path, statement: &str) -> Vec<Value> {
    let answer = told(dir, &["sql", "-c", statement]);
    answer.as_array().unwrap().clone()
}

/// The one number that a statement gives.
pub(crate) fn number(dir: &Path, statement: &str) -> f64 {
    let rows = sql(dir, statement);
    let row = rows[0].as_object().unwrap();
    row.values().next().unwrap().as_f64().unwrap()
}

/// Looks until it is there, and fails with what was seen last when it does not come.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > PATIENCE => panic!("{what} did not come: {seen}"),
            Err(_) => pause(LOOK_EVERY),
        }
    }
}

/// A pause between two looks at another process, which has no way to wake us.
pub(crate) fn pause(span: Duration) {
    let until = Instant::now() + span;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Real data, where they are; says loudly where not.
pub(crate) fn shared(file: &str) -> Option<PathBuf> {
    let root = std::env::var_os("DRIFTLINE_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = root.join(file);
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: {} is not there (DRIFTLINE_SHARED names the folder)",
        path.display()
    );
    None
}

/// A file of the repository.
pub(crate) fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join(file)
}

/// `driftline serve` under way; killed when it is dropped.
pub(crate) struct Pipeline {
    pub(crate) dir: PathBuf,
    pub(crate) url: String,
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Pipeline {
    /// Starts on a free port, with settings (TOML below the gateway's) and environment.
    pub(crate) fn start(dir: &Path, settings: &str, environment: &[(&str, &str)]) -> Self {
        Self::try_start(dir, settings, environment)
            .unwrap_or_else(|said| panic!("serve ended before it listened:\n{said}"))
    }

    /// The same, where it may end before it listens; then what it said.
    pub(crate) fn try_start(
        dir: &Path,
        settings: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        std::fs::create_dir_all(dir).unwrap();
        let file = dir.join("serve.toml");
        std::fs::write(&file, settings).unwrap();
        let mut child = command(dir)
            .arg("--config")
            .arg(&file)
            .arg("serve")
            .env("DRIFTLINE_GATEWAY__LISTEN", "127.0.0.1:0")
            .env("NO_COLOR", "1")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, told) = mpsc::channel();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("gateway listens address=") {
                    // Nobody asks any more when the test has gone on.
                    let _ = tell.send(format!("http://{}", address.trim()));
                }
                text.push_str(&line);
                text.push('\n');
            }
            text
        });
        match told.recv() {
            Ok(url) => Ok(Self {
                dir: dir.to_owned(),
                url,
                child,
                said: Some(said),
            }),
            Err(_) => {
                child.wait().unwrap();
                Err(said.join().unwrap())
            }
        }
    }

    /// The device's answer, with its token.
    pub(crate) fn add_device(&self, name: &str, arguments: &[&str]) -> Value {
        let mut all = vec!["device", "add", name];
        all.extend_from_slice(arguments);
        told(&self.dir, &all)
    }

    /// Asks it to end, and waits; how it ended, and what it had said.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(asked.success());
        let status = self.child.wait().unwrap();
        (status, self.said.take().unwrap().join().unwrap())
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.take().unwrap().join().unwrap()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
