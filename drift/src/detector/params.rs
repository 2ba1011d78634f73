//! Parameters by name: what a detector accepts, and values checked against it.

use std::fmt;

use super::{Compat, DetectorError, Kind};

/// A parameter's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A real number.
    Number(f64),
    /// A whole number.
    Count(u64),
    /// Yes or no.
    Flag(bool),
    /// One of a few words.
    Choice(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(v) => write!(f, "{v}"),
            Self::Count(v) => write!(f, "{v}"),
            Self::Flag(v) => write!(f, "{v}"),
            Self::Choice(v) => f.write_str(v),
        }
    }
}

/// The values that a parameter accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Domain {
    /// A real number strictly between the two bounds.
    Open(f64, f64),
    /// A finite real number from the first bound to the second.
    Closed(f64, f64),
    /// A whole number from the first to the second.
    Counts(u64, u64),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(lo, hi) if *hi == f64::MAX => write!(f, "a number above {lo}"),
            Self::Open(lo, hi) => write!(f, "a number between {lo} and {hi}, both excluded"),
            Self::Closed(lo, hi) if *lo == f64::MIN && *hi == f64::MAX => {
                f.write_str("a finite number")
            }
            Self::Closed(lo, hi) if *hi == f64::MAX => write!(f, "a number of at least {lo}"),
            Self::Closed(lo, hi) => write!(f, "a number from {lo} to {hi}"),
            Self::Counts(lo, u64::MAX) => write!(f, "a whole number of at least {lo}"),
            Self::Counts(lo, hi) => write!(f, "a whole number from {lo} to {hi}"),
            Self::Flag => f.write_str("true or false"),
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

impl Domain {
    fn parse(&self, text: &str) -> Option<Value> {
        let number = || text.parse::<f64>().ok().filter(|v| v.is_finite());
        match self {
            Self::Open(lo, hi) => number().filter(|v| lo < v && v < hi).map(Value::Number),
            Self::Closed(lo, hi) => number().filter(|v| lo <= v && v <= hi).map(Value::Number),
            // Callers that have only floats (SQL, JSON) write 32 as 32.0.
            Self::Counts(lo, hi) => text
                .strip_suffix(".0")
                .unwrap_or(text)
                .parse::<u64>()
                .ok()
                .filter(|v| lo <= v && v <= hi)
                .map(Value::Count),
            Self::Flag => text.parse::<bool>().ok().map(Value::Flag),
            Self::OneOf(words) => words.iter().find(|w| **w == text).map(|w| Value::Choice(w)),
        }
    }
}

/// One parameter of a detector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// The value used when none is given.
    pub default: Value,
    /// The values it accepts.
    pub domain: Domain,
    /// What it does, in a line.
    pub help: &'static str,
}

impl Parameter {
    pub(super) const fn number(
        name: &'static str,
        default: f64,
        domain: Domain,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            default: Value::Number(default),
            domain,
            help,
        }
    }

    pub(super) const fn count(
        name: &'static str,
        default: u64,
        lo: u64,
        hi: u64,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            default: Value::Count(default),
            domain: Domain::Counts(lo, hi),
            help,
        }
    }

    pub(super) const fn flag(name: &'static str, default: bool, help: &'static str) -> Self {
        Self {
            name,
            default: Value::Flag(default),
            domain: Domain::Flag,
            help,
        }
    }

    pub(super) const fn choice(
        name: &'static str,
        default: &'static str,
        words: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            default: Value::Choice(default),
            domain: Domain::OneOf(words),
            help,
        }
    }
}

/// Parameters as the user gave them: names and values as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// No parameters: every default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one; numbers and flags are written the way Rust prints them, which reads back exactly.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    /// Names and values, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

impl<N: Into<String>, V: ToString> FromIterator<(N, V)> for Params {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(n, v)| (n.into(), v.to_string()))
                .collect(),
        )
    }
}

/// Values checked against a detector's list: reading one cannot fail any more.
pub(super) struct Checked {
    pub(super) kind: Kind,
    pub(super) compat: Compat,
    values: Vec<(&'static str, Value)>,
}

impl Checked {
    pub(super) fn new(
        kind: Kind,
        compat: Compat,
        schema: &'static [Parameter],
        given: &Params,
    ) -> Result<Self, DetectorError> {
        let mut values: Vec<_> = schema.iter().map(|p| (p.name, p.default)).collect();
        let mut seen = vec![false; schema.len()];
        for (name, text) in given.iter() {
            let Some(at) = schema.iter().position(|p| p.name == name) else {
                let known: Vec<_> = schema.iter().map(|p| p.name).collect();
                return Err(DetectorError::UnknownParameter {
                    kind,
                    name: name.to_owned(),
                    known: known.join(", "),
                });
            };
            if std::mem::replace(&mut seen[at], true) {
                return Err(DetectorError::DuplicateParameter {
                    kind,
                    name: name.to_owned(),
                });
            }
            let parameter = &schema[at];
            values[at].1 =
                parameter
                    .domain
                    .parse(text)
                    .ok_or_else(|| DetectorError::InvalidParameter {
                        kind,
                        name: parameter.name,
                        value: text.to_owned(),
                        expected: parameter.domain.to_string(),
                    })?;
        }
        Ok(Self {
            kind,
            compat,
            values,
        })
    }

    /// A name that the schema does not list, or of another type, is a mistake in this crate that
    /// `every_detector_builds_with_defaults` would find; the neutral value keeps this total.
    fn get(&self, name: &str) -> Option<Value> {
        let found = self.values.iter().find(|(n, _)| *n == name);
        debug_assert!(
            found.is_some(),
            "{name} is not a parameter of {}",
            self.kind
        );
        found.map(|(_, v)| *v)
    }

    pub(super) fn number(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Value::Number(v)) => v,
            _ => 0.0,
        }
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Value::Count(v)) => v,
            _ => 0,
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Flag(true)))
    }

    pub(super) fn choice(&self, name: &str) -> &'static str {
        match self.get(name) {
            Some(Value::Choice(v)) => v,
            _ => "",
        }
    }

    /// The value is fine alone but not beside the others.
    pub(super) fn refuse(&self, name: &'static str, expected: &str) -> DetectorError {
        DetectorError::InvalidParameter {
            kind: self.kind,
            name,
            value: self.get(name).map(|v| v.to_string()).unwrap_or_default(),
            expected: expected.to_owned(),
        }
    }

    pub(super) fn moa(&self) -> bool {
        self.compat == Compat::Moa
    }
}
