//! Rows of features from CSV (with a header) or JSON lines, by the names of the bundle's features.

use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result, bail};
use driftline_emitter::Value;
use driftline_schemas::bundle::Manifest;

/// Longest line that is read: a few thousand features fit.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// One row as it was read.
#[derive(Debug)]
pub(super) struct Row {
    /// Event time, where the row has one.
    pub(super) time_us: Option<i64>,
    /// The truth, where the row has it.
    pub(super) label: Option<String>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq)]
enum Field {
    Missing,
    Number(f64),
    Text(String),
}

impl Row {
    /// One value per feature, then per extra signal.
    pub(super) fn values(&self) -> Vec<Value<'_>> {
        self.fields
            .iter()
            .map(|field| match field {
                Field::Missing => Value::Missing,
                Field::Number(number) => Value::Number(*number),
                Field::Text(text) => Value::Text(text),
            })
            .collect()
    }
}

/// Where the values of a row stand.
enum Shape {
    /// Positions in a CSV record.
    Csv {
        columns: Vec<usize>,
        time: Option<usize>,
        label: Option<usize>,
    },
    /// Keys of a JSON object.
    Json,
}

/// Reads rows one by one.
pub(super) struct Reader<R> {
    lines: BufReader<R>,
    shape: Shape,
    names: Vec<String>,
    time: Option<String>,
    label: Option<String>,
    line: u64,
    first: Option<String>,
}

impl<R: Read> Reader<R> {
    /// Reads the first line, which says which form the input has.
    pub(super) fn new(
        input: R,
        manifest: &Manifest,
        time: Option<&str>,
        label: Option<&str>,
    ) -> Result<Self> {
        let names: Vec<String> = manifest
            .features
            .iter()
            .chain(&manifest.signals)
            .map(|feature| feature.name.clone())
            .collect();
        let mut reader = Self {
            lines: BufReader::new(input),
            shape: Shape::Json,
            names,
            time: time.map(Into::into),
            label: label.map(Into::into),
            line: 0,
            first: None,
        };
        let Some(first) = reader.read_line()? else {
            return Ok(reader);
        };
        if first.trim_start().starts_with('{') {
            reader.first = Some(first);
            return Ok(reader);
        }
        let header = split(&first)?;
        let find = |name: &str| {
            header
                .iter()
                .position(|it| it.trim() == name)
                .with_context(|| {
                    format!(
                        "the input has no column {name:?}, it has {}",
                        header.join(", ")
                    )
                })
        };
        let columns = reader
            .names
            .iter()
            .map(|name| find(name))
            .collect::<Result<Vec<_>>>()?;
        reader.shape = Shape::Csv {
            columns,
            time: time.map(find).transpose()?,
            label: label.map(find).transpose()?,
        };
        Ok(reader)
    }

    /// The next row; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Row>> {
        loop {
            let line = match self.first.take() {
                Some(line) => Some(line),
                None => self.read_line()?,
            };
            match line {
                None => return Ok(None),
                Some(line) if line.trim().is_empty() => {}
                Some(line) => {
                    return self
                        .row(&line)
                        .with_context(|| format!("standard input, line {}", self.line))
                        .map(Some);
                }
            }
        }
    }

    fn read_line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let read = (&mut self.lines)
            .take(LINE_BYTES_MAX)
            .read_line(&mut line)
            .context("standard input")?;
        self.line += 1;
        if read as u64 == LINE_BYTES_MAX {
            bail!(
                "standard input, line {}: longer than {LINE_BYTES_MAX} bytes",
                self.line
            );
        }
        Ok((read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    fn row(&self, line: &str) -> Result<Row> {
        match &self.shape {
            Shape::Json => self.json_row(line),
            Shape::Csv {
                columns,
                time,
                label,
            } => {
                let record = split(line)?;
                let text = |at: usize| record.get(at).map_or("", |text| text.trim());
                Ok(Row {
                    time_us: time.map(|at| time_us(text(at))).transpose()?,
                    label: label
                        .map(|at| text(at).to_owned())
                        .filter(|it| !it.is_empty()),
                    fields: columns.iter().map(|at| field(text(*at))).collect(),
                })
            }
        }
    }

    fn json_row(&self, line: &str) -> Result<Row> {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line)?;
        let field = |name: &String| match object.get(name) {
            None | Some(serde_json::Value::Null) => Field::Missing,
            Some(serde_json::Value::Number(number)) => {
                number.as_f64().map_or(Field::Missing, Field::Number)
            }
            Some(serde_json::Value::Bool(is)) => Field::Text(is.to_string()),
            Some(serde_json::Value::String(text)) => Field::Text(text.clone()),
            Some(other) => Field::Text(other.to_string()),
        };
        let text = |name: &String| match field(name) {
            Field::Missing => None,
            Field::Number(number) => Some(number.to_string()),
            Field::Text(text) => Some(text),
        };
        Ok(Row {
            time_us: self
                .time
                .as_ref()
                .and_then(text)
                .map(|text| time_us(&text))
                .transpose()?,
            label: self.label.as_ref().and_then(text),
            fields: self.names.iter().map(field).collect(),
        })
    }
}

