//! Rows of devices: inferences, outcomes, health, events.

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};

use super::columns::{
    self, Describe, dates, field, flag, flags, float, floats, int, ints, leading, list, long,
    longs, some_texts, text, texts, time, times, trailing,
};
use super::{Place, Table, TableError, source};
use crate::bundle::{Feature, FeatureType, Manifest, SCORE_RESOLUTION, Task};
use crate::packed::{LEADING_COLUMNS, PackedRecord};
use crate::quantity;
use crate::rows::{self, EVENT_TIME, FieldType, RowSchema};
use crate::source::{inference_id_text, inference_time_us};

/// A record of a telemetry topic on its way into the lake. Resends have been taken out of it before
/// ([`PackedRecord::select_frames`]).
#[derive(Debug, Clone, Copy)]
pub struct Telemetry<'a> {
    /// The record.
    pub record: &'a PackedRecord,
    /// Where it stands in the log.
    pub place: Place,
    /// A row whose event time was longer ago than this when it was received is late, microseconds.
    pub late_after_us: i64,
}

const RAN_ON: [&str; 3] = ["device", "gateway", "cloud"];

pub(super) fn inferences_fields() -> Vec<Field> {
    let mut fields = leading("event_time");
    fields.extend([
        time(
            "event_time",
            "when the model ran, by the device's clock as the gateway corrected it",
        )
        .required(),
        text(
            "inference_id",
            "identity of the prediction, a UUID of version 7; outcomes name it",
        )
        .required(),
    ]);
    fields.extend(source::fields());
    fields.extend([
        list(
            "features",
            DataType::Float32,
            "inputs of the model in the bundle's order and units: null is missing, NaN was no number; categories by code, NaN for unseen ones",
        ),
        text("predicted_class", "name of the predicted class (classification)"),
        int("predicted_code", "index of the predicted class in the bundle's list (classification)"),
        float("predicted_value", "predicted value, in the unit of the bundle's output (regression, anomaly)"),
        field("confidence", DataType::Float32, "the model's confidence in the predicted class")
            .range("0..1"),
        list(
            "scores",
            DataType::Float32,
            "the model's score of every class, in the bundle's order, where the bundle asks for them",
        )
        .range("0..1"),
        int("latency_us", "how long the model ran").unit("µs"),
        int("energy_uj", "energy that the run took, where the device can tell").unit("µJ"),
        text("ran_on", "where the model ran: device, gateway or cloud"),
        list(
            "signals",
            DataType::Float32,
            "extra signals in the bundle's order, coded as the features are",
        ),
    ]);
    fields.extend(trailing());
    fields
}

pub(super) fn outcomes_fields() -> Vec<Field> {
    let mut fields = leading("observed_at");
    fields.extend([
        time("observed_at", "when the truth was observed").required(),
        text(
            "inference_id",
            "identity of the prediction that this is the truth of",
        )
        .required(),
        time(
            "inference_time",
            "when the model ran, to the millisecond, from the identity",
        )
        .required(),
        text("inference_device", "the device that ran the model").required(),
        text("truth_class", "name of the true class (classification)"),
        int(
            "truth_code",
            "index of the true class in the bundle's list (classification)",
        ),
        float(
            "truth_value",
            "true value, in the unit of the bundle's output (regression, anomaly)",
        ),
        text("observer", "who or what observed it"),
    ]);
    fields.extend(source::fields());
    fields.extend(trailing());
    fields
}

/// Descriptions of readings, by their names in [`RowSchema::health`].
const READINGS: [(&str, &str); 18] = [
    ("battery_percent", "charge of the battery"),
    ("voltage", "voltage of the supply"),
    ("current", "current drawn"),
    ("power", "power drawn"),
    ("charging", "whether the battery was being charged"),
    ("temperature", "temperature inside the device"),
    ("rssi", "strength of the received signal"),
    ("snr", "signal-to-noise ratio of the link"),
    (
        "link_kind",
        "what the device was connected by, in its own words",
    ),
    ("round_trip_ms", "round trip to the gateway"),
    ("retries", "retries since the reading before"),
    ("bytes_up", "bytes sent since boot"),
    ("bytes_down", "bytes received since boot"),
    ("reconnects", "times the link came back since boot"),
    ("uptime_s", "time since boot"),
    ("storage_percent", "share of the storage in use"),
    ("tamper", "whether the case was opened"),
    ("shock", "greatest acceleration since the reading before"),
];

