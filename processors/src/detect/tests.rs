//! The stage over the log in memory: the same answer whatever the order, the cut and the crashes,
//! and the right one on a synthetic estate.

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "shared with the example"
)]
mod estate;
mod laws;
mod losses;
mod promoted;
mod together;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use driftline_log::memory::MemoryLog;
use driftline_log::runner::{Runner, StageError};
use driftline_log::{Log, Output, TopicSpec};
use driftline_schemas::bundle::Bundle;
use driftline_schemas::clock::{DAY_US, HOUR_US, ManualClock};
use driftline_schemas::measure::{Finding, FindingKind, FindingState, Measure, MeasureBatch};
use driftline_schemas::profile::CellProfile;
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::topic;

use super::{DetectConfig, DetectStage, DetectStats};
use crate::bundles::Bundles;
use estate::{Estate, Fault, Shape, T0_US, site_name};

/// A small estate, so that a run takes a second.
const SMALL: Shape = Shape {
    sites: 4,
    devices_per_site: 4,
    probes_per_site: 2,
    rows_per_hour: 12,
    reference_days: 14,
    device_sd: 0.2,
    correlation: 0.5,
    cycle: 0.8,
    weather_sd: 0.1,
    together: 0.0,
    joint: false,
    honest: false,
};
const SHIFT: Fault = Fault::Shift { site: 1, sd: 1.2 };

struct Shelf(Option<Arc<Bundle>>);

impl Bundles for Shelf {
    fn bundle(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: &str,
    ) -> Result<Option<Arc<Bundle>>, StageError> {
        Ok(self.0.clone())
    }
}

/// The bundle, and cells by hour: 40 healthy hours, then a shift at one site for 10, then calm.
fn story() -> &'static (Arc<Bundle>, Vec<Vec<CellProfile>>) {
    static STORY: OnceLock<(Arc<Bundle>, Vec<Vec<CellProfile>>)> = OnceLock::new();
    STORY.get_or_init(|| {
        let mut estate = Estate::new(42, SMALL);
        let bundle = estate.bundle();
        let hours = (0..64).map(|hour| {
            let fault = (40..50).contains(&hour).then_some(SHIFT);
            estate.cells(hour, fault)
        });
        (bundle, hours.collect())
    })
}

fn log(inferences: u32) -> MemoryLog {
    let log = MemoryLog::new();
    log.ensure_topics(&[
        TopicSpec::new(topic::INFERENCES, inferences),
        TopicSpec::new(topic::PROFILES, 1),
        TopicSpec::new(topic::MEASURES, 1),
        TopicSpec::new(topic::FINDINGS, 1),
    ])
    .unwrap();
    log
}

fn append(log: &MemoryLog, batch: &ProfileBatch) {
    let output = Output {
        topic: topic::PROFILES.into(),
        partition: 0,
        key: Vec::new(),
        value: Some(batch.encode()),
        timestamp_us: 0,
    };
    log.appender("test").unwrap().append(vec![output]).unwrap();
}

fn stage(log: &MemoryLog, config: &DetectConfig, bundle: Option<Arc<Bundle>>) -> DetectStage {
    let shelf = Arc::new(Shelf(bundle));
    DetectStage::new(config.clone(), log, shelf, DetectStats::default()).unwrap()
}

/// Runs until everything is read and judged; `records` of one step at most.
fn run(log: &MemoryLog, stage: &mut DetectStage, records: usize) {
    run_at(log, stage, records, T0_US);
}

/// The same at a time of the injected clock.
fn run_at(log: &MemoryLog, stage: &mut DetectStage, records: usize, now_us: i64) {
    let mut runner = Runner::new(Arc::new(log.clone()), Arc::new(ManualClock::new(now_us)));
    runner.options.linger = Duration::ZERO;
    runner.options.idle_tick = Duration::ZERO;
    runner.options.pause_min = Duration::ZERO;
    runner.options.pause_max = Duration::ZERO;
    runner.options.records_max = records;
    let mut spec = DetectStage::spec();
    spec.limits.max_records = records;
    runner.run_until_idle(spec, stage).unwrap();
}

