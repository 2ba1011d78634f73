//! From records of the log to columns of the tables.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use driftline_log::runner::StageError;
use driftline_log::{Output, Record};
use driftline_schemas::bundle::Bundle;
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::measure::MeasureBatch;
use driftline_schemas::packed::PackedRecord;
use driftline_schemas::profile::CellProfile;
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::rows::Kind;
use driftline_schemas::tables::{self, Place, Table, TableError, Telemetry};
use driftline_schemas::topic;
use serde::de::DeserializeOwned;

use super::TOPICS;
use crate::bundles::Bundles;

/// Bundles kept at hand; when there are more, all are asked for again.
const BUNDLES_MAX: usize = 32;

/// Tenant of rows whose owner is not known.
pub const NOBODY: &str = "-";

/// Columns of a topic's table.
pub(super) fn schema(at: usize) -> Result<SchemaRef, StageError> {
    Table::of_topic(TOPICS[at])
        .map(Table::schema)
        .ok_or_else(|| StageError::Fatal(format!("topic {} has no table", TOPICS[at])))
}

/// What became of one record.
#[derive(Debug, Default)]
pub(super) struct Converted {
    pub(super) batches: Vec<RecordBatch>,
    pub(super) letters: Vec<Output>,
    pub(super) damaged: u64,
}

impl Converted {
    fn rows(batch: RecordBatch) -> Self {
        Self {
            batches: (batch.num_rows() > 0)
                .then(|| with_owner(batch))
                .into_iter()
                .collect(),
            ..Self::default()
        }
    }
}

pub(super) struct Converter {
    bundles: Arc<dyn Bundles>,
    known: HashMap<[Arc<str>; 4], Arc<Bundle>>,
    /// Partitions of the dead letters' topic.
    letters: u32,
    late_after_us: i64,
}

impl Converter {
    pub(super) fn new(bundles: Arc<dyn Bundles>, letters: u32, late_after_us: i64) -> Self {
        Self {
            bundles,
            known: HashMap::new(),
            letters,
            late_after_us,
        }
    }

    fn bundle(&mut self, key: [&Arc<str>; 4]) -> Result<Option<Arc<Bundle>>, StageError> {
        let key = key.map(Arc::clone);
        if let Some(bundle) = self.known.get(&key) {
            return Ok(Some(Arc::clone(bundle)));
        }
        let [tenant, model, version, variant] = &key;
        let Some(bundle) = self.bundles.bundle(tenant, model, version, variant)? else {
            return Ok(None);
        };
        if self.known.len() >= BUNDLES_MAX {
            self.known.clear();
        }
        self.known.insert(key, Arc::clone(&bundle));
        Ok(Some(bundle))
    }

    /// Rows of the frames of a telemetry record that count.
    ///
    /// # Errors
    /// [`StageError::Retry`] when the bundle that gives the columns their meaning is not there:
    /// rows that were acknowledged are not given up for that.
    pub(super) fn telemetry(
        &mut self,
        at: usize,
        record: &Record,
        packed: &PackedRecord,
        counted: &[bool],
    ) -> Result<Converted, StageError> {
        if packed.head.kind.topic() != TOPICS[at] {
            let problem = format!("rows of {} have no place here", packed.head.kind.name());
            return Ok(self.damaged(record, &problem));
        }
        let selected = match packed.select_frames(counted) {
            Ok(selected) if selected.frames.is_empty() => return Ok(Converted::default()),
            Ok(selected) => selected,
            Err(error) => return Ok(self.damaged(record, &error.to_string())),
        };
        let telemetry = Telemetry {
            record: &selected,
            place: place(record),
            late_after_us: self.late_after_us,
        };
        let batch = match packed.head.kind {
            Kind::Health => tables::health(&telemetry),
            Kind::Events => tables::events(&telemetry),
            // They come to the lake with those of the profile stage.
            Kind::Profiles => return Ok(Converted::default()),
            Kind::Inferences | Kind::Outcomes => {
                let head = &packed.head;
                let variant = &selected.frames[0].origin.variant;
                let bundle = self.bundle([&head.tenant, &head.model, &head.version, variant])?;
                let Some(bundle) = bundle else {
                    return Err(StageError::Retry(format!(
                        "no bundle of {} {} {variant:?} of tenant {} is registered, so its rows \
                         cannot be archived; nothing is lost, register it again with `driftline \
                         model register`",
                        head.model, head.version, head.tenant
                    )));
                };
                match packed.head.kind {
                    Kind::Inferences => {
                        tables::inferences(&telemetry, &bundle.manifest, &bundle.inferences)
                    }
                    _ => tables::outcomes(&telemetry, &bundle.manifest, &bundle.outcomes),
                }
            }
        };
        Ok(match batch {
            Ok(batch) => Converted::rows(batch),
            Err(error) => self.damaged(record, &error.to_string()),
        })
    }

