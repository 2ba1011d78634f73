//! The decomposition y(d,t) = a(d) + u(t) + e(d,t), and the variance of each part's batch means.

use std::collections::BTreeMap;

use super::super::{Component, SPANS};

/// Sweeps of the alternating fit of device and window means; balanced data need one.
const SWEEPS: usize = 4;
/// Batches of a length of time below which it is not used.
const BATCHES_MIN: usize = 6;

/// One score of one device over one window.
pub(super) struct Cell {
    pub(super) device: usize,
    pub(super) window: i64,
    pub(super) slot: usize,
    pub(super) rows: f64,
    /// Mean score less that of the season's slot.
    pub(super) deviation: f64,
    pub(super) row_variance: f64,
}

/// Variances at one length of time.
pub(super) struct FitSpan {
    pub(super) windows: u32,
    pub(super) shared: Component,
    /// `None` with a single device.
    pub(super) own: Option<Component>,
}

/// What could be learned.
#[derive(Default)]
pub(super) struct Fit {
    /// `None` with fewer than two devices.
    pub(super) device: Option<Component>,
    /// Empty with fewer than [`BATCHES_MIN`] windows.
    pub(super) spans: Vec<FitSpan>,
    /// `None` without cells.
    pub(super) row_variance: Option<f64>,
    /// Whether a slot of the season was seen in one window only.
    pub(super) single_slot_windows: bool,
}

/// Sum of weighted values and of weights.
#[derive(Clone, Copy, Default)]
struct WeightedMean {
    sum: f64,
    weight: f64,
}

impl WeightedMean {
    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    fn mean(self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            0.0
        }
    }
}

/// Cells with what the alternating fit says of them.
struct Effects<'a> {
    cells: &'a [Cell],
    /// Windows that occur, rising.
    windows: Vec<i64>,
    /// What devices share, by place in `windows`.
    shared: Vec<f64>,
    devices: Vec<WeightedMean>,
    /// What is neither the device's nor the window's, by cell.
    own: Vec<f64>,
}

/// Learns the components of one score. Cells come device by device, and each device's windows rise.
pub(super) fn fit(cells: &[Cell]) -> Fit {
    let mut fitted = Fit::default();
    if cells.is_empty() {
        return fitted;
    }
    let effects = effects(cells);
    fitted.row_variance = Some(row_variance(cells));
    // Windows of each slot, for the leave-one-out factor: the slot's mean holds the window itself.
    let mut slots: BTreeMap<usize, usize> = BTreeMap::new();
    let mut slot_of = vec![0; effects.windows.len()];
    for cell in cells {
        slot_of[place(&effects.windows, cell.window)] = cell.slot;
    }
    for slot in &slot_of {
        *slots.entry(*slot).or_default() += 1;
    }
    fitted.single_slot_windows = slots.values().any(|&windows| windows == 1) && slots.len() > 1;
    // Single windows have no residual; those of the rest stand for them, twice over.
    let inflate = if fitted.single_slot_windows { 2.0 } else { 1.0 };
    let shared: Vec<(i64, f64)> = effects
        .windows
        .iter()
        .zip(&effects.shared)
        .zip(&slot_of)
        .filter(|(_, slot)| slots[*slot] > 1)
        .map(|((&window, effect), slot)| {
            let n = slots[slot] as f64;
            (window, effect * n / (n - 1.0))
        })
        .collect();
    let slots_used = slots.values().filter(|&&windows| windows > 1).count();
    for span in SPANS {
        if let Some(mut at) = fit_span(&effects, &shared, slots_used, span) {
            at.shared.variance *= inflate;
            fitted.spans.push(at);
        }
    }
    let windows = effects.windows.len();
    fitted.device = device_component(cells, &effects.devices, fitted.spans.last(), windows);
    fitted
}

/// Place of a window that occurs.
fn place(windows: &[i64], window: i64) -> usize {
    windows.partition_point(|&at| at < window)
}

/// Device and window means, each with the other taken out, by alternating sweeps.
fn effects(cells: &[Cell]) -> Effects<'_> {
    let mut windows: Vec<i64> = cells.iter().map(|cell| cell.window).collect();
    windows.sort_unstable();
    windows.dedup();
    let places: Vec<usize> = cells
        .iter()
        .map(|cell| place(&windows, cell.window))
        .collect();
    let count = cells.iter().map(|cell| cell.device + 1).max().unwrap_or(0);
    let mut devices = vec![WeightedMean::default(); count];
    let mut shared = vec![0.0; windows.len()];
    for _ in 0..SWEEPS {
        let mut next = vec![WeightedMean::default(); count];
        for (cell, &at) in cells.iter().zip(&places) {
            next[cell.device].add(cell.deviation - shared[at], cell.rows);
        }
        // What all devices have in common belongs to the windows.
        let mut grand = WeightedMean::default();
        for device in &next {
            grand.add(device.mean(), device.weight);
        }
        let grand = grand.mean();
        for device in &mut next {
            device.sum -= grand * device.weight;
        }
        devices = next;
        let natures: Vec<f64> = devices.iter().map(|device| device.mean()).collect();
        let mut means = vec![WeightedMean::default(); windows.len()];
        for (cell, &at) in cells.iter().zip(&places) {
            means[at].add(cell.deviation - natures[cell.device], cell.rows);
        }
        shared = means.into_iter().map(WeightedMean::mean).collect();
    }
    let natures: Vec<f64> = devices.iter().map(|device| device.mean()).collect();
    let own = cells
        .iter()
        .zip(&places)
        .map(|(cell, &at)| cell.deviation - natures[cell.device] - shared[at])
        .collect();
    Effects {
        cells,
        windows,
        shared,
        devices,
        own,
    }
}

