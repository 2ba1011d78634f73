//! Spans of time and sizes as people write them in configuration and on the command line: `90s`,
//! `15m`, `7d`, `64MiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no span or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: write a number with one of {units}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    units: &'static str,
}

/// A span of time, in microseconds, not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    us: i64,
}

const SPANS: [(&str, i64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

impl Span {
    /// From microseconds; below 0 counts as 0.
    pub const fn from_us(us: i64) -> Self {
        Self {
            us: if us < 0 { 0 } else { us },
        }
    }

    /// From seconds.
    pub const fn from_secs(secs: i64) -> Self {
        Self::from_us(secs.saturating_mul(1_000_000))
    }

    /// From minutes.
    pub const fn from_mins(mins: i64) -> Self {
        Self::from_secs(mins.saturating_mul(60))
    }

    /// From hours.
    pub const fn from_hours(hours: i64) -> Self {
        Self::from_mins(hours.saturating_mul(60))
    }

    /// From days.
    pub const fn from_days(days: i64) -> Self {
        Self::from_hours(days.saturating_mul(24))
    }

    /// In microseconds.
    pub const fn us(self) -> i64 {
        self.us
    }

    /// As real time.
    pub const fn duration(self) -> Duration {
        // Not negative by construction.
        Duration::from_micros(self.us as u64)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SPANS
            .into_iter()
            .rev()
            .find(|(_, factor)| self.us != 0 && self.us % factor == 0)
            .unwrap_or(("s", 1_000_000));
        write!(f, "{}{unit}", self.us / factor)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &SPANS)
            .map(Self::from_us)
            .ok_or_else(|| UnitError {
                text: text.into(),
                what: "span of time",
                units: "us, ms, s, m, h, d",
            })
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

const SIZES: [(&str, i64); 7] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZES[..4]
            .iter()
            .rev()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor as u64))
            .unwrap_or(&SIZES[0]);
        write!(f, "{}{unit}", self.0 / *factor as u64)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text, &SIZES)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| UnitError {
                text: text.into(),
                what: "size",
                units: "B, KiB, MiB, GiB, kB, MB, GB",
            })
    }
}

fn parse(text: &str, units: &[(&str, i64)]) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(*factor);
    }
    let number: f64 = number.parse().ok()?;
    let value = number * *factor as f64;
    (value.is_finite() && value < i64::MAX as f64).then(|| value.round() as i64)
}

macro_rules! as_text {
    ($type:ty, $name:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

as_text!(Span, "Span", r"^[0-9.]+ *(us|ms|s|m|h|d)$");
as_text!(Size, "Size", r"^[0-9.]+ *(B|KiB|MiB|GiB|kB|MB|GB)$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read_and_written_back() {
        for text in ["90s", "15m", "7d", "250ms", "36h"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("1.5h".parse::<Span>().unwrap(), Span::from_mins(90));
        assert_eq!("120s".parse::<Span>().unwrap().to_string(), "2m");
        assert_eq!("64MiB".parse::<Size>().unwrap(), Size(64 << 20));
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
        for text in ["", "5", "d", "-1s", "9e9d", "5 parsecs", "99999999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
