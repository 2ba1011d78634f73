//! Detectors fire where river and MOA fire, value for value.

use driftline_drift::detector::{AnyDetector, Compat, Detector, Kind, Params, Verdict};
use serde_json::Value;

use super::shared;

/// Positions of drift and of warning over a stream.
fn positions(detector: &mut AnyDetector, stream: &[f64]) -> (Vec<u64>, Vec<u64>) {
    let (mut drift, mut warning) = (Vec::new(), Vec::new());
    detector.update_all(stream, |i, verdict| match verdict {
        Verdict::Drift => drift.push(i as u64),
        Verdict::Warning => warning.push(i as u64),
        Verdict::Stable => {}
    });
    (drift, warning)
}

fn stream(name: &str) -> Option<Vec<f64>> {
    let lines = shared::lines(&format!("stream_{name}.csv.gz"))?;
    Some(lines.iter().map(|l| l.trim().parse().unwrap()).collect())
}

fn indices(list: &Value) -> Vec<u64> {
    let list = list.as_array().unwrap();
    list.iter().map(|v| v.as_u64().unwrap()).collect()
}

/// Every recorded case of river 0.26.1, by its own parameters, in our native definition and in
/// river's: the same positions of drift and of warning. river may leave its warning flag up on the
/// value that is drift; a verdict is one of the two.
#[test]
fn river_positions() {
    let Some(file) = shared::json("detectors.json") else {
        return;
    };
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 81, "only {} cases", cases.len());
    for case in cases {
        let name = case["detector"].as_str().unwrap();
        let on = case["stream"].as_str().unwrap();
        let params: Params = case["params"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().map_or(v.to_string(), str::to_owned)))
            .collect();
        let expected = indices(&case["drift"]);
        let mut warned = indices(&case["warning"]);
        warned.retain(|i| !expected.contains(i));
        let values = stream(on).unwrap();
        for compat in [Compat::Native, Compat::River] {
            let kind: Kind = name.parse().unwrap();
            let mut detector = kind.build(compat, &params).unwrap();
            let (drift, warning) = positions(&mut detector, &values);
            assert_eq!(
                drift, expected,
                "drift of {compat} {name} on {on}, {params:?}"
            );
            assert_eq!(
                warning, warned,
                "warnings of {compat} {name} on {on}, {params:?}"
            );
        }
    }
}

/// Every position at which MOA's own classes fire, for each detector that MOA has.
#[test]
fn moa_positions() {
    let golden = include_str!("../golden/moa_positions.txt");
    for line in golden.lines().filter(|l| !l.starts_with('#')) {
        let fields: Vec<_> = line.split(';').collect();
        let [name, on, options, drifts, warnings, sum] = fields[..] else {
            panic!("not a line of ours: {line}");
        };
        let Some(values) = stream(on) else { return };
        let params: Params = options
            .split_terminator(',')
            .filter_map(|o| o.split_once('='))
            .collect();
        let kind: Kind = name.parse().unwrap();
        let mut detector = kind.build(Compat::Moa, &params).unwrap();
        let (drift, warning) = positions(&mut detector, &values);
        let expected: Vec<u64> = drifts
            .split_terminator(',')
            .map(|d| d.parse().unwrap())
            .collect();
        assert_eq!(drift, expected, "drift of moa {name} on {on}, {options}");
        assert_eq!(
            (
                warning.len().to_string(),
                warning.iter().sum::<u64>().to_string()
            ),
            (warnings.to_owned(), sum.to_owned()),
            "warnings of moa {name} on {on}, {options}"
        );
    }
}

/// Positions on stream s3 that other implementations' tests hold, in our native definitions.
#[test]
fn native_positions_on_s3() {
    let Some(values) = stream("s3") else { return };
    for (name, expected) in [
        ("cusum", vec![588, 1692]),
        ("stepd", vec![512, 1003, 1515]),
        ("seed", vec![543, 1023, 1535]),
        ("rddm", vec![516, 1573]),
    ] {
        let kind: Kind = name.parse().unwrap();
        let mut detector = kind.build(Compat::Native, &Params::new()).unwrap();
        assert_eq!(positions(&mut detector, &values).0, expected, "{name}");
    }
}

/// KSWIN draws at random, so its alarm on s1 (0 and 1, then 4 to 7 from 1000 on) is soon after the
/// change for any seed, and before it there is none.
#[test]
fn kswin_on_s1() {
    let Some(values) = stream("s1") else { return };
    for seed in 0..20 {
        let params = Params::new()
            .with("alpha", 1e-4)
            .with("window_size", 200)
            .with("stat_size", 100)
            .with("seed", seed);
        let mut detector = Kind::Kswin.build(Compat::River, &params).unwrap();
        let first = values
            .iter()
            .position(|x| detector.update(*x) == Verdict::Drift);
        let at = first.expect("no alarm");
        assert!((1010..1060).contains(&at), "seed {seed}: {at}");
    }
}

/// What the paper keeps after an alarm can be asked for: ADWIN on s1 fires again with the part of
/// the old window that its first cut left.
#[test]
fn adwin_keeps_on_request() {
    let Some(values) = stream("s1") else { return };
    let keep = Params::new().with("after_drift", "keep");
    let mut detector = Kind::Adwin.build(Compat::Native, &keep).unwrap();
    assert_eq!(positions(&mut detector, &values).0[0], 1023);
}
