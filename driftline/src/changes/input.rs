//! The numbers of a stream, one at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::files::{is_missing, is_parquet, open};
use crate::output::Usage;

/// Longest line of a list of numbers, bytes: many times any number, and a bound on memory when the
/// file is something else.
const LINE_BYTES_MAX: u64 = 4096;

/// Calls `on` with every value of a file (`-` is standard input) in order; `None` is a missing one.
///
/// # Errors
/// Names the file and the line that is no number, or the columns that there are.
pub(super) fn each(path: &Path, column: Option<&str>, on: impl FnMut(Option<f64>)) -> Result<()> {
    let is_stdin = path.as_os_str() == "-";
    let place = || match is_stdin {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    };
    if !is_stdin && is_parquet(path) {
        return parquet(path, column, on).with_context(place);
    }
    let reader: Box<dyn Read> = match is_stdin {
        true => Box::new(std::io::stdin().lock()),
        false => open(path).with_context(place)?,
    };
    match column {
        Some(column) => csv(reader, column, on),
        None => lines(BufReader::new(reader), on),
    }
    .with_context(place)
}

fn number(text: &str) -> Option<Option<f64>> {
    let text = text.trim();
    if is_missing(text) {
        return Some(None);
    }
    text.parse().ok().map(Some)
}

/// One number a line.
fn lines(mut reader: impl BufRead, mut on: impl FnMut(Option<f64>)) -> Result<()> {
    let mut line = Vec::new();
    for at in 1_u64.. {
        line.clear();
        let read = reader
            .by_ref()
            .take(LINE_BYTES_MAX + 1)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            bail!("line {at} has more than {LINE_BYTES_MAX} bytes: this is no list of numbers");
        }
        let text = String::from_utf8_lossy(&line);
        match number(&text) {
            Some(value) => on(value),
            None if at == 1 => bail!(
                "line 1: {:?} is no number; if it is the name of a column, say --column",
                text.trim()
            ),
            None => bail!("line {at}: {:?} is no number", text.trim()),
        }
    }
    Ok(())
}

/// A column of CSV with a header.
fn csv(reader: impl Read, column: &str, mut on: impl FnMut(Option<f64>)) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().from_reader(reader);
    let names: Vec<String> = reader
        .headers()?
        .iter()
        .map(|name| name.trim().to_owned())
        .collect();
    let at = position(&names, column)?;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        let text = record.get(at).unwrap_or_default();
        let line = record.position().map_or(0, csv::Position::line);
        match number(text) {
            Some(value) => on(value),
            None => bail!("line {line}, column {column}: {text:?} is no number"),
        }
    }
    Ok(())
}

/// A column of Parquet; a file with only one column needs no name.
fn parquet(path: &Path, column: Option<&str>, mut on: impl FnMut(Option<f64>)) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let names: Vec<String> = builder
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let at = match column {
        Some(column) => position(&names, column)?,
        None if names.len() == 1 => 0,
        None => return Err(Usage(format!("say --column: there are {}", names.join(", "))).into()),
    };
    let (name, kind) = (&names[at], builder.schema().field(at).data_type().clone());
    if !kind.is_numeric() && kind != DataType::Boolean {
        bail!("column {name} holds {kind}, not numbers");
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), [at]);
    for batch in builder.with_projection(mask).build()? {
        let values = cast(batch?.column(0), &DataType::Float64)?;
        values
            .as_primitive::<Float64Type>()
            .iter()
            .for_each(&mut on);
        debug_assert!(values.data_type() == &DataType::Float64);
    }
    Ok(())
}

fn position(names: &[String], column: &str) -> Result<usize> {
    let found = names.iter().position(|name| name == column);
    found.with_context(|| {
        format!(
            "there is no column {column:?}, there are {}",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(
        read: impl FnOnce(&mut dyn FnMut(Option<f64>)) -> Result<()>,
    ) -> Result<Vec<Option<f64>>> {
        let mut values = Vec::new();
        read(&mut |value| values.push(value))?;
        Ok(values)
    }

    /// Blank lines and NA are missing values that keep their place.
    #[test]
    fn lines_are_numbers_or_missing() {
        let text = "1\n\n 2.5 \r\nNA\n-3e2";
        let values = all(|on| lines(text.as_bytes(), on)).unwrap();
        assert_eq!(values, [Some(1.0), None, Some(2.5), None, Some(-300.0)]);
        assert!(all(|on| lines(&b""[..], on)).unwrap().is_empty());
    }

    /// What is no number is named by its line, and a header by its remedy.
    #[test]
    fn errors_name_the_line() {
        let error = all(|on| lines(&b"1\n2\nx3\n"[..], on))
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 3") && error.contains("x3"), "{error}");
        let error = all(|on| lines(&b"loss\n2\n"[..], on))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--column"), "{error}");
        let long = vec![b'1'; 5000];
        let error = all(|on| lines(&long[..], on)).unwrap_err().to_string();
        assert!(error.contains("line 1 has more than"), "{error}");
        let text = "a,b\n1,2\n1,\"x\ny\"\n1,z\n";
        let error = all(|on| csv(text.as_bytes(), "b", on))
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 3, column b"), "{error}");
        let error = all(|on| csv(text.as_bytes(), "c", on))
            .unwrap_err()
            .to_string();
        assert!(error.contains("a, b"), "{error}");
    }
}
