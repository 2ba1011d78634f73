//! A table that is read in blocks: CSV with a header (plain, `.gz`, `.zst`) or Parquet.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::files::{is_missing, is_parquet, open};

/// Most rows of a block: some columns of it stay in the second cache.
const BLOCK_ROWS_MAX: usize = 8192;
/// Values of a block: some tens of megabytes as texts, however many columns a file has.
const BLOCK_VALUES: usize = 1 << 20;

fn block_rows(columns: usize) -> usize {
    (BLOCK_VALUES / columns.max(1)).clamp(1, BLOCK_ROWS_MAX)
}

/// What a file says that a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declared {
    /// Texts that may all be numbers.
    Text,
    Number,
    Category,
    /// Times, which move by nature.
    Time,
    /// Lists, structures, bytes.
    Other,
}

/// A table on disk.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// What people call it.
    pub(super) name: String,
    /// Columns that say whose rows they are: compared when they are named only.
    pub(super) heads: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) declared: Vec<Declared>,
}

impl Source {
    /// Reads the header.
    ///
    /// # Errors
    /// Names the file that cannot be read, has no header, or has two columns of one name.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::header(path).with_context(|| path.display().to_string())
    }

    fn header(path: &Path) -> Result<Self> {
        let (names, declared): (Vec<String>, Vec<Declared>) = if is_parquet(path) {
            let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
            let fields = builder.schema().fields().iter();
            fields
                .map(|field| (field.name().clone(), declared(field.data_type())))
                .unzip()
        } else {
            let mut reader = csv::ReaderBuilder::new().from_reader(open(path)?);
            let header = reader.headers()?.clone();
            let names = header
                .iter()
                .map(|name| name.trim().trim_start_matches('\u{feff}'));
            names.map(|name| (name.to_owned(), Declared::Text)).unzip()
        };
        if names.is_empty() {
            bail!("the file is empty: it has no header");
        }
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            bail!("two columns are called {twice:?}: rename one");
        }
        Ok(Self {
            path: path.to_owned(),
            name: path.display().to_string(),
            heads: Vec::new(),
            names,
            declared,
        })
    }

    /// The same file as what stands for a range of the lake.
    pub(super) fn range(self, name: &Path, heads: &[String]) -> Self {
        Self {
            name: name.display().to_string(),
            heads: heads.to_vec(),
            ..self
        }
    }

    /// Whether columns can be read apart from one another at no cost.
    pub(super) fn is_columnar(&self) -> bool {
        is_parquet(&self.path)
    }

    /// The place of a column.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|it| it == name)
    }

    /// Reads blocks of the columns at these places, ascending, in their order.
    ///
    /// # Errors
    /// Names the file and what is wrong in it.
    pub(super) fn scan(
        &self,
        places: &[usize],
        mut on: impl FnMut(&[ArrayRef]) -> Result<()>,
    ) -> Result<()> {
        let place = || self.name.clone();
        if self.is_columnar() {
            let file = File::open(&self.path).with_context(place)?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(place)?;
            let mask = ProjectionMask::roots(builder.parquet_schema(), places.iter().copied());
            let reader = builder
                .with_projection(mask)
                .with_batch_size(block_rows(places.len()));
            for batch in reader.build().with_context(place)? {
                on(batch.with_context(place)?.columns()).with_context(place)?;
            }
            return Ok(());
        }
        let fields: Vec<Field> = self
            .names
            .iter()
            .map(|name| Field::new(name, DataType::Utf8, true))
            .collect();
        let reader = arrow::csv::ReaderBuilder::new(Arc::new(Schema::new(fields)))
            .with_header(true)
            .with_projection(places.to_vec())
            .with_batch_size(block_rows(places.len()))
            .build_buffered(BufReader::new(open(&self.path).with_context(place)?))
            .with_context(place)?;
        for batch in reader {
            on(batch.with_context(place)?.columns()).with_context(place)?;
        }
        Ok(())
    }
}

fn declared(kind: &DataType) -> Declared {
    match kind {
        DataType::Dictionary(_, values) => declared(values),
        DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Declared::Category
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Declared::Time,
        kind if kind.is_numeric() => Declared::Number,
        // A column that is null throughout says nothing of its kind.
        DataType::Null => Declared::Text,
        _ => Declared::Other,
    }
}

/// A block of a column as numbers; texts that are no number are told by their row in the block.
#[derive(Debug, PartialEq)]
pub(super) enum Numbers {
    All(Float64Array),
    /// A row whose text is no number.
    Text(usize, String),
}

/// Reads a block as numbers; times are seconds since 1970.
///
/// # Errors
/// When the type cannot be one.
pub(super) fn numbers(block: &ArrayRef) -> Result<Numbers> {
    match block.data_type() {
        DataType::Float64 => Ok(Numbers::All(block.as_primitive::<Float64Type>().clone())),
        DataType::Utf8 => Ok(parse(block.as_string::<i32>())),
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let micros = cast(block, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let micros = micros.as_primitive::<TimestampMicrosecondType>();
            let seconds = micros.iter().map(|it| it.map(|micros| micros as f64 / 1e6));
            Ok(Numbers::All(seconds.collect()))
        }
        _ => {
            let cast = cast(block, &DataType::Float64)?;
            Ok(Numbers::All(cast.as_primitive::<Float64Type>().clone()))
        }
    }
}

fn parse(texts: &StringArray) -> Numbers {
    let mut numbers = Float64Array::builder(texts.len());
    for (row, text) in texts.iter().enumerate() {
        match text.map(str::trim).filter(|text| !is_missing(text)) {
            None => numbers.append_null(),
            Some(text) => match text.parse() {
                Ok(number) => numbers.append_value(number),
                Err(_) => return Numbers::Text(row, text.to_owned()),
            },
        }
    }
    Numbers::All(numbers.finish())
}

/// Reads a block as texts; whole numbers are written without a point.
///
/// # Errors
/// When the type cannot be written.
pub(super) fn texts(block: &ArrayRef) -> Result<StringArray> {
    Ok(match block.data_type() {
        DataType::Utf8 => block
            .as_string::<i32>()
            .iter()
            .map(|text| text.map(str::trim).filter(|text| !is_missing(text)))
            .collect(),
        kind if kind.is_numeric() => {
            let numbers = cast(block, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            numbers
                .iter()
                .map(|it| it.map(|number| number.to_string()))
                .collect()
        }
        _ => cast(block, &DataType::Utf8)?.as_string::<i32>().clone(),
    })
}
