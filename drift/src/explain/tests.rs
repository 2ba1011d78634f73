//! Causes are found where they are, at the level where they are, and told so.

use std::sync::Arc;

use super::*;

/// Four sites in two regions, two generations of hardware and two firmwares each; `effect` gives
/// the deviation of a cell, and a fixed pattern stands in for noise.
fn parts(effect: impl Fn(&Cell) -> f64) -> Vec<Part> {
    let mut parts = Vec::new();
    for site in 0..4 {
        for hardware in 0..2 {
            for firmware in 0..2 {
                let text = |value: String| -> Arc<str> { value.into() };
                let cell = Cell {
                    values: [
                        text(["eu", "us"][site / 2].into()),
                        text(format!("s{site}")),
                        text(format!("g{hardware}")),
                        text(format!("2.{firmware}")),
                        text("wifi".into()),
                        text(String::new()),
                        text("device".into()),
                    ],
                    cadence_s: 0,
                };
                let noise = [0.05, -0.05, 0.02, -0.02][(site + 2 * hardware + firmware) % 4];
                parts.push(Part {
                    rows: 100.0,
                    deviation: effect(&cell) + noise,
                    variance: 0.01,
                    cell,
                });
            }
        }
    }
    parts
}

fn cohort(text: &str) -> Cohort {
    let pairs = text.split(" & ").filter_map(|pair| pair.split_once('='));
    Cohort(pairs.map(|(a, v)| (a.into(), v.into())).collect())
}

fn scopes(parts: &[Part], crossed: &[&str], known: &[Known]) -> Vec<String> {
    let crossed: Vec<Cohort> = crossed.iter().map(|text| cohort(text)).collect();
    let causes = peel(parts, &crossed, known).causes;
    causes.iter().map(|cause| cause.scope.to_string()).collect()
}

fn inside(text: &str) -> impl Fn(&Cell) -> bool {
    let cohort = cohort(text);
    move |cell| belongs(&cohort, cell)
}

/// One site moved: it is the site, not its region and not its hardware, whatever crossed beside it.
#[test]
fn one_site() {
    let there = inside("site=s1");
    let parts = parts(|cell| if there(cell) { 0.9 } else { 0.0 });
    let crossed = ["", "region=eu", "site=s1", "hardware=g0"];
    assert_eq!(scopes(&parts, &crossed, &[]), ["site=s1"]);
    assert_eq!(scopes(&parts, &["region=eu"], &[]), ["site=s1"]);
}

/// One of a region's two sites moved, and what moved in the other one is explained already: it is the
/// site, though the region is as good an explanation then, and though only the region crossed.
#[test]
fn one_site_beside_a_settled_one() {
    let there = inside("site=s1");
    let settled = inside("site=s0");
    let parts = parts(|cell| match (there(cell), settled(cell)) {
        (true, _) => 0.9,
        (_, true) => 0.4,
        _ => 0.0,
    });
    let known = [Known {
        scope: cohort("site=s0"),
        settled: true,
    }];
    let crossed = ["", "region=eu", "site=s1"];
    assert_eq!(scopes(&parts, &crossed, &known), ["site=s1"]);
    assert_eq!(scopes(&parts, &["region=eu"], &known), ["site=s1"]);
}

/// A site moved that crossed by itself, and the other one of its region a little, as it does by chance: it is
/// the site, though the region explains a trifle more. Where the other moved nearly as much, or where only the
/// region crossed, it is the region.
#[test]
fn a_site_that_chance_makes_a_region() {
    let moved = |other: f64| {
        let (there, beside) = (inside("site=s1"), inside("site=s0"));
        parts(move |cell| match (there(cell), beside(cell)) {
            (true, _) => 0.3,
            (_, true) => other,
            _ => 0.0,
        })
    };
    let crossed = ["region=eu", "site=s1"];
    assert_eq!(scopes(&moved(0.13), &crossed, &[]), ["site=s1"]);
    assert_eq!(scopes(&moved(0.2), &crossed, &[]), ["region=eu"]);
    assert_eq!(scopes(&moved(0.13), &["region=eu"], &[]), ["region=eu"]);
}

