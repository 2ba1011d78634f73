//! Rows of a healthy past, to make a bundle from.

use driftline_emitter::pack::PackError;
use driftline_emitter::pack::{Data, Table};

use driftline_schemas::rows::Values;

use crate::estate::Estate;
use crate::world::{CLASSES, FEATURES, QUANTITIES, Unit};

/// Stream of a unit's past.
const PAST: u64 = 1;

/// Rows of all units from `days` days before `start_us` up to it: one column per feature, labels,
/// devices and times.
///
/// # Errors
/// [`PackError`] when a column could not be added, which the world's names do not bring about.
pub fn table(estate: &Estate, start_us: i64, days: i64) -> Result<Table, PackError> {
    let sample_us = estate.config.sample_us;
    let samples = days * driftline_schemas::clock::DAY_US / sample_us;
    let rows = estate.units.len() * samples as usize;
    let mut columns: [Vec<f64>; FEATURES] = std::array::from_fn(|_| Vec::with_capacity(rows));
    let mut labels = Vec::with_capacity(rows);
    let mut devices = Vec::with_capacity(rows);
    let mut times_us = Vec::with_capacity(rows);
    for unit in &estate.units {
        let mut world = Unit::new(estate.config.seed, unit.index, PAST);
        for sample in 0..samples {
            let at_us = start_us - (samples - sample) * sample_us;
            let reading = world.next(at_us, &[0.0; FEATURES], false);
            for (column, value) in columns.iter_mut().zip(reading.values) {
                column.push(value);
            }
            labels.push(Some(CLASSES[reading.truth]));
            devices.push(Some(&*unit.origin.device));
            times_us.push(at_us);
        }
    }
    let mut table = Table::new(rows);
    for (quantity, column) in QUANTITIES.iter().zip(columns) {
        let values = Values {
            values: column,
            missing: None,
        };
        table.add(quantity.name, Data::Numbers(values))?;
    }
    table.label = Some(Data::texts(labels));
    table.device = Some(Data::texts(devices));
    table.times_us = Some(times_us);
    Ok(table)
}
