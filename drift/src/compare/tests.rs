//! Whole comparisons.

use super::*;
use proptest::prelude::*;

fn numbers(name: &str, reference: Vec<f64>, current: Vec<f64>) -> Column {
    Column {
        name: name.to_owned(),
        rows: Sides::new(reference.len() as u64, current.len() as u64),
        missing: Sides::default(),
        not_finite: Sides::default(),
        values: Values::Numbers(Numbers::of_values(reference, current).unwrap()),
    }
}

fn native() -> Plan {
    Plan {
        methods: Vec::new(),
        definitions: Definitions::Native,
        false_alarm_rate: 0.01,
    }
}

fn drifted(column: &Column) -> Vec<&'static str> {
    let measures = judge(&[column], &native()).unwrap();
    measures[0]
        .iter()
        .filter(|m| m.drifted)
        .map(|m| m.method.name())
        .collect()
}

/// A spread of values without randomness: the same quantiles on both sides, shuffled by a stride.
fn even(rows: usize, of: impl Fn(f64) -> f64) -> Vec<f64> {
    (0..rows)
        .map(|i| of(((i * 7919) % rows) as f64 / rows as f64))
        .collect()
}

/// Each kind of change is found by the test that is there for it, and nothing in equal sides.
#[test]
fn each_change_has_its_test() {
    let same = || even(400, |u| u * 10.0);
    assert!(drifted(&numbers("x", same(), same())).is_empty());
    let up = numbers("x", same(), even(400, |u| u * 10.0 + 2.0));
    assert!(drifted(&up).contains(&"location"));
    let wide = numbers("x", same(), even(400, |u| (u - 0.5) * 17.0 + 5.0));
    assert!(drifted(&wide).contains(&"spread"));
    let stuck = numbers(
        "x",
        same(),
        even(400, |u| if u < 0.1 { 5.0 } else { u * 10.0 }),
    );
    assert!(drifted(&stuck).contains(&"shares"), "{:?}", drifted(&stuck));
    let two = numbers("x", same(), even(400, |u| if u < 0.5 { 2.5 } else { 7.5 }));
    assert!(drifted(&two).contains(&"ks") && !drifted(&two).contains(&"location"));
    let mut gone = numbers("x", same(), same());
    gone.missing = Sides::new(0, 20);
    gone.rows.current += 20;
    assert_eq!(drifted(&gone), ["missing"]);
}

/// A constant column, an empty one, one that is missing on one side: no test could answer what it
/// cannot, and a constant that changes is found.
#[test]
fn degenerate_columns_have_their_fate() {
    let constant = numbers("x", vec![4.0; 60], vec![4.0; 60]);
    let measures = judge(&[&constant], &native()).unwrap();
    assert!(
        measures[0]
            .iter()
            .all(|m| m.p_value.is_none() && m.value == 0.0),
        "{measures:?}"
    );
    let moved = numbers("x", vec![4.0; 60], vec![5.0; 60]);
    assert!(!drifted(&moved).is_empty());
    let mut lost = numbers("x", [4.0, 5.0, 6.0].repeat(20), Vec::new());
    lost.rows.current = 60;
    lost.missing.current = 60;
    assert_eq!(drifted(&lost), ["missing"]);
    let empty = numbers("x", Vec::new(), Vec::new());
    assert!(judge(&[&empty], &native()).unwrap()[0].is_empty());
}

/// One garbage value in a hundred neither hides a shift nor makes one.
#[test]
fn garbage_changes_no_verdict() {
    let with_garbage = |mut values: Vec<f64>| {
        values[7] = 1e6;
        values
    };
    let same = numbers("x", even(300, |u| u), with_garbage(even(300, |u| u)));
    assert!(drifted(&same).is_empty());
    let moved = numbers("x", even(300, |u| u), with_garbage(even(300, |u| u + 0.2)));
    assert!(drifted(&moved).contains(&"location"));
}

