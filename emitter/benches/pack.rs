//! Making a bundle from two million rows of eight columns, beside a loop that only counts the same
//! numbers into bins: `cargo bench -p driftline-emitter`.

use std::time::Instant;

use driftline_emitter::pack::{
    BINS_DEFAULT, Data, Draft, PackInput, TENANT_DEFAULT, Table, Unlearned, pack,
};
use driftline_schemas::bundle::Task;

const ROWS: usize = 2_000_000;
const COLUMNS: usize = 8;
const DEVICES: usize = 40;

fn numbers(column: usize) -> Vec<Option<f64>> {
    (0..ROWS)
        .map(|row| Some(((row * (column + 7) * 2_654_435_761) % 65_536) as f64 / 100.0))
        .collect()
}

/// The least that has to be done: every number into one of sixteen bins by binary search.
fn limit() -> f64 {
    let edges: Vec<f64> = (1..16).map(|edge| f64::from(edge) * 40.96).collect();
    let columns: Vec<_> = (0..COLUMNS).map(numbers).collect();
    let started = Instant::now();
    let mut bins = [[0u64; 16]; COLUMNS];
    for (column, bins) in columns.iter().zip(&mut bins) {
        for number in column.iter().flatten() {
            bins[edges.partition_point(|edge| edge <= number)] += 1;
        }
    }
    assert_eq!(bins.iter().flatten().sum::<u64>(), (ROWS * COLUMNS) as u64);
    started.elapsed().as_secs_f64()
}

fn main() {
    let onnx = include_bytes!("../fixtures/threshold.onnx");
    let mut table = Table::new(ROWS);
    let mut draft = Draft::new("big", "1", Task::Classification);
    for column in 0..COLUMNS {
        let name = format!("x{column}");
        let values = numbers(column).into_iter().collect();
        table.add(&name, Data::Numbers(values)).unwrap();
        match column < 2 {
            true => draft.features.push(name),
            false => draft.signals.push(name),
        }
    }
    let device = |row| Some((row % DEVICES) as f64);
    table.device = Some(Data::Numbers((0..ROWS).map(device).collect()));
    table.times_us = Some((0..ROWS as i64).map(|row| row * 2_000_000).collect());
    draft.classes = vec!["ok".into(), "hot".into()];
    let started = Instant::now();
    let packed = pack(&PackInput {
        draft,
        onnx,
        rows: &table,
        made_from: "a benchmark".into(),
        tenant: TENANT_DEFAULT.into(),
        bins: BINS_DEFAULT,
        unlearned: Unlearned::default(),
        edges_from: None,
        now_us: 0,
    })
    .unwrap();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "packed {ROWS} rows of {COLUMNS} columns in {seconds:.2} s; counting them into bins alone takes {:.2} s ({} files)",
        limit(),
        packed.files.len()
    );
}
