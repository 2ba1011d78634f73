//! The `compat` variants against Evidently 0.7.23 and NannyML 0.13.1, which answered what is written
//! here for data that both sides make from the same formula.

use driftline_drift::compat::{evidently, nannyml, scipy};
use driftline_drift::distance::Pair;
use driftline_drift::hypothesis::{Ties, Variances};
use driftline_drift::sample::Samples;

#[track_caller]
fn close(case: &str, what: &str, got: f64, want: f64) {
    assert!(
        (got - want).abs() <= 1e-9 * want.abs(),
        "{case} {what}: got {got:e}, want {want:e}, off by {:e}",
        (got / want - 1.0).abs()
    );
}

/// 20-bit numbers of a linear congruential generator.
fn draws(seed: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(seed), |s| {
        Some(s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    })
    .skip(1)
    .map(|state| state >> 12)
}

/// Bell-shaped values (sums of four draws) that are exact in binary.
fn bell(seed: u32, rows: usize, shift: f64, scale: f64) -> Vec<f64> {
    let mut draws = draws(seed);
    (0..rows)
        .map(|_| {
            let sum: u32 = draws.by_ref().take(4).sum();
            (f64::from(sum) - f64::from(1 << 21)) * scale / f64::from(1 << 18) + shift
        })
        .collect()
}

/// Whole numbers below `top`.
fn steps(seed: u32, rows: usize, top: u32, shift: f64) -> Vec<f64> {
    draws(seed)
        .take(rows)
        .map(|draw| f64::from(draw % top) + shift)
        .collect()
}

fn outlier() -> (Vec<f64>, Vec<f64>) {
    let mut current = bell(6, 999, 0.0, 1.0);
    current.push(1e6);
    (bell(5, 1000, 0.0, 1.0), current)
}

/// psi, js, kl, hellinger, wasserstein, t p, mann-whitney p, anderson p, cramér-von mises p
const EVIDENTLY: [(&str, [f64; 9]); 5] = [
    (
        "bell",
        [
            0.11354732979470974,
            0.11702718950758156,
            0.06030860807641221,
            0.11970853780478663,
            0.2991108153923172,
            2.217295316343654e-09,
            7.026069607078033e-09,
            0.001,
            5.580609141464521e-08,
        ],
    ),
    (
        "wide",
        [
            2.923902879755341,
            0.43923313813378223,
            0.6582765887223813,
            0.5009557168636875,
            1.6534790540398516,
            0.15820175842298126,
            0.10906238435165982,
            0.001,
            1.1232703656105514e-10,
        ],
    ),
    (
        "outlier",
        [
            0.0020733270840282247,
            0.018619845671121953,
            0.000669500379028584,
            0.022363476083539596,
            452.82222970449254,
            0.3174220648408147,
            0.37591491687628614,
            0.25,
            0.37369864187118584,
        ],
    ),
    (
        "whole",
        [
            0.615542050488832,
            0.2505312720379409,
            0.29233825478830444,
            0.18513442330900606,
            0.4211405204333535,
            6.460819057872087e-08,
            4.928953692462911e-08,
            0.001,
            7.339575140985488e-07,
        ],
    ),
    (
        "few",
        [
            1.3902833099910592,
            0.27435977868301864,
            0.5736660935236113,
            0.12977332071949338,
            0.3306568052503293,
            1.870363413352487e-05,
            2.160480238927604e-05,
            0.001,
            0.00014896520343943287,
        ],
    ),
];

/// Five kinds of numeric column through nine of Evidently's methods.
#[test]
fn evidently_numeric_columns() {
    let data = [
        (bell(1, 2000, 0.0, 1.0), bell(2, 500, 0.5, 1.0)),
        (bell(3, 300, 0.0, 1.0), bell(4, 1000, 0.25, 3.0)),
        outlier(),
        (steps(7, 400, 60, 0.0), steps(8, 300, 60, 5.0)),
        (steps(9, 400, 12, 0.0), steps(10, 300, 12, 1.0)),
    ];
    for ((name, want), (x, y)) in EVIDENTLY.iter().zip(&data) {
        let whole = *name == "whole";
        let shares = evidently::Shares::of_numbers(x, y, whole).unwrap();
        let samples = Samples::new(x, y).unwrap();
        let got = [
            ("psi", shares.psi()),
            ("js", shares.jensen_shannon().unwrap()),
            ("kl", shares.kullback_leibler()),
            ("hellinger", evidently::hellinger(x, y, whole).unwrap()),
            ("wasserstein", evidently::wasserstein(x, y).unwrap()),
            ("t", samples.t_test(Variances::Equal).unwrap().p_value),
            ("mann-whitney", evidently::mann_whitney_p(x, y).unwrap()),
            (
                "anderson",
                samples
                    .anderson_darling(Ties::Midrank)
                    .unwrap()
                    .interpolated_p,
            ),
            (
                "cramér-von mises",
                scipy::cramer_von_mises(samples.pair()).unwrap().p_value,
            ),
        ];
        for ((what, got), want) in got.into_iter().zip(want) {
            close(name, what, got, *want);
        }
    }
}

