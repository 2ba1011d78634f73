//! Laws that hold for every pair of histograms, over random ones.

use super::{Floor, LogBase, Pair, Placement};
use proptest::prelude::*;

/// Histograms of the same 1 to 40 bins, each with at least one row, some bins empty.
fn histograms() -> impl Strategy<Value = (Vec<u64>, Vec<u64>)> {
    let count = prop_oneof![2 => Just(0_u64), 5 => 0_u64..50, 2 => 0_u64..5_000_000];
    prop::collection::vec((count.clone(), count), 1..40)
        .prop_map(|rows| rows.into_iter().unzip::<u64, u64, Vec<u64>, Vec<u64>>())
        .prop_filter("rows on both sides", |(r, c)| {
            r.iter().any(|&x| x > 0) && c.iter().any(|&x| x > 0)
        })
}

/// Every distance of a pair, with bins one unit apart.
fn all(pair: Pair<'_>) -> Vec<(&'static str, f64)> {
    let points: Vec<f64> = (0..pair.bins()).map(|i| i as f64).collect();
    let edges: Vec<f64> = (0..=pair.bins()).map(|i| i as f64).collect();
    let (at, between) = (Placement::Points(&points), Placement::Edges(&edges));
    vec![
        ("psi", pair.psi(Floor::NATIVE).unwrap()),
        ("psi zero", pair.psi(Floor::ZeroBecomes(1e-4)).unwrap()),
        ("psi plus", pair.psi(Floor::Plus(1e-10)).unwrap()),
        ("js2", pair.jensen_shannon(LogBase::Two)),
        ("js", pair.jensen_shannon(LogBase::Natural)),
        ("hellinger", pair.hellinger()),
        ("tv", pair.total_variation()),
        ("linf", pair.l_infinity()),
        ("ks", pair.kolmogorov_smirnov().d),
        ("wasserstein", pair.wasserstein(at).unwrap()),
        ("wasserstein even", pair.wasserstein(between).unwrap()),
        ("energy", pair.energy(at).unwrap()),
        ("energy even", pair.energy(between).unwrap()),
    ]
}

proptest! {
    /// Distances are finite, not negative, and the bounded ones keep their bounds.
    #[test]
    fn ranges_hold((r, c) in histograms()) {
        let pair = Pair::new(&r, &c).unwrap();
        for (name, value) in all(pair) {
            prop_assert!(value.is_finite() && value >= 0.0, "{} {}", name, value);
            if ["js2", "hellinger", "tv", "linf", "ks"].contains(&name) {
                prop_assert!(value <= 1.0, "{} {}", name, value);
            }
            if name == "js" {
                prop_assert!(value <= std::f64::consts::LN_2.sqrt());
            }
        }
        for floor in [None, Some(Floor::NATIVE)] {
            prop_assert!(pair.kullback_leibler(floor).unwrap() >= 0.0);
        }
    }

    /// All but Kullback-Leibler are symmetric, to the last bit or two.
    #[test]
    fn symmetry_holds((r, c) in histograms()) {
        let pair = Pair::new(&r, &c).unwrap();
        for ((name, forth), (_, back)) in all(pair).into_iter().zip(all(pair.swapped())) {
            prop_assert!((forth - back).abs() <= 1e-13 * forth, "{} {} {}", name, forth, back);
        }
    }

    /// A distribution is at distance exactly 0 from itself, whatever the two row counts are.
    #[test]
    fn equal_distributions_are_at_zero((r, _) in histograms(), factor in 1_u64..1000) {
        let scaled: Vec<u64> = r.iter().map(|x| x * factor).collect();
        let pair = Pair::new(&r, &scaled).unwrap();
        for (name, value) in all(pair) {
            prop_assert!(value == 0.0, "{} {}", name, value);
        }
        prop_assert_eq!(pair.kullback_leibler(None).unwrap(), 0.0);
    }

    /// More rows with the same shares change no distance.
    #[test]
    fn scaling_counts_changes_nothing((r, c) in histograms(), factor in 1_u64..1000) {
        let scaled: Vec<u64> = r.iter().map(|x| x * factor).collect();
        let (a, b) = (all(Pair::new(&r, &c).unwrap()), all(Pair::new(&scaled, &c).unwrap()));
        for ((name, one), (_, other)) in a.into_iter().zip(b) {
            prop_assert!((one - other).abs() <= 1e-14 * one, "{} {} {}", name, one, other);
        }
    }

    /// Inequalities between distances: Hellinger² ≤ TV ≤ √2 Hellinger, L∞ ≤ TV, KS ≤ TV,
    /// Pinsker's TV² ≤ KL/2, and Wasserstein on unit bins is at least TV and at most TV times the span.
    #[test]
    fn known_inequalities_hold((r, c) in histograms()) {
        let pair = Pair::new(&r, &c).unwrap();
        let slack = 1.0 + 1e-12;
        let (tv, h) = (pair.total_variation(), pair.hellinger());
        prop_assert!(h * h <= tv * slack && tv <= 2f64.sqrt() * h * slack);
        prop_assert!(pair.l_infinity() <= tv * slack);
        prop_assert!(pair.kolmogorov_smirnov().d <= tv * slack);
        prop_assert!(2.0 * tv * tv <= pair.kullback_leibler(None).unwrap() * slack);
        let points: Vec<f64> = (0..pair.bins()).map(|i| i as f64).collect();
        let w = pair.wasserstein(Placement::Points(&points)).unwrap();
        prop_assert!(tv <= w * slack && w <= tv * (pair.bins() - 1) as f64 * slack);
    }

    /// Merging two neighbouring bins never increases a distance between shares (data processing).
    #[test]
    fn coarser_bins_are_never_farther((r, c) in histograms()) {
        let merge = |x: &[u64]| x.chunks(2).map(|pair| pair.iter().sum()).collect::<Vec<u64>>();
        let (coarse_r, coarse_c) = (merge(&r), merge(&c));
        let fine = Pair::new(&r, &c).unwrap();
        let coarse = Pair::new(&coarse_r, &coarse_c).unwrap();
        let slack = 1.0 + 1e-12;
        prop_assert!(coarse.total_variation() <= fine.total_variation() * slack);
        prop_assert!(coarse.hellinger() <= fine.hellinger() * slack);
        prop_assert!(coarse.jensen_shannon(LogBase::Two) <= fine.jensen_shannon(LogBase::Two) * slack);
        prop_assert!(coarse.kolmogorov_smirnov().d <= fine.kolmogorov_smirnov().d * slack);
    }
}
