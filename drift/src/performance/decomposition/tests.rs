//! Losses of a known cause are put down to it; what cannot be told apart is not.

use super::*;
use crate::random::Random;

/// Two numbers; the truth is the sign of their sum, the noisier the nearer to 0. `shift` moves the inputs,
/// `weight` is how the truth weighs the second one.
fn rows(shift: f64, weight: f64, rows: usize, random: &mut Random) -> (Vec<Input>, Vec<f64>) {
    let (mut a, mut b, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rows {
        let (x, y) = (1.5 - shift + random.normal(), random.normal());
        let truth = x + weight * y + random.normal();
        losses.push(f64::from(u8::from((x + y > 0.0) != (truth > 0.0))));
        a.push(x);
        b.push(y);
    }
    (vec![Input::Numbers(a), Input::Numbers(b)], losses)
}

fn told(shift: f64, weight: f64, seed: u64) -> Option<Decomposition> {
    let mut random = Random::new(seed);
    let (inputs, losses) = rows(0.0, 1.0, 3_000, &mut random);
    let (inputs_now, losses_now) = rows(shift, weight, 2_000, &mut random);
    let before = Labelled {
        inputs: &inputs,
        losses: &losses,
    };
    let now = Labelled {
        inputs: &inputs_now,
        losses: &losses_now,
    };
    decompose(before, now).unwrap()
}

/// Scenario: inputs that move to where the model errs more; a truth that turns; both; neither.
/// Guarantee: four fifths and more go to the one cause there is; the parts add up to the whole; without a
/// change no shares are given.
#[test]
fn losses_go_to_their_cause() {
    let inputs = told(1.5, 1.0, 1).unwrap();
    assert!(
        inputs.total.change > 0.05 && inputs.inputs_share.unwrap() > 0.8,
        "{inputs:?}"
    );
    assert!(inputs.relation.change.abs() < 3.0 * inputs.relation.standard_error);
    let relation = told(0.0, -1.0, 2).unwrap();
    assert!(
        relation.total.change > 0.1 && relation.inputs_share.unwrap() < 0.1,
        "{relation:?}"
    );
    assert!(relation.overlap > 0.9, "{relation:?}");
    let both = told(1.5, -0.5, 3).unwrap();
    assert!(
        both.inputs.is_clear() && both.relation.is_clear(),
        "{both:?}"
    );
    for it in [&inputs, &relation, &both] {
        let sum = it.inputs.change + it.relation.change;
        assert!((sum - it.total.change).abs() < 1e-12);
        assert!((it.now - it.before - it.total.change).abs() < 1e-12);
    }
    assert_eq!(told(0.0, 1.0, 4).unwrap().inputs_share, None);
}

/// Scenario: periods whose inputs have next to nothing in common.
/// Guarantee: nothing is told apart, since no row says what the other period would have made of it.
#[test]
fn periods_apart_are_not_compared() {
    assert_eq!(told(12.0, 1.0, 5), None);
}

/// Scenario: many runs without any change.
/// Guarantee: the standard errors are what the parts scatter by, within a third.
#[test]
fn standard_errors_are_the_scatter() {
    let runs: Vec<Decomposition> = (0..60)
        .filter_map(|seed| told(0.4, 1.0, 100 + seed))
        .collect();
    let ratio = |of: fn(&Decomposition) -> Part| {
        let mean = runs.iter().map(|it| of(it).change).sum::<f64>() / runs.len() as f64;
        let scatter = runs
            .iter()
            .map(|it| (of(it).change - mean).powi(2))
            .sum::<f64>();
        let errors = runs
            .iter()
            .map(|it| of(it).standard_error.powi(2))
            .sum::<f64>();
        (scatter / errors).sqrt()
    };
    let (relation, total) = (ratio(|it| it.relation), ratio(|it| it.total));
    assert!((0.67..1.5).contains(&relation), "{relation}");
    assert!((0.67..1.5).contains(&total), "{total}");
}

/// Scenario: losses that are none, columns that do not fit.
/// Guarantee: each is refused with its name.
#[test]
fn what_is_refused() {
    let inputs = [Input::Numbers(vec![1.0; 200])];
    let side = |losses| Labelled {
        inputs: &inputs,
        losses,
    };
    let (good, short) = (vec![0.0; 200], vec![0.0; 199]);
    let mut bad = good.clone();
    bad[3] = f64::NAN;
    let refused = |losses| {
        decompose(side(&good), side(losses))
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&bad).contains("finite"));
    assert!(refused(&short).contains("200 rows"));
    assert!(refused(&[]).contains("no rows"));
}
