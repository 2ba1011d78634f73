//! Rows on the way: columns of integers and short texts, whose meaning a [`RowSchema`] gives.
//!
//! This is what a frame carries and the gateway checks, before anything is Arrow. The schema of
//! inferences follows from the bundle's manifest, the others are fixed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::bundle::{FeatureType, Manifest, SCORE_RESOLUTION, Task};

/// Kind of a frame or record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// Predictions with their features.
    Inferences = 1,
    /// Ground truth.
    Outcomes = 2,
    /// Power and connectivity readings.
    Health = 3,
    /// Boots and changes.
    Events = 4,
    /// Profiles made on the device in place of rows.
    Profiles = 5,
}

impl Kind {
    /// The kind of a code on the wire.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Inferences),
            2 => Some(Self::Outcomes),
            3 => Some(Self::Health),
            4 => Some(Self::Events),
            5 => Some(Self::Profiles),
            _ => None,
        }
    }

    /// The name in paths (`/v1/telemetry/{kind}`) and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inferences => "inferences",
            Self::Outcomes => "outcomes",
            Self::Health => "health",
            Self::Events => "events",
            Self::Profiles => "profiles",
        }
    }

    /// The topic that the gateway appends it to. Device-made profiles go with the inferences, so
    /// that one stage removes resends from both.
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Inferences | Self::Profiles => crate::topic::INFERENCES,
            Self::Outcomes => crate::topic::OUTCOMES,
            Self::Health => crate::topic::HEALTH,
            Self::Events => crate::topic::EVENTS,
        }
    }
}

/// Type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    /// Microseconds since the Unix epoch, UTC (64 bits).
    Time,
    /// Quantised number or code, see [`crate::quantity`] (32 bits).
    Int32,
    /// Counter (64 bits).
    Int64,
    /// Text of at most [`crate::limits::STRING_BYTES_MAX`] bytes.
    Text,
    /// Identity of an inference (128 bits).
    Id,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Type.
    pub ty: FieldType,
    /// Whether values may be missing.
    pub nullable: bool,
    /// [`FieldType::Int32`]: unit of last place in `unit`; 1 for codes.
    pub resolution: f64,
    /// Unit of `value × resolution`.
    pub unit: &'static str,
    /// [`FieldType::Int32`] codes: number of categories, where the value is one.
    pub categories: Option<u32>,
}

/// Columns of one kind of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct RowSchema {
    kind: Kind,
    fields: Vec<Field>,
    fingerprint: u32,
}

/// Name of the event time's column, the first of every kind.
pub const EVENT_TIME: &str = "event_time";

impl RowSchema {
    fn new(kind: Kind, fields: Vec<Field>) -> Self {
        let mut text = String::from(kind.name());
        for field in &fields {
            text.push_str(&format!(
                "\n{} {:?} {} {:016x} {:?}",
                field.name,
                field.ty,
                field.nullable,
                field.resolution.to_bits(),
                field.categories
            ));
        }
        let fingerprint = xxh3_64(text.as_bytes()) as u32;
        Self {
            kind,
            fields,
            fingerprint,
        }
    }

    /// Columns of a model's inferences: event time; one per feature, under its name; `prediction`
    /// (class code, or value in the output's resolution); `confidence` (classification, 1e-4);
    /// `score.<class>` each where the manifest says so (1e-4); `latency_us`; `energy_uj`; `ran_on`
    /// (0 device, 1 gateway, 2 cloud); one per extra signal.
    pub fn inferences(manifest: &Manifest) -> Self {
        let mut fields = vec![time(EVENT_TIME, false)];
        fields.extend(
            manifest
                .features
                .iter()
                .map(|feature| of_kind(&feature.name, &feature.kind)),
        );
        fields.push(of_kind("prediction", &manifest.prediction_kind()));
        if manifest.task == Task::Classification {
            fields.push(number("confidence", SCORE_RESOLUTION, ""));
            if manifest.output.scores {
                fields.extend(
                    manifest
                        .output
                        .classes
                        .iter()
                        .map(|class| number(&format!("score.{class}"), SCORE_RESOLUTION, "")),
                );
            }
        }
        fields.push(number("latency_us", 1.0, "µs"));
        fields.push(number("energy_uj", 1.0, "µJ"));
        fields.push(code("ran_on", 3));
        fields.extend(
            manifest
                .signals
                .iter()
                .map(|feature| of_kind(&feature.name, &feature.kind)),
        );
        Self::new(Kind::Inferences, fields)
    }

    /// Columns of a model's outcomes: when the truth was observed (`event_time`), the inference, the
    /// truth (class code, or value in the output's resolution), who observed it, and the device that
    /// ran the inference where that is not the sender.
    pub fn outcomes(manifest: &Manifest) -> Self {
        let mut id = text("inference_id");
        id.ty = FieldType::Id;
        id.nullable = false;
        Self::new(
            Kind::Outcomes,
            vec![
                time(EVENT_TIME, false),
                id,
                of_kind("truth", &manifest.prediction_kind()),
                text("observer"),
                text("device"),
            ],
        )
    }

