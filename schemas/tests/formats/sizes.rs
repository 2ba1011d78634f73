//! What frames of real telemetry weigh.

use std::collections::HashMap;
use std::io::Read;

use driftline_schemas::frame::{Body, Envelope, Frame, FrameLimits, Sent, decode, encode};
use driftline_schemas::quantity::{dequantise, quantise};
use driftline_schemas::rows::{Column, FieldType, RowSchema, Rows};

use crate::common::{normal, numbers, shared};

/// A record of a LoRaWAN network server: milliseconds, and what the radio saw.
struct Record {
    ts_ms: i64,
    values: [Option<f64>; 4],
}

/// The data's own resolutions: counters and signal strengths are whole, signal-to-noise ratios are
/// quarters from one receiver and tenths from another.
const FEATURES: [(&str, f64); 4] = [("fcnt", 1.0), ("rssi", 1.0), ("snr", 0.05), ("sf", 1.0)];

/// Records by device, in order of time.
fn records() -> Option<HashMap<String, Vec<Record>>> {
    let path = shared("data/lorawan/frames.csv.gz")?;
    // gzip is a program of every machine that builds this; a crate for one test is not worth it.
    let output = std::process::Command::new("gzip")
        .arg("-dc")
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success());
    let mut text = String::new();
    output.stdout.as_slice().read_to_string(&mut text).unwrap();
    let mut devices: HashMap<String, Vec<Record>> = HashMap::new();
    for line in text.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |index: usize| cells[index].parse::<f64>().ok();
        // "SF12BW125" is spreading factor 12, "DR5" is data rate 5.
        let sf = cells[8].trim_start_matches("SF").trim_start_matches("DR");
        let sf = sf.split("BW").next().and_then(|sf| sf.parse().ok());
        devices.entry(cells[3].into()).or_default().push(Record {
            ts_ms: cells[2].parse().unwrap(),
            values: [number(4), number(6), number(7), sf],
        });
    }
    for records in devices.values_mut() {
        records.sort_by_key(|record| record.ts_ms);
    }
    Some(devices)
}

fn frame_of(schema: &RowSchema, times_us: &[i64], features: &[Vec<Option<i32>>]) -> Frame {
    let mut features = features.iter();
    let columns = schema
        .fields()
        .iter()
        .map(|field| match field.ty {
            FieldType::Time => Column::Time(times_us.iter().map(|time| Some(*time)).collect()),
            _ => match features.next() {
                Some(values) => Column::Int32(values.iter().copied().collect()),
                None => Column::Int32(times_us.iter().map(|_| None).collect()),
            },
        })
        .collect();
    Frame {
        envelope: Envelope {
            boot: 0x1234_5678_9abc_def0,
            sequence: 4_321,
            sent: Sent::At(times_us[times_us.len() - 1] + 1_000_000),
            ..Envelope::default()
        },
        body: Body::Rows(Rows { columns }),
    }
}

/// Mean bytes a record over all full groups of `count` records; every frame is read back.
fn weigh(frames: impl Iterator<Item = Frame>, schema: &RowSchema, count: usize) -> (f64, usize) {
    let (mut bytes, mut number, mut greatest) = (0, 0, 0);
    for frame in frames {
        let encoded = encode(&frame, schema).unwrap();
        let decoded = decode(&encoded, schema, &FrameLimits::default()).unwrap();
        let (Body::Rows(decoded), Body::Rows(rows)) = (&decoded.body, &frame.body) else {
            panic!("rows became something else")
        };
        assert_eq!(*decoded, normal(rows));
        bytes += encoded.len();
        greatest = greatest.max(encoded.len());
        number += 1;
    }
    assert!(number > 0);
    (bytes as f64 / (number * count) as f64, greatest)
}

/// Real LoRaWAN records at the data's own resolution, losslessly: one record in its envelope takes
/// at most 80 bytes, 100 records take at most 8 bytes each. Printed beside it is what twelve
/// features of pure noise at full 32-bit resolution take, which nothing can compress.
#[test]
fn lorawan_records_are_small() {
    let Some(devices) = records() else { return };
    let schema = numbers(&FEATURES);
    let quantised = |record: &Record, feature: usize| {
        let resolution = FEATURES[feature].1;
        record.values[feature].map(|value| {
            let code = quantise(value, resolution);
            // The file holds 32-bit floats in decimal: what comes back is the same float.
            assert_eq!(dequantise(code, resolution) as f32, value as f32, "{value}");
            code
        })
    };
    println!("records   LoRaWAN, 4 features   12 noisy features, 32 bits   (bytes a record)");
    for count in [1usize, 10, 100, 1_000] {
        let frames = devices.values().flat_map(|records| {
            records.chunks_exact(count).map(|chunk| {
                let times: Vec<i64> = chunk.iter().map(|record| record.ts_ms * 1_000).collect();
                let features: Vec<Vec<Option<i32>>> = (0..FEATURES.len())
                    .map(|feature| chunk.iter().map(|it| quantised(it, feature)).collect())
                    .collect();
                frame_of(&schema, &times, &features)
            })
        });
        let (mean, greatest) = weigh(frames, &schema, count);
        let (noisy, _) = noise(count);
        println!("{count:>7}   {mean:>18.2}   {noisy:>26.2}");
        match count {
            1 => assert!(greatest <= 80, "{greatest} bytes"),
            100 => assert!(mean <= 8.0, "{mean} bytes a record"),
            _ => {}
        }
    }
}

/// Twelve features of pseudo-random 32-bit numbers (SplitMix64), one record a second.
fn noise(count: usize) -> (f64, usize) {
    let names: Vec<String> = (0..12).map(|index| format!("f{index}")).collect();
    let features: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1e-6)).collect();
    let schema = numbers(&features);
    let mut state = 42u64;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some((z ^ (z >> 31)) as i32)
    };
    let times: Vec<i64> = (0..count as i64)
        .map(|row| 1_700_000_000_000_000 + row * 1_000_000)
        .collect();
    let columns: Vec<Vec<Option<i32>>> = (0..12)
        .map(|_| (0..count).map(|_| random()).collect())
        .collect();
    weigh(
        std::iter::once(frame_of(&schema, &times, &columns)),
        &schema,
        count,
    )
}
