//! Distances and tests against SciPy 1.17 and published examples: `statistics.json`, and the exact
//! cases that its README lists.

use super::shared;
use driftline_drift::compat;
use driftline_drift::distance::{Floor, LogBase, Pair};
use driftline_drift::hypothesis::{
    Alternative, CramerVonMisesMode, Divergence, KsMode, MannWhitneyMode, Ties, Variances,
    anderson_darling_k, contingency, cramer_von_mises_exact_p, independence, kolmogorov_smirnov,
};
use driftline_drift::sample::{
    Samples, Weighted, counts_over_values, energy, epps_singleton, wasserstein,
};
use serde_json::Value;

/// 1e-9 relative; a p-value near the smallest numbers may be off by 1e-6 of itself.
#[track_caller]
fn close(case: &str, what: &str, got: f64, want: f64) {
    let tolerance = if want.abs() < 1e-200 { 1e-6 } else { 1e-9 };
    assert!(
        (got - want).abs() <= tolerance * want.abs(),
        "{case} {what}: got {got:e}, want {want:e}, off by {:e}",
        (got / want - 1.0).abs()
    );
}

/// The same where the exact answer is 0 or 1 and the reference implementation rounds.
#[track_caller]
fn close_or_within(case: &str, what: &str, got: f64, want: f64, absolute: f64) {
    if (got - want).abs() > absolute {
        close(case, what, got, want);
    }
}

fn floats(case: &Value, key: &str) -> Vec<f64> {
    case[key]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_f64().unwrap())
        .collect()
}

fn counts(case: &Value, key: &str) -> Vec<u64> {
    case[key]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| x.as_u64().unwrap())
        .collect()
}

/// Every raw-sample case of the file: seven shapes of data, eleven answers each.
#[test]
fn two_samples_equal_scipy() {
    let Some(file) = shared::json("statistics.json") else {
        return;
    };
    let cases = file["two_samples"].as_array().unwrap();
    assert!(cases.len() >= 7);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let want = |key: &str| case[key].as_f64().unwrap();
        let samples = Samples::new(&floats(case, "x"), &floats(case, "y")).unwrap();
        let check = |key: &str, got: f64| close(name, key, got, want(key));

        let exact = samples.kolmogorov_smirnov(KsMode::Auto).unwrap();
        check("ks_d", exact.statistic);
        check("ks_p_auto", exact.p_value);
        let finite = samples.kolmogorov_smirnov(KsMode::FiniteSample).unwrap();
        check("ks_p_asymptotic", finite.p_value);
        check("wasserstein", samples.wasserstein().unwrap());
        check("energy", samples.energy().unwrap());
        let ranks = samples
            .mann_whitney(Alternative::TwoSided, MannWhitneyMode::Auto)
            .unwrap();
        check("mann_whitney_u", ranks.u);
        check("mann_whitney_p", ranks.p_value);
        let welch = samples.t_test(Variances::Unequal).unwrap();
        check("welch_t", welch.t);
        check("welch_p", welch.p_value);
        let cvm = compat::scipy::cramer_von_mises(samples.pair()).unwrap();
        check("cramer_von_mises", cvm.statistic);
        check("cramer_von_mises_p", cvm.p_value);
        // Natively the tail is right where SciPy's series ends: equal above it, not larger below it.
        let native = samples.cramer_von_mises(CramerVonMisesMode::Auto).unwrap();
        close_or_within(
            name,
            "native",
            native.p_value,
            want("cramer_von_mises_p"),
            1e-9,
        );
    }
}

