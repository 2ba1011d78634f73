//! From bytes to what is written: decodes, decides, and splits by partition.
//!
//! A request is taken in as a whole or refused as a whole, so nothing here has an effect on the log;
//! the caller hands what comes out to the packer.
//!
//! # Layout
//!
//! - here: one request, frame by frame
//! - `schema`: which columns a frame has
//! - `cut`: which rows go to which partition
//! - `letters`: dead letters
//! - `refuse`: what is refused as a whole

mod cut;
mod letters;
mod refuse;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_log::Output;
use driftline_log::registry::{Device, Model, Registry};
use driftline_schemas::frame::{self, Body, DeviceProfile, FrameLimits, Sent};
use driftline_schemas::packed::RecordHead;
use driftline_schemas::rows::{Kind, RowSchema};
use driftline_schemas::source::{FrameHead, Origin};
use driftline_schemas::telemetry::RowError;

use crate::check::{self, Reason, Times};
use crate::clocks::Correction;
use crate::config::GatewayConfig;
use crate::devices::{Devices, Told};
use crate::packer::Part;
use crate::problem::{Problem, ProblemKind};
use crate::reply::Reply;
use cut::{Draft, Target};
use letters::Letters;
use refuse::{another_device, check_profile, frame_problem, stopped};

/// A device that has shown who it is.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) device: Arc<Device>,
    pub(crate) hash: u64,
}

impl Sender {
    pub(crate) fn new(device: Arc<Device>) -> Self {
        let hash = device.origin.device_hash();
        Self { device, hash }
    }
}

/// When a request came, and when its sender says that it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) received_at_us: i64,
    pub(crate) sent_at_us: Option<i64>,
}

/// Something that a request carries, with its schema found.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) kind: Kind,
    pub(crate) boot: u64,
    pub(crate) sequence: u64,
    pub(crate) sent: Sent,
    pub(crate) origin: Arc<Origin>,
    pub(crate) schema: Arc<RowSchema>,
    pub(crate) model: Option<Arc<Model>>,
    pub(crate) body: Body,
}

/// A request that is taken in once the log has it.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) parts: Vec<Part>,
    pub(crate) letters: Vec<Output>,
    pub(crate) bytes: u64,
    pub(crate) reply: Reply,
    /// Frames to take note of once they are written.
    pub(crate) told: Vec<Told>,
    /// Frames and rows by kind.
    pub(crate) kinds: BTreeMap<Kind, (u64, u64)>,
    pub(crate) rejected: BTreeMap<Reason, u64>,
    pub(crate) unseen: u64,
    pub(crate) corrected: u64,
}

impl Admitted {
    fn reject(&mut self, reason: Reason, rows: u64) {
        *self.rejected.entry(reason).or_default() += rows;
        let rejected = &mut self.reply.rejected;
        rejected.rows += rows;
        *rejected.reasons.entry(reason.name().into()).or_default() += rows;
    }
}

/// Rows that could not be read.
#[derive(Debug)]
pub(crate) struct Invalid<'a> {
    /// How many there are.
    pub(crate) count: u64,
    /// What is wrong with some of them.
    pub(crate) errors: Vec<RowError>,
    /// The body, where its lines are rows.
    pub(crate) lines: Option<&'a [u8]>,
}

/// What decides about requests.
pub(crate) struct Admission {
    pub(crate) registry: Arc<Registry>,
    pub(crate) devices: Devices,
    pub(crate) limits: FrameLimits,
    config: GatewayConfig,
    partitions: BTreeMap<&'static str, u32>,
    health: Arc<RowSchema>,
    events: Arc<RowSchema>,
}

/// Asks for so many more bytes in flight.
pub(crate) type Charge<'a> = &'a mut dyn FnMut(u64) -> Result<(), Problem>;

impl Admission {
    pub(crate) fn new(
        config: &GatewayConfig,
        registry: Arc<Registry>,
        partitions: BTreeMap<&'static str, u32>,
    ) -> Self {
        Self {
            registry,
            devices: Devices::new(config.rate, config.clocks),
            limits: FrameLimits {
                body_bytes: config.body_bytes.0 as usize,
                raw_bytes: config.frame_bytes.0 as usize,
                rows: config.frame_rows,
                frames: config.request_frames,
                ..FrameLimits::default()
            },
            config: config.clone(),
            partitions,
            health: Arc::new(RowSchema::health()),
            events: Arc::new(RowSchema::events()),
        }
    }

