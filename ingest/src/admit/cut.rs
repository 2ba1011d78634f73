//! Which rows go to which partition: those of a device to its own, outcomes to that of the device
//! that they are about.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_schemas::frame::{Body, DeviceProfile};
use driftline_schemas::packed::RecordHead;
use driftline_schemas::rows::{Column, Kind, RowSchema, Rows};
use driftline_schemas::source::{FrameHead, Origin, Role, device_hash};
use driftline_schemas::topic::device_partition;

use super::refuse::another_device;
use super::{Admission, Incoming, Sender, bytes_of_profile};
use crate::check::{self, Checked};
use crate::packer::{Part, PartBody};
use crate::problem::Problem;

/// Whom a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Own,
    Other(u64),
    Unknown,
}

/// What all parts of a frame share.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) head: RecordHead,
    pub(super) frame: FrameHead,
    pub(super) origin: Arc<Origin>,
    pub(super) schema: Arc<RowSchema>,
}

impl Draft {
    fn part(
        self,
        partition: u32,
        body: PartBody,
        keep: Option<Vec<u32>>,
        rows: usize,
        bytes: u64,
    ) -> Part {
        Part {
            topic: self.kind.topic(),
            partition,
            head: self.head,
            schema: self.schema,
            origin: self.origin,
            frame: self.frame,
            body,
            keep,
            rows,
            bytes,
        }
    }
}

impl Admission {
    pub(super) fn profile_part(
        &self,
        sender: &Sender,
        profile: DeviceProfile,
        added_us: i64,
        mut draft: Draft,
    ) -> Part {
        draft.frame.clock_correction_us = added_us;
        let partition = self.partition(draft.kind.topic(), sender.hash);
        let bytes = bytes_of_profile(&profile);
        draft.part(
            partition,
            PartBody::Profile(Box::new(profile)),
            None,
            1,
            bytes,
        )
    }

    /// The parts of a frame: one, or one per partition of the devices that its outcomes are about.
    pub(super) fn cut(
        &self,
        sender: &Sender,
        rows: &Arc<Rows>,
        checked: Checked,
        targets: &[Target],
        draft: &Draft,
    ) -> Vec<Part> {
        let count = rows.len() - checked.refused.len();
        if count == 0 {
            return Vec::new();
        }
        let topic = draft.kind.topic();
        let bytes = check::bytes_of(rows);
        let row_bytes = bytes.div_ceil(rows.len() as u64) + 8;
        let part = |partition, keep: Option<Vec<u32>>, count: usize| {
            let body = PartBody::Rows(Arc::clone(rows));
            draft
                .clone()
                .part(partition, body, keep, count, row_bytes * count as u64)
        };
        let own = self.partition(topic, sender.hash);
        if targets.iter().all(|target| *target == Target::Own) {
            return vec![part(own, checked.keep, count)];
        }
        let mut by_partition: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let kept = checked
            .keep
            .unwrap_or_else(|| (0..rows.len() as u32).collect());
        for row in kept {
            let partition = match targets.get(row as usize) {
                Some(Target::Other(hash)) => self.partition(topic, *hash),
                _ => own,
            };
            by_partition.entry(partition).or_default().push(row);
        }
        by_partition
            .into_iter()
            .map(|(partition, keep)| {
                let count = keep.len();
                part(partition, Some(keep), count)
            })
            .collect()
    }

    fn partition(&self, topic: &str, hash: u64) -> u32 {
        device_partition(hash, self.partitions.get(topic).copied().unwrap_or(1))
    }

    /// Whom each row of outcomes is about; empty where all are about the sender.
    pub(super) fn targets(&self, sender: &Sender, it: &Incoming) -> Result<Vec<Target>, Problem> {
        let (Kind::Outcomes, Body::Rows(rows)) = (it.kind, &it.body) else {
            return Ok(Vec::new());
        };
        let column = it.schema.index("device").map(|at| &rows.columns[at]);
        let Some(Column::Text(names)) = column else {
            return Ok(Vec::new());
        };
        let own = &sender.device.origin;
        let mut known: BTreeMap<&str, Target> = BTreeMap::new();
        let mut targets = Vec::with_capacity(names.len());
        for name in names.iter() {
            let target = match name {
                None => Target::Own,
                Some(name) if *name == own.device => Target::Own,
                Some(name) if own.role != Role::Probe => {
                    return Err(another_device(&own.device, name).at("column \"device\""));
                }
                Some(name) => *known.entry(name).or_insert_with(|| {
                    match self.registry.device(&own.tenant, name) {
                        Some(_) => Target::Other(device_hash(&own.tenant, name)),
                        None => Target::Unknown,
                    }
                }),
            };
            targets.push(target);
        }
        Ok(targets)
    }
}