fn findings(log: &MemoryLog) -> Vec<Finding> {
    let records = log.all(topic::FINDINGS).unwrap();
    let value = |value: &[u8]| serde_json::from_slice(value).unwrap();
    records
        .iter()
        .map(|r| value(r.value.as_deref().unwrap()))
        .collect()
}

/// The measures that hold: the highest revision of each window, the number itself left out.
fn final_measures(log: &MemoryLog) -> BTreeMap<i64, Vec<Measure>> {
    let mut windows: BTreeMap<i64, (u32, Vec<Measure>)> = BTreeMap::new();
    for record in log.all(topic::MEASURES).unwrap() {
        let mut measures = MeasureBatch::decode(record.value.as_deref().unwrap()).unwrap();
        let revision = measures[0].revision;
        let window = measures[0].window_start_us;
        measures.iter_mut().for_each(|measure| measure.revision = 0);
        let before = windows.insert(window, (revision, measures));
        assert!(
            before.is_none_or(|before| before.0 < revision),
            "revisions rise"
        );
    }
    windows
        .into_iter()
        .map(|(window, (_, measures))| (window, measures))
        .collect()
}

/// Keys of findings that hold at the end.
fn open_at_the_end(log: &MemoryLog) -> BTreeMap<String, bool> {
    let mut last: BTreeMap<(String, i64), (u32, FindingState)> = BTreeMap::new();
    for finding in findings(log) {
        let at = (finding.key, finding.window_start_us);
        last.insert(at, (finding.revision, finding.state));
    }
    let mut open = BTreeMap::new();
    for ((key, _), (_, state)) in last {
        if state != FindingState::Refuted {
            open.insert(key, state == FindingState::Drifted);
        }
    }
    open
}

/// Everything in order, one record an hour.
fn in_order(log: &MemoryLog, hours: &[Vec<CellProfile>], inputs: u32) {
    for (hour, cells) in hours.iter().enumerate() {
        let watermark_us = T0_US + hour as i64 * HOUR_US + HOUR_US / 2;
        for input in 0..inputs {
            let cells = if input == 0 {
                cells.clone()
            } else {
                Vec::new()
            };
            append(
                log,
                &ProfileBatch {
                    input_partition: input,
                    watermark_us,
                    cells,
                },
            );
        }
    }
    finish(log, hours.len() as i64, inputs);
}

/// The watermark passes everything.
fn finish(log: &MemoryLog, hours: i64, inputs: u32) {
    for input in 0..inputs {
        let watermark_us = T0_US + hours * HOUR_US + 12 * HOUR_US;
        append(
            log,
            &ProfileBatch {
                input_partition: input,
                watermark_us,
                cells: Vec::new(),
            },
        );
    }
}

/// A shift at one site is found there and nowhere else, by its signal, and recovers.
#[test]
fn a_shift_is_found_where_it_is_and_recovers() {
    let (bundle, hours) = story();
    let log = log(1);
    in_order(&log, hours, 1);
    run(
        &log,
        &mut stage(&log, &DetectConfig::default(), Some(Arc::clone(bundle))),
        16,
    );
    let found = findings(&log);
    let told: Vec<String> = found
        .iter()
        .map(|f| format!("{:?} {} {}", f.state, f.key, f.explanation))
        .collect();
    let scope = format!("site={}", site_name(1));
    assert!(!found.is_empty());
    for finding in &found {
        assert_eq!(
            (finding.kind, &finding.scope),
            (FindingKind::InputDrift, &scope),
            "{told:#?}"
        );
    }
    let opened = (found[0].window_start_us - T0_US) / HOUR_US;
    assert!((40..45).contains(&opened), "{told:#?}");
    assert_eq!(found[0].signals[0].name, "temp");
    assert!(
        found[0]
            .explanation
            .starts_with("temp at site=south-1 reads"),
        "{told:#?}"
    );
    assert!(found[0].sql.contains("site = 'south-1'"));
    let last = found.last().unwrap();
    assert_eq!(last.state, FindingState::Recovered, "{told:#?}");
    assert!((last.window_start_us - T0_US) / HOUR_US >= 52, "{told:#?}");
    // Every window has measures, with their p-values.
    let measures = final_measures(&log);
    assert_eq!(measures.len(), hours.len());
    let methods: Vec<&str> = measures[&T0_US].iter().map(|m| m.method.as_str()).collect();
    assert!(
        ["shift", "psi", "ks", "chi2"]
            .iter()
            .all(|method| methods.contains(method))
    );
}

