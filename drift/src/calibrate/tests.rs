//! What is learned is what was put in, p-values are what they say, and little changes nothing.

use driftline_schemas::bundle::{FeatureType, Signal};
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::profile::binning::quantile_edges;
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{Binner, DeviceSample, Layout, Profile, Reference, SignalLayout};

use super::worth::{Variance, variance};
use super::*;

const DEVICES: u64 = 40;
const WINDOWS: i64 = 24 * 14;
const ROWS: usize = 20;

/// SplitMix64 and a sum of uniforms' better: the polar method.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        loop {
            let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                return u * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }
}

/// A number in hundredths with 15 edges, and right or wrong.
fn layout() -> Layout {
    let number = Signal {
        name: "temp".into(),
        role: SignalRole::Input,
        kind: FeatureType::Numeric {
            resolution: 0.01,
            unit: "°C".into(),
            range: None,
        },
    };
    let error = Signal {
        name: "error".into(),
        role: SignalRole::Error,
        kind: FeatureType::Categorical {
            categories: vec!["right".into(), "wrong".into()],
        },
    };
    let edges = (-7..=7).map(|edge| edge * 25).collect();
    Layout::new(vec![
        SignalLayout {
            signal: number,
            edges,
        },
        SignalLayout {
            signal: error,
            edges: Vec::new(),
        },
    ])
    .unwrap()
}

/// Standard deviations of the parts.
#[derive(Clone, Copy)]
struct Parts {
    device: f64,
    shared: f64,
    own: f64,
    row: f64,
}

const PARTS: Parts = Parts {
    device: 0.3,
    shared: 0.15,
    own: 0.25,
    row: 0.9,
};

/// Profiles of every (window, device).
fn estate(random: &mut Random, parts: Parts, shift: f64, windows: i64) -> Vec<(i64, u64, Profile)> {
    let layout = layout();
    let binner = Binner::new(&layout.signals()[0].edges);
    let devices: Vec<f64> = (0..DEVICES)
        .map(|_| parts.device * random.normal())
        .collect();
    let mut all = Vec::new();
    for window in 0..windows {
        let shared = parts.shared * random.normal();
        for (device, nature) in devices.iter().enumerate() {
            let own = parts.own * random.normal();
            let mut profile = Profile::empty(&layout);
            for _ in 0..ROWS {
                let value = nature + shared + own + shift + parts.row * random.normal();
                let quantised = (value * 100.0).round() as i32;
                profile.signals[0].count(&layout.signals()[0], &binner, Some(quantised));
                let wrong = i32::from(random.uniform() < 0.1);
                profile.signals[1].count(&layout.signals()[1], &binner, Some(wrong));
            }
            profile.rows = ROWS as u64;
            profile.devices.add(device as u64 + 1, ROWS as u64);
            all.push((window * HOUR_US, device as u64 + 1, profile));
        }
    }
    all
}

fn reference(all: &[(i64, u64, Profile)]) -> Reference {
    let layout = layout();
    let mut slot = Profile::empty(&layout);
    all.iter()
        .for_each(|(_, _, profile)| slot.merge(profile).unwrap());
    Reference {
        made_from: "test".into(),
        layout,
        season: Season::None,
        slots: vec![slot],
    }
}

fn learned(random: &mut Random) -> (Reference, Calibration) {
    let all = estate(random, PARTS, 0.0, WINDOWS);
    let reference = reference(&all);
    let mut learner = Learner::new(&reference).unwrap();
    for (start, device, profile) in &all {
        learner.add(*start, *device, profile).unwrap();
    }
    (reference, learner.finish())
}