    /// Rows of a record that a stage wrote.
    ///
    /// # Errors
    /// As [`Converter::telemetry`].
    pub(super) fn derived(&mut self, at: usize, record: &Record) -> Result<Converted, StageError> {
        let Some(value) = &record.value else {
            return Ok(Converted::default());
        };
        let batch = match TOPICS[at] {
            topic::PROFILES => return self.profiles(record, value),
            topic::MEASURES => rows(record, MeasureBatch::decode(value), tables::measures),
            topic::FINDINGS => json(record, value, tables::findings),
            topic::ALERTS => json(record, value, tables::alerts),
            _ => json(record, value, tables::dead_letters),
        };
        Ok(match batch {
            Ok(batch) => Converted::rows(batch),
            Err(problem) => self.damaged(record, &problem),
        })
    }

    fn profiles(&mut self, record: &Record, value: &[u8]) -> Result<Converted, StageError> {
        let batch = match ProfileBatch::decode(value) {
            Ok(batch) => batch,
            Err(error) => return Ok(self.damaged(record, &error.to_string())),
        };
        type ByVersion<'a> = BTreeMap<[&'a Arc<str>; 4], Vec<&'a CellProfile>>;
        let mut by_version = ByVersion::new();
        for cell in &batch.cells {
            let key = &cell.key;
            let variant = &key.cell.values[VARIANT];
            let version = [&key.tenant, &key.model, &key.version, variant];
            by_version.entry(version).or_default().push(cell);
        }
        let mut converted = Converted::default();
        for (version, cells) in by_version {
            let rows = match self.bundle(version)? {
                Some(bundle) => tables::profiles(&cells, &bundle.reference.layout, place(record)),
                None => {
                    let [tenant, model, version, variant] = version;
                    let problem = format!(
                        "no bundle of {model} {version} {variant:?} of tenant {tenant} for its profiles"
                    );
                    let damaged = self.damaged(record, &problem);
                    converted.letters.extend(damaged.letters);
                    continue;
                }
            };
            match rows {
                Ok(rows) => converted.batches.push(rows),
                Err(error) => {
                    let damaged = self.damaged(record, &error.to_string());
                    converted.letters.extend(damaged.letters);
                }
            }
        }
        Ok(converted)
    }

    /// A record that has no rows for the lake. Those of inferences are told by the profile stage,
    /// which reads them too, and dead letters that cannot be read cannot be told by dead letters.
    pub(super) fn damaged(&self, record: &Record, problem: &str) -> Converted {
        let place = format!("{}/{}@{}", record.topic, record.partition, record.offset);
        tracing::error!(place, problem, "record not archived");
        let mut converted = Converted {
            damaged: 1,
            ..Converted::default()
        };
        if *record.topic != *topic::INFERENCES && *record.topic != *topic::DEADLETTERS {
            let payload = record.value.as_deref().unwrap_or_default();
            let detail = format!("{place}: {problem}");
            let at_us = record.timestamp_us;
            let letter = DeadLetter::new("", "", "record_damaged", &detail, payload, at_us);
            converted.letters.push(Output {
                topic: topic::DEADLETTERS.into(),
                partition: record.partition % self.letters.max(1),
                key: Vec::new(),
                value: Some(letter.encode()),
                timestamp_us: at_us.max(0),
            });
        }
        converted
    }
}

/// Rows of nobody known (frames that could not be read) get [`NOBODY`] as their tenant: Delta keeps
/// an empty partition value as null, and the column has none.
fn with_owner(batch: RecordBatch) -> RecordBatch {
    let tenants = batch
        .columns()
        .first()
        .and_then(|column| column.as_string_opt::<i32>());
    let Some(tenants) = tenants.filter(|tenants| tenants.iter().flatten().any(str::is_empty))
    else {
        return batch;
    };
    let named = tenants.iter().map(|tenant| match tenant {
        Some(tenant) if !tenant.is_empty() => tenant,
        _ => NOBODY,
    });
    let mut columns = batch.columns().to_vec();
    columns[0] = Arc::new(StringArray::from_iter_values(named));
    // The same type and length, and no nulls, so it fits where the other did.
    RecordBatch::try_new(batch.schema(), columns).unwrap_or(batch)
}

/// Place of `variant` among [`driftline_schemas::source::ATTRIBUTES`].
const VARIANT: usize = 5;

fn place(record: &Record) -> Place {
    Place {
        partition: record.partition,
        offset: record.offset,
    }
}

/// One object, or a list of them.
fn json<T: DeserializeOwned>(
    record: &Record,
    value: &[u8],
    table: impl Fn(&[(Place, T)]) -> Result<RecordBatch, TableError>,
) -> Result<RecordBatch, String> {
    let parsed = match value.first() {
        Some(b'[') => serde_json::from_slice(value),
        _ => serde_json::from_slice(value).map(|one| vec![one]),
    };
    rows(record, parsed, table)
}

/// The rows of what a record held.
fn rows<T>(
    record: &Record,
    parsed: Result<Vec<T>, serde_json::Error>,
    table: impl Fn(&[(Place, T)]) -> Result<RecordBatch, TableError>,
) -> Result<RecordBatch, String> {
    let items: Vec<(Place, T)> = parsed
        .map_err(|error| error.to_string())?
        .into_iter()
        .map(|item| (place(record), item))
        .collect();
    table(&items).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variant_is_where_it_is_looked_for() {
        assert_eq!(driftline_schemas::source::ATTRIBUTES[VARIANT], "variant");
    }
}