fn reading(row: &rows::Field) -> Field {
    let description = READINGS.iter().find(|(name, _)| *name == row.name);
    let description = description.map_or("", |(_, description)| *description);
    match row.ty {
        FieldType::Int32 if row.categories.is_some() => flag(&row.name, description),
        FieldType::Int32 => float(&row.name, description).unit(row.unit),
        FieldType::Int64 => long(&row.name, description).unit(row.unit),
        FieldType::Time => time(&row.name, description),
        FieldType::Text | FieldType::Id => text(&row.name, description),
    }
}

pub(super) fn health_fields() -> Vec<Field> {
    let mut fields = leading("event_time");
    fields.push(time("event_time", "when the reading was taken, as corrected").required());
    fields.extend(source::fields());
    let schema = RowSchema::health();
    let readings = schema
        .fields()
        .iter()
        .filter(|field| field.name != EVENT_TIME);
    fields.extend(readings.map(reading));
    fields.extend(trailing());
    fields
}

pub(super) fn events_fields() -> Vec<Field> {
    let mut fields = leading("event_time");
    fields.push(time("event_time", "when it happened, as corrected").required());
    fields.extend(source::fields());
    fields.extend([
        text(
            "event",
            "what: boot, or what changed (firmware, model, sbom, link, location)",
        )
        .required(),
        text("before", "what it was before"),
        text("after", "what it has been since"),
    ]);
    fields.extend(trailing());
    fields
}

impl<'a> Telemetry<'a> {
    fn rows(&self) -> usize {
        self.record.rows()
    }

    fn check(&self, schema: &RowSchema) -> Result<(), TableError> {
        let head = &self.record.head;
        if head.fingerprint == schema.fingerprint() && head.kind == schema.kind() {
            return Ok(());
        }
        Err(TableError::OtherBundle {
            model: head.model.to_string(),
            version: head.version.to_string(),
            record: head.fingerprint,
            bundle: schema.fingerprint(),
        })
    }

    /// A column of the record by its name; the schema's fingerprint has been compared.
    fn column(&self, schema: &RowSchema, name: &str) -> Option<&'a ArrayRef> {
        let columns = self.record.batch.columns();
        columns.get(schema.index(name)? + LEADING_COLUMNS)
    }

    fn codes(&self, schema: &RowSchema, name: &str) -> Option<&'a Int32Array> {
        self.column(schema, name)?.as_primitive_opt::<Int32Type>()
    }

    fn start(&self) -> Vec<ArrayRef> {
        let tenant = &*self.record.head.tenant;
        let event_times = self.record.event_times_us();
        vec![
            texts(std::iter::repeat_n(tenant, self.rows())),
            dates(event_times.iter().copied()),
            times(event_times.iter().map(|time| Some(*time))),
        ]
    }

    fn end(&self, mut columns: Vec<ArrayRef>, table: Table) -> Result<RecordBatch, TableError> {
        let rows = self.rows();
        columns.push(ints(std::iter::repeat_n(
            Some(self.place.partition as i32),
            rows,
        )));
        columns.push(longs(std::iter::repeat_n(
            Some(self.place.offset as i64),
            rows,
        )));
        Ok(RecordBatch::try_new(table.schema(), columns)?)
    }
}

/// The finite values of quantised numbers, in their unit.
fn finite(column: Option<&Int32Array>, resolution: f64, rows: usize) -> ArrayRef {
    match column {
        Some(column) => floats(column.iter().map(|code| {
            code.filter(|code| quantity::is_finite(*code))
                .map(|code| quantity::dequantise(code, resolution))
        })),
        None => floats(std::iter::repeat_n(None, rows)),
    }
}

