//! One device: inference, rows, sequences, spool and requests, as a pure core.
//!
//! Nothing here reads a clock, waits or opens a connection: the present is an argument, requests
//! come out as bytes ([`Device::next_request`]) and answers go in ([`Device::on_reply`]). Only the
//! latency of the model is measured, unless the configuration fixes it ([`Latency`]), and a
//! [`Journal`] may write the spool through to a disk.
//!
//! # What becomes of a row
//!
//! [`Device::infer`] runs the model, codes the rows and adds them to the open frame of their kind,
//! whose sequence is known, so their identities are too. [`Device::seal`], or a full frame, closes
//! it into the spool. A request carries the oldest frames of the spool; they leave it when the
//! gateway has acknowledged them. A frame's `sent` is set when it first goes out, and from then on
//! its bytes never change: every resend is the same frame, which the gateway counts once.
//!
//! # What happens at the limit
//!
//! The spool keeps what it has: rows that were given an identity are never dropped to make room. When
//! a new row does not fit, its telemetry is refused and counted ([`Stats::rows_refused`]); the
//! prediction is made all the same. The oldest rows are the ones that show when a change began, and
//! an identity that was handed out may already have an outcome on its way.
//!
//! # Layout of this module
//!
//! - here: [`Device`]
//! - [`backoff`]: when to try again
//! - [`config`]: [`DeviceConfig`], what makes one device differ from another
//! - [`journal`]: the spool on a disk
//! - [`open`]: frames and profiles that still take rows
//! - [`runtime`]: [`Runtime`], what all devices with one bundle share
//! - [`spool`]: frames that wait for their acknowledgement
//! - [`stats`]: [`Stats`], what a device counts

pub mod backoff;
pub mod config;
pub mod journal;
mod open;
pub mod runtime;
pub mod spool;
pub mod stats;

use std::sync::Arc;
use std::time::Instant;

use driftline_schemas::bundle::Task;
use driftline_schemas::frame::{FrameError, Overrides};
use driftline_schemas::limits::FRAME_ROWS_MAX;
use driftline_schemas::profile::ProfileError;
use driftline_schemas::rows::Kind;
use driftline_schemas::source::{Origin, inference_id};

use crate::features::{Batch, RowWidth, Value};
use crate::limits::FRAME_BYTES_MAX;
use crate::model::{ModelError, Predictions};
use crate::uplink::Reply;
use backoff::Backoff;
pub use config::{DeviceConfig, Latency, Reporting};
use journal::{Journal, JournalError, NoJournal};
use open::Open;
pub use runtime::Runtime;
use spool::Spool;
pub use spool::{Pending, Refusal, Request};
pub use stats::Stats;

