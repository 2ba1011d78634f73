//! Bundles from and to folders and tar archives.
//!
//! A bundle is flat: files with plain names. An archive entry with a folder, a `..`, a link or a
//! device in it is refused, and no more is read than [`BUNDLE_BYTES_MAX`], whatever the archive
//! claims.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use driftline_schemas::bundle::{Bundle, BundleError, MANIFEST_FILE};
use driftline_schemas::limits::BUNDLE_BYTES_MAX;

/// Most files of a bundle: the six that it has, and what people put beside them (a model card, a
/// licence).
pub const BUNDLE_FILES_MAX: usize = 64;

/// Why a bundle cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{path}: {problem}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// The folder or archive is no bundle.
    #[error("{path}: {problem}")]
    Shape {
        /// The folder or archive.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A file is missing, damaged or wrong.
    #[error("{path}: {problem}")]
    Bundle {
        /// The folder or archive.
        path: PathBuf,
        /// What is wrong.
        problem: BundleError,
    },
}

type Files = BTreeMap<String, Vec<u8>>;

fn io(path: &Path, problem: io::Error) -> StoreError {
    StoreError::Io {
        path: path.into(),
        problem,
    }
}

fn shape(path: &Path, problem: impl Into<String>) -> StoreError {
    StoreError::Shape {
        path: path.into(),
        problem: problem.into(),
    }
}

/// Collects files within the bounds.
struct Collected<'a> {
    path: &'a Path,
    files: Files,
    bytes: usize,
}

