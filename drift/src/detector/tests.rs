//! Laws that hold for every detector.

use proptest::prelude::*;

use super::*;

fn default(kind: Kind) -> AnyDetector {
    kind.build(Compat::Native, &Params::new()).unwrap()
}

fn text(detector: &AnyDetector) -> String {
    serde_json::to_string(detector).unwrap()
}

/// Every pair of detector and definition that exists.
fn all() -> Vec<(Kind, Compat)> {
    let compats = [Compat::Native, Compat::River, Compat::Moa];
    let pairs = Kind::ALL
        .into_iter()
        .flat_map(|k| compats.map(|c| (k, c)))
        .filter(|(k, c)| k.parameters(*c).is_ok());
    pairs.collect()
}

/// Values around two levels, so that detectors warn, fire and start afresh; now and then something
/// that is no number.
fn stream() -> impl Strategy<Value = Vec<f64>> {
    let segment = (0..1000_u32, 0.02..0.98_f64, any::<bool>()).prop_flat_map(|(n, p, real)| {
        prop::collection::vec(0.0..1.0_f64, n as usize..=n as usize).prop_map(move |us| {
            us.iter()
                .map(|u| match u {
                    u if *u > 0.999 => f64::NAN,
                    u if real => u * p + p,
                    u => f64::from(u8::from(*u < p)),
                })
                .collect::<Vec<_>>()
        })
    });
    prop::collection::vec(segment, 1..4).prop_map(|s| s.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A detector written and read back at any point, in the middle of any state, gives the same
    /// verdicts as one that was not, and ends in the same state, bit for bit.
    #[test]
    fn restored_goes_on_alike(xs in stream(), at in any::<prop::sample::Index>()) {
        let cut = at.index(xs.len() + 1);
        for (kind, compat) in all() {
            let mut whole = kind.build(compat, &Params::new()).unwrap();
            xs[..cut].iter().for_each(|x| { whole.update(*x); });
            let mut restored: AnyDetector = serde_json::from_str(&text(&whole)).unwrap();
            for x in &xs[cut..] {
                prop_assert_eq!(whole.update(*x), restored.update(*x), "{} {}", compat, kind);
            }
            prop_assert_eq!(text(&whole), text(&restored), "{} {}", compat, kind);
        }
    }

    /// A reset detector is a new one.
    #[test]
    fn reset_is_new(xs in stream()) {
        for (kind, compat) in all() {
            let fresh = kind.build(compat, &Params::new()).unwrap();
            let mut used = fresh.clone();
            xs.iter().for_each(|x| { used.update(*x); });
            used.reset();
            prop_assert_eq!(text(&used), text(&fresh), "{} {}", compat, kind);
        }
    }

    /// Values that are not finite change nothing, wherever they come.
    #[test]
    fn skips_what_is_no_number(xs in stream(), bad in prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY])) {
        for kind in Kind::ALL {
            let mut detector = default(kind);
            xs.iter().for_each(|x| { detector.update(*x); });
            let before = text(&detector);
            prop_assert_eq!(detector.update(bad), Verdict::Stable);
            prop_assert_eq!(text(&detector), before, "{}", kind);
        }
    }

    /// Many values at once and one by one are the same.
    #[test]
    fn update_all_is_update(xs in stream()) {
        for kind in Kind::ALL {
            let (mut one, mut many) = (default(kind), default(kind));
            let mut singly = Vec::new();
            for (i, x) in xs.iter().enumerate() {
                let verdict = one.update(*x);
                if verdict != Verdict::Stable {
                    singly.push((i, verdict));
                }
            }
            let mut at_once = Vec::new();
            many.update_all(&xs, |i, verdict| at_once.push((i, verdict)));
            prop_assert_eq!(singly, at_once);
        }
    }
}

