//! Durable appends: rows per second through the embedded log, with group commit among several
//! appenders, against the same bytes written and synced one by one to a plain file.
//!
//! `cargo bench -p driftline-log --bench append`; `BENCH_FOLDER` puts the files on the disk in
//! question (default: the folder for temporary files), `BENCH_SECONDS` is the time per line (default 3).

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use driftline_log::embedded::{EmbeddedLog, EmbeddedOptions};
use driftline_log::{Log, Output, TopicSpec};

/// Rows in one record: a packed batch of the gateway.
const ROWS: u64 = 1_000;
/// Bytes of one row in it.
const ROW_BYTES: usize = 24;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Rate {
    records: u64,
    took: Duration,
}

impl Rate {
    fn print(&self, what: &str) -> Result<()> {
        let per_second = self.records as f64 / self.took.as_secs_f64();
        let rows = per_second * ROWS as f64;
        let mib = rows * ROW_BYTES as f64 / (1024.0 * 1024.0);
        let mut out = std::io::stdout();
        writeln!(
            out,
            "{what:32} {rows:12.0} rows/s {per_second:9.0} appends/s {mib:8.1} MiB/s"
        )?;
        Ok(())
    }
}

/// Bytes that do not compress and differ from record to record.
fn record(seed: u64) -> Vec<u8> {
    let mut z = seed;
    let mut bytes = Vec::with_capacity(ROWS as usize * ROW_BYTES);
    while bytes.len() < ROWS as usize * ROW_BYTES {
        z = z
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        bytes.extend(z.to_le_bytes());
    }
    bytes
}

fn raw(folder: &Path, time: Duration) -> Result<Rate> {
    let mut file = File::create(folder.join("raw"))?;
    let started = Instant::now();
    let mut records = 0;
    while started.elapsed() < time {
        file.write_all(&record(records))?;
        file.sync_data()?;
        records += 1;
    }
    Ok(Rate {
        records,
        took: started.elapsed(),
    })
}

fn appenders(folder: &Path, count: u32, time: Duration) -> Result<Rate> {
    let log = EmbeddedLog::open(
        &folder.join(format!("log-{count}")),
        EmbeddedOptions::default(),
    )?;
    log.ensure_topics(&[TopicSpec::new("inferences", count)])?;
    let (stop, records) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let started = Instant::now();
    let threads: Vec<_> = (0..count)
        .map(|partition| {
            let mut appender = log.appender("bench")?;
            let (stop, records) = (Arc::clone(&stop), Arc::clone(&records));
            Ok(std::thread::spawn(move || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    let n = records.fetch_add(1, Ordering::Relaxed);
                    appender.append(vec![Output {
                        topic: "inferences".into(),
                        partition,
                        key: Vec::new(),
                        value: Some(record(n)),
                        timestamp_us: 0,
                    }])?;
                }
                Ok(())
            }))
        })
        .collect::<Result<_>>()?;
    std::thread::park_timeout(time);
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "an appender panicked")??;
    }
    Ok(Rate {
        records: records.load(Ordering::Relaxed),
        took: started.elapsed(),
    })
}

fn main() -> Result<()> {
    let folder = std::env::var_os("BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = std::env::var("BENCH_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(3));
    let folder = tempfile::tempdir_in(folder)?;
    raw(folder.path(), time)?.print("plain file, write and sync")?;
    for count in [1, 4, 16, 64] {
        appenders(folder.path(), count, time)?
            .print(&format!("embedded log, {count} appenders"))?;
    }
    Ok(())
}
