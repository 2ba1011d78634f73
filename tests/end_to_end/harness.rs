//! The binary as a user runs it: commands on files, a pipeline under way, questions to the lake.

mod files;
mod pipeline;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use files::{cases, repository, shared};
pub(crate) use pipeline::Pipeline;

/// How long something that must come true may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A command that the environment says nothing to, not run yet.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftline"));
    command
        .env_remove("DRIFTLINE_CONFIG")
        .env_remove("DRIFTLINE_DIR");
    command
}

/// A command on a data folder, not run yet.
pub(crate) fn command(dir: &Path) -> Command {
    let mut command = binary();
    command.arg("--dir").arg(dir);
    command
}

/// Runs a command that needs no data folder to its end.
pub(crate) fn driftline(arguments: &[&str]) -> Output {
    binary().args(arguments).output().unwrap()
}

/// The same with a text on standard input.
pub(crate) fn driftline_on(arguments: &[&str], input: &str) -> Output {
    let mut child = binary()
        .args(arguments)
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

/// The one document that a command printed, however it ended.
pub(crate) fn json(output: &Output) -> Value {
    let (text, said) = (stdout(output), stderr(output));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{said}"))
}

/// The one document that a command printed, which must have gone well.
pub(crate) fn answer(output: &Output) -> Value {
    let (text, said) = (stdout(output), stderr(output));
    assert!(output.status.success(), "{text}\n{said}");
    json(output)
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command on a data folder that must succeed; its JSON.
pub(crate) fn told(dir: &Path, arguments: &[&str]) -> Value {
    let mut command = command(dir);
    answer(
        &command
            .args(["--format", "json"])
            .args(arguments)
            .output()
            .unwrap(),
    )
}

/// Makes a bundle, version 1.0.0, of a model of the repository (`models/NAME/NAME.onnx`) and rows that
/// know nothing of one another, with arguments of the case's own; its folder.
pub(crate) fn pack(dir: &Path, name: &str, rows: &Path, out: &Path, more: &[&str]) -> String {
    let onnx = repository(&format!("models/{name}/{name}.onnx"));
    let text = |path: &Path| path.display().to_string();
    let (onnx, rows, out) = (text(&onnx), text(rows), text(out));
    let files = ["--onnx", &onnx, "--rows", &rows, "--out", &out];
    let names = ["--name", name, "--version", "1.0.0", "--independent-rows"];
    told(
        dir,
        &[&["model", "pack"], &files[..], &names, more].concat(),
    );
    out
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

/// Whether two numbers agree to a relative tolerance.
pub(crate) fn close(ours: f64, theirs: f64, tolerance: f64) -> bool {
    ours == theirs || (ours - theirs).abs() <= tolerance * theirs.abs()
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