/// The variance components come back, in units of the whole's standard deviation, within what two
/// weeks of forty devices tell.
#[test]
fn components_come_back() {
    let (_, calibration) = learned(&mut Random(7));
    let score = &calibration.signals[0].scores[0];
    assert_eq!(score.kind, ScoreKind::Location);
    let Parts {
        device,
        shared,
        own,
        row,
    } = PARTS;
    let total = device * device + shared * shared + own * own + row * row;
    let near = |found: f64, put_in: f64, by: f64| {
        let expected = put_in * put_in / total;
        assert!(
            (found - expected).abs() < by * expected,
            "found {found:.4}, put in {expected:.4}"
        );
    };
    // Forty devices: a relative standard error of √(2/39).
    near(score.device.variance, device, 0.6);
    near(score.spans[0].shared.variance, shared, 0.35);
    near(score.spans[0].own.variance, own, 0.2);
    near(score.row_variance, row, 0.1);
    // Nothing lasts here, so means over eight windows have an eighth of the variance.
    assert_eq!(score.spans[3].windows, 8);
    assert!(score.spans[3].own.variance < 0.3 * score.spans[0].own.variance);
    assert!(calibration.notes.is_empty(), "{:?}", calibration.notes);
}

/// Cohorts of four new devices against the reference: p-values below 0.05 and 0.001 come as often
/// as they say or less, and never below a millionth in two thousand tries.
#[test]
fn p_values_hold_for_few_devices() {
    let mut random = Random(11);
    let (reference, calibration) = learned(&mut random);
    let expected = reference.total().unwrap();
    let layout = layout();
    let tries = 2_000;
    let (mut below_5, mut below_01) = (0, 0);
    let mut least = 1.0_f64;
    for _ in 0..tries / 10 {
        let all = estate(&mut random, PARTS, 0.0, 1);
        for four in all.chunks(4) {
            let mut current = Profile::empty(&layout);
            for (at, (_, _, profile)) in four.iter().enumerate() {
                let mut profile = profile.clone();
                // New devices, that the reference does not know.
                profile.devices = Default::default();
                profile.devices.add(1_000_000 + at as u64, ROWS as u64);
                current.merge(&profile).unwrap();
            }
            let found = judge(&calibration, 0, &expected, &current, 1.0)
                .unwrap()
                .unwrap();
            below_5 += u32::from(found.p_value < 0.05);
            below_01 += u32::from(found.p_value < 0.001);
            least = least.min(found.p_value);
        }
    }
    // Binomial bounds at four standard errors.
    assert!(below_5 <= 140, "{below_5} of {tries} below 0.05");
    assert!(below_01 <= 8, "{below_01} of {tries} below 0.001");
    assert!(least > 1e-6, "{least:e}");
}

/// A shift of 0.9 standard deviations at four devices is sure, and its size is right.
#[test]
fn a_shift_is_seen_and_measured() {
    let mut random = Random(5);
    let (reference, calibration) = learned(&mut random);
    let expected = reference.total().unwrap();
    let parts = Parts {
        device: 0.05,
        ..PARTS
    };
    let mut current = Profile::empty(&layout());
    for (_, _, profile) in estate(&mut random, parts, 0.9, 1) {
        current.merge(&profile).unwrap();
    }
    let found = judge(&calibration, 0, &expected, &current, 1.0)
        .unwrap()
        .unwrap();
    assert!(found.p_value < 1e-4 && found.matters, "{found:?}");
    assert_eq!(found.score, ScoreKind::Location);
    assert!((found.effect.value - 0.9).abs() < 0.4, "{found:?}");
    // Errors are as they were, and are judged one-sided.
    let errors = judge(&calibration, 1, &expected, &current, 1.0)
        .unwrap()
        .unwrap();
    assert!(errors.p_value > 0.01, "{errors:?}");
}

/// One garbage value in a thousand changes no verdict.
#[test]
fn garbage_changes_nothing() {
    let mut random = Random(3);
    let (reference, calibration) = learned(&mut random);
    let expected = reference.total().unwrap();
    let mut clean = Profile::empty(&layout());
    for (_, _, profile) in estate(&mut random, PARTS, 0.0, 2) {
        clean.merge(&profile).unwrap();
    }
    let mut dirty = clean.clone();
    let binner = Binner::new(&layout().signals()[0].edges);
    for _ in 0..clean.rows / 1_000 + 1 {
        dirty.signals[0].count(&layout().signals()[0], &binner, Some(100_000_000));
    }
    let judged = |profile: &Profile| {
        judge(&calibration, 0, &expected, profile, 2.0)
            .unwrap()
            .unwrap()
    };
    let (before, after) = (judged(&clean), judged(&dirty));
    assert!((before.effect.value - after.effect.value).abs() < 0.01);
    assert!(after.p_value > 0.01, "{after:?}");
}

