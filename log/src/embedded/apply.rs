//! What each kind of write does to the tables. Everything has been checked before, so all that can
//! fail here is the disk; that is what makes it safe to apply many writes in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::ReadableTable;

use super::TRIM_RECORDS_MAX;
use super::catalog::Catalog;
use super::codec::{self, StageEntry};
use super::disk::Failed;
use super::tables::{At, WriteTables};
use crate::api::{Cleanup, Output, TopicSpec, Trimmed};
use crate::check;
use crate::local::store::{StepWrite, Write, Written};
use crate::local::trim::{Cut, Readers, Verdict};

pub(super) fn ensure_topics(
    tables: &mut WriteTables<'_>,
    specs: &[TopicSpec],
) -> Result<(), Failed> {
    for spec in specs {
        let existing = tables.topic(&spec.name)?;
        if let Some((_, existing)) = &existing {
            check::same_shape(existing, spec)?;
        }
        tables.set_topic(existing.map(|(id, _)| id), spec)?;
    }
    Ok(())
}

pub(super) fn register(
    tables: &mut WriteTables<'_>,
    stage: &str,
    inputs: &[Arc<str>],
) -> Result<(), Failed> {
    let mut entry = tables.stage(stage)?.unwrap_or_default();
    if entry.inputs != inputs {
        entry.inputs = inputs.to_vec();
        tables.set_stage(stage, &entry)?;
    }
    Ok(())
}

pub(super) fn forget_stage(tables: &mut WriteTables<'_>, stage: &str) -> Result<(), Failed> {
    tables.stages.remove(stage)?;
    // Topic names are letters, digits and a few signs, all before DEL; partitions are bounded.
    tables
        .offsets
        .retain_in((stage, "", 0)..(stage, "\x7f", 0), |_, _| false)?;
    let none: &[u8] = &[];
    tables
        .state
        .retain_in((stage, 0, none)..(stage, u32::MAX, none), |_, _| false)?;
    Ok(())
}

pub(super) fn write(
    tables: &mut WriteTables<'_>,
    catalog: &Catalog,
    write: &Write,
) -> Result<Written, Failed> {
    let mut written = Written::default();
    for output in &write.outputs {
        let (id, spec) = catalog.id(&output.topic)?;
        written.offsets.push(append(tables, id, &spec, output)?);
    }
    if let Some(step) = &write.step {
        written.number = self::step(tables, step)?;
    }
    Ok(written)
}

fn append(
    tables: &mut WriteTables<'_>,
    id: u32,
    spec: &TopicSpec,
    output: &Output,
) -> Result<u64, Failed> {
    let mut bounds = tables.bounds(id, output.partition)?;
    let offset = bounds.end;
    if spec.cleanup == Cleanup::Compact {
        let key = (id, output.partition, &*output.key);
        let old = tables.keys.insert(key, offset)?.map(|old| old.value());
        if let Some(old) = old {
            let gone = tables.records.remove((id, output.partition, old))?;
            let size = gone.and_then(|gone| codec::peek_record(gone.value()));
            bounds.bytes = bounds
                .bytes
                .saturating_sub(size.map_or(0, |(_, bytes, _)| bytes));
        }
    }
    let place = (id, output.partition, offset);
    let stored = codec::record(
        place,
        &output.key,
        output.value.as_deref(),
        output.timestamp_us,
    );
    tables.records.insert(place, &*stored)?;
    bounds.end += 1;
    bounds.bytes += output.size() as u64;
    tables.set_bounds(id, output.partition, bounds);
    Ok(offset)
}

fn step(tables: &mut WriteTables<'_>, step: &StepWrite) -> Result<u64, Failed> {
    for delta in &step.state {
        let key = (&*step.stage, delta.partition, &*delta.key);
        match &delta.value {
            Some(value) => tables.state.insert(key, &**value)?,
            None => tables.state.remove(key)?,
        };
    }
    for position in &step.offsets {
        let key = (&*step.stage, &*position.topic, position.partition);
        tables.offsets.insert(key, position.next)?;
    }
    let mut entry = tables.stage(&step.stage)?.unwrap_or_default();
    entry.number += 1;
    tables.set_stage(&step.stage, &entry)?;
    Ok(entry.number)
}

/// Removes at most [`TRIM_RECORDS_MAX`] records of one partition.
pub(super) fn trim(
    tables: &mut WriteTables<'_>,
    at: &At,
    cleanup: &Cleanup,
    now_us: i64,
) -> Result<Trimmed, Failed> {
    let mut trimmed = Trimmed::default();
    let mut bounds = tables.bounds(at.id, at.partition)?;
    let readers = readers(tables, at, bounds.first)?;
    let mut cut = Cut::new(
        cleanup,
        now_us,
        bounds.bytes,
        &readers,
        &at.topic,
        at.partition,
    );
    let mut gone = BTreeMap::new();
    let range = (at.id, at.partition, bounds.first)..(at.id, at.partition, bounds.end);
    for entry in tables.records.range(range)? {
        let (place, stored) = entry?;
        let (place, stored) = (place.value(), stored.value());
        let (timestamp_us, bytes, tombstone) = codec::peek_record(stored).ok_or_else(|| {
            Failed::damaged(format!(
                "record {} of {} partition {}",
                place.2, at.topic, at.partition
            ))
        })?;
        match cut.judge(place.2, timestamp_us, bytes, tombstone) {
            Verdict::Remove => {}
            Verdict::Keep => continue,
            Verdict::Stop => break,
        }
        let key = tombstone
            .then(|| codec::parse_record(place, stored))
            .flatten();
        gone.insert(place, key.map(|stored| stored.key));
        trimmed.records += 1;
        trimmed.bytes += bytes;
        if trimmed.records == TRIM_RECORDS_MAX {
            break;
        }
    }
    let compact = *cleanup == Cleanup::Compact;
    for (place, key) in gone {
        tables.records.remove(place)?;
        match key {
            Some(key) if compact => {
                tables.keys.remove((at.id, at.partition, &*key))?;
            }
            _ => bounds.first = place.2 + 1,
        }
    }
    trimmed.held = cut.held;
    if trimmed.records > 0 {
        bounds.bytes = bounds.bytes.saturating_sub(trimmed.bytes);
        tables.set_bounds(at.id, at.partition, bounds);
    }
    Ok(trimmed)
}

fn readers(tables: &WriteTables<'_>, at: &At, first: u64) -> Result<Readers, Failed> {
    let reads = |entry: &StageEntry| entry.inputs.contains(&at.topic);
    let mut readers = Readers::new();
    for (name, entry) in tables.all_stages()? {
        if reads(&entry) {
            let next = tables.offsets.get((&*name, &*at.topic, at.partition))?;
            let next = next.map_or(first, |next| next.value());
            readers.push((name, next));
        }
    }
    Ok(readers)
}
