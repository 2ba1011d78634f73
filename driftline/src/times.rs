//! Times on the command line.

use driftline_schemas::units::Span;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A stretch of time on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    /// So far back from the newest row.
    Back(Span),
    /// From one time to another, exclusive.
    Between(Timestamp, Timestamp),
}

/// A span such as `30d`, or two times or days with `..` between them.
pub(crate) fn parse_range(text: &str) -> Result<Range, String> {
    if let Some((from, to)) = text.split_once("..") {
        let (from, to) = (parse(from)?, parse(to)?);
        return match from < to {
            true => Ok(Range::Between(from, to)),
            false => Err(format!(
                "{text:?}: the first time must lie before the second"
            )),
        };
    }
    let span: Span = text.parse().map_err(|_| {
        format!("{text:?}: write a span like 30d or a range like 2026-01-01..2026-01-31")
    })?;
    match span.us() {
        0 => Err(format!("{text:?}: a span must be above 0")),
        _ => Ok(Range::Back(span)),
    }
}

/// An RFC 3339 time, or a day (UTC), which begins at midnight.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let wrong =
        || format!("{text:?}: write a time like 2026-01-31T06:00:00Z or a day like 2026-01-31");
    let day: Date = text.parse().map_err(|_| wrong())?;
    let midnight = day.to_zoned(TimeZone::UTC).map_err(|_| wrong())?;
    Ok(midnight.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans and ranges are read, and what is neither, or empty, is told.
    #[test]
    fn ranges() {
        assert_eq!(parse_range("36h"), Ok(Range::Back(Span::from_hours(36))));
        let (from, to) = (
            parse("2026-01-05").unwrap(),
            parse("2026-01-07T12:00:00Z").unwrap(),
        );
        let text = "2026-01-05..2026-01-07T12:00:00Z";
        assert_eq!(parse_range(text), Ok(Range::Between(from, to)));
        for (wrong, says) in [
            ("month", "30d"),
            ("0d", "above 0"),
            ("2026-01-05..2026-01-05", "before the second"),
            ("2026-01-05..", "2026-01-31"),
        ] {
            let said = parse_range(wrong).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }

    /// Times and days are read, and what is neither is told with both forms.
    #[test]
    fn times_and_days() {
        let at = |text| parse(text).map(Timestamp::as_second);
        assert_eq!(at("2026-01-05"), Ok(1_767_571_200));
        assert_eq!(at("2026-01-05T01:00:00+01:00"), Ok(1_767_571_200));
        assert!(at("yesterday").unwrap_err().contains("2026-01-31"));
    }
}
