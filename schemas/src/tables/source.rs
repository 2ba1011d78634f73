//! The columns that say who sent a row, in what state and when.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;

use super::columns::{Describe, flag, flags, int, ints, long, longs, text, texts, time, times};
use super::telemetry::Telemetry;
use crate::packed::PackedFrame;
use crate::source::Origin;

/// The columns' descriptions, in the order of [`columns`].
pub(super) fn fields() -> Vec<Field> {
    vec![
        text(
            "device",
            "name of the device that sent the row, unique within the tenant",
        )
        .required(),
        text("role", "device, or probe when it also reports ground truth").required(),
        text(
            "model",
            "name of the model; empty where the row has nothing to do with one",
        )
        .required(),
        text("version", "version of the model").required(),
        text(
            "variant",
            "variant of the version, as fp32 or int8; empty when not declared",
        )
        .required(),
        text("hardware", "hardware generation; empty when not declared").required(),
        text("firmware", "firmware version; empty when not declared").required(),
        text("region", "region; empty when not declared").required(),
        text("site", "site within the region; empty when not declared").required(),
        text(
            "link",
            "ethernet, wifi, cellular, lpwan, satellite or unknown",
        )
        .required(),
        int(
            "cadence_s",
            "how often the device means to report; 0 when it did not say",
        )
        .unit("s")
        .required(),
        long(
            "boot",
            "drawn at random at each boot of the device, the 64 bits as a signed number",
        )
        .required(),
        long(
            "sequence",
            "counts frames of one boot and kind of the device from 0",
        )
        .required(),
        int("row", "index of the row within its frame").required(),
        time(
            "sent_at",
            "the device's clock when it sent; null for a device without a clock",
        ),
        time("received_at", "the gateway's clock when it received").required(),
        long(
            "clock_correction_us",
            "what the gateway added to the device's times; 0 for a clock that was right",
        )
        .unit("µs")
        .required(),
        flag(
            "late",
            "whether it came so late that no window counts it: such rows are kept and counted only",
        )
        .required(),
    ]
}

/// One array per field of [`fields`]; `times` are what lateness is judged by.
pub(super) fn columns(telemetry: &Telemetry<'_>, event_times: &[i64]) -> Vec<ArrayRef> {
    let record = telemetry.record;
    let frames = || {
        record
            .frame_index()
            .iter()
            .map(|frame| &record.frames[*frame as usize])
    };
    fn of<'a>(
        frames: impl Iterator<Item = &'a PackedFrame>,
        attribute: impl Fn(&'a Origin) -> &'a str,
    ) -> ArrayRef {
        texts(frames.map(|frame| attribute(&frame.origin)))
    }
    let head = &record.head;
    let late = frames().zip(event_times).map(|(frame, time)| {
        let age = frame.head.received_at_us.saturating_sub(*time);
        Some(age > telemetry.late_after_us)
    });
    vec![
        of(frames(), |origin| &origin.device),
        of(frames(), |origin| origin.role.name()),
        of(frames(), |origin| about(&origin.model, &head.model)),
        of(frames(), |origin| about(&origin.version, &head.version)),
        of(frames(), |origin| &origin.variant),
        of(frames(), |origin| &origin.hardware),
        of(frames(), |origin| &origin.firmware),
        of(frames(), |origin| &origin.region),
        of(frames(), |origin| &origin.site),
        of(frames(), |origin| origin.link.name()),
        ints(frames().map(|frame| Some(i32::try_from(frame.origin.cadence_s).unwrap_or(i32::MAX)))),
        longs(frames().map(|frame| Some(frame.head.boot as i64))),
        longs(frames().map(|frame| Some(frame.head.sequence as i64))),
        // A frame has far fewer rows than 2^31.
        ints(record.row_index().iter().map(|row| Some(*row as i32))),
        times(frames().map(|frame| frame.head.sent_at_us)),
        times(frames().map(|frame| Some(frame.head.received_at_us))),
        longs(frames().map(|frame| Some(frame.head.clock_correction_us))),
        flags(late),
    ]
}

/// Where the record is of one model, that is what its rows are about.
fn about<'a>(own: &'a str, record: &'a str) -> &'a str {
    if record.is_empty() { own } else { record }
}
