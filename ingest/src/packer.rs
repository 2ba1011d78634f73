//! The queue between requests and the log, and the one thread that writes.
//!
//! ```text
//! request ─┐  bounded queue        ┌─ group by partition, tenant, model version, kind
//! request ─┼────────────► packer ──┤                                       ► one durable append
//! request ─┘  (full: 503)  thread  └─ dead letters                             │
//!     ▲                                                                        │
//!     └──────────────────────── acknowledged, or refused with 503 ◄────────────┘
//! ```
//!
//! The thread takes what waits, gathers for a linger, and appends all of it at once; while the log
//! syncs, the next requests queue up, so throughput rises with the load. A request holds its share
//! of the bytes in flight until it is answered, so that what waits here is bounded twice: in requests
//! by the queue, in bytes by the semaphore.

mod batch;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use driftline_log::{Appender, LogError, Output, trace};
use driftline_schemas::clock::Clock;
use opentelemetry::trace::SpanContext;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

pub(crate) use batch::{Part, PartBody};

use crate::config::GatewayConfig;
use crate::metrics::Metrics;

/// Why nothing was acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The rows could not be made into a record; ours to mend.
    #[error("rows could not be packed: {0}")]
    Packing(String),
}

/// What one request has written.
pub(crate) struct Work {
    pub(crate) parts: Vec<Part>,
    /// Dead letters.
    pub(crate) letters: Vec<Output>,
    /// Bytes of the rows.
    pub(crate) bytes: u64,
    /// Its share of the bytes in flight; given back when the work is dropped.
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
    /// The request's span, where spans are exported.
    pub(crate) span: Option<SpanContext>,
    /// Answered once the log has everything, or has refused it.
    pub(crate) done: oneshot::Sender<Result<(), Failure>>,
}

/// Why a request does not get into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueError {
    /// Too many wait.
    Full,
    /// The gateway is shutting down, or its writer died.
    Closed,
}

/// The near end of the queue.
pub(crate) struct Queue {
    sender: RwLock<Option<SyncSender<Work>>>,
    metrics: Arc<Metrics>,
}

impl Queue {
    pub(crate) fn push(&self, work: Work) -> Result<(), QueueError> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = sender.as_ref() else {
            return Err(QueueError::Closed);
        };
        // Counted before, since the writer may be faster than this thread.
        self.metrics.queue.inc();
        sender.try_send(work).map_err(|error| {
            self.metrics.queue.dec();
            match error {
                TrySendError::Full(_) => QueueError::Full,
                TrySendError::Disconnected(_) => QueueError::Closed,
            }
        })
    }

    /// Takes nothing more; what waits is still written.
    pub(crate) fn close(&self) {
        self.sender
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }
}

/// Told how appends went.
pub(crate) type OnAppend = Box<dyn Fn(&Result<(), Failure>) + Send>;

/// Starts the thread that writes. It ends when the queue is closed and empty.
pub(crate) fn spawn(
    appender: Box<dyn Appender>,
    config: &GatewayConfig,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    on_append: OnAppend,
) -> std::io::Result<(Queue, JoinHandle<()>)> {
    let (sender, receiver) = sync_channel(config.queue_requests);
    let mut packer = Packer {
        receiver,
        appender,
        linger: config.linger.duration(),
        batch_bytes: config.batch_bytes.0,
        clock,
        metrics: Arc::clone(&metrics),
        on_append,
    };
    let thread = std::thread::Builder::new()
        .name("gateway-packer".into())
        .spawn(move || packer.run())?;
    let queue = Queue {
        sender: RwLock::new(Some(sender)),
        metrics,
    };
    Ok((queue, thread))
}

struct Packer {
    receiver: Receiver<Work>,
    appender: Box<dyn Appender>,
    linger: Duration,
    batch_bytes: u64,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    on_append: OnAppend,
}

impl Packer {
    fn run(&mut self) {
        while let Ok(first) = self.receiver.recv() {
            let works = self.gather(first);
            self.write(works);
        }
    }

    /// What waits and what comes within the linger, up to the bytes of one batch.
    fn gather(&self, first: Work) -> Vec<Work> {
        let deadline = Instant::now() + self.linger;
        let mut bytes = first.bytes;
        let mut works = vec![first];
        while bytes < self.batch_bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(work) => {
                    bytes += work.bytes;
                    works.push(work);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        self.metrics.queue.dec_by(works.len() as i64);
        works
    }

    fn write(&mut self, mut works: Vec<Work>) {
        let parts: Vec<Vec<Part>> = works
            .iter_mut()
            .map(|work| std::mem::take(&mut work.parts))
            .collect();
        let rows: usize = parts.iter().flatten().map(|part| part.rows).sum();
        let now_us = self.clock.now_us();
        let mut packed = batch::pack(parts, now_us);
        let spans: Vec<trace::Pending> = packed
            .outputs
            .iter()
            .zip(&packed.requests)
            .filter_map(|(output, requests)| {
                let spans = requests.iter().filter_map(|at| works[*at].span.clone());
                trace::pending(output, spans)
            })
            .collect();
        for (work, failure) in works.iter_mut().zip(&packed.failures) {
            if failure.is_none() {
                packed.outputs.append(&mut work.letters);
            }
        }
        let result = self.append(packed.outputs, rows);
        if result.is_ok() {
            spans.into_iter().for_each(trace::written);
        }
        (self.on_append)(&result);
        for (work, failure) in works.into_iter().zip(packed.failures) {
            let answer = failure.map_or_else(|| result.clone(), Err);
            // Given back first, so that who is answered finds room for the next request.
            drop(work.permits);
            // A request that waits no longer loses nothing: its resend is removed later.
            let _ = work.done.send(answer);
        }
    }

    fn append(&mut self, outputs: Vec<Output>, rows: usize) -> Result<(), Failure> {
        if outputs.is_empty() {
            return Ok(());
        }
        let (records, bytes) = (
            outputs.len(),
            outputs.iter().map(Output::size).sum::<usize>(),
        );
        driftline_log::failpoint::hit("gateway.append");
        let started = Instant::now();
        let result = self.appender.append(outputs);
        let metrics = &self.metrics;
        metrics
            .append_seconds
            .observe(started.elapsed().as_secs_f64());
        match result {
            Ok(_) => {
                driftline_log::failpoint::hit("gateway.acknowledge");
                metrics.records.inc_by(records as u64);
                metrics.record_bytes.inc_by(bytes as u64);
                metrics.batch_rows.observe(rows as f64);
                tracing::debug!(records, bytes, rows, "appended");
                Ok(())
            }
            Err(error) => {
                metrics.append_failures.inc();
                tracing::warn!(%error, records, bytes, "append failed");
                Err(error.into())
            }
        }
    }
}
