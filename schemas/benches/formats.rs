//! Rows a second through the formats on one core: wire frames read, records of the log read and
//! written, records as rows of the lake: `cargo bench -p driftline-schemas --bench formats`.
//!
//! Plain timing, best of some passes, in time on the processor where the kernel tells it (Linux), so
//! that other work on the machine does not count.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use driftline_schemas::bundle::Manifest;
use driftline_schemas::frame::{self, Body, Envelope, Frame, FrameLimits, Sent};
use driftline_schemas::packed::{PackedBuilder, PackedRecord, RecordHead, SchemaCache};
use driftline_schemas::rows::{Column, Kind, RowSchema, Rows};
use driftline_schemas::source::{FrameHead, Link, Origin, Role};
use driftline_schemas::tables::{self, Place, Telemetry};

const PASSES: usize = 7;
const FEATURES: usize = 16;

fn manifest() -> Result<Manifest, Box<dyn std::error::Error>> {
    let mut text = String::from(
        "format = 1\nname = \"bench\"\nversion = \"1\"\ntask = \"classification\"\n[output]\nclasses = [\"a\", \"b\"]\n",
    );
    for index in 0..FEATURES {
        text +=
            &format!("[[features]]\nname = \"f{index}\"\ntype = \"numeric\"\nresolution = 0.01\n");
    }
    Ok(Manifest::parse(&text)?)
}

/// Rows as sensors make them: values of `bits` bits that wander, some columns missing.
fn rows(schema: &RowSchema, count: usize, bits: u32) -> Rows {
    let mut state = 42u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> (64 - bits)) as i32
    };
    let columns = schema
        .fields()
        .iter()
        .map(|field| match field.name.as_str() {
            "event_time" => Column::Time(
                (0..count)
                    .map(|row| Some(1_700_000_000_000_000 + row as i64 * 1_000_000))
                    .collect(),
            ),
            "prediction" | "ran_on" => Column::Int32((0..count).map(|_| Some(0)).collect()),
            "energy_uj" => Column::Int32((0..count).map(|_| None).collect()),
            _ => Column::Int32((0..count).map(|_| Some(random())).collect()),
        });
    Rows {
        columns: columns.collect(),
    }
}

/// Seconds that this process has been on a processor.
fn processor_seconds() -> Option<f64> {
    let schedule = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    let nanoseconds: f64 = schedule.split(' ').next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}

#[allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
fn report<T>(what: &str, rows: usize, raw_bytes: usize, mut run: impl FnMut() -> T) {
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        let started = Instant::now();
        let on_processor = processor_seconds();
        let mut times = 0u32;
        while started.elapsed().as_secs_f64() < 0.1 {
            black_box(run());
            times += 1;
        }
        let spent = match (on_processor, processor_seconds()) {
            (Some(from), Some(to)) => to - from,
            _ => started.elapsed().as_secs_f64(),
        };
        best = best.min(spent / f64::from(times));
    }
    println!(
        "{what:<52} {:>8.2} M rows/s {:>8.2} GB/s of raw rows",
        rows as f64 / best / 1e6,
        raw_bytes as f64 / best / 1e9
    );
}

fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        tenant: "acme".into(),
        device: "d17".into(),
        role: Role::Device,
        model: "bench".into(),
        version: "1".into(),
        variant: "int8".into(),
        hardware: "r3".into(),
        firmware: "2.1.0".into(),
        region: "eu".into(),
        site: "north-1".into(),
        link: Link::Lpwan,
        cadence_s: 900,
    })
}

const HEAD: FrameHead = FrameHead {
    boot: 1,
    sequence: 2,
    sent_at_us: Some(1_700_000_000_000_000),
    received_at_us: 1_700_000_001_000_000,
    clock_correction_us: 0,
};

fn pack(
    schema: &Arc<RowSchema>,
    frames: &[Rows],
) -> Result<Vec<u8>, driftline_schemas::packed::PackedError> {
    let head = RecordHead {
        tenant: "acme".into(),
        model: "bench".into(),
        version: "1".into(),
        kind: Kind::Inferences,
        fingerprint: schema.fingerprint(),
    };
    let origin = origin();
    let mut builder = PackedBuilder::new(head, schema);
    for rows in frames {
        builder.push(&origin, HEAD, rows)?;
    }
    builder.finish()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manifest = manifest()?;
    let schema = Arc::new(RowSchema::inferences(&manifest));
    let row_bytes = 8 + 4 * (schema.fields().len() - 1);
    let limits = FrameLimits::default();
    for (bits, count) in [(12, 1_000), (24, 1_000), (12, 10)] {
        let frame = Frame {
            envelope: Envelope {
                sent: Sent::At(1_700_000_000_000_000),
                ..Envelope::default()
            },
            body: Body::Rows(rows(&schema, count, bits)),
        };
        let bytes = frame::encode(&frame, &schema)?;
        let what = format!("{count} rows of {bits} bits in {} bytes", bytes.len());
        let raw = count * row_bytes;
        report(&format!("frame read, {what}"), count, raw, || {
            frame::decode(&bytes, &schema, &limits)
        });
        report(&format!("frame written, {what}"), count, raw, || {
            frame::encode(&frame, &schema)
        });
    }
    let schemas = SchemaCache::default();
    for (what, bits, frames, count) in [
        ("1 frame of 1,000", 24, 1, 1_000),
        ("1 frame of 1,000, compressible", 12, 1, 1_000),
        ("100 frames of 10", 24, 100, 10),
    ] {
        let frames = vec![rows(&schema, count, bits); frames];
        let total = frames.len() * count;
        let raw = total * row_bytes;
        // A log hands out reference-counted bytes; Arrow's buffer is one.
        let bytes = arrow::buffer::Buffer::from_vec(pack(&schema, &frames)?);
        let what = format!("{what} ({} bytes)", bytes.len());
        report(&format!("record read, {what}"), total, raw, || {
            PackedRecord::decode(bytes.clone(), &schemas)
        });
        report(&format!("record written, {what}"), total, raw, || {
            pack(&schema, &frames)
        });
        let record = PackedRecord::decode(bytes.clone(), &schemas)?;
        let telemetry = Telemetry {
            record: &record,
            place: Place {
                partition: 0,
                offset: 0,
            },
            late_after_us: i64::MAX,
        };
        report(&format!("to the lake, {what}"), total, raw, || {
            tables::inferences(&telemetry, &manifest, &schema)
        });
    }
    Ok(())
}