    /// Takes in a body of frames.
    pub(crate) fn frames(
        &self,
        sender: &Sender,
        body: &[u8],
        arrival: Arrival,
        charge: Charge<'_>,
    ) -> Result<Admitted, Problem> {
        let frames = frame::split(body, &self.limits).map_err(|error| frame_problem(&error))?;
        let mut incoming = Vec::with_capacity(frames.len());
        let mut left = self.config.request_bytes.0;
        for (index, bytes) in frames.into_iter().enumerate() {
            let decoded = self
                .decode(sender, bytes)
                .map_err(|problem| problem.in_frame(index))?;
            let bytes = bytes_of(&decoded.body);
            left = left.checked_sub(bytes).ok_or_else(|| {
                Problem::new(
                    ProblemKind::TooLarge,
                    format!(
                        "the request's rows take more than {} in memory",
                        self.config.request_bytes
                    ),
                    "send fewer frames in one request",
                )
                .in_frame(index)
            })?;
            charge(bytes)?;
            incoming.push(decoded);
        }
        let told: Vec<Told> = incoming.iter().map(told).collect();
        let mut admitted = self.take_in(sender, incoming, &told, arrival)?;
        admitted.told = told;
        Ok(admitted)
    }

    /// Takes in rows that came without a frame, of which some could not be read.
    pub(crate) fn rows(
        &self,
        sender: &Sender,
        incoming: Incoming,
        invalid: &Invalid<'_>,
        arrival: Arrival,
    ) -> Result<Admitted, Problem> {
        let kind = incoming.kind;
        // The boot is made from a key, so it says nothing of a clock, and its sequence is no order.
        let told = Told {
            boot: 0,
            sequence: 0,
            ..told(&incoming)
        };
        let mut admitted = self.take_in(sender, vec![incoming], &[told], arrival)?;
        if invalid.count > 0 {
            let mut letters = Letters::new(&self.partitions, sender, arrival.received_at_us);
            letters.invalid(kind, invalid);
            admitted.letters.extend(letters.finish());
            admitted.reject(Reason::RowInvalid, invalid.count);
        }
        Ok(admitted)
    }

    fn decode(&self, sender: &Sender, bytes: &[u8]) -> Result<Incoming, Problem> {
        let header = frame::peek(bytes).map_err(|error| frame_problem(&error))?;
        let schema = self.schema_of_frame(sender, header.kind, header.fingerprint)?;
        let frame =
            frame::decode(bytes, &schema, &self.limits).map_err(|error| frame_problem(&error))?;
        let declared = &sender.device.origin;
        let overrides = &frame.envelope.overrides;
        if let Some(named) = &overrides.device
            && *named != declared.device
        {
            return Err(another_device(&declared.device, named).at("frame, device"));
        }
        let origin = match overrides.is_empty() {
            true => Arc::clone(declared),
            false => Arc::new(overrides.apply(declared)),
        };
        let model = self.model_of(&origin, header.kind, &schema)?;
        if let (Body::Profile(profile), Some(model)) = (&frame.body, &model) {
            check_profile(profile, model, sender)?;
        }
        Ok(Incoming {
            kind: header.kind,
            boot: frame.envelope.boot,
            sequence: frame.envelope.sequence,
            sent: frame.envelope.sent,
            origin,
            schema,
            model,
            body: frame.body,
        })
    }

