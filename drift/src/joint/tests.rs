use driftline_schemas::quantity::NAN;
use proptest::prelude::*;

use super::*;
use crate::random::Random;

/// Rows of two normal features with a correlation, in hundredths; means 20 and 50, deviations 4 and 10.
fn pairs(seed: u64, rows: usize, correlation: f64) -> Vec<[i32; 2]> {
    let mut random = Random::new(seed);
    let kept = (1.0 - correlation * correlation).sqrt();
    (0..rows)
        .map(|_| {
            let a = random.normal();
            let b = correlation * a + kept * random.normal();
            [20.0 + 4.0 * a, 50.0 + 10.0 * b].map(|it| quantity::quantise(it, 0.01))
        })
        .collect()
}

fn columns<const N: usize>(rows: &[[i32; N]]) -> Vec<Values<i32>> {
    let column = |at: usize| rows.iter().map(|row| Some(row[at])).collect();
    (0..N).map(column).collect()
}

fn learned(columns: &[Values<i32>]) -> Result<Learned, LearnError> {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let named = columns.iter().zip(NAMES).enumerate();
    let named = named.map(|(at, (codes, name))| JointColumn {
        name,
        at,
        resolution: 0.01,
        codes,
    });
    learn(&named.collect::<Vec<_>>(), None)
}

/// Mean of the signal over rows.
fn mean<const N: usize>(joint: &Joint, rows: &[[i32; N]]) -> f64 {
    let values = rows.iter().map(|row| joint.value(0, |it| Some(row[it.at])));
    let sum: f64 = values.map(|value| f64::from(value.unwrap()) * 1e-3).sum();
    sum / rows.len() as f64
}

/// Two features with a correlation of 0.8: rows of the same law are at 1 on average; where the correlation
/// has turned round they are at (1.8/0.2 + 0.2/1.8)/2 = 4.56, where it is gone at (1/1.8 + 1/0.2)/2 = 2.78.
#[test]
fn distances_are_what_theory_says() {
    let training = pairs(1, 20_000, 0.8);
    let joint = learned(&columns(&training)).unwrap().joint;
    assert!((mean(&joint, &training) - 1.0).abs() < 0.02);
    assert!((mean(&joint, &pairs(2, 20_000, 0.8)) - 1.0).abs() < 0.03);
    let turned = mean(&joint, &pairs(3, 20_000, -0.8));
    assert!((turned - 4.56).abs() < 0.15, "{turned}");
    let gone = mean(&joint, &pairs(4, 20_000, 0.0));
    assert!((gone - 2.78).abs() < 0.1, "{gone}");
    let apart = learned(&columns(&pairs(5, 20_000, 0.0))).unwrap().joint;
    assert_eq!(apart.ties, [], "features that have no relation are no pair");
    let tie = &joint.ties[0];
    assert_eq!((tie.a, tie.b), (0, 1));
    assert!((tie.correlation - 0.8).abs() < 0.01);
    let center = joint.features[0].centers[0] as f64 / (CENTER_PARTS * 100) as f64;
    assert!((center - 20.0).abs() < 0.1, "{center}");
}

