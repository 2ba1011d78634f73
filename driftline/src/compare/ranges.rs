//! Time ranges of the lake in place of files: `lake:NAME@VERSION?from=TIME&to=TIME`, and attributes of the
//! devices (`&site=north-1`).
//!
//! A range is written to a Parquet file in the folder of temporary files, day by day, with a column per
//! feature, extra signal and output by its name, and read from there: two passes over the lake itself
//! would cost as much, and could see different rows. The file takes about as much room as the rows take in
//! the lake, and goes when the comparison is done.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use driftline_lake::Lake;
use driftline_queries::Session;
use driftline_schemas::bundle::{Feature, FeatureType, Manifest, Task};
use driftline_schemas::quantity::{dequantise, quantise};
use driftline_schemas::source::ATTRIBUTES;
use futures::StreamExt as _;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::config::Config;
use crate::lake::Selection;
use crate::model::{self, parse_version};
use crate::output::Usage;
use crate::times;

/// What names of ranges begin with.
const SCHEME: &str = "lake:";
/// Rows that the writer holds before it writes them.
const ROW_GROUP: usize = 65_536;

/// A range as it was asked for.
#[derive(Debug)]
struct Range(Selection);

/// Whether a name is a range of the lake.
pub(super) fn is_range(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.starts_with(SCHEME))
}

/// A range on disk for as long as this lives.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(super) path: tempfile::TempPath,
    /// Columns that say whose rows they are: compared when they are named only.
    pub(super) heads: Vec<String>,
}

/// Writes a range to a file.
///
/// # Errors
/// [`Usage`] when the name is not right; else names the model, or what the lake or the disk said.
pub(super) async fn fetch(config: &Config, dir: &Path, name: &Path) -> Result<Fetched> {
    let text = name.to_string_lossy();
    let Range(selection) = Range::parse(&text).map_err(|problem| {
        Usage(format!(
            "{text}: {problem}; write lake:NAME@VERSION?from=TIME&to=TIME"
        ))
    })?;
    let of = model::Version {
        name: selection.model.clone(),
        version: selection.version.clone(),
    };
    let bundle = model::registered(config, dir, &selection.tenant, &of).await?;
    let session = Session::open(Lake::new(&config.lake(dir))).await?;
    let columns = Columns::of(&bundle.manifest);
    let file = tempfile::Builder::new()
        .prefix("driftline-compare-")
        .suffix(".parquet")
        .tempfile()
        .context("a temporary file; TMPDIR names another folder for it")?;
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let schema = Arc::clone(&columns.schema);
    let mut writer = ArrowWriter::try_new(file.reopen()?, schema, Some(properties))?;
    let mut rows = 0;
    for (from, to) in selection.days() {
        let statement = selection.labelled(from, to, &columns.sql);
        let mut batches = session.stream(&statement).await?;
        while let Some(batch) = batches.next().await {
            let batch = columns.convert(&batch?)?;
            rows += batch.num_rows();
            writer.write(&batch)?;
        }
    }
    writer.close()?;
    if rows == 0 {
        bail!("the lake has no rows of {}", selection.title());
    }
    Ok(Fetched {
        path: file.into_temp_path(),
        heads: columns.heads,
    })
}

