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

/// Learns the components of one score.
pub(super) fn fit(cells: &[Cell]) -> Fit {
    let mut fitted = Fit::default();
    if cells.is_empty() {
        return fitted;
    }
    let (devices, windows) = effects(cells);
    fitted.row_variance = Some(row_variance(cells));
    // Windows of each slot, for the leave-one-out factor: the slot's mean holds the window itself.
    let mut slots: BTreeMap<usize, BTreeMap<i64, ()>> = BTreeMap::new();
    for cell in cells {
        slots.entry(cell.slot).or_default().insert(cell.window, ());
    }
    fitted.single_slot_windows =
        slots.values().any(|windows| windows.len() == 1) && slots.len() > 1;
    let factor: BTreeMap<i64, f64> = slots
        .values()
        .flat_map(|windows| {
            let n = windows.len() as f64;
            // A slot with one window has no residual; the fit below leaves it out.
            let factor = if n > 1.0 { n / (n - 1.0) } else { 0.0 };
            windows.keys().map(move |&window| (window, factor))
        })
        .collect();
    // With mostly single windows the residuals of the rest stand for all, twice over.
    let inflate = if fitted.single_slot_windows { 2.0 } else { 1.0 };
    let shared: BTreeMap<i64, f64> = windows
        .iter()
        .filter(|(window, _)| factor.get(window).is_some_and(|&factor| factor > 0.0))
        .map(|(&window, effect)| (window, effect.mean() * factor[&window]))
        .collect();
    let slots_used = slots.values().filter(|windows| windows.len() > 1).count();
    for span in SPANS {
        if let Some(mut at) = fit_span(cells, &devices, &windows, &shared, slots_used, span) {
            at.shared.variance *= inflate;
            fitted.spans.push(at);
        }
    }
    fitted.device = device_component(cells, &devices, fitted.spans.last(), windows.len());
    fitted
}

/// Device and window means, each with the other taken out, by alternating sweeps.
fn effects(cells: &[Cell]) -> (Vec<WeightedMean>, BTreeMap<i64, WeightedMean>) {
    let count = cells.iter().map(|cell| cell.device + 1).max().unwrap_or(0);
    let mut devices = vec![WeightedMean::default(); count];
    let mut windows: BTreeMap<i64, WeightedMean> = BTreeMap::new();
    for _ in 0..SWEEPS {
        let mut next = vec![WeightedMean::default(); count];
        for cell in cells {
            let shared = windows
                .get(&cell.window)
                .map_or(0.0, |effect| effect.mean());
            next[cell.device].add(cell.deviation - shared, cell.rows);
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
        windows.clear();
        for cell in cells {
            let own = cell.deviation - devices[cell.device].mean();
            windows.entry(cell.window).or_default().add(own, cell.rows);
        }
    }
    (devices, windows)
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
    cells: &[Cell],
    devices: &[WeightedMean],
    windows: &BTreeMap<i64, WeightedMean>,
    shared: &BTreeMap<i64, f64>,
    slots: usize,
    span: u32,
) -> Option<FitSpan> {
    let length = i64::from(span);
    // Batches of which at least half the windows are there.
    let mut batches: BTreeMap<i64, (WeightedMean, usize)> = BTreeMap::new();
    for (&window, &value) in shared {
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
    let own = own_component(cells, devices, windows, length);
    // What devices do for a while does not average out entirely over finitely many.
    let weights: Vec<f64> = devices.iter().map(|device| device.weight).collect();
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

/// Variance of batch means of what is a device's own, without the scatter of its rows.
fn own_component(
    cells: &[Cell],
    devices: &[WeightedMean],
    windows: &BTreeMap<i64, WeightedMean>,
    length: i64,
) -> Option<Own> {
    let active = devices.iter().filter(|device| device.weight > 0.0).count();
    if active < 2 {
        return None;
    }
    let mut batches: BTreeMap<(usize, i64), (WeightedMean, f64, usize)> = BTreeMap::new();
    for cell in cells {
        let shared = windows
            .get(&cell.window)
            .map_or(0.0, |effect| effect.mean());
        let own = cell.deviation - devices[cell.device].mean() - shared;
        let key = (cell.device, cell.window.div_euclid(length));
        let batch = batches.entry(key).or_default();
        batch.0.add(own, cell.rows);
        batch.1 += cell.row_variance * cell.rows;
        batch.2 += 1;
    }
    batches.retain(|_, (_, _, count)| *count * 2 >= length as usize);
    let mut per_device = vec![0usize; devices.len()];
    for (device, _) in batches.keys() {
        per_device[*device] += 1;
    }
    let (mut squares, mut scatter, mut degrees, mut counted) = (0.0, 0.0, 0.0, 0.0);
    for ((device, _), (mean, row_sum, _)) in &batches {
        if per_device[*device] < 2 {
            continue;
        }
        let rows = mean.weight;
        squares += mean.mean().powi(2);
        // Variance of a row, estimated from n rows of a window and so n − 1 degrees of freedom.
        scatter += row_sum / rows / (rows - 1.0).max(1.0);
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