/// Why a device could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A row has the wrong number of values.
    #[error(transparent)]
    Row(#[from] RowWidth),
    /// Rows could not be put into a frame.
    #[error("frame cannot be made: {0}")]
    Frame(#[from] FrameError),
    /// Rows could not be put into a profile.
    #[error("profile cannot be made: {0}")]
    Profile(#[from] ProfileError),
    /// The spool's disk failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// There is no such column, or a value is not of its type.
    #[error("{kind} row, {field}: {problem}")]
    Field {
        /// Kind of the row.
        kind: &'static str,
        /// Name of the column.
        field: String,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Rows that were inferred.
#[derive(Debug, Clone, Default)]
pub struct Inferred {
    /// What the model predicted, for all rows.
    pub predictions: Predictions,
    /// Identities of the rows that were kept: the first of the batch; the rest found the spool full.
    /// Empty when the device reports profiles.
    pub ids: Vec<u128>,
    /// Rows whose telemetry was refused because the spool is full.
    pub refused: usize,
}

/// One device.
#[derive(Debug)]
pub struct Device {
    runtime: Arc<Runtime>,
    config: DeviceConfig,
    overrides: Overrides,
    device_hash: u64,
    open: Open,
    spool: Spool,
    journal: Box<dyn Journal>,
    backoff: Backoff,
    stats: Stats,
}

impl Device {
    /// A device that keeps its spool in memory.
    pub fn new(runtime: Arc<Runtime>, config: DeviceConfig) -> Self {
        Self::assemble(runtime, config, Spool::default(), Box::new(NoJournal))
    }

    /// A device whose spool is written through to a journal; frames that an earlier boot left there
    /// go out first.
    ///
    /// # Errors
    /// [`DeviceError::Journal`] when the journal cannot be read.
    pub fn with_journal(
        runtime: Arc<Runtime>,
        config: DeviceConfig,
        mut journal: Box<dyn Journal>,
    ) -> Result<Self, DeviceError> {
        let spool = Spool::restore(journal.restore()?, &runtime);
        Ok(Self::assemble(runtime, config, spool, journal))
    }

    fn assemble(
        runtime: Arc<Runtime>,
        mut config: DeviceConfig,
        spool: Spool,
        journal: Box<dyn Journal>,
    ) -> Self {
        let manifest = &runtime.bundle.manifest;
        config.origin.model = manifest.name.as_str().into();
        config.origin.version = manifest.version.as_str().into();
        config.origin.variant = manifest.variant.as_str().into();
        let device_hash = config.origin.device_hash();
        Self {
            overrides: config.overrides(),
            device_hash,
            open: Open::default(),
            spool,
            journal,
            backoff: Backoff::new(config.boot ^ device_hash),
            stats: Stats::default(),
            runtime,
            config,
        }
    }

    /// What all devices with this bundle share.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Identity and attributes.
    pub fn origin(&self) -> &Origin {
        &self.config.origin
    }

    /// Hash of tenant and device.
    pub fn device_hash(&self) -> u64 {
        self.device_hash
    }

    /// Number of this boot.
    pub fn boot(&self) -> u64 {
        self.config.boot
    }

    /// What was counted since boot.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The latest frames that the gateway refused for good, the newest last.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.spool.refusals()
    }

    /// What waits for its acknowledgement, open rows included.
    pub fn pending(&self) -> Pending {
        let mut pending = self.spool.pending();
        pending.rows += self.open.rows();
        pending.bytes += self.open.bytes();
        pending
    }

    /// Changes attributes (firmware, site, link…); identity and model stay. What was measured
    /// before goes out with the attributes of then.
    ///
    /// # Errors
    /// [`DeviceError`] when open rows cannot be sealed.
    pub fn set_attributes(&mut self, origin: Origin, now_us: i64) -> Result<(), DeviceError> {
        self.seal(now_us)?;
        let mine = &self.config.origin;
        self.config.origin = Origin {
            tenant: Arc::clone(&mine.tenant),
            device: Arc::clone(&mine.device),
            model: Arc::clone(&mine.model),
            version: Arc::clone(&mine.version),
            variant: Arc::clone(&mine.variant),
            ..origin
        };
        self.overrides = self.config.overrides();
        Ok(())
    }

    /// Changes to another bundle, as after an update of the model over the air.
    ///
    /// # Errors
    /// [`DeviceError`] when open rows cannot be sealed.
    pub fn set_runtime(&mut self, runtime: Arc<Runtime>, now_us: i64) -> Result<(), DeviceError> {
        self.seal(now_us)?;
        let manifest = &runtime.bundle.manifest;
        self.config.origin.model = manifest.name.as_str().into();
        self.config.origin.version = manifest.version.as_str().into();
        self.config.origin.variant = manifest.variant.as_str().into();
        self.overrides = self.config.overrides();
        self.runtime = runtime;
        Ok(())
    }

    /// Runs the model on a batch and takes its telemetry. The batch is left as it was.
    ///
    /// # Errors
    /// [`DeviceError::Model`] when the model fails, [`DeviceError::Journal`] when a full frame
    /// cannot be written.
    pub fn infer(&mut self, batch: &Batch, now_us: i64) -> Result<Inferred, DeviceError> {
        let rows = batch.len();
        let started = Instant::now();
        let predictions = self.runtime.model.predict(batch.inputs(), rows)?;
        let latency_us = match self.config.latency {
            Latency::Measured => {
                let each = started.elapsed().as_micros() / rows.max(1) as u128;
                Some(i32::try_from(each).unwrap_or(i32::MAX))
            }
            Latency::Fixed(latency_us) => Some(latency_us),
            Latency::None => None,
        };
        self.stats.inferences += rows as u64;
        match self.config.reporting {
            Reporting::Rows => self.take_rows(batch, predictions, latency_us, now_us),
            Reporting::Profiles { pane_us } => {
                self.take_profile(batch, &predictions, pane_us, now_us)?;
                Ok(Inferred {
                    predictions,
                    ..Inferred::default()
                })
            }
        }
    }

    fn take_rows(
        &mut self,
        batch: &Batch,
        predictions: Predictions,
        latency_us: Option<i32>,
        now_us: i64,
    ) -> Result<Inferred, DeviceError> {
        let mut ids = Vec::with_capacity(batch.len());
        for row in 0..batch.len() {
            if !self.has_room(Kind::Inferences, 0) {
                break;
            }
            let runtime = Arc::clone(&self.runtime);
            let (sequence, index) = self.open.next(Kind::Inferences);
            let frame = self.open.rows_of(Kind::Inferences, &runtime);
            open::push_inference(frame, &runtime, batch, &predictions, row, latency_us);
            ids.push(inference_id(
                self.device_hash,
                self.config.boot,
                sequence,
                index,
                batch.times_us[row],
            ));
            self.stats.rows_taken += 1;
            self.seal_if_full(Kind::Inferences, now_us)?;
        }
        let refused = batch.len() - ids.len();
        self.stats.rows_refused += refused as u64;
        Ok(Inferred {
            predictions,
            ids,
            refused,
        })
    }

    fn take_profile(
        &mut self,
        batch: &Batch,
        predictions: &Predictions,
        pane_us: i64,
        now_us: i64,
    ) -> Result<(), DeviceError> {
        for row in 0..batch.len() {
            let closed = self.open.count(
                &self.runtime,
                self.device_hash,
                pane_us.max(1),
                batch,
                predictions,
                row,
            )?;
            self.stats.rows_taken += 1;
            if let Some(closed) = closed {
                self.store_profile(closed, now_us)?;
            }
        }
        Ok(())
    }

    /// Reports the truth of an inference: a class by its name or index, or a value.
    ///
    /// # Errors
    /// [`DeviceError::Journal`] when a full frame cannot be written.
    pub fn outcome(
        &mut self,
        id: u128,
        truth: Value<'_>,
        observed_at_us: i64,
        now_us: i64,
    ) -> Result<bool, DeviceError> {
        if !self.make_room(Kind::Outcomes, 0) {
            return Ok(false);
        }
        let runtime = Arc::clone(&self.runtime);
        let truth = runtime.encoders.truth.code(truth);
        let rows = self.open.rows_of(Kind::Outcomes, &runtime);
        open::push_outcome(rows, id, truth, observed_at_us);
        self.seal_if_full(Kind::Outcomes, now_us)?;
        Ok(true)
    }

    /// Takes a power and connectivity reading: values by column name, in the column's unit
    /// ([`driftline_schemas::rows::RowSchema::health`]). `false` when the spool is full.
    ///
    /// # Errors
    /// [`DeviceError::Field`] when there is no such column.
    pub fn health(
        &mut self,
        event_time_us: i64,
        readings: &[(&str, Value<'_>)],
        now_us: i64,
    ) -> Result<bool, DeviceError> {
        self.named_row(Kind::Health, event_time_us, readings, now_us)
    }

    /// Takes an event: what happened (`boot`, `firmware`, `model`, `sbom`, `link`, `location`), from
    /// what, to what. `false` when the spool is full.
    ///
    /// # Errors
    /// [`DeviceError::Journal`] when a full frame cannot be written.
    pub fn event(
        &mut self,
        event_time_us: i64,
        event: &str,
        before: Option<&str>,
        after: Option<&str>,
        now_us: i64,
    ) -> Result<bool, DeviceError> {
        let values = [
            ("event", Value::Text(event)),
            ("before", before.map_or(Value::Missing, Value::Text)),
            ("after", after.map_or(Value::Missing, Value::Text)),
        ];
        self.named_row(Kind::Events, event_time_us, &values, now_us)
    }

    fn named_row(
        &mut self,
        kind: Kind,
        event_time_us: i64,
        values: &[(&str, Value<'_>)],
        now_us: i64,
    ) -> Result<bool, DeviceError> {
        let schema = Arc::clone(self.runtime.schema(kind));
        let row = open::named_row(&schema, event_time_us, values)?;
        let texts: usize = values
            .iter()
            .map(|(_, value)| match value {
                Value::Text(text) => text.len(),
                Value::Missing | Value::Number(_) => 0,
            })
            .sum();
        if !self.make_room(kind, texts) {
            return Ok(false);
        }
        let runtime = Arc::clone(&self.runtime);
        open::push_row(self.open.rows_of(kind, &runtime), row);
        self.open.add_bytes(texts);
        self.seal_if_full(kind, now_us)?;
        Ok(true)
    }

    /// Whether one more row fits, counting it as taken or refused.
    fn make_room(&mut self, kind: Kind, texts: usize) -> bool {
        let fits = self.has_room(kind, texts);
        match fits {
            true => self.stats.rows_taken += 1,
            false => self.stats.rows_refused += 1,
        }
        fits
    }

    fn has_room(&self, kind: Kind, texts: usize) -> bool {
        let row = self.runtime.row_bytes(kind) + texts;
        self.spool.bytes() + self.open.bytes() + row <= self.config.spool_bytes_max
    }

    fn seal_if_full(&mut self, kind: Kind, now_us: i64) -> Result<(), DeviceError> {
        let fit = (FRAME_BYTES_MAX / self.runtime.row_bytes(kind)).min(FRAME_ROWS_MAX);
        if self.open.len(kind) >= self.config.frame_rows_max.min(fit).max(1) {
            self.seal_kind(kind, now_us)?;
        }
        Ok(())
    }

    /// Closes all open frames and profiles into the spool, so that the next request carries them.
    ///
    /// # Errors
    /// [`DeviceError::Frame`] when rows do not fit their schema, [`DeviceError::Journal`] when the
    /// disk fails; the rows stay open then.
    pub fn seal(&mut self, now_us: i64) -> Result<(), DeviceError> {
        for kind in [Kind::Events, Kind::Inferences, Kind::Outcomes, Kind::Health] {
            if self.open.len(kind) > 0 {
                self.seal_kind(kind, now_us)?;
            }
        }
        while let Some(closed) = self.open.close_profile(&self.runtime) {
            self.store_profile(closed, now_us)?;
        }
        Ok(())
    }

    fn seal_kind(&mut self, kind: Kind, now_us: i64) -> Result<(), DeviceError> {
        let (sequence, _) = self.open.next(kind);
        let envelope = self.envelope(sequence, now_us);
        let body = self.open.body(kind);
        let schema = self.runtime.schema(kind);
        let frame = spool::Sealed::of_rows(kind, envelope, body, schema, now_us)?;
        self.journal.append(&frame)?;
        self.spool.push(frame);
        self.open.close(kind);
        self.stats.frames_sealed += 1;
        Ok(())
    }

    fn store_profile(
        &mut self,
        profile: driftline_schemas::frame::DeviceProfile,
        now_us: i64,
    ) -> Result<(), DeviceError> {
        let rows = profile.profile.rows;
        let (sequence, _) = self.open.next(Kind::Profiles);
        let envelope = self.envelope(sequence, now_us);
        let schema = self.runtime.schema(Kind::Profiles);
        let frame = spool::Sealed::of_profile(envelope, profile, schema, now_us)?;
        if self.spool.bytes() + frame.bytes().len() > self.config.spool_bytes_max {
            self.stats.rows_refused += rows;
            return Ok(());
        }
        self.journal.append(&frame)?;
        self.spool.push(frame);
        self.open.close(Kind::Profiles);
        self.stats.frames_sealed += 1;
        Ok(())
    }

    fn envelope(&self, sequence: u64, now_us: i64) -> driftline_schemas::frame::Envelope {
        driftline_schemas::frame::Envelope {
            boot: self.config.boot,
            sequence,
            sent: spool::sent(self.config.without_clock, now_us),
            overrides: self.overrides.clone(),
        }
    }

    /// The next request to make, if one is due: the oldest frames of the spool. `None` while one is
    /// under way, nothing waits, or it is too early to try again.
    ///
    /// # Errors
    /// [`DeviceError::Frame`] or [`DeviceError::Journal`] when a frame cannot be stamped.
    pub fn next_request(&mut self, now_us: i64) -> Result<Option<Request>, DeviceError> {
        if !self.backoff.is_due(now_us) {
            return Ok(None);
        }
        let request = self.spool.request(
            now_us,
            self.config.without_clock,
            self.config.request_bytes_max,
            &mut *self.journal,
        )?;
        if let Some(request) = &request {
            self.stats.requests += 1;
            self.stats.bytes_sent += request.body.len() as u64;
            self.stats.retries += u64::from(self.backoff.attempts() > 0);
        }
        Ok(request)
    }

    /// Takes the gateway's answer to the request that is under way.
    ///
    /// # Errors
    /// [`DeviceError::Journal`] when an acknowledged frame cannot be taken off the disk; it is
    /// acknowledged all the same.
    pub fn on_reply(&mut self, now_us: i64, reply: &Reply) -> Result<(), DeviceError> {
        match reply {
            Reply::Acknowledged { body } => {
                self.backoff.succeeded();
                self.stats.rows_rejected += body
                    .as_ref()
                    .and_then(|body| body.pointer("/rejected/rows")?.as_u64())
                    .unwrap_or(0);
                for frame in self.spool.acknowledged() {
                    self.stats.frames_acknowledged += 1;
                    self.stats.rows_acknowledged += frame.rows;
                    match frame.kind {
                        Kind::Inferences | Kind::Profiles => {
                            self.stats.inferences_acknowledged += frame.rows;
                        }
                        Kind::Outcomes => self.stats.outcomes_acknowledged += frame.rows,
                        Kind::Health | Kind::Events => {}
                    }
                    self.journal.remove(&frame)?;
                }
            }
            Reply::Refused { status, reason } => {
                // The server answered, so there is no reason to wait.
                self.backoff.succeeded();
                if let Some(frame) = self.spool.refused(*status, reason) {
                    self.stats.frames_refused += 1;
                    self.stats.rows_of_refused_frames += frame.rows;
                    self.journal.remove(&frame)?;
                }
            }
            Reply::Denied { .. } => {
                self.spool.failed();
                self.backoff.denied(now_us);
            }
            Reply::Later { retry_after, .. } => {
                self.spool.failed();
                self.backoff.failed(now_us, *retry_after);
            }
        }
        Ok(())
    }

    /// When the next request is due: now or earlier when one can be made at once, `None` when
    /// nothing waits or one is under way.
    pub fn due_us(&self) -> Option<i64> {
        self.spool.has_next().then(|| self.backoff.due_us())
    }
}

/// Whether a model's rows carry a confidence.
fn has_confidence(task: Task) -> bool {
    task == Task::Classification
}

#[cfg(test)]
mod tests;
