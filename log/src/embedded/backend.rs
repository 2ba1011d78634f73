//! The file under redb, watched: failpoints around the sync, and what kind of operation failed.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::failpoint;

/// What happened to the file, and in tests what shall happen.
#[derive(Debug)]
pub(super) struct Watch {
    /// A sync failed: what the kernel holds is no longer to be trusted.
    pub(super) sync_failed: AtomicBool,
    /// Syncs so far, for the test that counts one per group.
    pub(super) syncs: AtomicU64,
    /// The disk is full beyond this length; tests lower it.
    pub(super) capacity: AtomicU64,
    /// The next sync fails; tests set it.
    pub(super) fail_sync: AtomicBool,
    /// What a loss of power would leave, when a test asks for it.
    #[cfg(test)]
    pub(super) journal: std::sync::Mutex<Option<Journal>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            sync_failed: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            capacity: AtomicU64::new(u64::MAX),
            fail_sync: AtomicBool::new(false),
            #[cfg(test)]
            journal: std::sync::Mutex::new(None),
        }
    }
}

/// The file as of the last sync, and what was done to it since.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) synced: Vec<u8>,
    pub(super) since: Vec<Change>,
}

/// A change that the disk may have made or not when the power fails.
#[cfg(test)]
#[derive(Debug)]
pub(super) enum Change {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

#[cfg(test)]
impl Watched {
    fn note(&self, change: Change) {
        if let Some(journal) = self.watch.journal.lock().unwrap().as_mut() {
            journal.since.push(change);
        }
    }

    fn note_sync(&self) {
        if let Some(journal) = self.watch.journal.lock().unwrap().as_mut() {
            journal.since.clear();
            journal.synced = vec![0; self.file.len().unwrap() as usize];
            self.file.read(0, &mut journal.synced).unwrap();
        }
    }
}

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) file: FileBackend,
    pub(super) watch: Arc<Watch>,
}

impl Watched {
    fn room(&self, end: u64) -> io::Result<()> {
        if end <= self.watch.capacity.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A file may become longer than the disk has room for: the holes cost nothing until they
        // are written, so only `write` runs into the limit.
        self.file.set_len(len)?;
        #[cfg(test)]
        self.note(Change::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        failpoint::hit("embedded.sync.before");
        self.watch.syncs.fetch_add(1, Ordering::Relaxed);
        let failed = self.watch.fail_sync.swap(false, Ordering::Relaxed);
        let result = if failed {
            Err(io::Error::other("asked to fail"))
        } else {
            self.file.sync_data()
        };
        match &result {
            #[cfg(test)]
            Ok(()) => self.note_sync(),
            #[cfg(not(test))]
            Ok(()) => {}
            Err(_) => self.watch.sync_failed.store(true, Ordering::Relaxed),
        }
        failpoint::hit("embedded.sync.after");
        result
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room(offset.saturating_add(data.len() as u64))?;
        self.file.write(offset, data)?;
        #[cfg(test)]
        self.note(Change::Bytes(offset, data.to_vec()));
        failpoint::hit("embedded.write.after");
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
