//! What becomes of each row: pure. The table is in the crate's documentation.

use std::fmt::Write as _;
use std::sync::Arc;

use driftline_schemas::frame::DeviceProfile;
use driftline_schemas::quantity::{self, NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY, UNSEEN};
use driftline_schemas::rows::{Column, Field, RowSchema, Rows};
use driftline_schemas::source::inference_id_text;

use crate::clocks::Correction;
use crate::config::ClockConfig;
use crate::limits::EVENT_TIME_MIN_US;

/// Why a row is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Its event time is before 2000.
    EventTimeTooOld,
    /// Its event time is too far ahead of the gateway's clock.
    EventTimeInFuture,
    /// Its device's clock is off by more than is corrected.
    ClockBeyondBound,
    /// It tells the truth about a device that is not registered.
    UnknownDevice,
    /// It is no row of its kind (rows that come without a frame).
    RowInvalid,
}

impl Reason {
    /// As it stands in the dead letter, the reply and the metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::EventTimeTooOld => "event_time_before_2000",
            Self::EventTimeInFuture => "event_time_in_future",
            Self::ClockBeyondBound => "clock_beyond_bound",
            Self::UnknownDevice => "unknown_device",
            Self::RowInvalid => "row_invalid",
        }
    }
}

/// What became of the rows of one frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Rows to keep, rising; `None` keeps all.
    pub(crate) keep: Option<Vec<u32>>,
    /// The others, rising.
    pub(crate) refused: Vec<(u32, Reason)>,
    /// Values that were taken for a category that the bundle does not list.
    pub(crate) unseen: u64,
}

/// When something may have happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times<'a> {
    pub(crate) correction: Correction,
    pub(crate) received_at_us: i64,
    pub(crate) clocks: &'a ClockConfig,
}

impl Times<'_> {
    /// What to add to times; 0 where that cannot be told.
    pub(crate) fn correction_us(&self) -> i64 {
        match self.correction {
            Correction::By(by) => by,
            Correction::Beyond(_) => 0,
        }
    }

    /// Why something at this time of the device's cannot be taken in.
    fn refuses(&self, time_us: i64) -> Option<Reason> {
        let Correction::By(by) = self.correction else {
            return Some(Reason::ClockBeyondBound);
        };
        let latest = self
            .received_at_us
            .saturating_add(self.clocks.future_max.us());
        match time_us.saturating_add(by) {
            time if time < EVENT_TIME_MIN_US => Some(Reason::EventTimeTooOld),
            time if time > latest => Some(Reason::EventTimeInFuture),
            _ => None,
        }
    }

    /// What is wrong, for people.
    pub(crate) fn detail(&self, reason: Reason, time_us: i64) -> String {
        let corrected = time_us.saturating_add(self.correction_us());
        match (reason, self.correction) {
            (Reason::ClockBeyondBound, Correction::Beyond(by)) => format!(
                "the device's clock is off by {} s, more than clocks.correction_max ({}): set its clock",
                by / 1_000_000,
                self.clocks.correction_max
            ),
            (Reason::EventTimeInFuture, _) => format!(
                "event time {corrected} µs is {} s ahead of the gateway, more than clocks.future_max ({}): set the device's clock",
                corrected.saturating_sub(self.received_at_us) / 1_000_000,
                self.clocks.future_max
            ),
            (Reason::UnknownDevice, _) => {
                "the device that the row is about is not registered: add it, or correct the name"
                    .into()
            }
            _ => format!("event time {corrected} µs is before 2000: set the device's clock"),
        }
    }
}

/// Checks rows whose columns are the schema's, and replaces codes that mean nothing: of a category
/// by "unseen", of a number by "not a number".
pub(crate) fn rows(
    rows: &mut Rows,
    schema: &RowSchema,
    times: &Times<'_>,
    also: impl Fn(usize) -> Option<Reason>,
) -> Checked {
    let mut checked = Checked::default();
    for (column, field) in rows.columns.iter_mut().zip(schema.fields()) {
        if let Column::Int32(values) = column {
            checked.unseen += normalise(&mut values.values, field);
        }
    }
    let count = rows.len();
    let verdict = |row: usize| {
        event_time(rows, row)
            .and_then(|time| times.refuses(time))
            .or_else(|| also(row))
    };
    checked.refused = (0..count)
        .filter_map(|row| Some((row as u32, verdict(row)?)))
        .collect();
    if !checked.refused.is_empty() {
        let mut refused = checked.refused.iter().map(|(row, _)| *row).peekable();
        let keep = (0..count as u32).filter(|row| refused.next_if_eq(row).is_none());
        checked.keep = Some(keep.collect());
    }
    checked
}

/// A row's event time, by the device's clock.
pub(crate) fn event_time(rows: &Rows, row: usize) -> Option<i64> {
    match rows.columns.first() {
        Some(Column::Time(times)) => times.get(row).copied(),
        _ => None,
    }
}

