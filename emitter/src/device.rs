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
//! - here: [`Runtime`], [`Device`], [`DeviceConfig`]
//! - [`backoff`]: when to try again
//! - [`journal`]: the spool on a disk
//! - [`open`]: frames and profiles that still take rows
//! - [`spool`]: frames that wait for their acknowledgement

pub mod backoff;
pub mod journal;
mod open;
pub mod spool;

use std::sync::Arc;
use std::time::Instant;

use driftline_schemas::bundle::{Bundle, Task};
use driftline_schemas::clock::MINUTE_US;
use driftline_schemas::frame::{FrameError, Overrides};
use driftline_schemas::limits::FRAME_ROWS_MAX;
use driftline_schemas::profile::ProfileError;
use driftline_schemas::rows::{Kind, RowSchema};
use driftline_schemas::source::{Origin, inference_id};

use crate::features::{Batch, Encoders, RowWidth, Value};
use crate::limits::{
    FRAME_BYTES_MAX, FRAME_ROWS_DEFAULT, REQUEST_BYTES_DEFAULT, SPOOL_BYTES_DEFAULT,
};
use crate::model::{Model, ModelError, Predictions};
use crate::uplink::Reply;
use backoff::Backoff;
use journal::{Journal, JournalError, NoJournal};
use open::Open;
use spool::Spool;
pub use spool::{Pending, Refusal, Request};

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

/// What all devices with one bundle share: the model, compiled, and the columns of its rows.
#[derive(Debug)]
pub struct Runtime {
    bundle: Arc<Bundle>,
    model: Model,
    encoders: Encoders,
    health: Arc<RowSchema>,
    events: Arc<RowSchema>,
    /// Most bytes of a row without its texts, by the kind's code.
    row_bytes: [usize; open::KINDS],
}

impl Runtime {
    /// Compiles a bundle's model.
    ///
    /// # Errors
    /// [`ModelError`] when the model cannot be used or does not fit the manifest.
    pub fn load(bundle: Arc<Bundle>) -> Result<Arc<Self>, ModelError> {
        let onnx = bundle
            .file(driftline_schemas::bundle::MODEL_FILE)
            .unwrap_or_default();
        let model = Model::load(onnx, &bundle.manifest)?;
        let mut runtime = Self {
            encoders: Encoders::new(&bundle.manifest),
            model,
            bundle,
            health: Arc::new(RowSchema::health()),
            events: Arc::new(RowSchema::events()),
            row_bytes: [1; open::KINDS],
        };
        for kind in ROW_KINDS {
            runtime.row_bytes[kind as usize] = open::row_bytes(runtime.schema(kind));
        }
        Ok(Arc::new(runtime))
    }

    /// Most bytes of a row of a kind, without its texts.
    fn row_bytes(&self, kind: Kind) -> usize {
        self.row_bytes[kind as usize]
    }

    /// The bundle.
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The coders of features, extra signals and truth.
    pub fn encoders(&self) -> &Encoders {
        &self.encoders
    }

    /// A batch without rows.
    pub fn batch(&self) -> Batch {
        Batch::new(&self.encoders)
    }

    /// Columns of a kind of rows; those of inferences for [`Kind::Profiles`].
    pub fn schema(&self, kind: Kind) -> &Arc<RowSchema> {
        match kind {
            Kind::Inferences | Kind::Profiles => &self.bundle.inferences,
            Kind::Outcomes => &self.bundle.outcomes,
            Kind::Health => &self.health,
            Kind::Events => &self.events,
        }
    }
}

/// Kinds that are rows, in the order in which open frames are sealed: an event explains the rows
/// behind it.
const ROW_KINDS: [Kind; 4] = [Kind::Events, Kind::Inferences, Kind::Outcomes, Kind::Health];

/// Where the latency in the rows comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// Measured: time of a batch divided by its rows.
    Measured,
    /// Given, microseconds, so that a simulation repeats to the byte.
    Fixed(i32),
    /// Not reported.
    None,
}

/// What a device sends of its inferences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporting {
    /// Every row.
    Rows,
    /// One profile per pane of this length in microseconds, in place of the rows. There are no
    /// identities then, and no outcomes.
    Profiles {
        /// Length of a pane, above 0.
        pane_us: i64,
    },
}

impl Reporting {
    /// Profiles of the default pane, one minute.
    pub const PROFILES: Self = Self::Profiles { pane_us: MINUTE_US };
}