/// Defaults are inside of their own domains, so writing one out changes nothing.
#[test]
fn every_detector_builds_with_defaults() {
    for (kind, compat) in all() {
        let schema = kind.parameters(compat).unwrap();
        let written: Params = schema.iter().map(|p| (p.name, p.default)).collect();
        let explicit = kind.build(compat, &written).unwrap();
        let implicit = kind.build(compat, &Params::new()).unwrap();
        assert_eq!(text(&explicit), text(&implicit), "{compat} {kind}");
        assert_eq!(implicit.kind(), kind);
    }
}

/// Every detector at its defaults finds an error rate that goes from 5 % to 60 % within 120 values,
/// and fires at most five times in the 1,000 values before. (Page-Hinkley and CUSUM get a lower
/// threshold: at their default of 50 the deviation has to cumulate for 90 values by arithmetic alone.
/// BOCPD is told that values are 0 and 1. ECDD is built to fire every 400 values.)
#[test]
fn finds_a_rising_error_rate() {
    let error = |i: u64| {
        let mut z = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % 1000) < if i < 1000 { 50 } else { 600 }
    };
    for kind in Kind::ALL {
        let params = match kind {
            Kind::PageHinkley | Kind::Cusum => Params::new().with("threshold", 20),
            Kind::Eddm => Params::new().with("alpha", 0.8).with("beta", 0.75),
            Kind::Bocpd => Params::new().with("model", "bernoulli"),
            _ => Params::new(),
        };
        let mut detector = kind.build(Compat::Native, &params).unwrap();
        let mut fired = Vec::new();
        for i in 0..1120 {
            let wrong = error(i);
            // FHDDM watches what was right.
            let x = if kind == Kind::Fhddm { !wrong } else { wrong };
            if detector.update(f64::from(u8::from(x))) == Verdict::Drift {
                fired.push(i);
            }
        }
        let before = fired.iter().filter(|i| **i < 1000).count();
        assert!(
            before <= 5 && before < fired.len(),
            "{kind} fired at {fired:?}"
        );
    }
}

/// Each mistake in the parameters is named, with what would do.
#[test]
fn errors_name_the_parameter() {
    let build = |kind: Kind, name: &str, value: &str| {
        let params = Params::new().with(name, value);
        kind.build(Compat::Native, &params).unwrap_err().to_string()
    };
    let unknown = build(Kind::Adwin, "detla", "0.1");
    assert!(
        unknown.contains("detla") && unknown.contains("delta, clock"),
        "{unknown}"
    );
    let range = build(Kind::Adwin, "delta", "1.5");
    assert!(
        range.contains("delta") && range.contains("between 0 and 1"),
        "{range}"
    );
    let word = build(Kind::PageHinkley, "mode", "sideways");
    assert!(word.contains("up, down, both"), "{word}");
    let whole = build(Kind::Kswin, "window_size", "10.5");
    assert!(whole.contains("whole number"), "{whole}");
    let pair = build(Kind::Eddm, "beta", "0.97");
    assert!(
        pair.contains("alpha") && pair.contains("at least beta"),
        "{pair}"
    );
    let twice = Params::new().with("delta", 0.1).with("delta", 0.2);
    assert!(matches!(
        Kind::Adwin.build(Compat::Native, &twice),
        Err(DetectorError::DuplicateParameter { .. })
    ));
    assert!(matches!(
        Kind::Rddm.build(Compat::River, &Params::new()),
        Err(DetectorError::NotInCompat { .. })
    ));
    assert!(
        "adwim"
            .parse::<Kind>()
            .unwrap_err()
            .to_string()
            .contains("adwin, page_hinkley")
    );
    assert!(
        Kind::Adwin
            .build(Compat::Native, &Params::new().with("clock", 16.0))
            .is_ok()
    );
}

/// Names and serde names of detectors are one.
#[test]
fn names_round_trip() {
    for kind in Kind::ALL {
        assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
        let json = serde_json::to_string(&kind).unwrap();
        assert_eq!(json, format!("{:?}", kind.name()));
    }
}
