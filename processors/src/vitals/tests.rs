use std::sync::Arc;

use driftline_schemas::clock::{HOUR_US, MINUTE_US};
use driftline_schemas::source::{Link, Origin};
use proptest::prelude::*;

use super::VitalsConfig;
use super::device::{DeviceState, Told};

fn origin(cadence_s: u32) -> Origin {
    Origin {
        model: "boiler".into(),
        version: "1".into(),
        site: "north-1".into(),
        link: Link::Cellular,
        cadence_s,
        ..Origin::new("acme", "d1")
    }
}

fn read(state: &mut DeviceState, values: impl IntoIterator<Item = i32>) -> Vec<(usize, Told)> {
    let name: Arc<str> = "temp".into();
    let config = VitalsConfig::default();
    let told = values.into_iter().enumerate().filter_map(|(row, value)| {
        let at_us = row as i64 * MINUTE_US;
        Some((row, state.reading(&name, 0.1, Some(value), at_us, &config)?))
    });
    told.collect()
}

/// Scenario: an hourly reporter misses reports, a daily one does not, one never said.
/// Guarantee: only the first is silent, once, and is heard of again once.
#[test]
fn a_device_is_silent_by_its_own_measure() {
    let config = VitalsConfig::default();
    let mut hourly = DeviceState::default();
    assert_eq!(hourly.heard(&origin(3_600), 0), None);
    assert_eq!(hourly.silent(3 * HOUR_US, &config), None);
    assert_eq!(
        hourly.silent(3 * HOUR_US + 1, &config),
        Some(Told::Silent { since_us: 0 })
    );
    assert_eq!(hourly.silent(9 * HOUR_US, &config), None, "it is told once");
    let back = hourly.heard(&origin(3_600), 24 * HOUR_US);
    assert_eq!(
        back,
        Some(Told::Heard {
            since_us: 0,
            at_us: 24 * HOUR_US
        })
    );
    for cadence_s in [86_400, 0] {
        let mut state = DeviceState::default();
        state.heard(&origin(cadence_s), 0);
        assert_eq!(state.silent(24 * HOUR_US, &config), None);
    }
}

/// Scenario: a noisy sensor gets stuck, and works again.
/// Guarantee: both are told once, with the run's beginning.
#[test]
fn a_stuck_sensor_is_told_once() {
    let noisy = (0..500).map(|row| (row * 7919) % 997);
    let mut state = DeviceState::default();
    let story = noisy
        .clone()
        .chain(std::iter::repeat_n(5_000, 100))
        .chain(noisy);
    let told = read(&mut state, story);
    assert_eq!(told.len(), 2, "{told:?}");
    let Told::Stuck {
        rows,
        since_us,
        value,
        ..
    } = &told[0].1
    else {
        panic!("{told:?}")
    };
    assert_eq!((*rows, *since_us, *value), (20, 500 * MINUTE_US, 500.0));
    assert!(matches!(&told[1], (600, Told::Unstuck { .. })));
}

/// Scenario: a coarse sensor that mostly repeats itself.
/// Guarantee: runs that are long for others are normal for it.
#[test]
fn a_coarse_sensor_is_not_stuck() {
    let mut state = DeviceState::default();
    let coarse = (0..50_000).map(|row: i32| row / 40);
    assert_eq!(read(&mut state, coarse), []);
}

proptest! {
    /// Any readings, cut anywhere by a restart: the judgements are the same.
    #[test]
    fn a_restart_changes_nothing(values in proptest::collection::vec(0i32..4, 1..400), cut in 0usize..400) {
        let mut whole = DeviceState::default();
        whole.heard(&origin(60), 0);
        let mut parts = whole.clone();
        let expected: Vec<Told> = read(&mut whole, values.iter().copied()).into_iter().map(|it| it.1).collect();
        let cut = cut.min(values.len());
        let name: Arc<str> = "temp".into();
        let mut told = Vec::new();
        for (row, value) in values.iter().enumerate() {
            if row == cut {
                parts = DeviceState::decode(&parts.encode()).unwrap();
            }
            told.extend(parts.reading(&name, 0.1, Some(*value), row as i64 * MINUTE_US, &VitalsConfig::default()));
        }
        prop_assert_eq!(told, expected);
        prop_assert_eq!(parts, whole);
    }
}