/// Scenario: a site's devices get a new firmware, and from the next hour on their temperature reads higher; before
/// that the stage starts again from its state, whose first days are folded up.
/// Guarantee: the finding lists the firmware with the hour in which it came up, and says so.
#[test]
fn what_came_up_just_before_is_told() {
    let mut estate = Estate::new(49, SMALL);
    let bundle = estate.bundle();
    let hours: Vec<_> = (0..106)
        .map(|hour| {
            if hour == 95 {
                estate.update(1, 3, "2.2");
            }
            let fault = (hour >= 96).then_some(SHIFT);
            estate.cells(hour, fault)
        })
        .collect();
    let log = log(1);
    let config = DetectConfig {
        keep: "2d".parse().unwrap(),
        ..DetectConfig::default()
    };
    for part in [&hours[..94], &hours[94..]] {
        in_order(&log, part, 1);
        let mut stage = stage(&log, &config, Some(Arc::clone(&bundle)));
        run(&log, &mut stage, 40);
    }
    let found = findings(&log);
    let opened = found.first().unwrap();
    let told: Vec<(&str, i64)> = opened
        .changes
        .iter()
        .map(|it| (it.what.as_str(), (it.at_us - T0_US) / HOUR_US))
        .collect();
    assert_eq!(told, [("firmware=2.2", 95)], "{opened:#?}");
    let text = &opened.explanation;
    assert!(
        text.contains("firmware=2.2 came up there at 2026-01-08 23:00 UTC"),
        "{text}"
    );
}

/// The truth that turns round at one site is concept drift there, and nothing else.
#[test]
fn a_flip_is_concept_drift() {
    let mut estate = Estate::new(43, SMALL);
    let bundle = estate.bundle();
    let hours: Vec<_> = (0..34)
        .map(|hour| estate.cells(hour, (hour >= 30).then_some(Fault::Flip { site: 2 })))
        .collect();
    let log = log(1);
    in_order(&log, &hours, 1);
    run(
        &log,
        &mut stage(&log, &DetectConfig::default(), Some(bundle)),
        16,
    );
    let found: Vec<_> = findings(&log)
        .into_iter()
        .map(|f| (f.kind, f.scope))
        .collect();
    assert!(!found.is_empty());
    let expected = (FindingKind::ConceptDrift, format!("site={}", site_name(2)));
    assert!(found.iter().all(|found| *found == expected), "{found:?}");
}

/// Data that comes late and shows that a finding never was refutes it: a few rows read high, many
/// more that come later do not.
#[test]
fn a_backlog_refutes() {
    let mut estate = Estate::new(42, SMALL);
    let bundle = estate.bundle();
    let mut hours: Vec<Vec<CellProfile>> = (0..40).map(|hour| estate.cells(hour, None)).collect();
    let shift = Fault::Shift { site: 1, sd: 2.0 };
    hours.extend((40..43).map(|hour| estate.cells(hour, Some(shift))));
    let log = log(1);
    in_order(&log, &hours, 1);
    let config = DetectConfig::default();
    let mut stage = stage(&log, &config, Some(bundle));
    run(&log, &mut stage, 4);
    let before = findings(&log);
    let scope = format!("site={}", site_name(1));
    let drifted = |f: &Finding| f.state == FindingState::Drifted && f.scope == scope;
    assert!(before.iter().any(drifted), "{before:#?}");
    for hour in 40..43 {
        for _ in 0..15 {
            let mut cells = estate.cells(hour, None);
            cells.retain(|cell| cell.key.cell.get("site") == Some(&site_name(1)));
            append(
                &log,
                &ProfileBatch {
                    input_partition: 0,
                    watermark_us: i64::MIN,
                    cells,
                },
            );
        }
    }
    run(&log, &mut stage, 100);
    let after = findings(&log);
    let refuted = |f: &&Finding| f.state == FindingState::Refuted && f.scope == scope;
    let told = after[before.len()..].iter().find(refuted).unwrap();
    assert!(
        told.explanation.contains("never was"),
        "{}",
        told.explanation
    );
    assert!(open_at_the_end(&log).values().all(|open| !open));
}

