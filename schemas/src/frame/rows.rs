//! Rows as columns: descriptors, bitmaps of what is missing, texts and identities.

use std::collections::HashMap;
use std::sync::Arc;

use super::FrameLimits;
use super::bits::{pack, packed_bytes, tail_is_clear, unpack, width_of};
use super::column::{self, Coding};
use super::cursor::{Cursor, put_text, put_varint};
use super::envelope::TimeUnit;
use super::error::{FrameError, within};
use crate::rows::{Column, FieldType, RowSchema, Rows, Values};

/// Descriptor: a bitmap of missing rows comes before the values.
const BITMAP: u8 = 0x10;
/// Descriptor: where the number of further columns stands, and the number that says "eight and
/// more".
const RUN_SHIFT: u32 = 5;
const RUN_MORE: usize = 7;

/// The largest unit in which all times of the rows are whole.
pub(super) fn time_unit(rows: &Rows) -> TimeUnit {
    let times = rows.columns.iter().filter_map(|column| match column {
        Column::Time(values) => Some(values.iter().flatten().copied()),
        _ => None,
    });
    TimeUnit::of(times.flatten())
}

/// Writes rows; their times are whole in `unit`.
pub(super) fn encode(
    rows: &Rows,
    schema: &RowSchema,
    unit: TimeUnit,
    origin: i64,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    check(rows, schema)?;
    let limits = FrameLimits::default();
    within("rows", rows.len(), limits.rows)?;
    let texts = rows.columns.iter().map(text_bytes).sum::<usize>();
    within(
        "bytes of rows",
        fixed_bytes(schema, rows.len()).saturating_add(texts),
        limits.decoded_bytes,
    )?;
    put_varint(out, rows.len() as u64);
    if rows.is_empty() {
        return Ok(());
    }
    let mut data = Vec::new();
    let mut descriptors = Vec::with_capacity(rows.columns.len());
    for column in &rows.columns {
        descriptors.push(encode_column(column, unit, origin, &limits, &mut data)?);
    }
    put_descriptors(&descriptors, out);
    out.extend_from_slice(&data);
    Ok(())
}

/// Refuses rows that are not the schema's.
fn check(rows: &Rows, schema: &RowSchema) -> Result<(), FrameError> {
    if rows.columns.len() != schema.fields().len() {
        return Err(FrameError::unfit(format!(
            "rows have {} columns, the schema has {}",
            rows.columns.len(),
            schema.fields().len()
        )));
    }
    for (column, field) in rows.columns.iter().zip(schema.fields()) {
        let name = &field.name;
        let missing = match column {
            Column::Time(values) | Column::Int64(values) => missing_fits(values),
            Column::Int32(values) => missing_fits(values),
            Column::Text(values) => missing_fits(values),
            Column::Id(values) => missing_fits(values),
        };
        if column.ty() != field.ty {
            return Err(FrameError::unfit(format!(
                "column {name:?} is {:?}, the schema says {:?}",
                column.ty(),
                field.ty
            )));
        }
        match missing {
            Some(any) if column.len() == rows.len() => {
                if any && !field.nullable {
                    return Err(FrameError::unfit(format!(
                        "column {name:?} has no value in some row"
                    )));
                }
            }
            _ => {
                return Err(FrameError::unfit(format!(
                    "column {name:?} has not as many values as there are rows"
                )));
            }
        }
    }
    Ok(())
}

/// Whether any value is missing; `None` when the list of missing ones has another length.
fn missing_fits<T: Clone + Default>(values: &Values<T>) -> Option<bool> {
    match &values.missing {
        Some(missing) if missing.len() != values.values.len() => None,
        Some(missing) => Some(missing.contains(&true)),
        None => Some(false),
    }
}

/// Bytes of the columns as Arrow holds them, without what texts are long.
fn fixed_bytes(schema: &RowSchema, rows: usize) -> usize {
    let row: usize = schema
        .fields()
        .iter()
        .map(|field| match field.ty {
            FieldType::Int32 | FieldType::Text => 4,
            FieldType::Time | FieldType::Int64 => 8,
            FieldType::Id => 16,
        })
        .sum();
    row.saturating_mul(rows)
}

fn text_bytes(column: &Column) -> usize {
    match column {
        Column::Text(values) => values.iter().flatten().map(|text| text.len()).sum(),
        _ => 0,
    }
}

fn put_descriptors(descriptors: &[u8], out: &mut Vec<u8>) {
    for run in descriptors.chunk_by(|a, b| a == b) {
        let more = (run.len() - 1).min(RUN_MORE);
        out.push(run[0] | (more as u8) << RUN_SHIFT);
        if more == RUN_MORE {
            put_varint(out, (run.len() - 1 - RUN_MORE) as u64);
        }
    }
}