/// Counted between cuts, a column answers as its values do: the statistics move by at most what shares a
/// bin, and the share bins are the same.
#[test]
fn bins_answer_like_values() {
    let reference = even(40_000, |u| (u * 6.0).exp());
    let current = even(30_000, |u| (u * 6.0).exp() * 1.01);
    let whole = Numbers::of_values(reference.clone(), current.clone()).unwrap();
    let mut samples = Sides::new(Reservoir::new(10_000), Reservoir::new(10_000));
    samples.reference.extend(&reference);
    samples.current.extend(&current);
    let cuts = Cuts::new(Sides::new(
        samples.reference.values(),
        samples.current.values(),
    ));
    let (mut r, mut c) = (Binned::new(&cuts), Binned::new(&cuts));
    r.extend(&cuts, &reference);
    c.extend(&cuts, &current);
    let running = Sides::new(&reference, &current).map(|values| {
        let mut running = Running::default();
        running.extend(values);
        running.moments()
    });
    let binned = Numbers::of_bins(&cuts, Sides::new(&r, &c), running);
    assert_eq!(
        binned.counts.as_ref().map(|it| it.iter().sum::<u64>()),
        Sides::new(40_000, 30_000)
    );
    for side in [
        (&binned.moments.reference, &whole.moments.reference),
        (&binned.moments.current, &whole.moments.current),
    ] {
        assert!((side.0.mean / side.1.mean - 1.0).abs() < 1e-12);
        assert!((side.0.variance / side.1.variance - 1.0).abs() < 1e-9);
    }
    let column = |values| Column {
        name: "x".to_owned(),
        rows: Sides::new(40_000, 30_000),
        missing: Sides::default(),
        not_finite: Sides::default(),
        values: Values::Numbers(values),
    };
    let plan = Plan {
        methods: [
            Method::Location,
            Method::Spread,
            Method::Ks,
            Method::Wasserstein,
            Method::Tv,
        ]
        .to_vec(),
        ..native()
    };
    let answers = [column(binned), column(whole)].map(|c| judge(&[&c], &plan).unwrap().remove(0));
    for (ours, exact) in answers[0].iter().zip(&answers[1]) {
        let gap = (ours.value - exact.value).abs();
        // Bins hold a tenth of a percent each; deciles come from a sample of a quarter.
        let allowed = if ours.method == Method::Tv {
            0.01
        } else {
            0.02 * exact.value.abs() + 0.003
        };
        assert!(gap <= allowed, "{ours:?} {exact:?}");
    }
}

/// A reservoir is the stream while it fits, and a fair sample after: quantiles of a ramp stay where they
/// are to five standard errors, whatever the blocks it came in.
#[test]
fn a_reservoir_is_fair() {
    let ramp: Vec<f64> = (0..100_000).map(f64::from).collect();
    let mut one = Reservoir::new(5_000);
    one.extend(&ramp[..5_000]);
    assert!(one.is_whole() && one.values() == &ramp[..5_000]);
    one.extend(&ramp[5_000..]);
    let mut blocks = Reservoir::new(5_000);
    ramp.chunks(77).for_each(|block| blocks.extend(block));
    assert_eq!(one.values(), blocks.values(), "blocks change nothing");
    assert!(!one.is_whole() && one.values().len() == 5_000);
    for tenth in 1..10 {
        let below = one
            .values()
            .iter()
            .filter(|x| **x < 1e4 * f64::from(tenth))
            .count();
        let p = f64::from(tenth) / 10.0;
        let error = (p * (1.0 - p) / 5_000.0).sqrt();
        assert!(
            (below as f64 / 5_000.0 - p).abs() < 5.0 * error,
            "{tenth}: {below}"
        );
    }
}

/// Weights of 1 are the rows themselves, and a side whose one stratum weighs double is that stratum
/// doubled.
#[test]
fn weights_stand_for_rows() {
    let values = even(2_000, |u| u);
    let cuts = Cuts::new(Sides::new(&values, &values));
    let (mut plain, mut weighed, mut skewed) =
        (Binned::new(&cuts), Binned::new(&cuts), Binned::new(&cuts));
    plain.extend(&cuts, &values);
    for &value in &values {
        weighed.weigh(&cuts, value, 1.0);
        skewed.weigh(&cuts, value, if value < 0.5 { 2.0 } else { 1.0 });
    }
    assert_eq!(weighed.effective_rows(), 2_000.0);
    let equal = Numbers::of_weights(&cuts, Sides::new(&weighed, &weighed));
    assert_eq!(equal.shares().reference, [200; 10]);
    let moved = Numbers::of_weights(&cuts, Sides::new(&weighed, &skewed));
    let shares = moved.shares().current;
    let below: u64 = shares[..5].iter().sum();
    let all: u64 = shares.iter().sum();
    assert!(
        (below as f64 / all as f64 - 2.0 / 3.0).abs() < 0.01,
        "{shares:?}"
    );
    // Kish: (3/2)² / (5/2) of the rows.
    assert!((all as f64 / 1_800.0 - 1.0).abs() < 0.01, "{shares:?}");
}

proptest! {
    /// The order of rows changes nothing, nor does which test comes first.
    #[test]
    fn rows_have_no_order(values in prop::collection::vec(-3..3_i32, 40..80)) {
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        let (a, b) = values.split_at(values.len() / 2);
        let mut backwards = a.to_vec();
        backwards.reverse();
        let one = judge(&[&numbers("x", a.to_vec(), b.to_vec())], &native()).unwrap();
        let other = judge(&[&numbers("x", backwards, b.to_vec())], &native()).unwrap();
        prop_assert_eq!(one, other);
    }
}