/// Whole numbers; codes of what is none become null.
fn whole(column: Option<&Int32Array>, rows: usize) -> ArrayRef {
    match column {
        Some(column) => ints(
            column
                .iter()
                .map(|code| code.filter(|code| quantity::is_finite(*code))),
        ),
        None => ints(std::iter::repeat_n(None, rows)),
    }
}

/// Names of codes; codes without a name become null.
fn named<S: AsRef<str>>(column: Option<&Int32Array>, names: &[S], rows: usize) -> ArrayRef {
    let name = |code: i32| names.get(usize::try_from(code).ok()?).map(S::as_ref);
    match column {
        Some(column) => some_texts(column.iter().map(|code| code.and_then(name))),
        None => some_texts(std::iter::repeat_n(None, rows)),
    }
}

/// Class name, class code and value of a predicted or true output.
fn output(column: Option<&Int32Array>, manifest: &Manifest, rows: usize) -> [ArrayRef; 3] {
    match (manifest.task, manifest.prediction_kind()) {
        (Task::Classification, _) => [
            named(column, &manifest.output.classes, rows),
            whole(column, rows),
            finite(None, 1.0, rows),
        ],
        (_, FeatureType::Numeric { resolution, .. }) => [
            named::<&str>(None, &[], rows),
            whole(None, rows),
            finite(column, resolution, rows),
        ],
        (_, FeatureType::Categorical { .. }) => [
            named::<&str>(None, &[], rows),
            whole(column, rows),
            finite(None, 1.0, rows),
        ],
    }
}

fn feature_lists(
    telemetry: &Telemetry<'_>,
    schema: &RowSchema,
    features: &[Feature],
) -> Result<ArrayRef, TableError> {
    let columns: Vec<(&Int32Array, f64)> = features
        .iter()
        .filter_map(|feature| {
            let resolution = match feature.kind {
                FeatureType::Numeric { resolution, .. } => resolution,
                FeatureType::Categorical { .. } => 1.0,
            };
            Some((telemetry.codes(schema, &feature.name)?, resolution))
        })
        .collect();
    Ok(columns::float_lists(telemetry.rows(), &columns)?)
}

/// Rows of [`Table::Inferences`]. `schema` is the manifest's [`RowSchema::inferences`].
///
/// # Errors
/// [`TableError::OtherBundle`] when the record was made with another one.
pub fn inferences(
    telemetry: &Telemetry<'_>,
    manifest: &Manifest,
    schema: &RowSchema,
) -> Result<RecordBatch, TableError> {
    telemetry.check(schema)?;
    let rows = telemetry.rows();
    let event_times = telemetry.record.event_times_us();
    let ids: Vec<String> = telemetry
        .record
        .inference_ids()
        .into_iter()
        .map(inference_id_text)
        .collect();
    let mut columns = telemetry.start();
    columns.push(texts(ids.iter().map(String::as_str)));
    columns.extend(source::columns(telemetry, event_times));
    columns.push(feature_lists(telemetry, schema, &manifest.features)?);
    columns.extend(output(
        telemetry.codes(schema, "prediction"),
        manifest,
        rows,
    ));
    let confidence = finite(
        telemetry.codes(schema, "confidence"),
        SCORE_RESOLUTION,
        rows,
    );
    columns.push(arrow::compute::cast(&confidence, &DataType::Float32)?);
    let scores: Vec<(&Int32Array, f64)> = manifest
        .output
        .classes
        .iter()
        .filter_map(|class| telemetry.codes(schema, &format!("score.{class}")))
        .map(|column| (column, SCORE_RESOLUTION))
        .collect();
    columns.push(columns::float_lists(rows, &scores)?);
    columns.push(whole(telemetry.codes(schema, "latency_us"), rows));
    columns.push(whole(telemetry.codes(schema, "energy_uj"), rows));
    columns.push(named(telemetry.codes(schema, "ran_on"), &RAN_ON, rows));
    columns.push(feature_lists(telemetry, schema, &manifest.signals)?);
    telemetry.end(columns, Table::Inferences)
}

