//! ADWIN: a window that grows while its mean is the same everywhere and shrinks when it is not.
//!
//! Bifet and Gavaldà, "Learning from time-changing data with adaptive windowing", SDM 2007. The
//! window is an exponential histogram: row i holds up to `max_buckets` buckets of 2^i values each
//! (count, sum, sum of squared deviations); a full row merges its two oldest buckets into the next.
//! Every `clock` values each boundary between buckets splits the window in an older part of n0
//! values and a newer one of n1; the oldest bucket goes while some split has
//!
//! ```text
//! |mean0 − mean1| > sqrt(2 m v d) + (2/3) d m,
//! d = ln(2 ln(n) / delta),  m = 1/(n0 − k + 1) + 1/(n1 − k + 1),
//! v = variance of the window,  k = min_window_length
//! ```
//!
//! What follows an alarm differs between implementations: river starts with an empty window at the
//! next value (`after_drift = reset`), the paper and MOA keep the newer part (`keep`).
//!
//! Rows are fixed arrays used as rings, so an update allocates nothing (a row is added when the
//! window doubles). Most splits are dismissed by a bound that needs neither a division nor a root.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

/// Buckets a row can hold: the next power of two above the largest `max_buckets`, which makes the
/// position in a ring a mask. Serves windows ten times denser than anyone's default of 5.
const ROW_SLOTS: usize = 16;

/// Rows at most: 2^48 values in the last one's buckets, more than any stream has.
const ROWS_MAX: usize = 48;

const HELP_AFTER: &str = "what is kept after an alarm: nothing, or the newer part of the window";

const fn schema(after: &'static str) -> [Parameter; 6] {
    [
        Parameter::number(
            "delta",
            0.002,
            Domain::Open(0.0, 1.0),
            "confidence of a split: smaller means fewer alarms",
        ),
        Parameter::count(
            "clock",
            32,
            1,
            1 << 20,
            "values between two searches for a split",
        ),
        Parameter::count(
            "max_buckets",
            5,
            2,
            (ROW_SLOTS - 1) as u64,
            "buckets of one size before two are merged",
        ),
        Parameter::count(
            "min_window_length",
            5,
            1,
            1 << 20,
            "values that each side of a split needs",
        ),
        Parameter::count(
            "grace_period",
            10,
            0,
            1 << 20,
            "values before the first search",
        ),
        Parameter::choice("after_drift", after, &["reset", "keep"], HELP_AFTER),
    ]
}

pub(super) const PARAMETERS: &[Parameter] = &schema("reset");
pub(super) const PARAMETERS_MOA: &[Parameter] = &schema("keep");

/// Buckets of one size, oldest first from `start`.
#[derive(Debug, Clone)]
struct Row {
    start: usize,
    len: usize,
    totals: [f64; ROW_SLOTS],
    deviations: [f64; ROW_SLOTS],
}

impl Row {
    const EMPTY: Self = Self {
        start: 0,
        len: 0,
        totals: [0.0; ROW_SLOTS],
        deviations: [0.0; ROW_SLOTS],
    };

    #[inline]
    fn slot(&self, k: usize) -> usize {
        (self.start + k) & (ROW_SLOTS - 1)
    }

    #[inline]
    fn push(&mut self, total: f64, deviation: f64) {
        let at = self.slot(self.len);
        self.totals[at] = total;
        self.deviations[at] = deviation;
        self.len += 1;
    }

    #[inline]
    fn drop_oldest(&mut self, n: usize) {
        self.start = self.slot(n);
        self.len -= n;
    }
}