/// Every binned case of the file: six pairs of histograms, thirteen answers each.
#[test]
fn binned_cases_agree() {
    let Some(file) = shared::json("statistics.json") else {
        return;
    };
    let cases = file["binned"].as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let (reference, current) = (counts(case, "reference"), counts(case, "current"));
        let pair = Pair::new(&reference, &current).unwrap();
        let check = |key: &str, got: f64| close(name, key, got, case[key].as_f64().unwrap());

        check("psi_floor_1e4", pair.psi(Floor::AtLeast(1e-4)).unwrap());
        check("js_distance_base2", pair.jensen_shannon(LogBase::Two));
        check("js_distance_natural", pair.jensen_shannon(LogBase::Natural));
        check("hellinger", pair.hellinger());
        check("total_variation", pair.total_variation());
        check("l_infinity", pair.l_infinity());
        let chi = contingency(pair, Divergence::Pearson);
        check("chi2", chi.statistic);
        assert_eq!(chi.degrees, case["chi2_dof"].as_u64().unwrap());
        check("chi2_p", chi.p_value);
        let g = contingency(pair, Divergence::LikelihoodRatio);
        check("g_test", g.statistic);
        check("g_test_p", g.p_value);
        let ks = kolmogorov_smirnov(pair, KsMode::Limit).unwrap();
        check("ks_d_at_edges", ks.statistic);
        check("ks_p_kolmogorov_limit", ks.p_value);
    }
}

/// Two published Kolmogorov-Smirnov cases, the second with ties.
#[test]
fn kolmogorov_smirnov_exact_cases() {
    let line = |count: u32, shift: f64| -> Vec<f64> {
        (0..count)
            .map(|i| 1.0 + 99.0 * f64::from(i) / f64::from(count - 1) + shift)
            .collect()
    };
    let samples = Samples::new(&line(100, 0.0), &line(110, 20.1)).unwrap();
    let test = samples.kolmogorov_smirnov(KsMode::Auto).unwrap();
    assert_eq!(test.statistic, 232.0 / 1100.0);
    close("linspace", "p", test.p_value, 0.015739183865607353);

    let tied: Vec<f64> = [(2.0, 3), (3.0, 4), (5.0, 5), (6.0, 4)]
        .iter()
        .flat_map(|&(value, times)| std::iter::repeat_n(value, times))
        .collect();
    let moved: Vec<f64> = tied.iter().map(|value| value + 1.0).collect();
    let test = Samples::new(&tied, &moved)
        .unwrap()
        .kolmogorov_smirnov(KsMode::Auto)
        .unwrap();
    assert_eq!(test.statistic, 5.0 / 16.0);
    close("ties", "p", test.p_value, 0.4262934613454952);
}

#[test]
fn weighted_distances_exact_cases() {
    let a = Weighted::new(&[4.5, 6.7, 2.1], &[3.0, 1.0, 1.0]).unwrap();
    let b = Weighted::new(&[4.6, 7.0, 9.2], &[1.0, 3.0, 1.0]).unwrap();
    close("weights", "wasserstein", wasserstein(a, b).unwrap(), 2.5);
    let (zero, one) = (Weighted::equal(&[0.0]), Weighted::equal(&[1.0]));
    close("points", "energy", energy(zero, one).unwrap(), 2f64.sqrt());
}

/// The three-way table of R's documentation: mutual independence of all axes.
#[test]
fn three_way_table() {
    let table = [
        12, 34, 23, 35, 31, 11, 12, 32, 9, 12, 12, 14, //
        4, 47, 11, 34, 10, 18, 18, 13, 19, 9, 33, 25,
    ];
    let test = independence(&table, &[2, 4, 3], Divergence::Pearson).unwrap();
    assert_eq!(test.degrees, 17);
    assert!((test.statistic - 102.17).abs() < 0.005, "{test:?}");
    assert!((test.p_value / 3.514e-14 - 1.0).abs() < 2e-4, "{test:?}");
}

#[test]
fn cramer_von_mises_exact_cases() {
    assert_eq!(
        cramer_von_mises_exact_p(12 * 710, 5, 6).unwrap(),
        48.0 / 462.0
    );
    assert_eq!(
        cramer_von_mises_exact_p(12 * 1764, 6, 7).unwrap(),
        2.0 / 1716.0
    );
}

