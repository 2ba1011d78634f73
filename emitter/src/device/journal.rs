//! The spool on a disk, one file per frame.
//!
//! A file is named `<order>-<kind>-<boot>-<sequence>-<rows>-<sent>.frame`, numbers in hexadecimal,
//! so that a listing restores the queue without opening anything, and holds the frame as it travels,
//! whose checksum finds what a power cut left half written. It is written under another name,
//! flushed, and renamed. A frame that cannot be read back is set aside as `*.damaged`, not deleted.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use driftline_schemas::frame;
use driftline_schemas::rows::Kind;

use super::spool::Sealed;

/// The disk failed.
#[derive(Debug, thiserror::Error)]
#[error("spool, {path}: {problem}; check that the disk has room and can be written")]
pub struct JournalError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub problem: std::io::Error,
}

/// Where frames survive a restart.
pub trait Journal: Send + std::fmt::Debug {
    /// The frames that are there, oldest first.
    ///
    /// # Errors
    /// [`JournalError`] when the place cannot be read.
    fn restore(&mut self) -> Result<Vec<Sealed>, JournalError>;

    /// A frame was sealed.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    fn append(&mut self, frame: &Sealed) -> Result<(), JournalError>;

    /// A frame is about to go out for the first time, with bytes that stay from then on.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be written.
    fn update(&mut self, frame: &Sealed) -> Result<(), JournalError>;

    /// A frame was acknowledged or refused.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be removed.
    fn remove(&mut self, frame: &Sealed) -> Result<(), JournalError>;
}

/// Nothing survives a restart.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn restore(&mut self) -> Result<Vec<Sealed>, JournalError> {
        Ok(Vec::new())
    }

    fn append(&mut self, _: &Sealed) -> Result<(), JournalError> {
        Ok(())
    }

    fn update(&mut self, _: &Sealed) -> Result<(), JournalError> {
        Ok(())
    }

    fn remove(&mut self, _: &Sealed) -> Result<(), JournalError> {
        Ok(())
    }
}

/// Frames as files of a folder.
#[derive(Debug)]
pub struct DiskJournal {
    dir: PathBuf,
    next: u64,
    /// Order and name of the files that are there.
    files: Vec<(Key, String)>,
}

type Key = (u8, u64, u64);

impl DiskJournal {
    /// Keeps frames in a folder, which is made where it is not there.
    ///
    /// # Errors
    /// [`JournalError`] when it cannot be made.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
        Ok(Self {
            dir: dir.into(),
            next: 0,
            files: Vec::new(),
        })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let path = self.dir.join(name);
        let partial = self.dir.join(format!("{name}.partial"));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&partial)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&partial, &path)?;
            // The new name is only safe once the folder is.
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| failed(&path, source))
    }

    fn position(&self, key: Key) -> Option<usize> {
        self.files.iter().position(|(it, _)| *it == key)
    }
}

fn failed(path: &Path, problem: std::io::Error) -> JournalError {
    JournalError {
        path: path.into(),
        problem,
    }
}

fn key(frame: &Sealed) -> Key {
    (frame.kind as u8, frame.boot, frame.sequence)
}

fn name(order: u64, frame: &Sealed) -> String {
    format!(
        "{order:016x}-{}-{:016x}-{:x}-{:x}-{}.frame",
        frame.kind as u8,
        frame.boot,
        frame.sequence,
        frame.rows,
        u8::from(frame.is_sent)
    )
}

/// Order and frame without bytes of a file's name.
fn parse(name: &str) -> Option<(u64, Sealed)> {
    let parts: Vec<&str> = name.strip_suffix(".frame")?.split('-').collect();
    let [order, kind, boot, sequence, rows, sent] = parts[..] else {
        return None;
    };
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let kind = Kind::from_code(kind.parse().ok()?)?;
    let frame = Sealed::restored(
        kind,
        hex(boot)?,
        hex(sequence)?,
        hex(rows)?,
        sent == "1",
        Vec::new(),
    );
    Some((hex(order)?, frame))
}

impl Journal for DiskJournal {
    fn restore(&mut self) -> Result<Vec<Sealed>, JournalError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|source| failed(&self.dir, source))? {
            let entry = entry.map_err(|source| failed(&self.dir, source))?;
            let file = entry.file_name().to_string_lossy().into_owned();
            if let Some((order, frame)) = parse(&file) {
                found.push((order, file, frame));
            }
        }
        found.sort_by_key(|(order, ..)| *order);
        let mut frames = Vec::with_capacity(found.len());
        self.files.clear();
        for (order, file, frame) in found {
            self.next = order + 1;
            let path = self.dir.join(&file);
            let bytes = fs::read(&path).map_err(|source| failed(&path, source))?;
            if !frame::peek(&bytes).is_ok_and(|header| header.kind == frame.kind) {
                tracing::warn!(file, "frame in the spool is damaged and set aside");
                let aside = self.dir.join(format!("{file}.damaged"));
                fs::rename(&path, &aside).map_err(|source| failed(&path, source))?;
                continue;
            }
            self.files.push((key(&frame), file));
            frames.push(Sealed::restored(
                frame.kind,
                frame.boot,
                frame.sequence,
                frame.rows,
                frame.is_sent,
                bytes,
            ));
        }
        Ok(frames)
    }

    fn append(&mut self, frame: &Sealed) -> Result<(), JournalError> {
        let name = name(self.next, frame);
        self.write(&name, frame.bytes())?;
        self.next += 1;
        self.files.push((key(frame), name));
        Ok(())
    }

    fn update(&mut self, frame: &Sealed) -> Result<(), JournalError> {
        let Some(at) = self.position(key(frame)) else {
            return self.append(frame);
        };
        let old = self.files[at].1.clone();
        // The order is the first part of every name that this wrote or parsed.
        let order = old
            .split('-')
            .next()
            .and_then(|order| u64::from_str_radix(order, 16).ok())
            .unwrap_or(self.next);
        let new = name(order, frame);
        self.write(&new, frame.bytes())?;
        if new != old {
            let path = self.dir.join(&old);
            fs::remove_file(&path).map_err(|source| failed(&path, source))?;
            self.files[at].1 = new;
        }
        Ok(())
    }

    fn remove(&mut self, frame: &Sealed) -> Result<(), JournalError> {
        let Some(at) = self.position(key(frame)) else {
            return Ok(());
        };
        let (_, name) = self.files.remove(at);
        let path = self.dir.join(&name);
        fs::remove_file(&path).map_err(|source| failed(&path, source))
    }
}