fn split(line: &str) -> Result<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(line.as_bytes());
    match reader.records().next() {
        Some(record) => Ok(record?.iter().map(str::to_owned).collect()),
        None => Ok(Vec::new()),
    }
}

fn field(text: &str) -> Field {
    match text {
        "" => Field::Missing,
        text => match text.parse() {
            Ok(number) => Field::Number(number),
            Err(_) => Field::Text(text.into()),
        },
    }
}

/// RFC 3339, or seconds since 1970.
fn time_us(text: &str) -> Result<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1e6).round() as i64);
    }
    let time: jiff::Timestamp = text
        .parse()
        .with_context(|| format!("{text:?} is no time: write RFC 3339 or seconds since 1970"))?;
    Ok(time.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
format = 1
name = "m"
version = "1"
task = "classification"
[[features]]
name = "a"
type = "numeric"
resolution = 0.1
[[features]]
name = "b"
type = "categorical"
categories = ["x", "y"]
[output]
classes = ["n", "p"]
"#;

    fn read(text: &str, time: Option<&str>) -> Result<Vec<Row>> {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let mut reader = Reader::new(text.as_bytes(), &manifest, time, Some("truth"))?;
        let mut rows = Vec::new();
        while let Some(row) = reader.next()? {
            rows.push(row);
        }
        Ok(rows)
    }

    #[test]
    fn csv_and_json_give_the_same_rows() {
        let csv = "b,truth,a,t\nx,p,1.5,1970-01-01T00:00:01Z\n\"y\",,,2.5\n";
        let json =
            "{\"a\":1.5,\"b\":\"x\",\"truth\":\"p\",\"t\":1}\n\n{\"b\":\"y\",\"t\":\"2.5\"}\n";
        for text in [csv, json] {
            let rows = read(text, Some("t")).unwrap();
            assert_eq!(rows.len(), 2);
            assert_eq!(rows[0].values(), [Value::Number(1.5), Value::Text("x")]);
            assert_eq!(rows[0].label.as_deref(), Some("p"));
            assert_eq!(rows[0].time_us, Some(1_000_000));
            assert_eq!(rows[1].values(), [Value::Missing, Value::Text("y")]);
            assert_eq!(rows[1].label, None);
            assert_eq!(rows[1].time_us, Some(2_500_000));
        }
        assert_eq!(read("", None).unwrap().len(), 0);
    }

    #[test]
    fn what_is_missing_or_broken_is_named_with_its_line() {
        let missing = read("a,truth\n1,p\n", None).unwrap_err().to_string();
        assert!(missing.contains("\"b\""), "{missing}");
        let broken = read("{\"a\":1}\n{\"a\":\n", None).unwrap_err().to_string();
        assert!(broken.contains("line 2"), "{broken}");
        let time = read("a,b,truth,t\n1,x,p,noon\n", Some("t")).unwrap_err();
        assert!(format!("{time:#}").contains("noon"));
    }
}
