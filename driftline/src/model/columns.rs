//! CSV and Parquet files as columns in memory.
//!
//! A CSV column is numbers when every value of it is a number or missing (empty, `NA`, `null`), else
//! texts; the file is read twice for that, so that it need not be kept as text.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use driftline_emitter::pack::Data;
use driftline_schemas::rows::Values;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::files::{is_missing, is_parquet, open};

/// Most values that one file may have: they are held in memory, eight bytes each.
const CELLS_MAX: usize = 400_000_000;

/// A file as columns.
#[derive(Debug)]
pub(crate) struct Columns {
    names: Vec<String>,
    data: Vec<Data>,
    rows: usize,
}

impl Columns {
    /// Reads a file: `.parquet`, or CSV with a header, plain, `.gz` or `.zst`.
    ///
    /// # Errors
    /// Names the file, and the line or column where it is wrong.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let place = || path.display().to_string();
        match is_parquet(path) {
            true => read_parquet(path).with_context(place),
            false => read_csv(path).with_context(place),
        }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// A column.
    ///
    /// # Errors
    /// Lists the columns that there are.
    pub(crate) fn get(&self, name: &str) -> Result<&Data> {
        match self.names.iter().position(|it| it == name) {
            Some(at) => Ok(&self.data[at]),
            None => bail!(
                "there is no column {name:?}, there are {}",
                self.names.join(", ")
            ),
        }
    }

    /// Rows whose columns have the wanted values, in order.
    ///
    /// # Errors
    /// When there is no such column.
    pub(crate) fn matching(&self, wanted: &[(String, String)]) -> Result<Vec<usize>> {
        let mut rows: Vec<usize> = (0..self.rows).collect();
        for (name, wanted) in wanted {
            let data = self.get(name)?;
            let number: Option<f64> = wanted.trim().parse().ok();
            rows.retain(|row| match data.value(*row) {
                driftline_emitter::Value::Missing => wanted.is_empty(),
                driftline_emitter::Value::Number(value) => Some(value) == number,
                driftline_emitter::Value::Text(text) => text == wanted,
            });
        }
        Ok(rows)
    }

    /// The columns, one by one.
    pub(crate) fn into_parts(self) -> Vec<(String, Data)> {
        self.names.into_iter().zip(self.data).collect()
    }
}

/// Values of some rows, in their order.
pub(crate) fn take(data: &Data, rows: &[usize]) -> Data {
    match data {
        Data::Numbers(values) => {
            Data::Numbers(rows.iter().map(|row| values.get(*row).copied()).collect())
        }
        Data::Texts { codes, dictionary } => Data::Texts {
            codes: rows.iter().map(|row| codes.get(*row).copied()).collect(),
            dictionary: dictionary.clone(),
        },
    }
}

/// Event times, microseconds: RFC 3339 texts, or numbers of seconds since 1970.
///
/// # Errors
/// Names the row that has none.
pub(crate) fn times_us(name: &str, data: &Data) -> Result<Vec<i64>> {
    let parse = |text: &str| -> Result<i64> {
        let time: jiff::Timestamp = text.parse().with_context(|| {
            format!("column {name}: {text:?} is no time, write RFC 3339 or seconds since 1970")
        })?;
        Ok(time.as_microsecond())
    };
    (0..data.len())
        .map(|row| match data.value(row) {
            driftline_emitter::Value::Number(seconds) if seconds.is_finite() => {
                Ok((seconds * 1e6).round() as i64)
            }
            driftline_emitter::Value::Text(text) => parse(text),
            _ => bail!("column {name}, row {}: the time is missing", row + 1),
        })
        .collect()
}

fn csv_reader(path: &Path) -> Result<csv::Reader<Box<dyn Read + Send>>> {
    Ok(csv::ReaderBuilder::new().from_reader(open(path)?))
}

fn read_csv(path: &Path) -> Result<Columns> {
    let mut reader = csv_reader(path)?;
    let names: Vec<String> = reader
        .headers()?
        .iter()
        .map(|name| name.trim().to_owned())
        .collect();
    let mut is_number = vec![true; names.len()];
    let mut rows = 0;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        rows += 1;
        if rows * names.len() > CELLS_MAX {
            bail!("has more than {CELLS_MAX} values: take fewer rows or columns");
        }
        for (is_number, text) in is_number.iter_mut().zip(&record) {
            let text = text.trim();
            if *is_number && !is_missing(text) && text.parse::<f64>().is_err() {
                *is_number = false;
            }
        }
    }
    let mut columns: Vec<Column> = is_number
        .iter()
        .map(|is_number| Column::new(*is_number))
        .collect();
    let mut reader = csv_reader(path)?;
    while reader.read_record(&mut record)? {
        for (column, text) in columns.iter_mut().zip(&record) {
            let text = text.trim();
            column.push((!is_missing(text)).then_some(text));
        }
    }
    Ok(Columns {
        names,
        data: columns.into_iter().map(Column::finish).collect(),
        rows,
    })
}

/// A column of a CSV file that grows.
enum Column {
    Numbers(Values<f64>),
    Texts {
        codes: Values<u32>,
        dictionary: Vec<String>,
        index: std::collections::HashMap<String, u32>,
    },
}

impl Column {
    fn new(is_number: bool) -> Self {
        match is_number {
            true => Self::Numbers(Values::default()),
            false => Self::Texts {
                codes: Values::default(),
                dictionary: Vec::new(),
                index: std::collections::HashMap::new(),
            },
        }
    }

