//! The search on small estates whose causes are known.

use std::sync::Arc;

use driftline_schemas::profile::Cell;
use driftline_schemas::source::Origin;
use proptest::prelude::*;

use super::*;
use crate::random::Random;

const PANES: i64 = 10;
const ROWS: u64 = 20;
/// Slope of the estate's devices a pane.
const SLOPE: f64 = 0.01;

/// A cell by region, site, hardware and firmware.
fn cell([region, site, hardware, firmware]: [&str; 4]) -> Cell {
    let mut origin = Origin::new("default", "d");
    origin.region = region.into();
    origin.site = site.into();
    origin.hardware = hardware.into();
    origin.firmware = firmware.into();
    Cell::of(&origin)
}

/// Regions of five sites of `devices` devices, two of hardware and two of firmware, each with its slope by
/// `factor`; noise of one size on every pane's mean.
fn estate(
    regions: usize,
    devices: usize,
    seed: u64,
    factor: impl Fn([&str; 4]) -> f64,
) -> Vec<(Cell, u64, i64, f64)> {
    let mut random = Random::new(seed);
    let mut panes = Vec::new();
    for site in 0..regions * 5 {
        for device in 0..devices {
            let texts = [
                format!("r{}", site / 5),
                format!("s{site}"),
                format!("h{}", device % 2),
                format!("f{}", device / 2 % 2),
            ];
            let values = texts.each_ref().map(String::as_str);
            let cell = cell(values);
            let start = 0.05 + 0.02 * random.uniform();
            let slope = SLOPE * factor(values) * (1.0 + 0.2 * random.normal());
            for pane in 0..PANES {
                let mean = start + slope * pane as f64 + 0.02 * random.normal();
                panes.push((cell.clone(), (site * devices + device) as u64, pane, mean));
            }
        }
    }
    panes
}

fn units(panes: &[(Cell, u64, i64, f64)]) -> Units {
    let mut units = Units::new();
    for (cell, device, pane, mean) in panes {
        units
            .add(cell, *device, *pane, ROWS, mean * ROWS as f64)
            .unwrap();
    }
    units
}

fn search(panes: &[(Cell, u64, i64, f64)]) -> Found {
    find(&units(panes), &Options::default()).unwrap()
}

fn names(found: &Found) -> Vec<String> {
    found
        .subsets
        .iter()
        .map(|it| it.cohort.to_string())
        .collect()
}

/// Scenario: one site of thirty decays three times as fast.
/// Guarantee: it is named, nothing that it is part of and no part of it is, and the interval holds the truth.
#[test]
fn a_site_is_named_once() {
    let found = search(&estate(
        6,
        8,
        1,
        |[_, site, ..]| if site == "s7" { 3.0 } else { 1.0 },
    ));
    assert_eq!(names(&found), ["site=s7"], "{found:#?}");
    let subset = &found.subsets[0];
    assert_eq!((subset.devices, subset.rows), (8, 8 * 10 * ROWS));
    let ratio = subset.ratio.unwrap();
    let truth = 3.0 / (1.0 + 2.0 / 30.0);
    assert!(ratio.interval.contains(truth), "{ratio:?}");
    let wording = Wording {
        verb: "decays",
        scale: 1.0,
        unit: "",
        span: "30 days",
    };
    let told = subset.sentence(&wording);
    let want = format!(
        "site=s7 decays {:.1} times faster than the estate, {:.1} to {:.1}",
        ratio.value, ratio.interval.low, ratio.interval.high
    );
    assert_eq!(told, want);
}

/// Scenario: a whole region decays twice as fast.
/// Guarantee: the region is named, and none of its sites, hardware or pairs.
#[test]
fn a_region_is_not_named_by_its_sites() {
    let found = search(&estate(
        6,
        8,
        2,
        |[region, ..]| if region == "r2" { 2.0 } else { 1.0 },
    ));
    assert_eq!(names(&found), ["region=r2"], "{found:#?}");
}

/// Scenario: one firmware decays in one region only.
/// Guarantee: the pair is named, and neither the firmware nor the region.
#[test]
fn a_pair_is_named_without_its_values() {
    let both = |[region, _, _, firmware]: [&str; 4]| (region, firmware) == ("r4", "f1");
    let found = search(&estate(6, 8, 3, |it| if both(it) { 3.0 } else { 1.0 }));
    assert_eq!(names(&found), ["firmware=f1 & region=r4"], "{found:#?}");
}