/// One descriptor per column, runs written out.
fn read_descriptors(cursor: &mut Cursor<'_>, columns: usize) -> Result<Vec<u8>, FrameError> {
    let mut descriptors = Vec::with_capacity(columns);
    while descriptors.len() < columns {
        let byte = cursor.byte()?;
        let mut run = usize::from(byte >> RUN_SHIFT) + 1;
        if run > RUN_MORE {
            run = run.saturating_add(usize::try_from(cursor.varint()?).unwrap_or(usize::MAX));
        }
        if run > columns - descriptors.len() {
            return Err(cursor.damaged("more columns than the schema has"));
        }
        descriptors.resize(descriptors.len() + run, byte & ((1 << RUN_SHIFT) - 1));
    }
    Ok(descriptors)
}

/// Writes the bitmap where it is needed; gives its flag and the values that are there.
fn present<T: Clone + Default>(values: &Values<T>, out: &mut Vec<u8>) -> (u8, Vec<T>) {
    let missing = values.missing.as_deref().unwrap_or_default();
    if !missing.contains(&true) {
        return (0, values.values.clone());
    }
    let there: Vec<T> = values.iter().flatten().cloned().collect();
    if there.is_empty() {
        return (0, there);
    }
    pack(missing.iter().map(|missing| u64::from(*missing)), 1, out);
    (BITMAP, there)
}

fn encode_column(
    column: &Column,
    unit: TimeUnit,
    origin: i64,
    limits: &FrameLimits,
    out: &mut Vec<u8>,
) -> Result<u8, FrameError> {
    let (bitmap, coding) = match column {
        Column::Time(values) => {
            let (bitmap, mut there) = present(values, out);
            there.iter_mut().for_each(|time| *time /= unit.micros());
            (bitmap, encode_numbers(&there, origin, out))
        }
        Column::Int64(values) => {
            let (bitmap, there) = present(values, out);
            (bitmap, encode_numbers(&there, 0, out))
        }
        Column::Int32(values) => {
            let (bitmap, there) = present(values, out);
            (bitmap, encode_numbers(&there, 0, out))
        }
        Column::Text(values) => {
            let (bitmap, there) = present(values, out);
            (bitmap, encode_texts(&there, limits, out)?)
        }
        Column::Id(values) => {
            let (bitmap, there) = present(values, out);
            there
                .iter()
                .for_each(|id| out.extend_from_slice(&id.to_be_bytes()));
            let coding = if there.is_empty() {
                Coding::Missing
            } else {
                Coding::Ids
            };
            (bitmap, coding)
        }
    };
    Ok(bitmap | coding as u8)
}

fn encode_numbers<T: column::Int>(there: &[T], origin: T, out: &mut Vec<u8>) -> Coding {
    if there.is_empty() {
        Coding::Missing
    } else {
        column::encode(there, origin, out)
    }
}

fn encode_texts(
    there: &[Arc<str>],
    limits: &FrameLimits,
    out: &mut Vec<u8>,
) -> Result<Coding, FrameError> {
    if there.is_empty() {
        return Ok(Coding::Missing);
    }
    let mut entries: Vec<&str> = Vec::new();
    let mut known: HashMap<&str, u64> = HashMap::new();
    let indices: Vec<u64> = there
        .iter()
        .map(|text| {
            *known.entry(text).or_insert_with(|| {
                entries.push(text);
                entries.len() as u64 - 1
            })
        })
        .collect();
    put_varint(out, entries.len() as u64);
    for entry in &entries {
        put_text(out, entry, limits.text_bytes)?;
    }
    pack(indices.into_iter(), width_of(entries.len() as u64 - 1), out);
    Ok(Coding::Texts)
}

/// Reads rows of a schema.
pub(super) fn decode(
    cursor: &mut Cursor<'_>,
    schema: &RowSchema,
    unit: TimeUnit,
    origin: i64,
    limits: &FrameLimits,
) -> Result<Rows, FrameError> {
    let count = usize::try_from(cursor.varint()?).unwrap_or(usize::MAX);
    within("rows", count, limits.rows)?;
    let mut bytes = fixed_bytes(schema, count);
    within("bytes of rows", bytes, limits.decoded_bytes)?;
    if count == 0 {
        return Ok(Rows::empty(schema));
    }
    let descriptors = read_descriptors(cursor, schema.fields().len())?;
    let mut columns = Vec::with_capacity(descriptors.len());
    for (field, descriptor) in schema.fields().iter().zip(descriptors) {
        let Some(coding) = Coding::from_code(descriptor & 0x0f) else {
            return Err(cursor.damaged("unknown coding of a column"));
        };
        let there = read_missing(cursor, coding, descriptor & BITMAP != 0, count)?;
        if there.present < count && !field.nullable {
            return Err(cursor.damaged("a value is missing that every row must have"));
        }
        let column = match field.ty {
            FieldType::Time => {
                let mut values = read_numbers(cursor, coding, there, origin)?;
                let micros = unit.micros();
                values
                    .values
                    .iter_mut()
                    .for_each(|time| *time = time.wrapping_mul(micros));
                Column::Time(values)
            }
            FieldType::Int64 => Column::Int64(read_numbers(cursor, coding, there, 0)?),
            FieldType::Int32 => Column::Int32(read_numbers(cursor, coding, there, 0)?),
            FieldType::Text => {
                let values = read_texts(cursor, coding, there, limits)?;
                // What is repeated costs nothing here, but it does as an Arrow column.
                let column = Column::Text(values);
                bytes = bytes.saturating_add(text_bytes(&column));
                within("bytes of rows", bytes, limits.decoded_bytes)?;
                column
            }
            FieldType::Id => Column::Id(read_ids(cursor, coding, there)?),
        };
        columns.push(column);
    }
    Ok(Rows { columns })
}