/// The detector. Memory: 264 bytes a row, one row each time the window doubles.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "State", try_from = "State")]
pub struct Adwin {
    config: Config,
    rows: Vec<Row>,
    width: f64,
    total: f64,
    /// Sum of squared deviations from the mean of the window.
    deviation: f64,
    /// Values until the next search.
    countdown: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Config {
    #[serde(with = "bits")]
    delta: f64,
    clock: u64,
    max_buckets: u64,
    min_window_length: u64,
    grace_period: u64,
    keep: bool,
    /// MOA asks each side for two values more than `min_window_length`.
    margin: u64,
}

impl Adwin {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        Ok(Self::with(Config {
            delta: p.number("delta"),
            clock: p.count("clock"),
            max_buckets: p.count("max_buckets"),
            min_window_length: p.count("min_window_length"),
            grace_period: p.count("grace_period"),
            keep: p.choice("after_drift") == "keep",
            margin: if p.moa() { 2 } else { 0 },
        }))
    }

    fn with(config: Config) -> Self {
        Self {
            config,
            rows: vec![Row::EMPTY],
            width: 0.0,
            total: 0.0,
            deviation: 0.0,
            countdown: config.clock,
        }
    }

    /// Values in the window.
    pub fn width(&self) -> u64 {
        self.width as u64
    }

    /// Mean of the window; none when it is empty.
    pub fn mean(&self) -> Option<f64> {
        (self.width > 0.0).then(|| self.total / self.width)
    }

    /// Population variance of the window; none when it is empty.
    pub fn variance(&self) -> Option<f64> {
        (self.width > 0.0).then(|| self.deviation / self.width)
    }

    #[inline]
    fn insert(&mut self, x: f64) {
        self.rows[0].push(x, 0.0);
        self.width += 1.0;
        if self.width > 1.0 {
            let before = self.width - 1.0;
            let off = x - self.total / before;
            self.deviation += before * off * off / self.width;
        }
        self.total += x;
        if self.rows[0].len > self.config.max_buckets as usize {
            self.merge_full_rows();
        }
    }

    fn merge_full_rows(&mut self) {
        let full = self.config.max_buckets as usize + 1;
        let mut size = 1.0;
        let mut i = 0;
        while i + 1 < ROWS_MAX && self.rows[i].len == full {
            if i + 1 == self.rows.len() {
                self.rows.push(Row::EMPTY);
            }
            let row = &mut self.rows[i];
            let (a, b) = (row.slot(0), row.slot(1));
            let (ta, tb) = (row.totals[a], row.totals[b]);
            // Dividing by a power of two is exact, so this is the difference of the two means.
            let gap = ta * (1.0 / size) - tb * (1.0 / size);
            let deviation = row.deviations[a] + row.deviations[b] + size * 0.5 * gap * gap;
            row.drop_oldest(2);
            self.rows[i + 1].push(ta + tb, deviation);
            size *= 2.0;
            i += 1;
        }
    }

    fn drop_oldest_bucket(&mut self) {
        let last = self.rows.len() - 1;
        let n = (1_u64 << last) as f64;
        let row = &mut self.rows[last];
        let at = row.slot(0);
        let (total, deviation) = (row.totals[at], row.deviations[at]);
        row.drop_oldest(1);
        if row.len == 0 && last > 0 {
            self.rows.pop();
        }
        self.width -= n;
        self.total -= total;
        let gap = total / n - self.total / self.width;
        self.deviation -= deviation + n * self.width * gap * gap / (n + self.width);
    }

    /// Drops the oldest bucket for as long as some split differs; whether any did.
    #[inline(never)]
    fn search(&mut self) -> bool {
        let mut changed = false;
        while self.some_split_differs(Self::certainly_equal) {
            self.drop_oldest_bucket();
            changed = true;
        }
        changed
    }