/// Categories, with some that only one side has, through Evidently's five methods and its G.
#[test]
fn evidently_categories() {
    // reference, current, [psi, js, kl, hellinger, chi-square p], G p
    type Case = (&'static [u64], &'static [u64], [f64; 5], Option<f64>);
    let cases: [Case; 3] = [
        (
            &[50, 30, 20, 0, 400],
            &[10, 0, 5, 3, 85],
            [
                0.5504015219219057,
                0.17664651481504187,
                0.35357283426363656,
                0.21184539004342384,
                0.0,
            ],
            None,
        ),
        (
            &[500, 300, 200],
            &[480, 330, 190],
            [
                0.00418867822841036,
                0.022878711615496313,
                0.002076602196340222,
                0.022880343007475042,
                0.11648415777349701,
            ],
            Some(0.12098653360855584),
        ),
        (
            &[9000, 999, 1],
            &[880, 119, 1],
            [
                0.005863401423164922,
                0.026211302111440352,
                0.0025174263925969026,
                0.026596801300755323,
                0.00224713749292526,
            ],
            None,
        ),
    ];
    for (reference, current, want, g) in cases {
        let name = format!("{reference:?}");
        let shares = evidently::Shares::of_categories(reference, current).unwrap();
        let pair = Pair::new(reference, current).unwrap();
        close(&name, "psi", shares.psi(), want[0]);
        close(&name, "js", shares.jensen_shannon().unwrap(), want[1]);
        close(&name, "kl", shares.kullback_leibler(), want[2]);
        close(&name, "hellinger", pair.hellinger(), want[3]);
        close(
            &name,
            "chi-square",
            evidently::chi_square(pair).p_value,
            want[4],
        );
        match g {
            Some(p) => close(&name, "g", evidently::g_test(pair).unwrap().p_value, p),
            None => assert!(evidently::g_test(pair).is_err()),
        }
    }
}

/// jensen-shannon, hellinger, kolmogorov-smirnov, wasserstein
const NANNYML: [(&str, [f64; 4]); 4] = [
    (
        "bell",
        [
            0.13704269931654434,
            0.11926281779681125,
            0.1305,
            0.6965348014831544,
        ],
    ),
    (
        "wide",
        [
            0.5475531140341904,
            0.5206518319825356,
            0.2846666666666667,
            3.7741292292277024,
        ],
    ),
    (
        "outlier",
        [
            0.07558987117328961,
            0.0698744596233909,
            0.038,
            1000.1299391098031,
        ],
    ),
    (
        "large",
        [
            0.2555264328052961,
            0.22844178520463626,
            0.1176785714285189,
            0.9778557639180373,
        ],
    ),
];

/// Four continuous columns, the last large enough for NannyML to estimate.
#[test]
fn nannyml_continuous_columns() {
    let data = [
        (bell(1, 2000, 0.0, 1.0), bell(2, 500, 0.5, 1.0)),
        (bell(3, 300, 0.0, 1.0), bell(4, 1000, 0.25, 3.0)),
        outlier(),
        (bell(11, 12_000, 0.0, 1.0), bell(12, 700, 0.25, 1.5)),
    ];
    for ((name, want), (x, y)) in NANNYML.iter().zip(&data) {
        let binned = nannyml::Binned::of_numbers(x, y).unwrap();
        close(name, "js", binned.jensen_shannon().unwrap(), want[0]);
        close(name, "hellinger", binned.hellinger().unwrap(), want[1]);
        close(
            name,
            "ks",
            nannyml::kolmogorov_smirnov(x, y).unwrap(),
            want[2],
        );
        close(
            name,
            "wasserstein",
            nannyml::wasserstein(x, y).unwrap(),
            want[3],
        );
    }
}

/// Categories: unseen ones count as one for two distances, and chi-square has Yates' correction.
#[test]
fn nannyml_categories() {
    // reference, current, [js, hellinger, l-infinity, chi-square, p]
    let cases: [(&[u64], &[u64], [f64; 5]); 3] = [
        (
            &[50, 30, 20, 0, 0, 400],
            &[10, 0, 5, 3, 2, 85],
            [
                0.232617714958533,
                0.23241901491700656,
                0.06,
                30.261088201603663,
                1.310204985348905e-05,
            ],
        ),
        (
            &[500, 300],
            &[480, 330],
            [
                0.028203105950665452,
                0.02348191994981745,
                0.03240740740740744,
                1.6412394975994506,
                0.20015548893922802,
            ],
        ),
        (
            &[9000, 999, 1],
            &[880, 119, 1],
            [
                0.0314829823295226,
                0.026596801300757825,
                0.020000000000000018,
                7.7179173335844045,
                0.02108994975733706,
            ],
        ),
    ];
    for (reference, current, want) in cases {
        let name = format!("{reference:?}");
        let binned = nannyml::Binned::of_categories(reference, current).unwrap();
        let pair = Pair::new(reference, current).unwrap();
        close(&name, "js", binned.jensen_shannon().unwrap(), want[0]);
        close(&name, "hellinger", binned.hellinger().unwrap(), want[1]);
        close(&name, "l-infinity", pair.l_infinity(), want[2]);
        let chi = scipy::chi2_contingency(pair);
        close(&name, "chi-square", chi.statistic, want[3]);
        close(&name, "p", chi.p_value, want[4]);
    }
}