/// Which rows of a column have no value.
struct Missing {
    rows: usize,
    present: usize,
    bitmap: Option<Vec<bool>>,
}

impl Missing {
    /// Values in their rows.
    fn spread<T: Clone + Default>(self, there: Vec<T>) -> Values<T> {
        let Some(bitmap) = self.bitmap else {
            return Values {
                values: there,
                missing: None,
            };
        };
        let mut there = there.into_iter();
        let values = bitmap
            .iter()
            .map(|missing| match missing {
                true => T::default(),
                // There are as many values as rows that are not missing.
                false => there.next().unwrap_or_default(),
            })
            .collect();
        Values {
            values,
            missing: Some(bitmap),
        }
    }
}

fn read_missing(
    cursor: &mut Cursor<'_>,
    coding: Coding,
    has_bitmap: bool,
    rows: usize,
) -> Result<Missing, FrameError> {
    if coding == Coding::Missing {
        if has_bitmap {
            return Err(cursor.damaged("a bitmap where all rows are missing"));
        }
        return Ok(Missing {
            rows,
            present: 0,
            bitmap: Some(vec![true; rows]),
        });
    }
    if !has_bitmap {
        return Ok(Missing {
            rows,
            present: rows,
            bitmap: None,
        });
    }
    let packed = cursor.take(rows.div_ceil(8))?;
    let absent: usize = packed.iter().map(|byte| byte.count_ones() as usize).sum();
    if absent == 0 || absent >= rows || !tail_is_clear(packed, rows, 1) {
        return Err(cursor.damaged("a bitmap that says nothing"));
    }
    let mut bitmap = Vec::with_capacity(rows);
    unpack(packed, rows, 1, &mut bitmap, |bit| bit == 1);
    Ok(Missing {
        rows,
        present: rows - absent,
        bitmap: Some(bitmap),
    })
}

fn read_numbers<T: column::Int>(
    cursor: &mut Cursor<'_>,
    coding: Coding,
    missing: Missing,
    origin: T,
) -> Result<Values<T>, FrameError> {
    if missing.present == 0 {
        return Ok(Values {
            values: vec![T::default(); missing.rows],
            missing: missing.bitmap,
        });
    }
    column::decode(cursor, coding, missing.present, origin).map(|there| missing.spread(there))
}

fn read_texts(
    cursor: &mut Cursor<'_>,
    coding: Coding,
    missing: Missing,
    limits: &FrameLimits,
) -> Result<Values<Arc<str>>, FrameError> {
    if missing.present == 0 {
        return Ok(missing.spread(Vec::new()));
    }
    if coding != Coding::Texts {
        return Err(cursor.damaged("a coding that its column cannot have"));
    }
    let entries = usize::try_from(cursor.varint()?).unwrap_or(usize::MAX);
    if entries == 0 || entries > missing.present || entries > cursor.remaining() {
        return Err(cursor.damaged("more texts than rows or bytes"));
    }
    let texts = (0..entries)
        .map(|_| cursor.text(limits.text_bytes).map(Arc::from))
        .collect::<Result<Vec<Arc<str>>, _>>()?;
    let width = width_of(entries as u64 - 1);
    let packed = cursor.take(packed_bytes(missing.present, width).unwrap_or(usize::MAX))?;
    let mut indices = Vec::with_capacity(missing.present);
    unpack(packed, missing.present, width, &mut indices, |index| {
        index as usize
    });
    let there = indices
        .into_iter()
        .map(|index| texts.get(index).cloned())
        .collect::<Option<Vec<_>>>()
        .filter(|_| tail_is_clear(packed, missing.present, width))
        .ok_or_else(|| cursor.damaged("an index beyond the texts"))?;
    Ok(missing.spread(there))
}

fn read_ids(
    cursor: &mut Cursor<'_>,
    coding: Coding,
    missing: Missing,
) -> Result<Values<u128>, FrameError> {
    if missing.present == 0 {
        return Ok(missing.spread(Vec::new()));
    }
    if coding != Coding::Ids {
        return Err(cursor.damaged("a coding that its column cannot have"));
    }
    let bytes = cursor.take(missing.present.saturating_mul(16))?;
    let there = bytes
        .as_chunks::<16>()
        .0
        .iter()
        .map(|id| u128::from_be_bytes(*id))
        .collect();
    Ok(missing.spread(there))
}