/// A day's cycle that moves both features against one another, as large as all else: their relation within the
/// hour is what is learned, rows are as far out at every hour, and a relation that turns round stands out as it
/// does without the cycle. Rows over less than a week, or without times, have one mean.
#[test]
fn the_day_is_taken_out() {
    const HOUR_US: i64 = 3_600_000_000;
    let day = |rows: Vec<[i32; 2]>| -> Vec<[i32; 2]> {
        let at = |row: usize| (row as f64 / 24.0 * std::f64::consts::TAU).sin();
        let rows = rows.into_iter().enumerate();
        rows.map(|(row, [a, b])| [a + (600.0 * at(row)) as i32, b - (1_500.0 * at(row)) as i32])
            .collect()
    };
    let mean_by_hour = |joint: &Joint, rows: &[[i32; 2]]| {
        let rows = rows.iter().enumerate();
        let values = rows.map(|(at, row)| {
            let value = joint.value(at as i64 * HOUR_US, |it| Some(row[it.at]));
            f64::from(value.unwrap()) * 1e-3
        });
        let values: Vec<f64> = values.collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let training = day(pairs(12, 12_000, 0.8));
    let codes = columns(&training);
    let times: Vec<i64> = (0..12_000).map(|row| row * HOUR_US).collect();
    let of = |times: Option<&[i64]>, rows: usize| {
        let column = |(at, codes): (usize, &Values<i32>)| {
            (
                at,
                codes
                    .iter()
                    .take(rows)
                    .map(|it| it.copied())
                    .collect::<Values<i32>>(),
            )
        };
        let kept: Vec<_> = codes.iter().enumerate().map(column).collect();
        let all = kept.iter().map(|(at, codes)| JointColumn {
            name: ["a", "b"][*at],
            at: *at,
            resolution: 0.01,
            codes,
        });
        learn(&all.collect::<Vec<_>>(), times).unwrap().joint
    };
    let joint = of(Some(&times), 12_000);
    assert_eq!(joint.season, Season::HourOfDay);
    assert!((joint.ties[0].correlation - 0.8).abs() < 0.02);
    assert!((mean_by_hour(&joint, &training) - 1.0).abs() < 0.02);
    let turned = mean_by_hour(&joint, &day(pairs(13, 12_000, -0.8)));
    assert!((turned - 4.56).abs() < 0.2, "{turned}");
    let without = of(None, 12_000);
    assert_eq!(without.season, Season::None);
    assert!(
        without.ties[0].correlation < 0.0,
        "the day hides the relation"
    );
    assert_eq!(of(Some(&times[..150]), 150).season, Season::None);
    // Hours enough, rows too few for 24 means.
    assert_eq!(of(Some(&times[..400]), 400).season, Season::None);
    assert_eq!(rows_needed(2, Season::HourOfDay), 530);
}

/// A sum of two others, and a copy: the matrix is singular, what is learned is finite, rows that keep to
/// the relation stay at the same distance, and rows that break it by half a deviation lie far out.
#[test]
fn features_that_follow_from_others_are_kept() {
    let with = |rows: &[[i32; 2]], broken: i32| -> Vec<[i32; 4]> {
        let of = |[a, b]: &[i32; 2]| [*a, *b, a + b, *a + broken];
        rows.iter().map(of).collect()
    };
    let joint = learned(&columns(&with(&pairs(5, 5_000, 0.3), 0))).unwrap();
    assert_eq!(joint.left_out, Vec::<String>::new());
    let joint = Joint::from_json(joint.joint.to_json().as_bytes()).unwrap();
    let (kept, broken) = (
        mean(&joint, &with(&pairs(6, 5_000, 0.3), 0)),
        mean(&joint, &with(&pairs(6, 5_000, 0.3), 200)),
    );
    // Two directions out of four vary.
    assert!((kept - 0.5).abs() < 0.05, "{kept}");
    assert!(broken > 10.0, "{broken}");
}

/// A constant, a column that is nearly one, and one that is always missing are left out, and said; with one
/// feature left there is nothing to learn.
#[test]
fn features_that_do_not_vary_are_left_out() {
    let rows = pairs(7, 3_000, 0.5);
    let mut all = columns(&rows);
    all.push((0..3_000).map(|row| Some(i32::from(row == 9))).collect());
    all.push((0..3_000).map(|_| None).collect());
    let learned_of_all = learned(&all).unwrap();
    assert_eq!(learned_of_all.left_out, ["c", "d"]);
    assert_eq!(learned_of_all.rows, 3_000);
    assert_eq!(learned_of_all.joint, learned(&all[..2]).unwrap().joint);
    assert_eq!(learned(&all[1..]), Err(LearnError::TooFewFeatures(1)));
}

/// Rows with a missing or non-finite feature are not learned from; too few whole rows are refused, naming
/// the feature that is missing most.
#[test]
fn only_whole_rows_are_learned_from() {
    let rows = pairs(8, 1_000, 0.5);
    let mut all = columns(&rows);
    all[1] = (0..1_000)
        .map(|row| match row % 10 {
            0 => None,
            1 => Some(NAN),
            _ => Some(rows[row][1]),
        })
        .collect();
    let whole: Vec<[i32; 2]> = (0..1_000)
        .filter(|row| row % 10 > 1)
        .map(|row| rows[row])
        .collect();
    let found = learned(&all).unwrap();
    assert_eq!(found.rows, 800);
    // Tails are taken feature by feature, so a feature that is always there may have another least value.
    let (a, b) = (found.joint, learned(&columns(&whole)).unwrap().joint);
    assert!((mean(&a, &rows) - mean(&b, &rows)).abs() < 0.01);
    all[1] = (0..1_000)
        .map(|row| (row < 40).then(|| rows[row][1]))
        .collect();
    assert_eq!(
        learned(&all),
        Err(LearnError::TooFewRows {
            rows: 40,
            features: 2,
            needed: 50,
            emptiest: "b".into()
        })
    );
    assert_eq!(
        [2, 10, 128].map(|n| rows_needed(n, Season::None)),
        [50, 291, 10_480]
    );
}

/// One absurd value in two thousand training rows hardly changes what is learned.
#[test]
fn garbage_in_training_changes_little() {
    let mut rows = pairs(9, 10_000, 0.8);
    for row in rows.iter_mut().step_by(2_000) {
        row[0] = i32::MAX;
        row[1] = quantity::VALUE_MIN;
    }
    let joint = learned(&columns(&rows)).unwrap().joint;
    let (same, turned) = (
        mean(&joint, &pairs(10, 10_000, 0.8)),
        mean(&joint, &pairs(11, 10_000, -0.8)),
    );
    assert!((same - 1.0).abs() < 0.1 && turned > 4.0, "{same} {turned}");
}

/// More features than are looked at together are refused, and named as a number.
#[test]
fn too_many_features_are_refused() {
    let codes: Values<i32> = (0..100).map(Some).collect();
    let column = JointColumn {
        name: "x",
        at: 0,
        resolution: 1.0,
        codes: &codes,
    };
    let all = vec![column; JOINT_FEATURES_MAX + 1];
    assert_eq!(
        learn(&all, None),
        Err(LearnError::TooManyFeatures(JOINT_FEATURES_MAX + 1))
    );
}

proptest! {
    /// Any codes in any order of rows: the very same is learned, and moments are those of exact arithmetic.
    #[test]
    fn moments_are_exact(mut rows in proptest::collection::vec((any::<i32>(), -9..9i32), 60..120)) {
        let rows_of = |rows: &[(i32, i32)]| {
            let finite = rows.iter().map(|row| [row.0.max(quantity::VALUE_MIN), row.1]);
            learned(&columns(&finite.collect::<Vec<_>>()))
        };
        let before = rows_of(&rows);
        rows.reverse();
        prop_assert_eq!(&rows_of(&rows), &before);
        if let Ok(before) = before {
            let sum: i128 = rows.iter().map(|row| i128::from(row.0.max(quantity::VALUE_MIN))).sum();
            let (center, n) = (i128::from(before.joint.features[0].centers[0]), rows.len() as i128);
            prop_assert!((center * n - sum * i128::from(CENTER_PARTS)).abs() * 2 <= n);
        }
    }
}