/// A site that crossed by itself, and the other one of its region moved half as far: it is the region, but a mixed
/// one. Where both moved alike, or only the region crossed, there is nothing to wait for.
#[test]
fn a_region_that_may_be_a_site_is_mixed() {
    let mixed = |other: f64, crossed: &[&str]| {
        let (there, beside) = (inside("site=s1"), inside("site=s0"));
        let parts = parts(|cell| match (there(cell), beside(cell)) {
            (true, _) => 0.61,
            (_, true) => other,
            _ => 0.0,
        });
        let crossed: Vec<Cohort> = crossed.iter().map(|text| cohort(text)).collect();
        let causes = peel(&parts, &crossed, &[]).causes;
        let said = |cause: &Cause| (cause.scope.to_string(), cause.is_mixed);
        causes.iter().map(said).collect::<Vec<_>>()
    };
    let (region, both) = ("region=eu".to_owned(), ["region=eu", "site=s1"]);
    assert_eq!(mixed(0.302, &both), [(region.clone(), true)]);
    assert_eq!(mixed(0.61, &both), [(region.clone(), false)]);
    assert_eq!(mixed(0.302, &["region=eu"]), [(region, false)]);
}

/// A whole region moved: it is the region, not its sites one by one.
#[test]
fn one_region() {
    let there = inside("region=us");
    let parts = parts(|cell| if there(cell) { -0.7 } else { 0.0 });
    let crossed = [
        "",
        "region=us",
        "site=s2",
        "site=s3",
        "hardware=g0",
        "hardware=g1",
    ];
    assert_eq!(scopes(&parts, &crossed, &[]), ["region=us"]);
}

/// A firmware moved in every site: it is the firmware.
#[test]
fn one_firmware() {
    let there = inside("firmware=2.1");
    let parts = parts(|cell| if there(cell) { 0.6 } else { 0.0 });
    let crossed = [
        "",
        "firmware=2.1",
        "site=s0",
        "site=s1",
        "site=s2",
        "site=s3",
    ];
    assert_eq!(scopes(&parts, &crossed, &[]), ["firmware=2.1"]);
}

/// Everything moved: it is the estate.
#[test]
fn everything() {
    let parts = parts(|_| 0.5);
    let crossed = [
        "",
        "site=s0",
        "site=s1",
        "site=s2",
        "site=s3",
        "region=eu",
        "region=us",
    ];
    assert_eq!(scopes(&parts, &crossed, &[]), ["estate"]);
}

/// A site and a firmware at once are two causes, also when they move in opposite directions.
#[test]
fn two_at_once() {
    let (site, firmware) = (inside("site=s3"), inside("firmware=2.0"));
    let parts = parts(|cell| {
        let up = if site(cell) { 1.0 } else { 0.0 };
        up - if firmware(cell) { 0.7 } else { 0.0 }
    });
    let mut found = scopes(&parts, &["site=s3", "firmware=2.0", ""], &[]);
    found.sort();
    assert_eq!(found, ["firmware=2.0", "site=s3"]);
}

/// Only one firmware at one site moved: no single value explains it, the pair does.
#[test]
fn a_pair() {
    let there = inside("firmware=2.1 & site=s0");
    let parts = parts(|cell| if there(cell) { 1.2 } else { 0.0 });
    let crossed = ["site=s0", "firmware=2.1", "region=eu"];
    assert_eq!(scopes(&parts, &crossed, &[]), ["firmware=2.1 & site=s0"]);
}

/// Two values of exactly the same cells are a tie, and named as one.
#[test]
fn ties() {
    let there = inside("site=s1");
    let mut parts = parts(|cell| if there(cell) { 0.9 } else { 0.0 });
    for part in &mut parts {
        if there(&part.cell) {
            part.cell.values[4] = "satellite".into();
        }
    }
    let causes = peel(&parts, &[cohort("link=satellite"), cohort("site=s1")], &[]).causes;
    assert_eq!(causes.len(), 1);
    assert_eq!(causes[0].scope, cohort("site=s1"));
    assert_eq!(causes[0].ties, [cohort("link=satellite")]);
}

/// What a settled cause explains is not found again, what it leaves is.
#[test]
fn settled_causes_explain() {
    let (site, other) = (inside("site=s1"), inside("site=s2"));
    let moved = parts(|cell| if site(cell) { 0.9 } else { 0.0 });
    let known = [Known {
        scope: cohort("site=s1"),
        settled: true,
    }];
    let peeling = peel(&moved, &[cohort("site=s1"), cohort("region=eu")], &known);
    assert_eq!((peeling.causes.len(), peeling.loads_on), (0, vec![0]));
    let both = parts(|cell| if site(cell) || other(cell) { 0.9 } else { 0.0 });
    assert_eq!(scopes(&both, &["site=s1", "site=s2"], &known), ["site=s2"]);
}

