//! Answers as table, JSON or CSV.

use std::io::Write;

use datafusion::arrow::csv;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::writer::{JsonArray, WriterBuilder};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// One array of row objects; columns without a value are null.
    Json,
    /// Comma-separated, with a header. Lists and structures are written as text.
    Csv,
}

/// Writes an answer, with a final newline.
///
/// # Errors
/// When the output cannot be written, or a type has no form in the format.
pub fn write(
    batches: &[RecordBatch],
    format: Format,
    out: &mut dyn Write,
) -> Result<(), ArrowError> {
    match format {
        Format::Table => writeln!(out, "{}", pretty_format_batches(batches)?)?,
        Format::Json => {
            let mut writer = WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, JsonArray>(&mut *out);
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
            if batches.iter().all(|batch| batch.num_rows() == 0) {
                // The writer leaves nothing at all behind when there are no rows.
                write!(out, "")?;
            }
            writeln!(out)?;
        }
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut *out);
            for batch in batches {
                writer.write(&flat(batch)?)?;
            }
        }
    }
    Ok(())
}

/// Lists and structures as text, since CSV has no form for them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    use datafusion::arrow::array::{ArrayRef, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::default();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if column.data_type().is_nested() {
            let text = ArrayFormatter::try_new(column.as_ref(), &options)?;
            let texts: StringArray = (0..batch.num_rows())
                .map(|row| column.is_valid(row).then(|| text.value(row).to_string()))
                .collect();
            fields.push(Field::new(field.name(), DataType::Utf8, true));
            columns.push(std::sync::Arc::new(texts) as ArrayRef);
        } else {
            fields.push(field.as_ref().clone());
            columns.push(std::sync::Arc::clone(column));
        }
    }
    RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    async fn answer(sql: &str, format: Format) -> String {
        let batches = SessionContext::new()
            .sql(sql)
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        let mut out = Vec::new();
        write(&batches, format, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn rows_are_objects_with_nulls_and_lists_are_text_in_csv() {
        let json = answer("SELECT 1 AS a, NULL AS b", Format::Json).await;
        assert_eq!(json, "[{\"a\":1,\"b\":null}]\n");
        let csv = answer("SELECT 1 AS a, [1, 2] AS b", Format::Csv).await;
        assert_eq!(csv, "a,b\n1,\"[1, 2]\"\n");
        let empty = answer("SELECT 1 AS a WHERE false", Format::Json).await;
        assert_eq!(empty.trim(), "[]");
    }
}