/// Scenario: a region decays, one site in it much faster, and a firmware everywhere.
/// Guarantee: all three are named, the fastest first, and nothing else.
#[test]
fn a_site_is_named_beside_its_region_when_it_differs() {
    let factor = |[region, site, _, firmware]: [&str; 4]| {
        let of_region = if region == "r1" { 2.5 } else { 1.0 };
        let of_site = if site == "s6" { 4.0 } else { 0.0 };
        of_region + of_site + if firmware == "f0" { 0.8 } else { 0.0 }
    };
    let found = search(&estate(8, 12, 4, factor));
    assert_eq!(
        names(&found),
        ["site=s6", "region=r1", "firmware=f0"],
        "{found:#?}"
    );
}

/// Scenario: seven sites decay of sixteen in a region.
/// Guarantee: the sites are named; the region, which explains most at first, is dropped as their sum.
#[test]
fn a_region_is_dropped_that_its_sites_explain() {
    let fast = ["s1", "s12", "s14", "s4", "s5", "s7", "s8"];
    let factor = |[_, site, ..]: [&str; 4]| if fast.contains(&site) { 4.0 } else { 1.0 };
    let mut panes = estate(8, 20, 5, factor);
    let big: Vec<String> = (0..16).map(|site| format!("s{site}")).collect();
    for (cell, ..) in &mut panes {
        if big.iter().any(|site| **site == *cell.values[1]) {
            cell.values[0] = Arc::from("big");
        }
    }
    let sorted = units(&panes).sorted(1.0);
    let all = groups::walk(&sorted, GROUPS_MAX).all;
    let levels = Levels::new(Rule::BenjaminiHochberg, 0.1, &all);
    let first = Problem::new(&sorted.units, &all, SLOPE).path(&levels)[0];
    assert_eq!(all[first.group].cohort, Cohort::of("region", "big"));
    let found = search(&panes);
    let mut named = names(&found);
    named.sort();
    assert_eq!(named, fast.map(|site| format!("site={site}")), "{found:#?}");
}

/// Scenario: a region that is one site.
/// Guarantee: it is named once, with the other as its tie.
#[test]
fn cohorts_of_the_same_devices_are_ties() {
    let mut panes = estate(
        6,
        8,
        6,
        |[_, site, ..]| if site == "s7" { 3.0 } else { 1.0 },
    );
    for (cell, ..) in &mut panes {
        if &*cell.values[1] == "s7" {
            cell.values[0] = Arc::from("island");
        }
    }
    let found = search(&panes);
    assert_eq!(names(&found), ["site=s7"]);
    assert_eq!(found.subsets[0].ties, [Cohort::of("region", "island")]);
    let wording = Wording {
        verb: "decays",
        scale: 1.0,
        unit: "",
        span: "30 days",
    };
    assert!(
        found.subsets[0]
            .sentence(&wording)
            .ends_with(" (the same devices: region=island)")
    );
}

/// Scenario: 200 estates in which all decay alike.
/// Guarantee: in about one of ten anything is named, which is what a rate of 0.1 means where nothing is
/// true.
#[test]
fn nothing_is_found_where_nothing_differs() {
    let found = (0..200)
        .filter(|seed| {
            !search(&estate(4, 6, 1_000 + seed, |_| 1.0))
                .subsets
                .is_empty()
        })
        .count();
    assert!(
        found <= 32,
        "{found} of 200, three standard errors above 20"
    );
}

/// Scenario: an estate that does not decay, but for one site; and one whose signal falls.
/// Guarantee: no ratio to nothing is made, the excess is told with its unit; falling is found when asked for.
#[test]
fn an_estate_that_stands_still_has_no_ratio() {
    let panes = estate(
        6,
        8,
        7,
        |[_, site, ..]| if site == "s7" { 4.0 } else { 0.0 },
    );
    let found = search(&panes);
    assert_eq!(names(&found), ["site=s7"]);
    let subset = &found.subsets[0];
    assert!(found.estate.value.abs() < SLOPE / 2.0, "{found:#?}");
    let mut subset = subset.clone();
    subset.ratio = None;
    let wording = Wording {
        verb: "decays",
        scale: 300.0,
        unit: " points",
        span: "30 days",
    };
    let told = subset.sentence(&wording);
    assert!(
        told.contains(" points in 30 days more than the estate, "),
        "{told}"
    );

    let falling: Vec<_> = panes
        .into_iter()
        .map(|(cell, device, pane, mean)| (cell, device, pane, 1.0 - mean))
        .collect();
    assert!(search(&falling).subsets.is_empty());
    let down = Options {
        direction: Direction::Down,
        ..Options::default()
    };
    let found = find(&units(&falling), &down).unwrap();
    assert_eq!(names(&found), ["site=s7"]);
    assert!(found.subsets[0].slope.value > 0.0);

    let flat = search(&estate(6, 8, 8, |[_, site, ..]| match site {
        "s7" => 4.0,
        "s8" => -4.0,
        _ => 0.0,
    }));
    assert_eq!(names(&flat), ["site=s7"]);
    assert_eq!(flat.subsets[0].ratio, None);
}