/// A reference of one device says how that device's windows differ, so a shift of it is seen within a day; of
/// another device the same is not sure, since devices differ by nature, and the notes say so.
#[test]
fn one_device_is_held_against_its_own_past() {
    let mut random = Random(11);
    let alike = Parts {
        device: 0.0,
        ..PARTS
    };
    let mut of_one = |shift: f64, windows: i64| -> Vec<(i64, u64, Profile)> {
        let all = estate(&mut random, alike, shift, windows);
        all.into_iter()
            .filter(|(_, device, _)| *device == 1)
            .collect()
    };
    let past = of_one(0.0, WINDOWS);
    let mut learner = Learner::new(&reference(&past)).unwrap();
    for (start, device, profile) in &past {
        learner.add(*start, *device, profile).unwrap();
    }
    let calibration = learner.finish();
    assert!(
        calibration.notes[0].contains("of one device"),
        "{:?}",
        calibration.notes
    );
    let expected = reference(&past).total().unwrap();
    let mut judged = |shift: f64, device: u64| {
        let mut day = Profile::empty(&layout());
        for (_, _, mut profile) in of_one(shift, 24) {
            profile.devices = DeviceSample::default();
            profile.devices.add(device, ROWS as u64);
            day.merge(&profile).unwrap();
        }
        let found = judge(&calibration, 0, &expected, &day, 24.0);
        found.unwrap().unwrap().p_value
    };
    let (same, stranger, calm) = (judged(0.9, 1), judged(0.9, 99), judged(0.0, 1));
    assert!(same < 1e-6, "{same:e}");
    assert!(stranger > 1e-3, "{stranger:e}");
    assert!(calm > 0.01, "{calm:e}");
}

/// A number that was always the same in the reference is seen when it moves, by the share of rows in which it is
/// another, and not while it stands.
#[test]
fn a_number_that_never_moved_is_seen_when_it_does() {
    let mut signals = layout().signals().to_vec();
    signals[0].edges = quantile_edges(&mut [7; 50], 16);
    let layout = Layout::new(signals).unwrap();
    let binner = Binner::new(&layout.signals()[0].edges);
    let window = |values: &[i32]| {
        let mut profile = Profile::empty(&layout);
        for value in values {
            profile.signals[0].count(&layout.signals()[0], &binner, Some(*value));
        }
        profile.rows = values.len() as u64;
        profile.devices.add(1, profile.rows);
        profile
    };
    let slot = window(&[7; 4_800]);
    let reference = Reference {
        made_from: "test".into(),
        layout: layout.clone(),
        season: Season::None,
        slots: vec![slot.clone()],
    };
    let mut learner = Learner::new(&reference).unwrap();
    for hour in 0..48 {
        learner.add(hour * HOUR_US, 1, &window(&[7; 100])).unwrap();
    }
    let calibration = learner.finish();
    let judged = |values: &[i32]| {
        let found = judge(&calibration, 0, &slot, &window(values), 1.0);
        found.unwrap().unwrap()
    };
    let moved = judged(&[[7; 50], [8; 50]].concat());
    assert_eq!(moved.score, ScoreKind::Elsewhere);
    assert!(moved.p_value < 1e-6 && moved.matters, "{moved:?}");
    assert!((moved.effect.value - 0.5).abs() < 0.01, "{moved:?}");
    assert!(judged(&[6; 100]).p_value < 1e-6);
    assert!(judged(&[7; 100]).p_value > 0.5);
}

/// Without devices and times the defaults stand in, and the notes say so; the text survives.
#[test]
fn without_devices_or_times_defaults_are_stated() {
    let all = estate(&mut Random(1), PARTS, 0.0, 4);
    let calibration = Learner::new(&reference(&all)).unwrap().finish();
    assert_eq!(calibration.notes.len(), 2, "{:?}", calibration.notes);
    let score = &calibration.signals[0].scores[0];
    assert!((score.device.variance - DEFAULT_DEVICE_ICC).abs() < 1e-9);
    let text = calibration.to_json();
    let read = Calibration::from_json(text.as_bytes()).unwrap();
    assert_eq!(read.notes, calibration.notes);
    // Numbers in JSON come back within a last digit, and from one text always the same.
    let (a, b) = (
        &read.signals[0].scores[1],
        &calibration.signals[0].scores[1],
    );
    assert!((a.weights[3] - b.weights[3]).abs() < 1e-12);
    assert_eq!(Calibration::from_json(text.as_bytes()), Ok(read));
    assert_eq!(
        Calibration::from_json(text.replace("\"format\": 1", "\"format\": 9").as_bytes()),
        Err(CalibrationError::Format(9))
    );
}

