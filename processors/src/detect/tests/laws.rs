//! What must not depend on order, cut and crashes.

use std::sync::Arc;

use driftline_log::memory::{Fault as LogFault, MemoryLog};
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::measure::Measure;
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::profile::{CellProfile, SignalProfile};
use driftline_schemas::topic;
use driftline_schemas::units::Span;
use proptest::prelude::*;

use super::super::{DetectConfig, STAGE};
use super::estate::T0_US;
use super::{append, final_measures, finish, in_order, log, open_at_the_end, run, stage, story};

/// Every bit of measures.
fn bits(measures: &[Measure]) -> Vec<u8> {
    serde_json::to_vec(measures).unwrap()
}

/// Parts of an hour's cells: inputs and labels apart, as the stages append them.
fn parts(cells: &[CellProfile]) -> Vec<(bool, CellProfile)> {
    let mut parts = Vec::new();
    for cell in cells {
        let error = cell.profile.signals.len() - 1;
        let mut labels = cell.clone();
        labels.profile.rows = 0;
        labels.profile.devices = Default::default();
        for signal in &mut labels.profile.signals[..error] {
            *signal = SignalProfile::empty(signal.bins.len());
        }
        let mut rows = cell.clone();
        let bins = rows.profile.signals[error].bins.len();
        rows.profile.signals[error] = SignalProfile::empty(bins);
        parts.push((false, rows));
        if labels.profile.signals[error].rows() > 0 {
            parts.push((true, labels));
        }
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// Any order within a day, any cut into records and steps, any number of input partitions,
    /// commits that fail before or after their effect, and restarts: the final measures are the
    /// same bit for bit, and so is what is open at the end.
    #[test]
    fn order_cut_and_crashes_do_not_matter(
        keys in prop::collection::vec(any::<u32>(), 4_096),
        inputs in 1u32..4,
        per_record in 8usize..80,
        per_step in 6usize..40,
        faults in prop::collection::vec((0u8..3, any::<bool>()), 0..6),
        lateness_h in 0i64..20,
    ) {
        let (bundle, hours) = story();
        let config = DetectConfig::default();
        let reference = log(1);
        in_order(&reference, hours, 1);
        run(&reference, &mut stage(&reference, &config, Some(Arc::clone(bundle))), 1_000);

        let mut all: Vec<(i64, bool, CellProfile)> = Vec::new();
        for (hour, cells) in hours.iter().enumerate() {
            for (index, (is_label, part)) in parts(cells).into_iter().enumerate() {
                let random = i64::from(keys[(hour * 97 + index) % keys.len()]);
                let late_us = random % (lateness_h * HOUR_US + 1);
                all.push((hour as i64 * HOUR_US + late_us, is_label, part));
            }
        }
        all.sort_by_key(|(at, _, _)| *at);
        let shuffled = log(inputs);
        for (number, chunk) in all.chunks(per_record).enumerate() {
            let is_label = chunk[0].1;
            // Labels say nothing about time.
            let watermark_us = if is_label { i64::MIN } else { T0_US + chunk[0].0 };
            append(&shuffled, &ProfileBatch {
                input_partition: number as u32 % inputs,
                watermark_us,
                cells: chunk.iter().map(|(_, _, part)| part.clone()).collect(),
            });
        }
        finish(&shuffled, hours.len() as i64, inputs);
        for (kind, _) in &faults {
            shuffled.fail_next_commit(if *kind == 0 { LogFault::Before } else { LogFault::After });
        }
        run(&shuffled, &mut stage(&shuffled, &config, Some(Arc::clone(bundle))), per_step);
        // Once more from what is committed: nothing is left to say.
        let said = shuffled.all(topic::MEASURES).unwrap().len();
        run(&shuffled, &mut stage(&shuffled, &config, Some(Arc::clone(bundle))), per_step);
        prop_assert_eq!(said, shuffled.all(topic::MEASURES).unwrap().len());

        let (expected, found) = (final_measures(&reference), final_measures(&shuffled));
        prop_assert_eq!(expected.len(), found.len());
        for (window, measures) in &expected {
            prop_assert!(
                bits(measures) == bits(&found[window]),
                "window {} differs", (window - T0_US) / HOUR_US
            );
        }
        prop_assert_eq!(open_at_the_end(&reference), open_at_the_end(&shuffled));
    }
}

/// A run that is killed now and then, with windows dropped behind checkpoints, says what a run
/// without a break says.
#[test]
fn checkpoints_change_nothing() {
    let (bundle, hours) = story();
    let config = DetectConfig {
        keep: Span::from_days(2),
        ..DetectConfig::default()
    };
    // The story twice, so that days are dropped.
    let long: Vec<Vec<CellProfile>> = (0..100)
        .map(|hour: i64| {
            let mut cells = hours[hour as usize % hours.len()].clone();
            for cell in &mut cells {
                cell.key.pane_start_us = T0_US + hour * HOUR_US;
            }
            cells
        })
        .collect();
    let (through, broken) = (log(1), log(1));
    for (hour, cells) in long.iter().enumerate() {
        let batch = ProfileBatch {
            input_partition: 0,
            watermark_us: T0_US + hour as i64 * HOUR_US + HOUR_US / 2,
            cells: cells.clone(),
        };
        append(&through, &batch);
        append(&broken, &batch);
        if hour.is_multiple_of(17) {
            run(
                &broken,
                &mut stage(&broken, &config, Some(Arc::clone(bundle))),
                1,
            );
        }
    }
    run(
        &broken,
        &mut stage(&broken, &config, Some(Arc::clone(bundle))),
        1,
    );
    run(
        &through,
        &mut stage(&through, &config, Some(Arc::clone(bundle))),
        1,
    );
    assert!(final_measures(&through) == final_measures(&broken));
    assert_eq!(open_at_the_end(&through), open_at_the_end(&broken));
    // Bounded: three days and the longest span are left of more than four days.
    let windows = |log: &MemoryLog| {
        let state = log.state(STAGE, 0);
        let starts = state
            .keys()
            .filter(|key| key.starts_with(b"{\"cell\""))
            .count();
        starts / long[0].len()
    };
    assert!(windows(&through) <= 3 * 24 + 24, "{}", windows(&through));
    assert_eq!(windows(&through), windows(&broken));
}