/// What makes one device differ from another.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// Identity and attributes; model, version and variant are filled in from the bundle.
    pub origin: Origin,
    /// What the gateway's registry knows of the device; only what differs is sent. `None`: every
    /// attribute that has a value is sent.
    pub declared: Option<Origin>,
    /// Random number of this boot.
    pub boot: u64,
    /// Times are microseconds since boot: the device has no clock.
    pub without_clock: bool,
    /// Bytes of frames and rows kept until acknowledged; see the module on what happens there.
    pub spool_bytes_max: usize,
    /// Rows of a frame, at which it is sealed.
    pub frame_rows_max: usize,
    /// Bytes of a request's body, unless one frame alone is larger.
    pub request_bytes_max: usize,
    /// Where the latency comes from.
    pub latency: Latency,
    /// What is sent of inferences.
    pub reporting: Reporting,
}

impl DeviceConfig {
    /// A device with the default limits.
    pub fn new(origin: Origin, boot: u64) -> Self {
        Self {
            origin,
            declared: None,
            boot,
            without_clock: false,
            spool_bytes_max: SPOOL_BYTES_DEFAULT,
            frame_rows_max: FRAME_ROWS_DEFAULT,
            request_bytes_max: REQUEST_BYTES_DEFAULT,
            latency: Latency::Measured,
            reporting: Reporting::Rows,
        }
    }
}

/// What a device has counted since it booted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Inferences made, whether their telemetry was kept or not.
    pub inferences: u64,
    /// Rows of any kind that were taken for sending.
    pub rows_taken: u64,
    /// Rows of any kind that found the spool full.
    pub rows_refused: u64,
    /// Frames put into the spool.
    pub frames_sealed: u64,
    /// Rows of acknowledged frames, those that went to the dead letters included.
    pub rows_acknowledged: u64,
    /// Rows that the gateway said went to the dead letters.
    pub rows_rejected: u64,
    /// Inference rows among them.
    pub inferences_acknowledged: u64,
    /// Outcomes among them.
    pub outcomes_acknowledged: u64,
    /// Frames that the gateway acknowledged.
    pub frames_acknowledged: u64,
    /// Frames that the gateway refused for good.
    pub frames_refused: u64,
    /// Rows of those frames.
    pub rows_of_refused_frames: u64,
    /// Requests made.
    pub requests: u64,
    /// Requests that were to be made again.
    pub retries: u64,
    /// Bytes of the requests' bodies, resends included.
    pub bytes_sent: u64,
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
            overrides: overrides(&config.origin, config.declared.as_ref()),
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
        self.overrides = overrides(&self.config.origin, self.config.declared.as_ref());
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
        self.overrides = overrides(&self.config.origin, self.config.declared.as_ref());
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
    /// ([`RowSchema::health`]). `false` when the spool is full.
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

/// What is sent of an origin when the gateway already knows another.
fn overrides(mine: &Origin, declared: Option<&Origin>) -> Overrides {
    let nothing = Origin {
        tenant: Arc::clone(&mine.tenant),
        device: Arc::clone(&mine.device),
        role: Default::default(),
        model: "".into(),
        version: "".into(),
        variant: "".into(),
        hardware: "".into(),
        firmware: "".into(),
        region: "".into(),
        site: "".into(),
        link: Default::default(),
        cadence_s: 0,
    };
    let known = declared.unwrap_or(&nothing);
    let text = |mine: &Arc<str>, known: &Arc<str>| (mine != known).then(|| Arc::clone(mine));
    Overrides {
        device: text(&mine.device, &known.device),
        model: text(&mine.model, &known.model),
        version: text(&mine.version, &known.version),
        variant: text(&mine.variant, &known.variant),
        hardware: text(&mine.hardware, &known.hardware),
        firmware: text(&mine.firmware, &known.firmware),
        region: text(&mine.region, &known.region),
        site: text(&mine.site, &known.site),
        link: (mine.link != known.link).then_some(mine.link),
        role: (mine.role != known.role).then_some(mine.role),
        cadence_s: (mine.cadence_s != known.cadence_s).then_some(mine.cadence_s),
    }
}

/// Whether a model's rows carry a confidence.
fn has_confidence(task: Task) -> bool {
    task == Task::Classification
}

#[cfg(test)]
mod tests;