/// Variance of a row about the mean of its device and window.
fn row_variance(cells: &[Cell]) -> f64 {
    let (mut squares, mut degrees) = (0.0, 0.0);
    for cell in cells {
        squares += cell.rows * cell.row_variance;
        degrees += (cell.rows - 1.0).max(0.0);
    }
    if degrees > 0.0 {
        squares / degrees
    } else {
        0.0
    }
}

fn fit_span(
    effects: &Effects<'_>,
    shared: &[(i64, f64)],
    slots: usize,
    span: u32,
) -> Option<FitSpan> {
    let length = i64::from(span);
    // Batches of which at least half the windows are there.
    let mut batches: BTreeMap<i64, (WeightedMean, usize)> = BTreeMap::new();
    for &(window, value) in shared {
        let batch = batches.entry(window.div_euclid(length)).or_default();
        batch.0.add(value, 1.0);
        batch.1 += 1;
    }
    batches.retain(|_, (_, count)| *count * 2 >= span as usize);
    if batches.len() < BATCHES_MIN {
        return None;
    }
    let count = batches.len() as f64;
    let raw = batches
        .values()
        .map(|(mean, _)| mean.mean().powi(2))
        .sum::<f64>()
        / count;
    // The season took one degree of freedom per slot out of the windows.
    let kept = 1.0 - (slots as f64 / shared.len() as f64).min(0.9);
    let degrees = (count * kept).max(1.0);
    let own = own_component(effects, length);
    // What devices do for a while does not average out entirely over finitely many.
    let weights: Vec<f64> = effects.devices.iter().map(|device| device.weight).collect();
    let worth = effective(&weights);
    let leak = own.map_or(0.0, |own| own.with_rows / worth);
    let error = raw * (2.0 / degrees).sqrt();
    Some(FitSpan {
        windows: span,
        // One standard error is added, since the difference of two estimates can come out at
        // nothing by chance, and it is never more than what was seen in all.
        shared: Component {
            variance: ((raw - leak).max(0.0) + error).min(raw),
            degrees,
        },
        own: own.map(|own| own.component),
    })
}

#[derive(Clone, Copy)]
struct Own {
    component: Component,
    /// Including the scatter of rows.
    with_rows: f64,
}

/// One device's batch of windows.
#[derive(Clone, Copy, Default)]
struct Batch {
    own: WeightedMean,
    row_squares: f64,
    windows: i64,
}

/// Variance of batch means of what is a device's own, without the scatter of its rows.
fn own_component(effects: &Effects<'_>, length: i64) -> Option<Own> {
    let active = effects
        .devices
        .iter()
        .filter(|device| device.weight > 0.0)
        .count();
    if active < 2 {
        return None;
    }
    let mut batches: Vec<(usize, i64, Batch)> = Vec::new();
    for (cell, &own) in effects.cells.iter().zip(&effects.own) {
        let batch = cell.window.div_euclid(length);
        if batches
            .last()
            .is_none_or(|last| (last.0, last.1) != (cell.device, batch))
        {
            batches.push((cell.device, batch, Batch::default()));
        }
        if let Some((_, _, last)) = batches.last_mut() {
            last.own.add(own, cell.rows);
            last.row_squares += cell.row_variance * cell.rows;
            last.windows += 1;
        }
    }
    batches.retain(|(_, _, batch)| batch.windows * 2 >= length);
    let mut per_device = vec![0usize; effects.devices.len()];
    for (device, _, _) in &batches {
        per_device[*device] += 1;
    }
    let (mut squares, mut scatter, mut degrees, mut counted) = (0.0, 0.0, 0.0, 0.0);
    for (device, _, batch) in batches
        .iter()
        .filter(|(device, _, _)| per_device[*device] > 1)
    {
        let rows = batch.own.weight;
        squares += batch.own.mean().powi(2);
        // Variance of a row, estimated from n rows and so n − 1 degrees of freedom.
        scatter += batch.row_squares / rows / (rows - 1.0).max(1.0);
        degrees += 1.0 - 1.0 / per_device[*device] as f64;
        counted += 1.0;
    }
    if counted < BATCHES_MIN as f64 {
        return None;
    }
    let devices_kept = 1.0 - 1.0 / active as f64;
    let degrees = (degrees * devices_kept).max(1.0);
    let with_rows = squares / degrees;
    Some(Own {
        component: Component {
            variance: (with_rows - scatter / counted).max(0.0),
            degrees,
        },
        with_rows,
    })
}

/// Variance between devices, less what their means are off by.
fn device_component(
    cells: &[Cell],
    devices: &[WeightedMean],
    longest: Option<&FitSpan>,
    windows: usize,
) -> Option<Component> {
    let active: Vec<&WeightedMean> = devices.iter().filter(|d| d.weight > 0.0).collect();
    if active.len() < 2 {
        return None;
    }
    let count = active.len() as f64;
    let mean = active.iter().map(|device| device.mean()).sum::<f64>() / count;
    let raw = active
        .iter()
        .map(|device| (device.mean() - mean).powi(2))
        .sum::<f64>()
        / (count - 1.0);
    let scatter =
        row_variance(cells) * active.iter().map(|device| 1.0 / device.weight).sum::<f64>() / count;
    let wander = longest
        .and_then(|span| span.own.map(|own| own.variance * f64::from(span.windows)))
        .map_or(0.0, |variance| variance / windows.max(1) as f64);
    Some(Component {
        variance: (raw - scatter - wander).max(0.0),
        degrees: count - 1.0,
    })
}

/// Kish's effective number.
fn effective(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|weight| weight * weight).sum();
    if squares > 0.0 {
        sum * sum / squares
    } else {
        1.0
    }
}
