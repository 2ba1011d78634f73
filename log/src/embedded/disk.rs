//! The folder: its lock, the open database, and what is done when the disk fails.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, StorageError};

use super::FORMAT_VERSION;
use super::backend::{Watch, Watched};
use super::tables::{ReadTables, Touched, WriteTables};
use crate::error::LogError;
use crate::failpoint;

/// What a transaction failed of.
#[derive(Debug)]
pub(super) enum Failed {
    /// The caller's request is refused; the disk is fine.
    Refused(LogError),
    /// The log is of another format version.
    Format(u32),
    /// The disk is full: can pass.
    Full(String),
    /// The handle is unusable after an earlier failure: open it again.
    Stale,
    /// Anything else of the disk.
    Disk(String),
}

impl Failed {
    pub(super) fn damaged(what: String) -> Self {
        Self::Refused(LogError::storage(
            format!(
                "{what} is damaged on disk: check the disk and restore the log's folder from a copy"
            ),
            false,
        ))
    }
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Self::Refused(error)
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full(error.to_string())
            }
            _ => Self::Disk(error.to_string()),
        }
    }
}

impl From<StorageError> for Failed {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => error.into(),
            StorageError::PreviousIo | StorageError::DatabaseClosed => Self::Stale,
            other => Self::Disk(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Failed {
            fn from(error: redb::$error) -> Self {
                match error {
                    redb::$error::Storage(error) => error.into(),
                    other => Self::Disk(other.to_string()),
                }
            }
        }
    )*};
}
from_redb!(TableError, TransactionError, CommitError, DatabaseError);

/// The open folder.
pub(super) struct Disk {
    folder: PathBuf,
    cache_bytes: usize,
    pub(super) watch: Arc<Watch>,
    /// `None` after a failure, until somebody opens it again.
    database: RwLock<Option<Database>>,
    /// Why nothing is written any more.
    broken: OnceLock<String>,
    /// Held for as long as the folder is open; the system releases it when the process ends.
    _lock: File,
}

impl Disk {
    pub(super) fn open(folder: &Path, cache_bytes: usize) -> Result<Self, LogError> {
        let lock = lock(folder)?;
        let disk = Self {
            folder: folder.to_owned(),
            cache_bytes,
            watch: Arc::default(),
            database: RwLock::new(None),
            broken: OnceLock::new(),
            _lock: lock,
        };
        disk.revive()?;
        Ok(disk)
    }

    /// Opens the database unless it is open.
    fn revive(&self) -> Result<(), LogError> {
        if let Some(why) = self.broken.get() {
            return Err(self.broken_error(why));
        }
        if self
            .database
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
        {
            return Ok(());
        }
        let mut slot = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = Some(self.open_database().map_err(|failed| self.error(failed))?);
        }
        Ok(())
    }

    fn open_database(&self) -> Result<Database, Failed> {
        let path = self.folder.join("log.redb");
        let is_new = !path.exists();
        let mut open = OpenOptions::new();
        let file = open
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let file = FileBackend::new(file)?;
        let shown = path.display().to_string();
        let database = Builder::new()
            .set_cache_size(self.cache_bytes)
            .set_repair_callback(move |repair| {
                tracing::info!(
                    path = shown,
                    percent = (repair.progress() * 100.0) as u32,
                    "checking the log after an unclean end"
                );
            })
            .create_with_backend(Watched {
                file,
                watch: Arc::clone(&self.watch),
            })?;
        if is_new {
            // The file's name is durable only when its folder is.
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(database)
    }

    /// Runs `f` in one durable transaction and returns what it made, with the bounds it changed.
    pub(super) fn write_tracked<T>(
        &self,
        f: impl FnOnce(&mut WriteTables<'_>) -> Result<T, Failed>,
    ) -> Result<(T, Touched), LogError> {
        self.revive()?;
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let result = match guard.as_ref() {
            Some(database) => Self::transact(database, f),
            None => Err(Failed::Stale),
        };
        drop(guard);
        result.map_err(|failed| {
            self.note(&failed);
            self.error(failed)
        })
    }

    pub(super) fn write<T>(
        &self,
        f: impl FnOnce(&mut WriteTables<'_>) -> Result<T, Failed>,
    ) -> Result<T, LogError> {
        Ok(self.write_tracked(f)?.0)
    }

    fn transact<T>(
        database: &Database,
        f: impl FnOnce(&mut WriteTables<'_>) -> Result<T, Failed>,
    ) -> Result<(T, Touched), Failed> {
        let txn = database.begin_write()?;
        let mut tables = WriteTables::open(&txn)?;
        let made = f(&mut tables)?;
        let touched = tables.finish()?;
        failpoint::hit("embedded.commit.before");
        txn.commit()?;
        failpoint::hit("embedded.commit.after");
        Ok((made, touched))
    }

    /// Runs `f` on one consistent picture.
    pub(super) fn read<T>(
        &self,
        f: impl FnOnce(&ReadTables<'_>) -> Result<T, Failed>,
    ) -> Result<T, LogError> {
        self.revive()?;
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let read = || {
            let database = guard.as_ref().ok_or(Failed::Stale)?;
            let txn = database.begin_read()?;
            f(&ReadTables(&txn))
        };
        read().map_err(|failed| self.error(failed))
    }

    /// After a failed write: closes what cannot be used any more, and decides whether going on
    /// would be a lie.
    fn note(&self, failed: &Failed) {
        let why = match failed {
            Failed::Refused(_) | Failed::Format(_) => return,
            Failed::Full(_) | Failed::Stale => None,
            Failed::Disk(why) => Some(why.clone()),
        };
        // Not while a reader is inside; readers hold the lock for one read only.
        *self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner) = None;
        if self.watch.sync_failed.load(Ordering::Relaxed) {
            let why = why.unwrap_or_else(|| "the disk ran full during a sync".to_owned());
            let _ = self.broken.set(why);
        } else if let Some(why) = why {
            let _ = self.broken.set(why);
        }
    }

    fn broken_error(&self, why: &str) -> LogError {
        LogError::storage(
            format!(
                "the log in {} refuses to go on after a disk failure ({why}): check the disk, then \
                 start again",
                self.folder.display()
            ),
            false,
        )
    }

    fn error(&self, failed: Failed) -> LogError {
        let path = self.folder.display();
        match failed {
            Failed::Refused(error) => error,
            Failed::Format(found) => LogError::Format {
                path: path.to_string(),
                found,
                supported: FORMAT_VERSION,
            },
            _ if self.broken.get().is_some() => {
                self.broken_error(self.broken.get().map_or("", String::as_str))
            }
            Failed::Full(why) => LogError::storage(
                format!(
                    "the log in {path} could not be written ({why}): free disk space or lower the \
                     retention; it goes on by itself"
                ),
                true,
            ),
            Failed::Stale => LogError::storage(
                format!("the log in {path} is being opened again after a failure"),
                true,
            ),
            Failed::Disk(why) => LogError::storage(
                format!("the log in {path} failed ({why}): check the disk"),
                false,
            ),
        }
    }
}

/// Makes the folder and takes its lock, which also keeps two logs of one process apart.
fn lock(folder: &Path) -> Result<File, LogError> {
    let path = || folder.display().to_string();
    let refused = |error: io::Error| {
        LogError::storage(
            format!(
                "the log's folder {} cannot be used: {error}",
                folder.display()
            ),
            false,
        )
    };
    std::fs::create_dir_all(folder).map_err(refused)?;
    let mut open = OpenOptions::new();
    let lock = open
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join("lock"));
    let lock = lock.map_err(refused)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked { path: path() }),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}