impl Range {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix(SCHEME).unwrap_or(text);
        let (model, query) = text.split_once('?').ok_or("there is no time")?;
        let model = parse_version(model)?;
        let mut selection = Selection {
            tenant: driftline_emitter::pack::TENANT_DEFAULT.into(),
            model: model.name,
            version: model.version,
            from: jiff::Timestamp::UNIX_EPOCH,
            to: jiff::Timestamp::UNIX_EPOCH,
            cohort: std::collections::BTreeMap::new(),
        };
        let (mut has_from, mut has_to) = (false, false);
        for part in query.split('&') {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is no KEY=VALUE"))?;
            match key {
                "from" => (selection.from, has_from) = (times::parse(value)?, true),
                "to" => (selection.to, has_to) = (times::parse(value)?, true),
                "tenant" => value.clone_into(&mut selection.tenant),
                name => {
                    selection.cohort.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        if !(has_from && has_to) {
            return Err("it needs from and to".into());
        }
        selection.check().map_err(|error| error.to_string())?;
        Ok(Self(selection))
    }
}

/// How a column of the lake becomes one of the table.
#[derive(Debug, Clone)]
enum Kind {
    /// As it is.
    Text,
    /// A number in steps of a resolution: the lake's 32-bit floats are put back on them.
    Number(f64),
    /// A code, by the names of categories.
    Category(Vec<String>),
}

/// The columns of a model's rows.
struct Columns {
    schema: Arc<Schema>,
    kinds: Vec<Kind>,
    /// What stands between SELECT and FROM.
    sql: String,
    heads: Vec<String>,
}

/// A category that the bundle does not list.
const UNSEEN: &str = "(unseen)";

impl Columns {
    fn of(manifest: &Manifest) -> Self {
        let mut all: Vec<(String, String, Kind)> = Vec::new();
        for (list, features) in [
            ("features", &manifest.features),
            ("signals", &manifest.signals),
        ] {
            let named = features.iter().enumerate();
            all.extend(named.map(|(at, feature)| {
                (
                    feature.name.clone(),
                    format!("i.{list}[{}]", at + 1),
                    kind_of(feature),
                )
            }));
        }
        let output = |column: &str| match manifest.prediction_kind() {
            FeatureType::Numeric { resolution, .. } => {
                (format!("{column}_value"), Kind::Number(resolution))
            }
            FeatureType::Categorical { .. } => (format!("{column}_class"), Kind::Text),
        };
        let mut add = |name: &str, (sql, kind): (String, Kind)| {
            if all.iter().all(|(known, ..)| known != name) {
                all.push((name.to_owned(), sql, kind));
            }
        };
        add("prediction", output("i.predicted"));
        if manifest.task == Task::Classification {
            let resolution = driftline_schemas::bundle::SCORE_RESOLUTION;
            add(
                "confidence",
                ("i.confidence".into(), Kind::Number(resolution)),
            );
        }
        add("truth", output("o.truth"));
        let before = all.len();
        let mut add = |name: &str| {
            if all.iter().all(|(known, ..)| known != name) {
                all.push((name.to_owned(), format!("i.{name}"), Kind::Text));
            }
        };
        add("device");
        ATTRIBUTES.into_iter().for_each(&mut add);
        let field = |(name, _, kind): &(String, String, Kind)| {
            let ty = match kind {
                Kind::Number(_) => DataType::Float64,
                _ => DataType::Utf8,
            };
            Field::new(name, ty, true)
        };
        let sql: Vec<String> = all.iter().map(|(_, sql, _)| sql.clone()).collect();
        Self {
            schema: Arc::new(Schema::new(all.iter().map(field).collect::<Vec<_>>())),
            sql: sql.join(", "),
            heads: all[before..]
                .iter()
                .map(|(name, ..)| name.clone())
                .collect(),
            kinds: all.into_iter().map(|(.., kind)| kind).collect(),
        }
    }

    fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = batch.columns().iter().zip(&self.kinds);
        let columns = columns.map(|(column, kind)| converted(column, kind));
        Ok(RecordBatch::try_new(
            Arc::clone(&self.schema),
            columns.collect::<Result<_>>()?,
        )?)
    }
}

fn kind_of(feature: &Feature) -> Kind {
    match &feature.kind {
        FeatureType::Numeric { resolution, .. } => Kind::Number(*resolution),
        FeatureType::Categorical { categories } => Kind::Category(categories.clone()),
    }
}

fn converted(column: &ArrayRef, kind: &Kind) -> Result<ArrayRef> {
    let numbers = || -> Result<Float64Array> {
        let numbers = arrow::compute::cast(column, &DataType::Float64)?;
        Ok(numbers.as_primitive::<Float64Type>().clone())
    };
    Ok(match kind {
        Kind::Text => arrow::compute::cast(column, &DataType::Utf8)?,
        Kind::Category(names) => {
            let name = |code: f64| match names.get(code as usize) {
                // NaN as an index is 0, and no category.
                Some(name) if code >= 0.0 => name.as_str(),
                _ => UNSEEN,
            };
            let named = numbers()?
                .iter()
                .map(|it| it.map(name))
                .collect::<StringArray>();
            Arc::new(named)
        }
        Kind::Number(resolution) => {
            let on_step = |value: f64| dequantise(quantise(value, *resolution), *resolution);
            Arc::new(numbers()?.unary::<_, Float64Type>(on_step))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Array as _;

    /// A range is a model version, two times and attributes; what is missing or unknown is told.
    #[test]
    fn ranges_by_name() {
        let parse = |text: &str| Range::parse(text).map(|range| range.0.title());
        assert_eq!(
            parse("lake:boiler@1.0.0?from=2026-01-01&to=2026-01-08T12:00:00Z&site=north-1")
                .unwrap(),
            "boiler@1.0.0 from 2026-01-01T00:00:00Z to 2026-01-08T12:00:00Z, site=north-1"
        );
        for (text, why) in [
            ("lake:boiler@1.0.0", "no time"),
            ("lake:boiler?from=2026-01-01&to=2026-01-02", "NAME@VERSION"),
            ("lake:b@1?from=2026-01-01", "from and to"),
            ("lake:b@1?from=2026-01-02&to=2026-01-01", "before"),
            (
                "lake:b@1?from=2026-01-01&to=2026-01-02&colour=red",
                "colour",
            ),
            ("lake:b@1?from=2026-01-01&to", "KEY=VALUE"),
        ] {
            assert!(parse(text).unwrap_err().contains(why), "{text}");
        }
    }

    /// Numbers are put back on their steps, codes get their names, and what is none stays none.
    #[test]
    fn values_as_they_were() {
        let number: ArrayRef = Arc::new(arrow::array::Float32Array::from(vec![Some(61.2), None]));
        let number = converted(&number, &Kind::Number(0.01)).unwrap();
        let number = number.as_primitive::<Float64Type>();
        assert_eq!((number.value(0), number.is_null(1)), (61.2, true));
        let codes = vec![Some(1.0), Some(f32::NAN), Some(7.0), None];
        let codes: ArrayRef = Arc::new(arrow::array::Float32Array::from(codes));
        let names = Kind::Category(vec!["heat".into(), "idle".into()]);
        let texts = converted(&codes, &names).unwrap();
        let texts: Vec<_> = texts.as_string::<i32>().iter().collect();
        assert_eq!(texts, [Some("idle"), Some(UNSEEN), Some(UNSEEN), None]);
    }
}
