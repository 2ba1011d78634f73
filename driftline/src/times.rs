//! Times on the command line.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

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

    /// Times and days are read, and what is neither is told with both forms.
    #[test]
    fn times_and_days() {
        let at = |text| parse(text).map(Timestamp::as_second);
        assert_eq!(at("2026-01-05"), Ok(1_767_571_200));
        assert_eq!(at("2026-01-05T01:00:00+01:00"), Ok(1_767_571_200));
        assert!(at("yesterday").unwrap_err().contains("2026-01-31"));
    }
}
