//! Dead letters of one request, in bounded number.

use std::collections::BTreeMap;

use driftline_log::Output;
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::frame::DeviceProfile;
use driftline_schemas::rows::{Kind, RowSchema, Rows};
use driftline_schemas::topic::{DEADLETTERS, device_partition};

use super::{Invalid, Sender};
use crate::check::{Reason, Times, event_time, row_text};
use crate::limits::{LETTERS_PER_FRAME_MAX, LETTERS_PER_REQUEST_MAX};

/// Gathers the dead letters of one request.
pub(super) struct Letters<'a> {
    sender: &'a Sender,
    partition: u32,
    now_us: i64,
    outputs: Vec<Output>,
}

impl<'a> Letters<'a> {
    pub(super) fn new(
        partitions: &BTreeMap<&'static str, u32>,
        sender: &'a Sender,
        now_us: i64,
    ) -> Self {
        let count = partitions.get(DEADLETTERS).copied().unwrap_or(1);
        Self {
            partition: device_partition(sender.hash, count),
            sender,
            now_us,
            outputs: Vec::new(),
        }
    }

    /// Letters of the refused rows of one frame: one each up to the bound, then one per reason for
    /// all others.
    pub(super) fn rows(
        &mut self,
        rows: &Rows,
        schema: &RowSchema,
        refused: &[(u32, Reason)],
        times: &Times<'_>,
    ) {
        let kind = schema.kind();
        let room = LETTERS_PER_REQUEST_MAX.saturating_sub(self.outputs.len());
        let single = refused.len().min(LETTERS_PER_FRAME_MAX).min(room);
        let detail = |row: u32, reason| {
            let time = event_time(rows, row as usize).unwrap_or_default();
            times.detail(reason, time)
        };
        for &(row, reason) in &refused[..single] {
            let payload = row_text(rows, schema, row as usize);
            let detail = format!("row {row}: {}", detail(row, reason));
            self.push(kind, reason, &detail, payload.as_bytes());
        }
        let mut others: BTreeMap<Reason, (u64, u32)> = BTreeMap::new();
        for &(row, reason) in &refused[single..] {
            others.entry(reason).or_insert((0, row)).0 += 1;
        }
        for (reason, (count, row)) in others {
            let detail = format!(
                "{count} more rows of the frame from row {row}: {}",
                detail(row, reason)
            );
            self.push(kind, reason, &detail, b"");
        }
    }

    /// Letters of rows that could not be read: one each up to the bound, then one for all others.
    pub(super) fn invalid(&mut self, kind: Kind, invalid: &Invalid<'_>) {
        let mut lines = invalid
            .lines
            .unwrap_or_default()
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
            .enumerate();
        let single = invalid.errors.len().min(LETTERS_PER_FRAME_MAX);
        for error in &invalid.errors[..single] {
            let line = lines
                .find(|(row, _)| *row == error.row)
                .map_or(&b""[..], |(_, line)| line);
            let detail = format!("row {}: {}", error.row, error.reason);
            self.push(kind, Reason::RowInvalid, &detail, line);
        }
        let others = invalid.count - single as u64;
        if others > 0 {
            let detail = format!("{others} more rows of the request could not be read");
            self.push(kind, Reason::RowInvalid, &detail, b"");
        }
    }

    /// The letter of a refused profile.
    pub(super) fn profile(&mut self, profile: &DeviceProfile, reason: Reason, times: &Times<'_>) {
        let payload = format!(
            "{{\"pane_start_us\":{},\"pane_length_us\":{},\"rows\":{}}}",
            profile.pane_start_us, profile.pane_length_us, profile.profile.rows
        );
        let detail = times.detail(reason, profile.pane_start_us);
        self.push(Kind::Profiles, reason, &detail, payload.as_bytes());
    }

    fn push(&mut self, kind: Kind, reason: Reason, detail: &str, payload: &[u8]) {
        let origin = &self.sender.device.origin;
        let letter = DeadLetter::new(
            &origin.tenant,
            &origin.device,
            reason.name(),
            detail,
            payload,
            self.now_us,
        )
        .of_kind(kind);
        self.outputs.push(Output {
            topic: DEADLETTERS.into(),
            partition: self.partition,
            key: Vec::new(),
            value: Some(letter.encode()),
            timestamp_us: self.now_us.max(0),
        });
    }

    pub(super) fn finish(self) -> Vec<Output> {
        self.outputs
    }
}
