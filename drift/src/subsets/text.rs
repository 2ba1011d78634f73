//! A sentence that a person understands.

use super::Subset;

/// How slopes are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wording<'a> {
    /// What a cohort does: `decays`.
    pub verb: &'a str,
    /// What a slope of 1 a pane is in [`Self::unit`], over [`Self::span`].
    pub scale: f64,
    /// Unit of the values with a space before it (` points`), or nothing.
    pub unit: &'a str,
    /// Over how long slopes are told: `30 days`.
    pub span: &'a str,
}

impl Subset {
    /// `firmware=2.1 & region=north decays 2.3 times faster than the estate, 1.7 to 3.1`.
    pub fn sentence(&self, wording: &Wording<'_>) -> String {
        let Wording {
            verb, unit, span, ..
        } = wording;
        let told = match &self.ratio {
            Some(ratio) => format!(
                "{} {verb} {:.1} times faster than the estate, {:.1} to {:.1}",
                self.cohort, ratio.value, ratio.interval.low, ratio.interval.high
            ),
            None => {
                let [value, low, high] = [
                    self.excess.value,
                    self.excess.interval.low,
                    self.excess.interval.high,
                ]
                .map(|it| short(it * wording.scale));
                format!(
                    "{} {verb} by {value}{unit} in {span} more than the estate, {low} to {high}; the estate as a whole does not clearly",
                    self.cohort
                )
            }
        };
        if self.ties.is_empty() {
            return told;
        }
        let ties: Vec<String> = self.ties.iter().map(ToString::to_string).collect();
        format!("{told} (the same devices: {})", ties.join(", "))
    }
}

/// Three digits.
fn short(value: f64) -> String {
    let rounded = format!("{value:.2e}").parse::<f64>().unwrap_or(value);
    rounded.to_string()
}