    /// Columns of power and connectivity readings.
    pub fn health() -> Self {
        Self::new(
            Kind::Health,
            vec![
                time(EVENT_TIME, false),
                number("battery_percent", 0.1, "%"),
                number("voltage", 0.001, "V"),
                number("current", 0.001, "A"),
                number("power", 0.001, "W"),
                code("charging", 2),
                number("temperature", 0.01, "°C"),
                number("rssi", 0.1, "dBm"),
                number("snr", 0.1, "dB"),
                text("link_kind"),
                number("round_trip_ms", 0.1, "ms"),
                number("retries", 1.0, ""),
                counter("bytes_up", "B"),
                counter("bytes_down", "B"),
                number("reconnects", 1.0, ""),
                counter("uptime_s", "s"),
                number("storage_percent", 0.1, "%"),
                code("tamper", 2),
                number("shock", 0.001, "g"),
            ],
        )
    }

    /// Columns of boots and changes: what (`boot`, `firmware`, `model`, `sbom`, `link`, `location`),
    /// from what, to what.
    pub fn events() -> Self {
        let mut event = text("event");
        event.nullable = false;
        Self::new(
            Kind::Events,
            vec![
                time(EVENT_TIME, false),
                event,
                text("before"),
                text("after"),
            ],
        )
    }

    /// Kind of the rows.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The columns, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Index of a column.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// What a client in another language needs to make frames of these rows, as JSON:
    /// `{"kind": code, "fingerprint": number, "fields": [{"name", "ty", "resolution", …}]}`.
    pub fn describe(&self) -> serde_json::Value {
        serde_json::json!({
            "kind": self.kind as u8,
            "fingerprint": self.fingerprint,
            "fields": self.fields,
        })
    }

    /// Hash over kind, names, types, resolutions and nullability; goes in every frame.
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }
}

fn field(name: &str, ty: FieldType, nullable: bool) -> Field {
    Field {
        name: name.into(),
        ty,
        nullable,
        resolution: 1.0,
        unit: "",
        categories: None,
    }
}

fn time(name: &str, nullable: bool) -> Field {
    field(name, FieldType::Time, nullable)
}

fn text(name: &str) -> Field {
    field(name, FieldType::Text, true)
}

fn counter(name: &str, unit: &'static str) -> Field {
    Field {
        unit,
        ..field(name, FieldType::Int64, true)
    }
}

fn number(name: &str, resolution: f64, unit: &'static str) -> Field {
    Field {
        resolution,
        unit,
        ..field(name, FieldType::Int32, true)
    }
}

fn code(name: &str, categories: u32) -> Field {
    Field {
        categories: Some(categories),
        ..field(name, FieldType::Int32, true)
    }
}

fn of_kind(name: &str, kind: &FeatureType) -> Field {
    match kind {
        FeatureType::Numeric { resolution, .. } => number(name, *resolution, ""),
        FeatureType::Categorical { categories } => code(name, categories.len() as u32),
    }
}

/// Values of one column, and which of them are missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values<T> {
    /// One per row; the default where it is missing.
    pub values: Vec<T>,
    /// `true` where the value is missing; `None` when none is.
    pub missing: Option<Vec<bool>>,
}

impl<T: Clone + Default> Values<T> {
    /// Appends a value, or a missing one.
    pub fn push(&mut self, value: Option<T>) {
        if value.is_none() && self.missing.is_none() {
            self.missing = Some(vec![false; self.values.len()]);
        }
        if let Some(missing) = &mut self.missing {
            missing.push(value.is_none());
        }
        self.values.push(value.unwrap_or_default());
    }

    /// Number of values, missing ones included.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a row; `None` where it is missing or there is no such row.
    pub fn get(&self, row: usize) -> Option<&T> {
        match &self.missing {
            Some(missing) if missing.get(row).copied().unwrap_or(true) => None,
            _ => self.values.get(row),
        }
    }

    /// All values in order, `None` where missing.
    pub fn iter(&self) -> impl Iterator<Item = Option<&T>> + '_ {
        (0..self.len()).map(|row| self.get(row))
    }
}

impl<T: Clone + Default> FromIterator<Option<T>> for Values<T> {
    fn from_iter<I: IntoIterator<Item = Option<T>>>(iter: I) -> Self {
        let mut values = Self::default();
        iter.into_iter().for_each(|value| values.push(value));
        values
    }
}

/// Values of one column.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// [`FieldType::Time`].
    Time(Values<i64>),
    /// [`FieldType::Int32`].
    Int32(Values<i32>),
    /// [`FieldType::Int64`].
    Int64(Values<i64>),
    /// [`FieldType::Text`].
    Text(Values<Arc<str>>),
    /// [`FieldType::Id`].
    Id(Values<u128>),
}

impl Column {
    /// No values yet, of a type.
    pub fn empty(ty: FieldType) -> Self {
        match ty {
            FieldType::Time => Self::Time(Values::default()),
            FieldType::Int32 => Self::Int32(Values::default()),
            FieldType::Int64 => Self::Int64(Values::default()),
            FieldType::Text => Self::Text(Values::default()),
            FieldType::Id => Self::Id(Values::default()),
        }
    }

    /// Type of the values.
    pub fn ty(&self) -> FieldType {
        match self {
            Self::Time(_) => FieldType::Time,
            Self::Int32(_) => FieldType::Int32,
            Self::Int64(_) => FieldType::Int64,
            Self::Text(_) => FieldType::Text,
            Self::Id(_) => FieldType::Id,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Time(values) | Self::Int64(values) => values.len(),
            Self::Int32(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Id(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Rows of one frame: columns of equal length in the order of the schema's fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// One per field of the schema.
    pub columns: Vec<Column>,
}

impl Rows {
    /// No rows yet.
    pub fn empty(schema: &RowSchema) -> Self {
        Self {
            columns: schema
                .fields()
                .iter()
                .map(|field| Column::empty(field.ty))
                .collect(),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Column::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
