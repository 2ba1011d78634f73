//! Where bundles rest: a folder that every role can read, for now.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use driftline_schemas::limits::BUNDLE_BYTES_MAX;

/// Most files of one bundle: six are required, the rest is for what an operator adds.
pub const BUNDLE_FILES_MAX: usize = 64;

/// What went wrong with a bundle in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct StoreError {
    /// Place within the store.
    pub path: String,
    /// What is wrong, and what would put it right.
    pub problem: String,
}

/// A place for bundles. It keeps bytes; [`super::Registry`] checks digests.
pub trait BundleStore: Send + Sync {
    /// All files below a path, by name (blocks).
    ///
    /// # Errors
    /// When there is nothing, too much, or it cannot be read.
    fn get(&self, path: &str) -> Result<BTreeMap<String, Vec<u8>>, StoreError>;

    /// Puts files below a path, so that a reader sees all of them or none (blocks). What was there
    /// is replaced.
    ///
    /// # Errors
    /// When it cannot be written.
    fn put(&self, path: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<(), StoreError>;
}

/// Place of a bundle in any store: one level per part of its name. Characters that a folder's name
/// could not have are written as `%xx`.
pub fn path_of(tenant: &str, model: &str, version: &str, variant: &str) -> String {
    let level = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let escape_dots = text.chars().all(|c| c == '.');
        text.bytes()
            .map(|byte| match byte {
                b'.' if escape_dots => "%2e".to_owned(),
                byte if plain(byte) => char::from(byte).to_string(),
                byte => format!("%{byte:02x}"),
            })
            .collect()
    };
    let last = match variant {
        "" => level(version),
        variant => format!("{}+{}", level(version), level(variant)),
    };
    format!("{}/{}/{last}", level(tenant), level(model))
}

/// A folder on this machine, or one that every machine has mounted.
#[derive(Debug, Clone)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    /// Bundles below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The path comes from the log, so it is held to stay below the root.
    fn folder(&self, path: &str) -> Result<PathBuf, StoreError> {
        let relative = Path::new(path);
        let below = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if below && !path.is_empty() {
            return Ok(self.root.join(relative));
        }
        Err(StoreError {
            path: path.into(),
            problem: "a bundle's path must lie below the bundles' folder".into(),
        })
    }
}

impl BundleStore for FolderStore {
    fn get(&self, path: &str) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let folder = self.folder(path)?;
        read_folder(&folder).map_err(|error| failed(path, &folder, &error))
    }

    fn put(&self, path: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<(), StoreError> {
        let folder = self.folder(path)?;
        replace_folder(&folder, files).map_err(|error| failed(path, &folder, &error))
    }
}

fn failed(path: &str, folder: &Path, error: &io::Error) -> StoreError {
    StoreError {
        path: path.into(),
        problem: format!(
            "{}: {error}; the bundles' folder must hold it and be readable and writable",
            folder.display()
        ),
    }
}

fn read_folder(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut left = BUNDLE_BYTES_MAX as u64;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| io::Error::other(format!("file name {name:?} is no UTF-8")))?;
        let mut bytes = Vec::new();
        fs::File::open(entry.path())?
            .take(left + 1)
            .read_to_end(&mut bytes)?;
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other(format!("more than {BUNDLE_BYTES_MAX} bytes")))?;
        if files.len() == BUNDLE_FILES_MAX {
            return Err(io::Error::other(format!(
                "more than {BUNDLE_FILES_MAX} files"
            )));
        }
        files.insert(name, bytes);
    }
    Ok(files)
}

/// Writes beside the place and renames, with every file and the folder synced before.
fn replace_folder(folder: &Path, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let beside = parent.join(format!(".{name}.{}.new", std::process::id()));
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(&beside)?;
    for (name, bytes) in files {
        let path = beside.join(name);
        fs::write(&path, bytes)?;
        fs::File::open(&path)?.sync_all()?;
    }
    fs::File::open(&beside)?.sync_all()?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&beside, folder)?;
    fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names become folders below the root, never above it.
    #[test]
    fn no_name_leaves_the_folder() {
        assert_eq!(path_of("acme", "boiler", "1.0.0", ""), "acme/boiler/1.0.0");
        assert_eq!(
            path_of("acme", "boiler", "1.0.0", "int8"),
            "acme/boiler/1.0.0+int8"
        );
        assert_eq!(path_of("..", "a b", ".", ""), "%2e%2e/a%20b/%2e");
        assert_ne!(path_of("a", "b", "1+x", ""), path_of("a", "b", "1", "x"));
        let store = FolderStore::new("/nowhere");
        for path in ["", "/etc", "../x", "a/../../x"] {
            let error = store.get(path).unwrap_err();
            assert!(error.problem.contains("below"), "{path}: {error}");
        }
    }

    /// Files come back as they were put, and putting again replaces all of them.
    #[test]
    fn what_is_put_is_got() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::new(folder.path().join("bundles"));
        let files = |name: &str| BTreeMap::from([(name.to_owned(), b"bytes".to_vec())]);
        store.put("t/m/1", &files("one")).unwrap();
        store.put("t/m/1", &files("two")).unwrap();
        assert_eq!(store.get("t/m/1").unwrap(), files("two"));
        let error = store.get("t/m/2").unwrap_err();
        assert!(error.to_string().contains("t/m/2"), "{error}");
    }
}