/// Shares: without the site that moved nothing is left; a value that has a part of it has a part.
#[test]
fn shares_of_attribute_values() {
    let there = inside("site=s1");
    let parts: Vec<Part> = parts(|cell| if there(cell) { 1.0 } else { 0.0 })
        .into_iter()
        .map(|part| Part {
            deviation: part.deviation.round(),
            ..part
        })
        .collect();
    let ranked = rank_attributes(&parts);
    let share = |name: &str| ranked.iter().find(|r| r.name == name).map(|r| r.share);
    assert_eq!(share("site=s1"), Some(1.0));
    assert_eq!(share("region=eu"), Some(1.0));
    assert_eq!(share("site=s0"), None);
}

/// A temperature that reads higher at one site of many.
fn warmer(scope: &Cohort) -> Story<'_> {
    use crate::calibrate::{Against, Effect, EffectUnit, ScoreKind};
    Story {
        signal: "temp",
        error: false,
        together: false,
        unit: "°C",
        kind: ScoreKind::Location,
        category: None,
        scope,
        effect: Effect {
            value: 0.9,
            lower: 0.7,
            unit: EffectUnit::ReferenceSd,
        },
        against: Against::Reference,
        now: 21.4,
        before: 18.9,
        since: "09:00",
        of_estate: Some(0.94),
        others_unchanged: true,
        ties: &[],
        also: &[],
        remarks: &[],
        past: false,
    }
}

/// The sentence is one that a person understands, and the query quotes what it must.
#[test]
fn words_and_sql() {
    let scope = cohort("site=north-2");
    let story = warmer(&scope);
    assert_eq!(
        story.tell(),
        "temp at site=north-2 reads 0.9 sd higher (mean 21.4 °C against 18.9 °C) since 09:00; 94 % of the estate's shift goes away without it; other sites are unchanged"
    );
    let text = sql(&Query {
        tenant: "o'hara",
        model: "boiler",
        version: "1.0.0",
        signal: "temp",
        cohort: &scope,
        start_us: 1,
        end_us: 2,
        pairs: &[],
        reference_bins: &[3, 4],
    });
    assert_eq!(
        text,
        "SELECT psi(make_array(3, 4), merge_bins(bins)) AS psi, merge_bins(bins) AS bins FROM profiles WHERE tenant = 'o''hara' AND model = 'boiler' AND version = '1.0.0' AND signal = 'temp' AND pane_start >= to_timestamp_micros(1) AND pane_start < to_timestamp_micros(2) AND site = 'north-2'"
    );
}

/// Features together are told as such, and the query asks the rows of the same cohort and span how the pairs
/// go together now.
#[test]
fn features_together_in_words_and_sql() {
    let scope = cohort("site=north-2");
    let story = Story {
        signal: "joint",
        together: true,
        unit: "",
        now: 3.21,
        before: 0.69,
        of_estate: None,
        ..warmer(&scope)
    };
    assert_eq!(
        story.tell(),
        "the features at site=north-2 no longer go together as they did, and none was found to have moved by itself (joint, the distance of a row from training, has the median 3.21 against 0.690) since 09:00; other sites are unchanged"
    );
    let text = sql(&Query {
        tenant: "acme",
        model: "boiler",
        version: "1.0.0",
        signal: "joint",
        cohort: &scope,
        start_us: 1,
        end_us: 2,
        pairs: &[Pair {
            names: ["temp", "a \"b\""],
            at: [0, 3],
            correlation: -0.8,
        }],
        reference_bins: &[3, 4],
    });
    assert_eq!(
        text,
        "SELECT psi(make_array(3, 4), merge_bins(bins)) AS psi, merge_bins(bins) AS bins, (SELECT corr(features[1], features[4]) FILTER (WHERE NOT isnan(features[1]) AND NOT isnan(features[4])) FROM inferences WHERE tenant = 'acme' AND model = 'boiler' AND version = '1.0.0' AND event_time >= to_timestamp_micros(1) AND event_time < to_timestamp_micros(2) AND site = 'north-2') AS \"temp with a \"\"b\"\"\", -0.800 AS \"temp with a \"\"b\"\" in training\" FROM profiles WHERE tenant = 'acme' AND model = 'boiler' AND version = '1.0.0' AND signal = 'joint' AND pane_start >= to_timestamp_micros(1) AND pane_start < to_timestamp_micros(2) AND site = 'north-2'"
    );
}