/// The first example of Goerg and Kaiser (2009); their quartiles are formed differently, hence the
/// tolerance. SciPy's own digits follow.
#[test]
fn epps_singleton_exact_case() {
    let x = [
        -0.35, 2.55, 1.73, 0.73, 0.35, 2.69, 0.46, -0.94, -0.37, 12.07,
    ];
    let y = [-1.15, -0.15, 2.48, 3.25, 3.71, 4.29, 5.00, 7.74, 8.38, 8.60];
    let test = epps_singleton(&x, &y).unwrap();
    assert!((test.statistic - 15.14).abs() < 0.03 && (test.p_value - 0.00442).abs() < 1e-4);
    close("epps-singleton", "w", test.statistic, EPPS_W);
    close("epps-singleton", "p", test.p_value, EPPS_P);
}
const EPPS_W: f64 = 15.163072195549805;
const EPPS_P: f64 = 0.004374674473820456;

/// Scholz and Stephens' four laboratories, without and with mid-ranks; SciPy's digits follow.
#[test]
fn anderson_darling_exact_cases() {
    let laboratories: [&[f64]; 4] = [
        &[38.7, 41.5, 43.8, 44.5, 45.5, 46.0, 47.7, 58.0],
        &[39.2, 39.3, 39.7, 41.4, 41.8, 42.9, 43.3, 45.8],
        &[34.0, 35.0, 39.0, 40.0, 43.0, 43.0, 44.0, 45.0],
        &[34.0, 34.8, 34.8, 35.4, 37.2, 37.8, 41.2, 42.8],
    ];
    let table = counts_over_values(&laboratories).unwrap();
    let rows: Vec<&[u64]> = table.iter().map(Vec::as_slice).collect();
    for (ties, published, scipy) in [
        (Ties::Right, 4.449, ANDERSON_RIGHT),
        (Ties::Midrank, 4.480, ANDERSON_MIDRANK),
    ] {
        let test = anderson_darling_k(&rows, ties).unwrap();
        assert!((test.statistic - published).abs() < 5e-4, "{test:?}");
        close("anderson-darling", "statistic", test.statistic, scipy.0);
        close("anderson-darling", "p", test.interpolated_p, scipy.1);
    }
}
const ANDERSON_RIGHT: (f64, f64) = (4.449262232403134, 0.002311750079827184);
const ANDERSON_MIDRANK: (f64, f64) = (4.479780627135335, 0.002225442310933593);

/// PSI on reference deciles with infinite ends, of NumPy's generator with seed 1: N(0, 1) × 10,000, then
/// N(0.5, 1) × 1,000. This definition adds 1e-10 inside the logarithm.
#[test]
fn psi_on_reference_deciles() {
    let mut generator = NumpyNormal::new(1);
    let mut reference: Vec<f64> = (0..10_000).map(|_| generator.next()).collect();
    let current: Vec<f64> = (0..1_000).map(|_| 0.5 + generator.next()).collect();
    reference.sort_by(f64::total_cmp);
    let edges = compat::numpy::quantile_edges(&reference, 10);
    let count = |values: &[f64]| compat::numpy::histogram(values, &edges);
    let (r, c) = (count(&reference), count(&current));
    let psi = Pair::new(&r, &c).unwrap().psi(Floor::Plus(1e-10)).unwrap();
    close("deciles", "psi", psi, 0.2622182835738309);
}

/// NumPy's legacy `seed` and `normal`: the Mersenne twister MT19937 and Marsaglia's polar method.
struct NumpyNormal {
    state: [u32; 624],
    next: usize,
    spare: Option<f64>,
}

impl NumpyNormal {
    fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            let before: u32 = state[i - 1];
            state[i] = 1_812_433_253_u32
                .wrapping_mul(before ^ (before >> 30))
                .wrapping_add(i as u32);
        }
        Self {
            state,
            next: 624,
            spare: None,
        }
    }

    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let mixed =
                    (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (mixed >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    fn uniform(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    fn next(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let factor = (-2.0 * square.ln() / square).sqrt();
                self.spare = Some(factor * x);
                return factor * y;
            }
        }
    }
}