    /// `dismiss` may say of (n0, u0, n1, u1, bar) that the split is equal; it must not be wrong.
    #[inline]
    fn some_split_differs(&self, dismiss: impl Fn(f64, f64, f64, f64, f64) -> bool) -> bool {
        let c = &self.config;
        let least = (c.min_window_length + c.margin) as f64;
        let shift = c.min_window_length as f64 - 1.0;
        let d = (2.0 * self.width.ln() / c.delta).ln();
        let variance = self.deviation / self.width;
        // See `certainly_equal`; a millionth covers what rounding could do to either side.
        let bar = 2.0 * self.deviation * d * (1.0 - 1e-6);
        let (mut n0, mut u0) = (0.0, 0.0);
        let (mut n1, mut u1) = (self.width, self.total);
        for (i, row) in self.rows.iter().enumerate().rev() {
            let size = (1_u64 << i) as f64;
            for k in 0..row.len {
                let total = row.totals[row.slot(k)];
                n0 += size;
                n1 -= size;
                u0 += total;
                u1 -= total;
                if n1 < least {
                    return false;
                }
                if n0 < least || dismiss(n0, u0, n1, u1, bar) {
                    continue;
                }
                let m = 1.0 / (n0 - shift) + 1.0 / (n1 - shift);
                let epsilon = (2.0 * m * variance * d).sqrt() + 2.0 / 3.0 * d * m;
                if ((u0 / n0) - (u1 / n1)).abs() > epsilon {
                    return true;
                }
            }
        }
        false
    }

    /// Whether the split is below its threshold by a bound that needs no division.
    ///
    /// As m ≥ 1/n0 + 1/n1 = n/(n0 n1) when k ≥ 1, the threshold is at least sqrt(2 v d n/(n0 n1)),
    /// and with V = n v the difference is below it when (u0 n1 − u1 n0)² ≤ 2 V d n0 n1.
    #[inline]
    fn certainly_equal(n0: f64, u0: f64, n1: f64, u1: f64, bar: f64) -> bool {
        let cross = u0 * n1 - u1 * n0;
        cross * cross <= bar * (n0 * n1)
    }
}

impl Detector for Adwin {
    #[inline]
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.insert(x);
        self.countdown -= 1;
        if self.countdown > 0 {
            return Verdict::Stable;
        }
        self.countdown = self.config.clock;
        if self.width <= self.config.grace_period as f64 || !self.search() {
            return Verdict::Stable;
        }
        if !self.config.keep {
            self.reset();
        }
        Verdict::Drift
    }

    fn reset(&mut self) {
        self.rows.truncate(1);
        self.rows[0] = Row::EMPTY;
        self.width = 0.0;
        self.total = 0.0;
        self.deviation = 0.0;
        self.countdown = self.config.clock;
    }
}

/// What rests: live buckets only, oldest first.
#[derive(Serialize, Deserialize)]
struct State {
    config: Config,
    rows: Vec<RowState>,
    #[serde(with = "bits")]
    width: f64,
    #[serde(with = "bits")]
    total: f64,
    #[serde(with = "bits")]
    deviation: f64,
    countdown: u64,
}

#[derive(Serialize, Deserialize)]
struct RowState {
    #[serde(with = "bits::list")]
    totals: Vec<f64>,
    #[serde(with = "bits::list")]
    deviations: Vec<f64>,
}

impl From<Adwin> for State {
    fn from(a: Adwin) -> Self {
        let live = |row: &Row, xs: &[f64; ROW_SLOTS]| -> Vec<f64> {
            (0..row.len).map(|k| xs[row.slot(k)]).collect()
        };
        Self {
            config: a.config,
            rows: a
                .rows
                .iter()
                .map(|r| RowState {
                    totals: live(r, &r.totals),
                    deviations: live(r, &r.deviations),
                })
                .collect(),
            width: a.width,
            total: a.total,
            deviation: a.deviation,
            countdown: a.countdown,
        }
    }
}

impl TryFrom<State> for Adwin {
    type Error = String;

