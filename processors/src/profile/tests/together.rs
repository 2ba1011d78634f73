//! The signal that no column has.

use driftline_schemas::joint::{JOINT_FORMAT, Joint, JointFeature};
use driftline_schemas::profile::reference::Season;

use super::*;

/// Temperature in hundredths around 20 °C and the mode around 1, which go together.
fn joint() -> Joint {
    let feature = |name: &str, at, resolution, center: i64| JointFeature {
        name: name.into(),
        at,
        resolution,
        centers: (0..24).map(|hour| center + 256 * hour).collect(),
    };
    Joint {
        format: JOINT_FORMAT,
        season: Season::HourOfDay,
        features: vec![
            feature("temp", 0, 0.01, 2_000 * 256),
            feature("mode", 1, 1.0, 256),
        ],
        weights: vec![vec![1.0e-5], vec![-0.7e-5, 5.0e-3]],
        ties: Vec::new(),
    }
}

fn counted(bundle: &Arc<Bundle>, frames: &[Frame], per_record: usize) -> Merged {
    let log = log(1);
    for frames in frames.chunks(per_record) {
        let at_us = frames.last().unwrap().received_at_us;
        let record = output(topic::INFERENCES, 0, packed(bundle, frames), at_us);
        append(&log, vec![record]);
    }
    let shelf = Arc::new(Shelf::with(Arc::clone(bundle)));
    let stats = ProfileStats::default();
    let mut stage = ProfileStage::new(ProfileConfig::default(), &log, shelf, stats).unwrap();
    let clock = Arc::new(ManualClock::new(T0));
    runner(&log, &clock)
        .run_until_idle(ProfileStage::spec(), &mut stage)
        .unwrap();
    merged(&log)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Any frames, with missing and absurd values, however they are packed: rows are counted in `joint` as
    /// each row by itself is, and as missing where a feature is missing.
    #[test]
    fn rows_are_counted_in_the_signal_that_no_column_has(frames in frames(), per_record in 1usize..7) {
        let bundle = bundle_with_joint(&joint());
        let found = counted(&bundle, &frames, per_record);
        prop_assert_eq!(&found, &naive_of(&bundle, &frames, 15 * MINUTE_US));
        let (at, _) = bundle.reference.layout.signal("joint").unwrap();
        for profile in found.values() {
            prop_assert_eq!(profile.signals[at].rows(), profile.rows);
        }
    }
}

/// Two versions that differ in nothing but the signal's numbers are counted each with its own.
#[test]
fn versions_with_other_numbers_are_kept_apart() {
    let mut other = joint();
    other.weights[1][0] = 0.0;
    let frames = [frame(1, 0, T0, 40)];
    let of = |joint: &Joint| {
        let bundle = bundle_with_joint(joint);
        (counted(&bundle, &frames, 1), Counted::of(&bundle).digest)
    };
    let (one, another) = (of(&joint()), of(&other));
    assert_ne!(one.1, another.1);
    let sum = |merged: &Merged| merged.values().map(|it| it.signals[4].sum).sum::<i128>();
    assert_ne!(sum(&one.0), sum(&another.0));
}
