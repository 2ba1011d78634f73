//! Worlds in which performance falls for a known cause.

use driftline_drift::performance::decomposition::Input;
use driftline_drift::random::Random;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Inputs only.
    Inputs,
    /// The relation only.
    Relation,
    /// Nothing.
    Nothing,
}

/// How rows come about. Two numbers and a category (a place where the truth is noisier) go in; the model
/// says whether the sum of the numbers is positive, or what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Law {
    /// Mean of the first number.
    pub(crate) mean: f64,
    /// Standard deviation of the second one.
    pub(crate) sd: f64,
    /// Share of rows from the noisy place.
    pub(crate) noisy: f64,
    /// How the truth weighs the numbers; the model weighs both with 1.
    pub(crate) weights: [f64; 2],
    /// Scatter of the truth.
    pub(crate) noise: f64,
    /// Whether the loss is a squared error of the sum, else 1 for a wrong class.
    pub(crate) is_squared: bool,
}

/// Of a model that is right nine times of ten.
pub(crate) const PAST: Law = Law {
    mean: 1.5,
    sd: 1.0,
    noisy: 0.1,
    weights: [1.0, 1.0],
    noise: 0.5,
    is_squared: false,
};

/// A world: its name, what changed, the law before and the law now.
pub(crate) type World = (&'static str, Cause, Law, Law);

/// All of them.
pub(crate) fn worlds() -> [World; 9] {
    let squared = Law {
        is_squared: true,
        ..PAST
    };
    [
        (
            "inputs: a mean moves to the boundary",
            Cause::Inputs,
            PAST,
            Law { mean: 0.2, ..PAST },
        ),
        (
            "inputs: a mean moves and a spread halves",
            Cause::Inputs,
            PAST,
            Law {
                mean: 0.4,
                sd: 0.5,
                ..PAST
            },
        ),
        (
            "inputs: a noisy place has more rows",
            Cause::Inputs,
            PAST,
            Law { noisy: 0.5, ..PAST },
        ),
        (
            "inputs: the same, squared errors",
            Cause::Inputs,
            squared,
            Law {
                noisy: 0.5,
                ..squared
            },
        ),
        (
            "relation: an input no longer counts",
            Cause::Relation,
            PAST,
            Law {
                weights: [0.0, 1.0],
                ..PAST
            },
        ),
        (
            "relation: an input counts the other way",
            Cause::Relation,
            PAST,
            Law {
                weights: [1.0, -1.0],
                ..PAST
            },
        ),
        (
            "relation: the truth is noisier",
            Cause::Relation,
            PAST,
            Law { noise: 1.5, ..PAST },
        ),
        (
            "relation: the same, squared errors",
            Cause::Relation,
            squared,
            Law {
                noise: 1.0,
                ..squared
            },
        ),
        ("nothing", Cause::Nothing, PAST, PAST),
    ]
}

/// Inputs and losses of so many rows.
pub(crate) fn draw(law: &Law, rows: usize, random: &mut Random) -> (Vec<Input>, Vec<f64>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let (mut places, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let x = [law.mean + random.normal(), law.sd * random.normal()];
        let is_noisy = random.uniform() < law.noisy;
        let noise = if is_noisy { 3.0 * law.noise } else { law.noise };
        let truth = law.weights[0] * x[0] + law.weights[1] * x[1] + noise * random.normal();
        let said = x[0] + x[1];
        losses.push(match law.is_squared {
            true => (said - truth).powi(2),
            false => f64::from(u8::from((said > 0.0) != (truth > 0.0))),
        });
        first.push(x[0]);
        second.push(x[1]);
        places.push(Some(u32::from(is_noisy)));
    }
    let inputs = vec![
        Input::Numbers(first),
        Input::Numbers(second),
        Input::Categories(places),
    ];
    (inputs, losses)
}