/// Gives the number of values that are of no listed category. Missing values hold 0 and stay
/// missing whatever they hold.
fn normalise(values: &mut [i32], field: &Field) -> u64 {
    let mut unseen = 0;
    match field.categories {
        Some(categories) => {
            for value in values {
                if u32::try_from(*value).is_ok_and(|code| code < categories) {
                    continue;
                }
                *value = UNSEEN;
                unseen += 1;
            }
        }
        None => {
            for value in values {
                let means = quantity::is_finite(*value)
                    || [NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY].contains(value);
                if !means {
                    *value = NAN;
                }
            }
        }
    }
    unseen
}

/// Checks a profile that a device made, and moves its pane to the gateway's time: to the nearest
/// start of a pane, since a pane cannot be cut anew. Gives what was added.
///
/// # Errors
/// Why it cannot be taken in.
pub(crate) fn profile(profile: &mut DeviceProfile, times: &Times<'_>) -> Result<i64, Reason> {
    let end_us = profile.pane_start_us.saturating_add(profile.pane_length_us);
    if let Some(reason) = times.refuses(profile.pane_start_us) {
        return Err(reason);
    }
    // A pane that has not ended yet is at most one pane ahead.
    let now_us = times.received_at_us.saturating_add(profile.pane_length_us);
    let later = Times {
        received_at_us: now_us,
        ..*times
    };
    if let Some(reason) = later.refuses(end_us) {
        return Err(reason);
    }
    let by = times.correction_us();
    if by == 0 {
        return Ok(0);
    }
    let length = profile.pane_length_us;
    let nearest = profile
        .pane_start_us
        .saturating_add(by)
        .saturating_add(length / 2);
    let start = nearest - nearest.rem_euclid(length);
    let added = start - profile.pane_start_us;
    profile.pane_start_us = start;
    Ok(added)
}

/// Bytes that rows take in memory, about: what a request is charged for.
pub(crate) fn bytes_of(rows: &Rows) -> u64 {
    let column = |column: &Column| match column {
        Column::Int32(values) => 4 * values.len(),
        Column::Time(values) | Column::Int64(values) => 8 * values.len(),
        Column::Id(values) => 16 * values.len(),
        Column::Text(values) => {
            values
                .iter()
                .flatten()
                .map(|text| text.len())
                .sum::<usize>()
                + 16 * values.len()
        }
    };
    rows.columns.iter().map(|it| column(it) as u64).sum()
}

/// A row as JSON, for people who read dead letters: numbers in their unit.
pub(crate) fn row_text(rows: &Rows, schema: &RowSchema, row: usize) -> String {
    let mut text = String::from("{");
    for (column, field) in rows.columns.iter().zip(schema.fields()) {
        if text.len() > 1 {
            text.push(',');
        }
        // Writing into a string does not fail.
        let _ = write!(text, "{}:", json(&field.name));
        let value = match column {
            Column::Time(values) | Column::Int64(values) => values.get(row).map(i64::to_string),
            Column::Int32(values) => values.get(row).map(|code| number(*code, field)),
            Column::Text(values) => values.get(row).map(|text: &Arc<str>| json(text)),
            Column::Id(values) => values.get(row).map(|id| json(&inference_id_text(*id))),
        };
        text.push_str(value.as_deref().unwrap_or("null"));
    }
    text.push('}');
    text
}

fn number(code: i32, field: &Field) -> String {
    match code {
        UNSEEN => json("unseen"),
        NAN => json("NaN"),
        NEGATIVE_INFINITY => json("-Infinity"),
        POSITIVE_INFINITY => json("Infinity"),
        code if field.categories.is_some() => code.to_string(),
        code => format!("{}", quantity::dequantise(code, field.resolution)),
    }
}