/// Rows of [`Table::Outcomes`]. `schema` is the manifest's [`RowSchema::outcomes`].
///
/// # Errors
/// [`TableError::OtherBundle`] when the record was made with another one.
pub fn outcomes(
    telemetry: &Telemetry<'_>,
    manifest: &Manifest,
    schema: &RowSchema,
) -> Result<RecordBatch, TableError> {
    telemetry.check(schema)?;
    let rows = telemetry.rows();
    let record = telemetry.record;
    let ids: Vec<u128> = telemetry
        .column(schema, "inference_id")
        .and_then(|column| column.as_fixed_size_binary_opt())
        .into_iter()
        .flat_map(|ids| (0..rows).map(|row| ids.value(row).try_into().unwrap_or_default()))
        .map(u128::from_be_bytes)
        .collect();
    let id_texts: Vec<String> = ids.iter().copied().map(inference_id_text).collect();
    let string = |name| {
        telemetry
            .column(schema, name)
            .and_then(|column| column.as_string_opt::<i32>())
    };
    let named_device = string("device");
    let devices = (0..rows).map(|row| {
        let sender = &*record.frames[record.frame_index()[row] as usize]
            .origin
            .device;
        match named_device {
            Some(devices) if devices.is_valid(row) => devices.value(row),
            _ => sender,
        }
    });
    let mut columns = telemetry.start();
    columns.push(texts(id_texts.iter().map(String::as_str)));
    columns.push(times(ids.iter().map(|id| Some(inference_time_us(*id)))));
    columns.push(texts(devices));
    columns.extend(output(telemetry.codes(schema, "truth"), manifest, rows));
    columns.push(some_texts((0..rows).map(|row| {
        let observers = string("observer")?;
        observers.is_valid(row).then(|| observers.value(row))
    })));
    columns.extend(source::columns(telemetry, record.event_times_us()));
    telemetry.end(columns, Table::Outcomes)
}

/// Rows of [`Table::Health`].
///
/// # Errors
/// [`TableError::OtherBundle`] when the record is of another kind.
pub fn health(telemetry: &Telemetry<'_>) -> Result<RecordBatch, TableError> {
    let schema = RowSchema::health();
    telemetry.check(&schema)?;
    let mut columns = telemetry.start();
    columns.extend(source::columns(
        telemetry,
        telemetry.record.event_times_us(),
    ));
    for field in schema
        .fields()
        .iter()
        .filter(|field| field.name != EVENT_TIME)
    {
        columns.push(converted(telemetry, &schema, field));
    }
    telemetry.end(columns, Table::Health)
}

/// A reading or text of the record as the column of [`reading`].
fn converted(telemetry: &Telemetry<'_>, schema: &RowSchema, field: &rows::Field) -> ArrayRef {
    let rows = telemetry.rows();
    let column = telemetry.column(schema, &field.name);
    match field.ty {
        FieldType::Int32 if field.categories.is_some() => {
            let codes = telemetry.codes(schema, &field.name);
            let flag = |code| match code {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            };
            flags((0..rows).map(|row| {
                let codes = codes?;
                flag(codes.is_valid(row).then(|| codes.value(row)))
            }))
        }
        FieldType::Int32 => finite(telemetry.codes(schema, &field.name), field.resolution, rows),
        FieldType::Int64 | FieldType::Time => match column {
            Some(column) if column.as_primitive_opt::<Int64Type>().is_some() => column.clone(),
            _ => longs(std::iter::repeat_n(None, rows)),
        },
        FieldType::Text | FieldType::Id => match column {
            Some(column) if column.as_string_opt::<i32>().is_some() => column.clone(),
            _ => some_texts(std::iter::repeat_n(None, rows)),
        },
    }
}

/// Rows of [`Table::Events`].
///
/// # Errors
/// [`TableError::OtherBundle`] when the record is of another kind.
pub fn events(telemetry: &Telemetry<'_>) -> Result<RecordBatch, TableError> {
    let schema = RowSchema::events();
    telemetry.check(&schema)?;
    let mut columns = telemetry.start();
    columns.extend(source::columns(
        telemetry,
        telemetry.record.event_times_us(),
    ));
    for field in schema
        .fields()
        .iter()
        .filter(|field| field.name != EVENT_TIME)
    {
        columns.push(converted(telemetry, &schema, field));
    }
    telemetry.end(columns, Table::Events)
}