/// Scenario: more groups than are held; devices that said nothing of themselves; one pane only.
/// Guarantee: the largest stay and the others are counted; what was not declared is no group; devices
/// without a trend are counted, and without any there is no answer.
#[test]
fn limits_are_counted() {
    let panes = estate(4, 6, 9, |_| 1.0);
    let sorted = units(&panes).sorted(1.0);
    let all = groups::walk(&sorted, GROUPS_MAX);
    let few = groups::walk(&sorted, 9);
    assert_eq!(all.over_limit, 0);
    let sizes = |groups: &groups::Groups| {
        let mut sizes: Vec<usize> = groups.all.iter().map(|it| it.members.len()).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    };
    assert_eq!(sizes(&few), sizes(&all)[..9]);
    assert_eq!(few.over_limit, all.all.len() - 9);

    // link=unknown and role=device are everywhere, the variant is not declared anywhere.
    let named = |attribute: &str| all.all.iter().any(|it| it.cohort.0.contains_key(attribute));
    assert!(named("firmware") && !named("link") && !named("variant") && !named("role"));

    let one: Vec<_> = panes.iter().filter(|it| it.2 == 0).cloned().collect();
    let answer = find(&units(&one), &Options::default());
    assert_eq!(answer, Err(SubsetsError::TooFewUnits { with_trend: 0 }));
    let mut mixed = units(&panes);
    mixed.add(&panes[0].0, 99_999, 3, 5, 1.0).unwrap();
    let found = find(&mixed, &Options::default()).unwrap();
    assert_eq!((found.without_trend, found.devices), (1, 4 * 5 * 6));
    let wrong = Options {
        false_discovery_rate: 0.0,
        ..Options::default()
    };
    assert!(
        find(&mixed, &wrong)
            .unwrap_err()
            .to_string()
            .contains("above 0 and below 1")
    );
}

/// Stronger rules name no more, at every place of a path.
#[test]
fn stricter_rules_are_stricter() {
    for k in [1, 5, 40] {
        let of = |rule: Rule| rule.critical(0.1, k, 2_000);
        assert!(of(Rule::BenjaminiHochberg) > of(Rule::BenjaminiYekutieli));
        assert!(of(Rule::BenjaminiYekutieli) > of(Rule::EValues));
    }
    // Σ 1/i up to 3 is 11/6.
    let three = Rule::BenjaminiYekutieli.critical(0.11, 1, 3);
    assert!((three - 0.02).abs() < 1e-12, "{three}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// The order in which counts come, and how they are split, changes nothing, to the bit.
    #[test]
    fn the_order_does_not_matter(seed in 0_u64..1000, split in 1_u64..ROWS) {
        let panes = estate(3, 6, seed, |[_, site, ..]| if site == "s7" { 3.0 } else { 1.0 });
        // Whole numbers, as counts of wrong rows are.
        let count = |mean: &f64| (mean * 1000.0).round();
        let mut forwards = Units::new();
        for (cell, device, pane, mean) in &panes {
            forwards.add(cell, *device, *pane, ROWS, count(mean)).unwrap();
        }
        let mut backwards = Units::new();
        for (cell, device, pane, mean) in panes.iter().rev() {
            let part = (count(mean) / 3.0).floor();
            backwards.add(cell, *device, *pane, split, part).unwrap();
            backwards.add(cell, *device, *pane, ROWS - split, count(mean) - part).unwrap();
        }
        let options = Options::default();
        prop_assert_eq!(find(&forwards, &options), find(&backwards, &options));
    }

    /// Scaling and shifting all values changes no name, no p-value beyond rounding, and no ratio.
    #[test]
    fn units_of_measure_do_not_matter(seed in 0_u64..1000, scale in 0.01..100.0, shift in -5.0..5.0) {
        let panes = estate(3, 6, seed, |[_, site, ..]| if site == "s7" { 4.0 } else { 1.0 });
        let moved: Vec<_> = panes
            .iter()
            .map(|(cell, device, pane, mean)| (cell.clone(), *device, *pane, scale * mean + shift))
            .collect();
        let (plain, moved) = (search(&panes), search(&moved));
        prop_assert_eq!(names(&plain), names(&moved));
        for (a, b) in plain.subsets.iter().zip(&moved.subsets) {
            let (a, b) = (a.ratio.unwrap(), b.ratio.unwrap());
            prop_assert!((a.value - b.value).abs() < 1e-4);
            prop_assert!((a.interval.low - b.interval.low).abs() < 1e-4);
        }
    }
}
