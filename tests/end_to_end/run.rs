//! The built binary on files, and the shared cases.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs `driftline` with these arguments.
pub(crate) fn driftline(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// The same with a text on standard input.
pub(crate) fn driftline_on(arguments: &[&str], input: &str) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that refuses its arguments reads nothing.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftline"));
    command.args(arguments).env_remove("DRIFTLINE_CONFIG");
    command
}

/// The one document on standard output of a command that went well.
pub(crate) fn json(output: &Output) -> Value {
    let (text, said) = (stdout(output), stderr(output));
    assert!(output.status.success(), "{text}\n{said}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{said}"))
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A shared file; none, loudly, where the shared folder is absent.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("DRIFTLINE_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let file = folder.join(name);
    if file.exists() {
        return Some(file);
    }
    eprintln!("SKIPPED: {} is not there", file.display());
    None
}

/// The exact cases of other implementations in one of the shared documents.
pub(crate) fn cases(name: &str) -> Option<Value> {
    let file = std::fs::File::open(shared(&format!("conformance/{name}"))?).unwrap();
    Some(serde_json::from_reader(std::io::BufReader::new(file)).unwrap())
}

/// Whether two numbers agree to a relative tolerance.
pub(crate) fn close(ours: f64, theirs: f64, tolerance: f64) -> bool {
    ours == theirs || (ours - theirs).abs() <= tolerance * theirs.abs()
}