fn json(text: &str) -> String {
    // A string always has a JSON form.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::clock::{HOUR_US, MINUTE_US};
    use driftline_schemas::profile::Profile;
    use driftline_schemas::rows::Values;

    const NOW: i64 = 1_700_000_000_000_000;

    fn times(correction: Correction, clocks: &ClockConfig) -> Times<'_> {
        Times {
            correction,
            received_at_us: NOW,
            clocks,
        }
    }

    fn health(event_times: &[i64]) -> (Rows, RowSchema) {
        let schema = RowSchema::health();
        let mut rows = Rows::empty(&schema);
        for column in &mut rows.columns {
            match column {
                Column::Time(values) => {
                    *values = event_times.iter().map(|time| Some(*time)).collect();
                }
                Column::Int64(values) => *values = event_times.iter().map(|_| Some(1)).collect(),
                Column::Int32(values) => *values = event_times.iter().map(|_| Some(1)).collect(),
                Column::Text(values) => *values = event_times.iter().map(|_| None).collect(),
                Column::Id(_) => {}
            }
        }
        (rows, schema)
    }

    /// Event times at and beyond both bounds, after correction.
    #[test]
    fn event_times_are_held_to_their_bounds() {
        let clocks = ClockConfig::default();
        let future = NOW + clocks.future_max.us();
        let cases = [
            NOW,
            EVENT_TIME_MIN_US,
            EVENT_TIME_MIN_US - 1,
            future,
            future + 1,
            0,
            i64::MIN,
            i64::MAX,
        ];
        let (mut checked_rows, schema) = health(&cases);
        let checked = rows(
            &mut checked_rows,
            &schema,
            &times(Correction::By(0), &clocks),
            |_| None,
        );
        use Reason::{EventTimeInFuture as Future, EventTimeTooOld as Old};
        assert_eq!(
            checked.refused,
            [(2, Old), (4, Future), (5, Old), (6, Old), (7, Future)]
        );
        assert_eq!(checked.keep, Some(vec![0, 1, 3]));
        // The correction counts: an hour ahead is right for a clock that is an hour ahead.
        let (mut ahead, schema) = health(&[NOW + HOUR_US]);
        let corrected = times(Correction::By(-HOUR_US), &clocks);
        let checked = rows(&mut ahead, &schema, &corrected, |_| None);
        assert_eq!(checked, Checked::default());
        let beyond = times(Correction::Beyond(9), &clocks);
        let checked = rows(&mut ahead, &schema, &beyond, |_| None);
        assert_eq!(checked.refused, [(0, Reason::ClockBeyondBound)]);
        assert_eq!(checked.keep, Some(vec![]));
    }

    /// Codes that no sender can mean are replaced; what is missing, infinite or not a number stays.
    #[test]
    fn codes_without_meaning_are_replaced() {
        let clocks = ClockConfig::default();
        let (mut some, schema) = health(&[NOW; 5]);
        let set = |rows: &mut Rows, name: &str, codes: [Option<i32>; 5]| {
            let values: Values<i32> = codes.into_iter().collect();
            rows.columns[schema.index(name).unwrap()] = Column::Int32(values);
        };
        let get = |rows: &Rows, name: &str| match &rows.columns[schema.index(name).unwrap()] {
            Column::Int32(values) => values.iter().map(|it| it.copied()).collect::<Vec<_>>(),
            _ => unreachable!(),
        };
        let categories = [Some(0), Some(1), Some(2), Some(-1), None];
        set(&mut some, "charging", categories);
        let numbers = [
            Some(NAN),
            Some(POSITIVE_INFINITY),
            Some(UNSEEN),
            Some(-7),
            None,
        ];
        set(&mut some, "voltage", numbers);
        let checked = rows(
            &mut some,
            &schema,
            &times(Correction::By(0), &clocks),
            |_| None,
        );
        assert_eq!(checked.unseen, 2);
        assert_eq!(checked.keep, None);
        let unseen = Some(UNSEEN);
        assert_eq!(
            get(&some, "charging"),
            [Some(0), Some(1), unseen, unseen, None]
        );
        assert_eq!(
            get(&some, "voltage"),
            [
                Some(NAN),
                Some(POSITIVE_INFINITY),
                Some(NAN),
                Some(-7),
                None
            ]
        );
        let text = row_text(&some, &schema, 3);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["charging"], "unseen");
        assert_eq!(value["voltage"], -0.007);
        assert_eq!(value["link_kind"], serde_json::Value::Null);
    }

    /// A pane moves by whole panes to where its device's clock was wrong.
    #[test]
    fn panes_move_by_whole_panes() {
        let clocks = ClockConfig::default();
        let pane = |start_us| DeviceProfile {
            version: "1".into(),
            pane_start_us: start_us,
            pane_length_us: MINUTE_US,
            profile: Profile {
                layout: 0,
                rows: 0,
                devices: Default::default(),
                signals: Vec::new(),
            },
        };
        let start = NOW - NOW % MINUTE_US;
        let check = |start, correction| {
            let mut pane = pane(start);
            let added = profile(&mut pane, &times(correction, &clocks));
            added.map(|added| (pane.pane_start_us, added))
        };
        assert_eq!(check(start, Correction::By(0)), Ok((start, 0)));
        assert_eq!(
            check(start + HOUR_US, Correction::By(-HOUR_US + 1_000_000)),
            Ok((start, -HOUR_US))
        );
        assert_eq!(
            check(0, Correction::By(start + 1_000_000)),
            Ok((start, start))
        );
        assert_eq!(
            check(start, Correction::Beyond(1)),
            Err(Reason::ClockBeyondBound)
        );
        assert_eq!(
            check(start + HOUR_US, Correction::By(0)),
            Err(Reason::EventTimeInFuture)
        );
        assert_eq!(check(0, Correction::By(0)), Err(Reason::EventTimeTooOld));
    }
}
