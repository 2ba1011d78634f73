//! Files of the repository, and the data and cases that are shared.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of the repository.
pub(crate) fn repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join(file)
}

/// Real data or cases, where they are; says loudly where not.
pub(crate) fn shared(file: &str) -> Option<PathBuf> {
    let root =
        std::env::var_os("DRIFTLINE_SHARED").map_or_else(|| repository("../shared"), PathBuf::from);
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

/// The exact cases of other implementations in one of the shared documents.
pub(crate) fn cases(name: &str) -> Option<Value> {
    let file = std::fs::File::open(shared(&format!("conformance/{name}"))?).unwrap();
    Some(serde_json::from_reader(std::io::BufReader::new(file)).unwrap())
}
