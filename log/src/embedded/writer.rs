//! The one thread that writes, and the queue before it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::catalog::Catalog;
use super::disk::{Disk, Failed};
use super::tables::WriteTables;
use super::{GROUP_BYTES_MAX, apply};
use crate::api::Output;
use crate::error::LogError;
use crate::limits::WRITER_QUEUE_MAX;
use crate::local::store::{Write, Written};

/// A write that waits for its answer.
pub(super) struct Waiting {
    write: Write,
    bytes: usize,
    answer: SyncSender<Result<Written, LogError>>,
}

type Task = Box<dyn FnOnce(&Disk, &Catalog) + Send>;

enum Job {
    Write(Waiting),
    /// Anything else, in a transaction of its own.
    Task(Task),
}

/// The way to the writer thread. Dropping it lets the thread finish what waits, and waits for it.
pub(super) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(disk: Arc<Disk>, catalog: Arc<Catalog>) -> Result<Self, LogError> {
        let (queue, jobs) = sync_channel(WRITER_QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || run(&jobs, &disk, &catalog))
            .map_err(|error| {
                LogError::storage(
                    format!("the log's writer thread did not start: {error}"),
                    true,
                )
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    pub(super) fn write(&self, write: Write) -> Result<Written, LogError> {
        let (answer, answered) = sync_channel(1);
        self.send(Job::Write(waiting(write, answer)))?;
        answered.recv().map_err(|_| LogError::Closed)?
    }

    pub(super) fn task<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut WriteTables<'_>) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, LogError> {
        let (answer, answered) = sync_channel(1);
        self.send(Job::Task(Box::new(move |disk, catalog| {
            let done = disk.write(task);
            // Tasks are rare and may change topics, so the catalogue is simply read again.
            let done = catalog.load(disk).and(done);
            let _ = answer.send(done);
        })))?;
        answered.recv().map_err(|_| LogError::Closed)?
    }

    fn send(&self, job: Job) -> Result<(), LogError> {
        let queue = self.queue.as_ref().ok_or(LogError::Closed)?;
        queue.send(job).map_err(|_| LogError::Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log's writer thread had panicked");
        }
    }
}

pub(super) fn waiting(write: Write, answer: SyncSender<Result<Written, LogError>>) -> Waiting {
    let bytes = size(&write);
    Waiting {
        write,
        bytes,
        answer,
    }
}

fn size(write: &Write) -> usize {
    let outputs: usize = write.outputs.iter().map(Output::size).sum();
    let state = write.step.iter().flat_map(|step| &step.state);
    let state: usize = state
        .map(|delta| delta.key.len() + delta.value.as_ref().map_or(0, Vec::len))
        .sum();
    outputs + state
}

fn run(jobs: &Receiver<Job>, disk: &Disk, catalog: &Catalog) {
    // A job that did not fit into the last group.
    let mut next = None;
    while let Some(job) = next.take().or_else(|| jobs.recv().ok()) {
        match job {
            Job::Task(task) => task(disk, catalog),
            Job::Write(first) => {
                let mut bytes = first.bytes;
                let mut group = vec![first];
                while let Ok(job) = jobs.try_recv() {
                    match job {
                        Job::Write(waiting) if bytes + waiting.bytes <= GROUP_BYTES_MAX => {
                            bytes += waiting.bytes;
                            group.push(waiting);
                        }
                        other => {
                            next = Some(other);
                            break;
                        }
                    }
                }
                commit(group, disk, catalog);
            }
        }
    }
}

/// Applies a group in one transaction and answers everybody.
pub(super) fn commit(group: Vec<Waiting>, disk: &Disk, catalog: &Catalog) {
    let result = disk.write_tracked(|tables| {
        let apply = |waiting: &Waiting| apply::write(tables, catalog, &waiting.write);
        group.iter().map(apply).collect::<Result<Vec<_>, _>>()
    });
    match result {
        Ok((written, touched)) => {
            catalog.update(&touched);
            for (waiting, written) in group.into_iter().zip(written) {
                // Whoever no longer waits for the answer does not need it.
                let _ = waiting.answer.send(Ok(written));
            }
        }
        Err(error) => {
            tracing::warn!(%error, writes = group.len(), "a group of writes failed");
            // Whether it happened is in doubt: what is on disk decides, once it can be read.
            if let Err(error) = catalog.load(disk) {
                tracing::warn!(%error, "the log cannot be read after a failed write");
            }
            for waiting in group {
                let _ = waiting.answer.send(Err(error.clone()));
            }
        }
    }
}
