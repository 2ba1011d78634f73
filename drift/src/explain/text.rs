//! A sentence that a person understands.

use std::fmt::Write as _;

use driftline_schemas::measure::Cohort;

use crate::calibrate::{Against, Effect, ScoreKind};

/// How a finding begins whose window had ended long before anybody could see it.
pub const ABOUT_THE_PAST: &str = "about the past: ";

/// What is told of the strongest signal of a finding.
#[derive(Debug, Clone)]
pub struct Story<'a> {
    /// Name of the signal.
    pub signal: &'a str,
    /// Whether it is the error signal.
    pub error: bool,
    /// Whether it is the signal that looks at the features together.
    pub together: bool,
    /// Unit of its values, may be empty.
    pub unit: &'a str,
    /// Score that decides.
    pub kind: ScoreKind,
    /// Name of the category that the score counts, where it counts one.
    pub category: Option<&'a str>,
    /// Whom it is about.
    pub scope: &'a Cohort,
    /// How far it moved.
    pub effect: Effect,
    /// Against what.
    pub against: Against,
    /// Mean (numbers), median (features together) or share (counts) now and before.
    pub now: f64,
    /// The same of what it is compared with.
    pub before: f64,
    /// When it began, as text.
    pub since: &'a str,
    /// Share of the estate's deviation that goes away without the scope, 0 to 1.
    pub of_estate: Option<f64>,
    /// Whether nothing else is found to have moved.
    pub others_unchanged: bool,
    /// Other cohorts of the same cells.
    pub ties: &'a [Cohort],
    /// Other signals of the same scope that moved with it.
    pub also: &'a [String],
    /// What else is to be said, as whole sentences.
    pub remarks: &'a [String],
    /// Whether it is about the past.
    pub past: bool,
}

/// Most names that one sentence lists; a model of a thousand inputs moves as a whole.
const NAMES_SHOWN: usize = 4;

impl Story<'_> {
    /// The sentence.
    pub fn tell(&self) -> String {
        let mut text = String::new();
        if self.past {
            text.push_str(ABOUT_THE_PAST);
        }
        let whom = match self.scope.is_estate() {
            true => "across the estate".to_owned(),
            false => format!("at {}", self.scope),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{} since {}", self.what(&whom), self.since);
        if let (Some(share), false) = (self.of_estate, self.scope.is_estate()) {
            let _ = write!(
                text,
                "; {:.0} % of the estate's shift goes away without it",
                share * 100.0
            );
        }
        if self.others_unchanged && !self.scope.is_estate() {
            let attribute = self.scope.0.keys().next().map_or("cohort", String::as_str);
            let others = match self.scope.0.len() {
                1 => plural(attribute),
                _ => "cohorts".into(),
            };
            let _ = write!(text, "; other {others} are unchanged");
        }
        if !self.ties.is_empty() {
            let ties: Vec<String> = self.ties.iter().map(Cohort::to_string).collect();
            let _ = write!(text, "; the same devices are {}", ties.join(", "));
        }
        if !self.also.is_empty() {
            let _ = write!(text, "; {} moved with it", listed(self.also));
        }
        for remark in self.remarks {
            let _ = write!(text, "; {remark}");
        }
        text
    }

    fn what(&self, whom: &str) -> String {
        let Self {
            signal,
            now,
            before,
            ..
        } = self;
        let points = |share: f64| format!("{:.1} %", share * 100.0);
        let than = match self.against {
            Against::Reference => "against",
            Against::Past => "before:",
        };
        match self.kind {
            ScoreKind::Location | ScoreKind::Scale if self.together => format!(
                "the features {whom} no longer go together as they did{} ({signal}, the distance of a row from training, has the median {} {than} {})",
                match self.others_unchanged {
                    true => ", and none was found to have moved by itself",
                    false => "",
                },
                self.number(*now),
                self.number(*before)
            ),
            ScoreKind::Location => {
                let direction = if self.effect.value > 0.0 {
                    "higher"
                } else {
                    "lower"
                };
                format!(
                    "{signal} {whom} reads {:.1} sd {direction} (mean {} {than} {})",
                    self.effect.value.abs(),
                    self.number(*now),
                    self.number(*before)
                )
            }
            ScoreKind::Scale => {
                let direction = if self.effect.value > 0.0 {
                    "wider"
                } else {
                    "narrower"
                };
                format!(
                    "{signal} {whom} spreads {:.0} % {direction} (sd {} {than} {})",
                    self.effect.value.abs() * 100.0,
                    self.number(*now),
                    self.number(*before)
                )
            }
            _ if self.error => format!(
                "the model is wrong {whom} for {} of the labelled rows ({than} {})",
                points(*now),
                points(*before)
            ),
            ScoreKind::Share(_) | ScoreKind::OtherShares => format!(
                "{signal} {whom} is {:?} for {} of the rows ({than} {})",
                self.category.unwrap_or("one of the rarer categories"),
                points(*now),
                points(*before)
            ),
            ScoreKind::Foreseen => format!(
                "the model's own confidence {whom} foresees that it is wrong for {} of the rows ({than} {})",
                points(*now),
                points(*before)
            ),
            ScoreKind::Elsewhere => self.rate("is not what it always was", whom, than),
            ScoreKind::Missing => self.rate("has no value", whom, than),
            ScoreKind::NonFinite => self.rate("is not a finite number", whom, than),
            ScoreKind::Unseen => {
                self.rate("has categories that the bundle does not list", whom, than)
            }
        }
    }

    fn rate(&self, what: &str, whom: &str, than: &str) -> String {
        format!(
            "{} {whom} {what} in {:.1} % of the rows ({than} {:.1} %)",
            self.signal,
            self.now * 100.0,
            self.before * 100.0
        )
    }

    /// Three significant digits or so, with the unit.
    fn number(&self, value: f64) -> String {
        let digits = match value.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            size if size >= 1.0 => 2,
            _ => 3,
        };
        let space = if self.unit.is_empty() { "" } else { " " };
        format!("{value:.digits$}{space}{}", self.unit)
    }
}

/// Names for people: the first few, and how many more.
fn listed(names: &[String]) -> String {
    let shown = names.len().min(NAMES_SHOWN);
    let more = names.len() - shown;
    let shown = names[..shown].join(", ");
    match more {
        0 => shown,
        _ => format!("{shown} and {more} more"),
    }
}

fn plural(attribute: &str) -> String {
    match attribute {
        "hardware" => "hardware generations".into(),
        "firmware" => "firmware versions".into(),
        _ => format!("{attribute}s"),
    }
}
