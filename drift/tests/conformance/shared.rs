//! Finds and reads the shared cases.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

/// Path of a conformance file; none, loudly, where the shared folder is absent.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("DRIFTLINE_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let file = shared.join("conformance").join(name);
    if file.exists() {
        return Some(file);
    }
    eprintln!("SKIPPED: {} is not there", file.display());
    None
}

pub(crate) fn json(name: &str) -> Option<serde_json::Value> {
    let file = File::open(path(name)?).unwrap();
    Some(serde_json::from_reader(std::io::BufReader::new(file)).unwrap())
}

/// The lines of a gzipped text file.
pub(crate) fn lines(name: &str) -> Option<Vec<String>> {
    let file = File::open(path(name)?).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    Some(text.lines().map(str::to_owned).collect())
}