/// Cells whose devices report daily are taken in when their day is over; the others do not wait.
#[test]
fn daily_meters_are_waited_for_alone() {
    let (bundle, hours) = story();
    let mut cells = hours[0].clone();
    let meters = cells.len() / 2;
    for cell in &mut cells[..meters] {
        cell.key.cell.cadence_s = 86_400;
    }
    let rows = |cells: &[CellProfile]| cells.iter().map(|c| c.profile.rows).sum::<u64>();
    let log = log(1);
    let mut stage = stage(&log, &DetectConfig::default(), Some(Arc::clone(bundle)));
    let watermark_us = T0_US + 2 * HOUR_US;
    append(
        &log,
        &ProfileBatch {
            input_partition: 0,
            watermark_us,
            cells: cells.clone(),
        },
    );
    run(&log, &mut stage, 10);
    let estate_rows = |log: &MemoryLog| {
        let measures = final_measures(log);
        measures[&T0_US]
            .iter()
            .find(|m| m.cohort.is_estate() && m.signal == "temp")
            .unwrap()
            .rows
    };
    assert_eq!(estate_rows(&log), rows(&cells[meters..]));
    let watermark_us = T0_US + 2 * DAY_US + HOUR_US;
    append(
        &log,
        &ProfileBatch {
            input_partition: 0,
            watermark_us,
            cells: Vec::new(),
        },
    );
    run(&log, &mut stage, 10);
    assert_eq!(estate_rows(&log), rows(&cells));
}

/// Without a bundle windows wait and are counted, and are judged once there is one; profiles of a
/// foreign layout are counted and do not spoil the others; a watermark that one partition has not
/// told yet holds everything.
#[test]
fn what_cannot_be_judged_waits_or_is_counted() {
    let (bundle, hours) = story();
    let log = log(2);
    let mut cells = hours[0].clone();
    let mut foreign = hours[0][0].clone();
    foreign.profile.layout ^= 1;
    cells.push(foreign);
    let watermark_us = T0_US + 5 * HOUR_US;
    append(
        &log,
        &ProfileBatch {
            input_partition: 0,
            watermark_us,
            cells,
        },
    );
    let config = DetectConfig::default();
    run(
        &log,
        &mut stage(&log, &config, Some(Arc::clone(bundle))),
        10,
    );
    assert!(
        final_measures(&log).is_empty(),
        "partition 1 has told no watermark"
    );
    append(
        &log,
        &ProfileBatch {
            input_partition: 1,
            watermark_us,
            cells: Vec::new(),
        },
    );
    let mut without = stage(&log, &config, None);
    run(&log, &mut without, 10);
    assert!(final_measures(&log).is_empty());
    assert!(without.stats().unknown_bundle.get() > 0);
    let mut with = stage(&log, &config, Some(Arc::clone(bundle)));
    run(&log, &mut with, 10);
    assert_eq!(final_measures(&log).len(), 1);
    assert_eq!(with.stats().foreign_layout.get(), 1);
}

/// Another configuration is in force for windows from the next day on, and measures say which.
#[test]
fn configuration_takes_effect_through_the_log() {
    let (bundle, hours) = story();
    let log = log(1);
    let first = DetectConfig::default();
    let second = DetectConfig {
        rows_min: 25,
        ..DetectConfig::default()
    };
    in_order(&log, &hours[..10], 1);
    run(
        &log,
        &mut stage(&log, &first, Some(Arc::clone(bundle))),
        100,
    );
    for (hour, cells) in hours.iter().enumerate().skip(10).take(40) {
        let watermark_us = T0_US + (hour as i64 + 12) * HOUR_US;
        append(
            &log,
            &ProfileBatch {
                input_partition: 0,
                watermark_us,
                cells: cells.clone(),
            },
        );
    }
    run(
        &log,
        &mut stage(&log, &second, Some(Arc::clone(bundle))),
        100,
    );
    for (window, measures) in final_measures(&log) {
        let expected = if window < T0_US + DAY_US {
            &first
        } else {
            &second
        };
        assert!(measures.iter().all(|m| m.config == expected.digest()));
    }
}
