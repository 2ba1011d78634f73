//! What no feature by itself shows.

use super::*;

/// Temperature and humidity go together, and the bundle looks at it.
const LOOKING: Shape = Shape {
    together: 0.8,
    joint: true,
    ..SMALL
};
/// Hours of the story, and when it begins.
const HOURS: i64 = 60;
const ONSET: i64 = 48;

/// Findings of an estate of a seed, with a correlation of temperature and humidity at one site from an hour
/// on, where one is given.
fn found(seed: u64, shape: Shape, correlation: Option<f64>) -> Vec<Finding> {
    let mut estate = Estate::new(seed, shape);
    let bundle = estate.bundle();
    let fault = |hour| {
        let correlation = correlation.filter(|_| hour >= ONSET)?;
        Some(Fault::Together {
            site: 1,
            correlation,
        })
    };
    let hours: Vec<_> = (0..HOURS)
        .map(|hour| estate.cells(hour, fault(hour)))
        .collect();
    let log = log(1);
    in_order(&log, &hours, 1);
    let config = DetectConfig::default();
    run(&log, &mut stage(&log, &config, Some(bundle)), 16);
    findings(&log)
}

/// Scenario: two features with a correlation of 0.8 that turns to −0.8 at one site, where each of them stays
/// as it was, in an estate whose devices differ by nature and whose days have a cycle.
/// Guarantee: a bundle that does not look at the features together finds nothing; one that does finds it at
/// that site within a few hours and nothing else, says so in words, and its SQL asks the rows for the pair.
#[test]
fn a_correlation_that_turns_round_is_found_where_it_does() {
    let blind = Shape {
        joint: false,
        ..LOOKING
    };
    assert_eq!(found(44, blind, Some(-0.8)), []);
    let found = found(44, LOOKING, Some(-0.8));
    let told: Vec<&str> = found.iter().map(|it| it.explanation.as_str()).collect();
    let scope = format!("site={}", site_name(1));
    let expected = |it: &Finding| {
        it.kind == FindingKind::InputDrift && it.scope == scope && it.signals[0].name == "joint"
    };
    assert!(!found.is_empty() && found.iter().all(expected), "{told:#?}");
    let opened = (found[0].window_start_us - T0_US) / HOUR_US;
    assert!((ONSET..ONSET + 4).contains(&opened), "{opened}: {told:#?}");
    assert!(
        told[0].contains("the features at site=south-1 no longer go together as they did")
            && told[0].contains("temp and humidity went together most closely"),
        "{told:#?}"
    );
    let sql = &found[0].sql;
    assert!(sql.contains("signal = 'joint'") && sql.contains("corr(features[1], features[2])"));
    assert!(sql.contains("\"temp with humidity in training\""), "{sql}");
}

/// Scenario: the same estates, and nothing happens.
/// Guarantee: nothing is found, with the signal as without.
#[test]
fn a_correlation_that_stays_raises_nothing() {
    for seed in [45, 46, 47] {
        assert_eq!(found(seed, LOOKING, None), [], "seed {seed}");
    }
}

/// Scenario: one feature moves at a site, which takes its relation to another with it.
/// Guarantee: that feature is told, first and as the one that moved.
#[test]
fn a_feature_that_moves_is_told_before_its_relations() {
    let mut estate = Estate::new(48, LOOKING);
    let bundle = estate.bundle();
    let hours: Vec<_> = (0..HOURS)
        .map(|hour| estate.cells(hour, (hour >= ONSET).then_some(SHIFT)))
        .collect();
    let log = log(1);
    in_order(&log, &hours, 1);
    let config = DetectConfig::default();
    run(&log, &mut stage(&log, &config, Some(bundle)), 16);
    let found = findings(&log);
    let last = found.last().unwrap();
    let told: Vec<&str> = found.iter().map(|it| it.explanation.as_str()).collect();
    assert_eq!(last.scope, format!("site={}", site_name(1)), "{told:#?}");
    assert_eq!(last.signals[0].name, "temp", "{told:#?}");
    assert!(last.explanation.contains("temp at"), "{told:#?}");
    assert!(
        last.explanation.contains("joint moved with it"),
        "{told:#?}"
    );
}
