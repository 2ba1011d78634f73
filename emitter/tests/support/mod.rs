//! Where shared data is, and how its files are read.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The shared data, or `None`, said loudly, where it is not there.
pub(crate) fn data(path: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("DRIFTLINE_SHARED") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let path = root.join("data").join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there", path.display());
    None
}

/// The text of a file that gzip or zstd packed, through their own programs.
pub(crate) fn unpack(path: &Path) -> String {
    let program = match path.extension().and_then(|ext| ext.to_str()) {
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        _ => return std::fs::read_to_string(path).unwrap(),
    };
    let mut child = Command::new(program)
        .arg("-dc")
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(child.wait().unwrap().success());
    text
}

/// Header and rows of a CSV file.
pub(crate) fn csv(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let text = unpack(path);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().iter().map(String::from).collect();
    let rows = reader
        .records()
        .map(|record| record.unwrap().iter().map(String::from).collect())
        .collect();
    (header, rows)
}
