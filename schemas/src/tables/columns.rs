//! Making columns, and describing them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
    StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::clock::DAY_US;
use crate::quantity;

/// Key of a column's description in its metadata.
pub const DESCRIPTION: &str = "description";
/// Key of a column's unit in its metadata.
pub const UNIT: &str = "unit";
/// Key of a column's range in its metadata, as `least..greatest`.
pub const RANGE: &str = "range";
/// Name of what is in a list, as Delta has it.
const ELEMENT: &str = "element";

/// A column with its description.
pub(super) fn field(name: &str, ty: DataType, description: &str) -> Field {
    Field::new(name, ty, true).with_metadata([(DESCRIPTION.into(), description.into())].into())
}

/// More about a column.
pub(super) trait Describe: Sized {
    fn add(self, key: &str, value: &str) -> Self;

    fn unit(self, unit: &str) -> Self {
        if unit.is_empty() {
            self
        } else {
            self.add(UNIT, unit)
        }
    }

    fn range(self, range: &str) -> Self {
        self.add(RANGE, range)
    }

    fn required(self) -> Self;
}

impl Describe for Field {
    fn add(mut self, key: &str, value: &str) -> Self {
        let mut metadata = self.metadata().clone();
        metadata.insert(key.into(), value.into());
        self.set_metadata(metadata);
        self
    }

    fn required(self) -> Self {
        self.with_nullable(false)
    }
}

pub(super) fn text(name: &str, description: &str) -> Field {
    field(name, DataType::Utf8, description)
}

pub(super) fn int(name: &str, description: &str) -> Field {
    field(name, DataType::Int32, description)
}

pub(super) fn long(name: &str, description: &str) -> Field {
    field(name, DataType::Int64, description)
}

pub(super) fn float(name: &str, description: &str) -> Field {
    field(name, DataType::Float64, description)
}

pub(super) fn flag(name: &str, description: &str) -> Field {
    field(name, DataType::Boolean, description)
}

pub(super) fn time(name: &str, description: &str) -> Field {
    field(name, time_type(), description)
}

pub(super) fn list(name: &str, of: DataType, description: &str) -> Field {
    field(name, DataType::List(element(of)), description)
}

fn element(ty: DataType) -> Arc<Field> {
    Arc::new(Field::new(ELEMENT, ty, true))
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// `tenant` and `date`, which every table begins with.
pub(super) fn leading(date_of: &str) -> Vec<Field> {
    vec![
        text(
            "tenant",
            "owner of the device; tables are partitioned by it",
        )
        .required(),
        text(
            "date",
            &format!("day of {date_of}, UTC; tables are partitioned by it"),
        )
        .unit("YYYY-MM-DD")
        .required(),
    ]
}

/// `log_partition` and `log_offset`, which every table ends with.
pub(super) fn trailing() -> Vec<Field> {
    vec![
        int(
            "log_partition",
            "partition of the table's topic that the row came from",
        )
        .required(),
        long("log_offset", "offset of the record that the row came from").required(),
    ]
}

pub(super) fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    some_texts(values.into_iter().map(Some))
}

pub(super) fn some_texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

pub(super) fn ints(values: impl IntoIterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int32Array>())
}

pub(super) fn longs(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

pub(super) fn floats(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float64Array>())
}

pub(super) fn flags(values: impl IntoIterator<Item = Option<bool>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<BooleanArray>())
}

pub(super) fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    let times = values.into_iter().collect::<TimestampMicrosecondArray>();
    Arc::new(times.with_timezone("UTC"))
}

/// Lists of any lengths.
pub(super) fn lists(
    of: DataType,
    lengths: impl IntoIterator<Item = usize>,
    values: ArrayRef,
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(
        element(of),
        offsets,
        values,
        None,
    )?))
}

/// A list of as many 32-bit floats a row as there are columns, out of quantised columns; missing
/// values are null in it. Without columns every list is null.
pub(super) fn float_lists(
    rows: usize,
    columns: &[(&Int32Array, f64)],
) -> Result<ArrayRef, arrow::error::ArrowError> {
    use arrow::array::Array;
    let width = columns.len();
    if width == 0 {
        return Ok(Arc::new(ListArray::new_null(
            element(DataType::Float32),
            rows,
        )));
    }
    let mut values = vec![0f32; rows * width];
    let mut valid = columns
        .iter()
        .any(|(column, _)| column.null_count() > 0)
        .then(|| vec![true; rows * width]);
    for (at, (column, resolution)) in columns.iter().enumerate() {
        let cells = values.iter_mut().skip(at).step_by(width);
        for (cell, code) in cells.zip(column.values()) {
            *cell = quantity::dequantise(*code, *resolution) as f32;
        }
        if let (Some(valid), Some(nulls)) = (&mut valid, column.nulls()) {
            let cells = valid.iter_mut().skip(at).step_by(width);
            for (cell, there) in cells.zip(nulls.iter()) {
                *cell = there;
            }
        }
    }
    let values = Float32Array::new(values.into(), valid.map(NullBuffer::from));
    lists(
        DataType::Float32,
        std::iter::repeat_n(width, rows),
        Arc::new(values),
    )
}

/// The day of a time, as `YYYY-MM-DD` in UTC.
pub fn date_of(time_us: i64) -> String {
    // Days to a date in the proleptic Gregorian calendar: Hinnant, "chrono-compatible low-level date
    // algorithms", `civil_from_days`.
    let days = time_us.div_euclid(DAY_US) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The day of each time; neighbours share the text.
pub(super) fn dates(times: impl IntoIterator<Item = i64>) -> ArrayRef {
    let mut last: Option<(i64, String)> = None;
    let mut dates = arrow::array::StringBuilder::new();
    for time in times {
        let day = time.div_euclid(DAY_US);
        let (_, text) = match last.take() {
            Some(last) if last.0 == day => last,
            _ => (day, date_of(time)),
        };
        dates.append_value(&text);
        last = Some((day, text));
    }
    Arc::new(dates.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Our calendar is the one that everybody has, before and after 1970 and over leap days.
    #[test]
    fn dates_are_those_of_the_calendar() {
        for days in (-200_000..200_000)
            .step_by(37)
            .chain([-1, 0, 11_016, 19_782])
        {
            let time_us = days * DAY_US + 5;
            let expected = jiff::Timestamp::from_microsecond(time_us)
                .unwrap()
                .to_zoned(jiff::tz::TimeZone::UTC)
                .date();
            assert_eq!(date_of(time_us), expected.to_string());
        }
        assert_eq!(date_of(-1), "1969-12-31");
    }
}