impl<'a> Collected<'a> {
    fn new(path: &'a Path) -> Self {
        Self {
            path,
            files: Files::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, name: String, reader: impl Read) -> Result<(), StoreError> {
        if self.files.len() >= BUNDLE_FILES_MAX {
            return Err(shape(
                self.path,
                format!("has more than {BUNDLE_FILES_MAX} files, which is no bundle"),
            ));
        }
        let room = BUNDLE_BYTES_MAX - self.bytes;
        let mut bytes = Vec::new();
        // One byte more than there is room for, so that a file that is too large shows.
        reader
            .take(room as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| io(&self.path.join(&name), source))?;
        if bytes.len() > room {
            return Err(shape(
                self.path,
                format!("is larger than {BUNDLE_BYTES_MAX} bytes, the limit of a bundle"),
            ));
        }
        self.bytes += bytes.len();
        match self.files.insert(name, bytes) {
            Some(_) => Err(shape(self.path, "names a file twice")),
            None => Ok(()),
        }
    }
}

/// The files of a bundle: a folder, or a tar archive of one.
///
/// # Errors
/// [`StoreError`] names the path and what is wrong with it.
pub fn read_files(path: &Path) -> Result<Files, StoreError> {
    let mut collected = Collected::new(path);
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(|source| io(path, source))? {
            let entry = entry.map_err(|source| io(path, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let file = entry.path();
            // Hidden files are editors' and systems', not the bundle's.
            if name.starts_with('.') {
                continue;
            }
            let kind = entry.file_type().map_err(|source| io(&file, source))?;
            if !kind.is_file() {
                return Err(shape(&file, "is no plain file, a bundle has nothing else"));
            }
            let reader = File::open(&file).map_err(|source| io(&file, source))?;
            collected.add(name, reader)?;
        }
    } else {
        let file = File::open(path).map_err(|source| io(path, source))?;
        read_tar(&mut collected, file)?;
    }
    Ok(collected.files)
}

/// The files of a tar archive held in memory or coming over a link.
///
/// # Errors
/// [`StoreError`] says what is wrong; `path` only names the archive in it.
pub fn read_archive(path: &Path, reader: impl Read) -> Result<Files, StoreError> {
    let mut collected = Collected::new(path);
    read_tar(&mut collected, reader)?;
    Ok(collected.files)
}

fn read_tar(collected: &mut Collected<'_>, reader: impl Read) -> Result<(), StoreError> {
    let path = collected.path;
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(|source| io(path, source))? {
        let entry = entry.map_err(|source| io(path, source))?;
        let name = entry
            .path()
            .map_err(|source| io(path, source))?
            .into_owned();
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        let Some(plain) = plain_name(&name).filter(|_| kind.is_file()) else {
            return Err(shape(
                path,
                format!(
                    "holds {}, a bundle's archive has plain files at its top only",
                    name.display()
                ),
            ));
        };
        collected.add(plain, entry)?;
    }
    Ok(())
}

/// A name without folders; `./` before it is allowed.
fn plain_name(path: &Path) -> Option<String> {
    let mut parts = path
        .components()
        .filter(|part| !matches!(part, Component::CurDir));
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => name.to_str().map(str::to_owned),
        _ => None,
    }
}

/// Reads and checks a bundle from a folder or a tar archive.
///
/// # Errors
/// [`StoreError`] names the path, and the file or field that is wrong.
pub fn load(path: &Path) -> Result<Bundle, StoreError> {
    let files = read_files(path)?;
    Bundle::from_files(files).map_err(|problem| StoreError::Bundle {
        path: path.into(),
        problem,
    })
}

/// Writes files into a folder, which must not hold another bundle. They are written beside it first
/// and moved there at once, so that a reader never sees half a bundle.
///
/// # Errors
/// [`StoreError`] when the folder holds something, or cannot be written.
pub fn write_dir(path: &Path, files: &Files) -> Result<(), StoreError> {
    if path.join(MANIFEST_FILE).exists() {
        return Err(shape(
            path,
            "holds a bundle already: choose another folder, or remove it",
        ));
    }
    let is_empty = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(io(path, error)),
    };
    if !is_empty {
        return Err(shape(path, "is not empty: choose another folder"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let partial = parent.join(format!(".{name}.{}.partial", std::process::id()));
    let write = || -> io::Result<()> {
        fs::create_dir_all(&partial)?;
        for (name, bytes) in files {
            let mut file = File::create(partial.join(name))?;
            file.write_all(bytes)?;
            file.sync_data()?;
        }
        if path.exists() {
            fs::remove_dir(path)?;
        }
        fs::rename(&partial, path)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(|source| {
        // Whatever became of it, half a bundle is of no use to anybody.
        let _ = fs::remove_dir_all(&partial);
        io(path, source)
    })
}

/// Writes files as a tar archive. Equal files give equal bytes: no times, owners or modes of this
/// machine go in.
///
/// # Errors
/// [`io::Error`] of the writer.
pub fn write_archive(writer: impl Write, files: &Files) -> io::Result<()> {
    let mut archive = tar::Builder::new(writer);
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    archive.into_inner()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Files {
        BTreeMap::from([
            ("a.txt".to_owned(), b"one".to_vec()),
            ("b.bin".to_owned(), vec![0; 2_000]),
        ])
    }

    #[test]
    fn folders_and_archives_give_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("bundle");
        write_dir(&folder, &files()).unwrap();
        assert_eq!(read_files(&folder).unwrap(), files());
        let tar = dir.path().join("bundle.tar");
        write_archive(File::create(&tar).unwrap(), &files()).unwrap();
        assert_eq!(read_files(&tar).unwrap(), files());
        assert!(write_dir(&folder, &files()).is_err());
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "nothing partial is left behind");
    }

    /// Archives whose entries point out of the folder, or at something that is no file, are refused.
    #[test]
    fn archives_cannot_escape() {
        for (name, kind) in [
            ("../evil", tar::EntryType::Regular),
            ("/etc/passwd", tar::EntryType::Regular),
            ("sub/file", tar::EntryType::Regular),
            ("link", tar::EntryType::Symlink),
        ] {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_cksum();
            let mut builder = tar::Builder::new(Vec::new());
            builder.append(&header, io::empty()).unwrap();
            let bytes = builder.into_inner().unwrap();
            let error = read_archive(Path::new("x.tar"), bytes.as_slice()).unwrap_err();
            assert!(error.to_string().contains("plain files"), "{name}: {error}");
        }
    }

    /// A header that claims more than the limit is refused without reading that much.
    #[test]
    fn archives_are_bounded() {
        let mut header = tar::Header::new_gnu();
        header.set_path("model.onnx").unwrap();
        header.set_size(BUNDLE_BYTES_MAX as u64 * 8);
        header.set_cksum();
        let head = header.as_bytes().to_vec();
        let endless = head.as_slice().chain(io::repeat(0));
        let error = read_archive(Path::new("x.tar"), endless).unwrap_err();
        assert!(error.to_string().contains("larger"), "{error}");
    }
}