/// The order in which profiles are added does not matter, and two halves of an hour are one hour.
#[test]
fn order_does_not_matter() {
    let all = estate(&mut Random(2), PARTS, 0.0, 8);
    let reference = reference(&all);
    let learn = |all: &mut dyn Iterator<Item = &(i64, u64, Profile)>| {
        let mut learner = Learner::new(&reference).unwrap();
        all.for_each(|(start, device, profile)| learner.add(*start, *device, profile).unwrap());
        learner.finish()
    };
    assert_eq!(learn(&mut all.iter()), learn(&mut all.iter().rev()));
}

/// Ten wrong of sixty where one in fifty is expected: the signed root of the deviance is near the
/// binomial tail (2.8e-7), where a plain z of 8 would say 1e-15.
#[test]
fn shares_keep_their_tail() {
    let signal = SignalCalibration {
        signal: "error".into(),
        role: SignalRole::Error,
        numeric: false,
        rows: 100_000,
        scores: Vec::new(),
    };
    let none = Component {
        variance: 0.0,
        degrees: 1e6,
    };
    let score = ScoreCalibration {
        kind: ScoreKind::Share(1),
        weights: vec![0.0, 1.0],
        mean: 0.02,
        slot_variance: 0.02 * 0.98,
        row_variance: 0.02 * 0.98,
        device: none,
        spans: vec![SpanVariance {
            windows: 1,
            shared: none,
            own: none,
        }],
    };
    let worth = Worth {
        devices: 0.1,
        own: 0.1,
        rows: 60.0,
        windows: 1.0,
        spread: 1.0,
    };
    let sum: Variance = variance(&score, &worth, 0.02 * 0.98);
    let found = 10.0 / 60.0 - 0.02;
    let tested = super::judge::test(
        &signal,
        &score,
        (found, 0.02),
        (sum, 0.0),
        &SmallestEffect::default(),
    );
    assert!(
        (1e-7..2e-6).contains(&tested.p_value),
        "{:e}",
        tested.p_value
    );
    // Better than expected is no finding.
    let better = super::judge::test(
        &signal,
        &score,
        (-0.02, 0.02),
        (sum, 0.0),
        &SmallestEffect::default(),
    );
    assert_eq!(better.p_value, 1.0);
}

/// One a month over 720 hours and 100 streams leaves each a p-value of 1 in 72,000.
#[test]
fn the_budget_is_divided() {
    let threshold = Budget::default().threshold(HOUR_US, 100.0);
    assert!((threshold - 1.0 / 72_000.0).abs() < 1e-12);
    assert_eq!(
        Budget {
            false_alarms_per_month: 1e9
        }
        .threshold(HOUR_US, 1.0),
        1.0
    );
}

/// However inputs, outputs and errors are mixed, what the streams get adds up to the budget; outputs get
/// less than inputs where there are both, and all of it where they are alone.
#[test]
fn the_weighted_shares_add_up_to_the_budget() {
    use SignalRole::{Confidence, Error, Input, Output};
    let budget = Budget::default();
    let windows = 30.0 * 24.0;
    for roles in [
        vec![Input, Input, Output, Confidence, Error],
        vec![Output, Confidence],
        vec![Input],
        vec![Confidence],
    ] {
        let weights = roles.iter().map(|role| stream_weight(*role)).sum();
        let full = budget.threshold(HOUR_US, weights);
        let spent: f64 = roles.iter().map(|role| full * stream_weight(*role)).sum();
        assert!(
            (spent * windows - 1.0).abs() < 1e-12,
            "{roles:?}: {}",
            spent * windows
        );
    }
    assert!(stream_weight(Output) < stream_weight(Input));
}