    fn push(&mut self, text: Option<&str>) {
        match self {
            Self::Numbers(values) => values.push(text.and_then(|text| text.parse().ok())),
            Self::Texts {
                codes,
                dictionary,
                index,
            } => codes.push(text.map(|text| match index.get(text) {
                Some(code) => *code,
                None => {
                    // A file has at most CELLS_MAX values.
                    let code = dictionary.len() as u32;
                    dictionary.push(text.to_owned());
                    index.insert(text.to_owned(), code);
                    code
                }
            })),
        }
    }

    fn finish(self) -> Data {
        match self {
            Self::Numbers(values) => Data::Numbers(values),
            Self::Texts {
                codes, dictionary, ..
            } => Data::Texts { codes, dictionary },
        }
    }
}

fn read_parquet(path: &Path) -> Result<Columns> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let schema = std::sync::Arc::clone(builder.schema());
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows())?;
    if rows.saturating_mul(schema.fields().len()) > CELLS_MAX {
        bail!("has more than {CELLS_MAX} values: take fewer rows or columns");
    }
    let names: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let is_number: Vec<bool> = schema
        .fields()
        .iter()
        .map(|field| field.data_type().is_numeric() || is_time(field.data_type()))
        .collect();
    let mut columns: Vec<Column> = is_number
        .iter()
        .map(|is_number| Column::new(*is_number))
        .collect();
    for batch in builder.build()? {
        let batch = batch?;
        for ((column, array), name) in columns.iter_mut().zip(batch.columns()).zip(&names) {
            append(column, array).with_context(|| format!("column {name}"))?;
        }
    }
    Ok(Columns {
        names,
        data: columns.into_iter().map(Column::finish).collect(),
        rows,
    })
}

fn is_time(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
    )
}

/// Adds an Arrow array: times as seconds since 1970, other numbers as they are, the rest as text.
fn append(column: &mut Column, array: &dyn Array) -> Result<()> {
    match column {
        Column::Numbers(values) if is_time(array.data_type()) => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
            let array = cast(array, &micros)?;
            let array = array.as_primitive::<TimestampMicrosecondType>();
            array
                .iter()
                .for_each(|micros| values.push(micros.map(|micros| micros as f64 / 1e6)));
        }
        Column::Numbers(values) => {
            let array = cast(array, &DataType::Float64)?;
            let array = array.as_primitive::<Float64Type>();
            array.iter().for_each(|value| values.push(value));
        }
        Column::Texts { .. } => {
            let array = cast(array, &DataType::Utf8)?;
            array
                .as_string::<i32>()
                .iter()
                .for_each(|text| column.push(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use arrow::array::{Float32Array, RecordBatch, StringArray, TimestampMillisecondArray};
    use driftline_emitter::Value;

    use super::*;

    const CSV: &str = "t,x,mode\n1970-01-01T00:00:01Z,1.5,heat\n1970-01-01T00:00:02Z,,7\n1970-01-01T00:00:03Z,NA,idle\n";

    fn check(columns: &Columns) {
        assert_eq!(columns.len(), 3);
        assert_eq!(columns.names, ["t", "x", "mode"]);
        let x = columns.get("x").unwrap();
        assert_eq!(x.value(0), Value::Number(1.5));
        assert_eq!(x.value(1), Value::Missing);
        assert_eq!(columns.get("mode").unwrap().value(1), Value::Text("7"));
        assert_eq!(
            times_us("t", columns.get("t").unwrap()).unwrap(),
            [1_000_000, 2_000_000, 3_000_000]
        );
        assert!(
            columns
                .get("y")
                .unwrap_err()
                .to_string()
                .contains("t, x, mode")
        );
        let idle = [("mode".to_owned(), "idle".to_owned())];
        assert_eq!(columns.matching(&idle).unwrap(), [2]);
    }

    #[test]
    fn packed_and_plain_csv_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("a.csv");
        std::fs::write(&plain, CSV).unwrap();
        check(&Columns::read(&plain).unwrap());
        let gz = dir.path().join("a.csv.gz");
        let mut encoder =
            flate2::write::GzEncoder::new(File::create(&gz).unwrap(), Default::default());
        encoder.write_all(CSV.as_bytes()).unwrap();
        encoder.finish().unwrap();
        check(&Columns::read(&gz).unwrap());
        let zst = dir.path().join("a.csv.zst");
        std::fs::write(&zst, zstd::encode_all(CSV.as_bytes(), 1).unwrap()).unwrap();
        check(&Columns::read(&zst).unwrap());
    }

    #[test]
    fn parquet_reads_like_csv() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let batch = RecordBatch::try_from_iter([
            (
                "t",
                Arc::new(TimestampMillisecondArray::from(vec![1_000, 2_000, 3_000])) as _,
            ),
            (
                "x",
                Arc::new(Float32Array::from(vec![Some(1.5), None, None])) as _,
            ),
            (
                "mode",
                Arc::new(StringArray::from(vec!["heat", "7", "idle"])) as _,
            ),
        ])
        .unwrap();
        let file = File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        check(&Columns::read(&path).unwrap());
    }

    #[test]
    fn a_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ragged.csv");
        std::fs::write(&path, "a,b\n1,2\n3\n").unwrap();
        let error = format!("{:#}", Columns::read(&path).unwrap_err());
        assert!(
            error.contains("ragged.csv") && error.contains("line"),
            "{error}"
        );
    }
}