    fn take_in(
        &self,
        sender: &Sender,
        incoming: Vec<Incoming>,
        told: &[Told],
        arrival: Arrival,
    ) -> Result<Admitted, Problem> {
        let targets = incoming
            .iter()
            .enumerate()
            .map(|(frame, it)| {
                self.targets(sender, it)
                    .map_err(|problem| problem.in_frame(frame))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let corrections = self
            .devices
            .judge(
                sender.hash,
                told,
                arrival.sent_at_us,
                arrival.received_at_us,
            )
            .map_err(stopped)?;
        let mut admitted = Admitted::default();
        let mut letters = Letters::new(&self.partitions, sender, arrival.received_at_us);
        for ((it, targets), correction) in incoming.into_iter().zip(targets).zip(corrections) {
            let times = Times {
                correction,
                received_at_us: arrival.received_at_us,
                clocks: &self.config.clocks,
            };
            self.take_frame(sender, it, &targets, &times, &mut letters, &mut admitted);
        }
        for (frames, rows) in admitted.kinds.values() {
            admitted.reply.acknowledged.frames += frames;
            admitted.reply.acknowledged.rows += rows;
        }
        admitted.letters = letters.finish();
        Ok(admitted)
    }

    /// Checks one frame and cuts it by partition.
    fn take_frame(
        &self,
        sender: &Sender,
        it: Incoming,
        targets: &[Target],
        times: &Times<'_>,
        letters: &mut Letters<'_>,
        admitted: &mut Admitted,
    ) {
        let draft = Draft {
            kind: it.kind,
            head: RecordHead {
                tenant: Arc::clone(&it.origin.tenant),
                model: it
                    .model
                    .as_ref()
                    .map_or_else(|| "".into(), |model| Arc::clone(&model.record.model)),
                version: it
                    .model
                    .as_ref()
                    .map_or_else(|| "".into(), |model| Arc::clone(&model.record.version)),
                kind: it.kind,
                fingerprint: it.schema.fingerprint(),
            },
            frame: FrameHead {
                boot: it.boot,
                sequence: it.sequence,
                sent_at_us: it.sent.at_us(),
                received_at_us: times.received_at_us,
                clock_correction_us: times.correction_us(),
            },
            origin: it.origin,
            schema: it.schema,
        };
        let counted = admitted.kinds.entry(it.kind).or_default();
        counted.0 += 1;
        let before = admitted.parts.len();
        match it.body {
            Body::Rows(mut rows) => {
                let also = |row: usize| match targets.get(row) {
                    Some(Target::Unknown) => Some(Reason::UnknownDevice),
                    _ => None,
                };
                let checked = check::rows(&mut rows, &draft.schema, times, also);
                letters.rows(&rows, &draft.schema, &checked.refused, times);
                counted.1 += (rows.len() - checked.refused.len()) as u64;
                for (_, reason) in &checked.refused {
                    admitted.reject(*reason, 1);
                }
                admitted.unseen += checked.unseen;
                let rows = Arc::new(rows);
                let parts = self.cut(sender, &rows, checked, targets, &draft);
                admitted.parts.extend(parts);
            }
            Body::Profile(mut profile) => match check::profile(&mut profile, times) {
                Ok(added) => {
                    counted.1 += 1;
                    admitted
                        .parts
                        .push(self.profile_part(sender, profile, added, draft));
                }
                Err(reason) => {
                    letters.profile(&profile, reason, times);
                    admitted.reject(reason, 1);
                }
            },
        }
        let new = &admitted.parts[before..];
        admitted.bytes += new.iter().map(|part| part.bytes).sum::<u64>();
        let is_corrected = matches!(times.correction, Correction::By(by) if by != 0);
        admitted.corrected += u64::from(is_corrected && !new.is_empty());
    }
}

fn told(it: &Incoming) -> Told {
    Told {
        boot: it.boot,
        kind: it.kind,
        sequence: it.sequence,
        sent: it.sent,
        rows: match &it.body {
            Body::Rows(rows) => rows.len(),
            Body::Profile(_) => 1,
        },
    }
}

fn bytes_of(body: &Body) -> u64 {
    match body {
        Body::Rows(rows) => check::bytes_of(rows),
        Body::Profile(profile) => bytes_of_profile(profile),
    }
}

fn bytes_of_profile(profile: &DeviceProfile) -> u64 {
    let signals = &profile.profile.signals;
    let bins: usize = signals.iter().map(|signal| signal.bins.len()).sum();
    (512 + 128 * signals.len() + 8 * bins) as u64
}