    fn try_from(s: State) -> Result<Self, String> {
        let max = s.config.max_buckets as usize;
        let config_fits = (2..ROW_SLOTS).contains(&max)
            && s.config.clock > 0
            && (1..=s.config.clock).contains(&s.countdown)
            && s.config.min_window_length > 0;
        let rows_fit = (1..=ROWS_MAX).contains(&s.rows.len())
            && s.rows
                .iter()
                .all(|r| r.totals.len() <= max && r.totals.len() == r.deviations.len())
            && s.rows.iter().skip(1).all(|r| !r.totals.is_empty());
        let held: u64 = (0..)
            .zip(&s.rows)
            .map(|(i, r)| (r.totals.len() as u64) << i)
            .sum();
        if !config_fits || !rows_fit || held as f64 != s.width {
            return Err("the buckets of an adwin window do not add up to its width".to_owned());
        }
        let rows = s.rows.iter().map(|r| {
            let mut row = Row::EMPTY;
            for (t, d) in r.totals.iter().zip(&r.deviations) {
                row.push(*t, *d);
            }
            row
        });
        Ok(Self {
            config: s.config,
            rows: rows.collect(),
            width: s.width,
            total: s.total,
            deviation: s.deviation,
            countdown: s.countdown,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Compat, Kind, Params};
    use super::*;

    fn build(params: &Params) -> Adwin {
        let p = Checked::new(Kind::Adwin, Compat::Native, PARAMETERS, params).unwrap();
        Adwin::build(&p).unwrap()
    }

    proptest! {
        /// Dismissing splits by the cheap bound never changes the answer, whatever the level, scale
        /// and length of the stream and the shape of the window.
        #[test]
        fn dismissal_is_never_wrong(
            us in prop::collection::vec(0.0..1.0_f64, 1..600),
            shift in -3.0..3.0_f64,
            level in prop::sample::select(vec![0.0, 1.0, 1e3, -1e5]),
            delta in prop::sample::select(vec![0.3, 0.002]),
            least in 1_u64..20,
        ) {
            let params = Params::new()
                .with("delta", delta)
                .with("clock", 1)
                .with("min_window_length", least)
                .with("after_drift", "keep");
            let mut adwin = build(&params);
            for (i, u) in us.iter().enumerate() {
                let step = if i > us.len() / 2 { shift } else { 0.0 };
                adwin.insert(level + u + step);
                let all = adwin.some_split_differs(|_, _, _, _, _| false);
                prop_assert_eq!(adwin.some_split_differs(Adwin::certainly_equal), all);
                adwin.search();
            }
        }

        /// The window's mean and variance are those of its last `width` values.
        #[test]
        fn window_is_a_suffix(xs in prop::collection::vec(-1.0..1.0_f64, 1..800), jump in 0_usize..800) {
            let xs: Vec<f64> = (0..).zip(&xs).map(|(i, x)| if i < jump { *x } else { x + 2.0 }).collect();
            let mut adwin = build(&Params::new().with("after_drift", "keep"));
            for (i, x) in xs.iter().enumerate() {
                adwin.update(*x);
                let kept = &xs[i + 1 - adwin.width() as usize..=i];
                let n = kept.len() as f64;
                let mean = kept.iter().sum::<f64>() / n;
                let variance = kept.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
                prop_assert!((adwin.mean().unwrap() - mean).abs() < 1e-9);
                prop_assert!((adwin.variance().unwrap() - variance).abs() < 1e-9);
            }
        }
    }

    /// A million values take 20 rows or fewer: memory grows with the logarithm of the window.
    #[test]
    fn memory_is_logarithmic() {
        let mut adwin = build(&Params::new());
        (0..1_000_000).for_each(|i| {
            adwin.update(f64::from(i % 2));
        });
        assert_eq!(adwin.width(), 1_000_000);
        assert!(adwin.rows.len() <= 20, "{}", adwin.rows.len());
    }

    /// A window whose buckets do not add up is refused.
    #[test]
    fn damaged_state_is_refused() {
        let mut adwin = build(&Params::new());
        (0..100).for_each(|i| {
            adwin.update(f64::from(i));
        });
        let good = serde_json::to_value(&adwin).unwrap();
        let back: Adwin = serde_json::from_value(good.clone()).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), good);
        for (field, value) in [("width", 0), ("countdown", 0)] {
            let mut bad = good.clone();
            bad[field] = value.into();
            assert!(serde_json::from_value::<Adwin>(bad).is_err(), "{field}");
        }
    }
}
