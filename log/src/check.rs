//! Refuses what is malformed before anything is written, the same way on every log.

use std::sync::Arc;

use crate::api::{Cleanup, Output, StageSpec, StateDelta, TopicSpec};
use crate::error::LogError;
use crate::limits::{
    KEY_BYTES_MAX, NAME_BYTES_MAX, PARTITIONS_MAX, RECORD_BYTES_MAX, STEP_BYTES_MAX,
};

/// Names become parts of Kafka's topic, group and transactional names.
pub(crate) fn name(what: &str, name: &str) -> Result<(), LogError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "is too long (200 bytes at most)"
    } else if !name.chars().all(legal) || name == "." || name == ".." {
        "may hold only ASCII letters, digits, '.', '_' and '-'"
    } else {
        return Ok(());
    };
    Err(LogError::invalid(format!(
        "the {what} name {name:?} {reason}"
    )))
}

pub(crate) fn topics(specs: &[TopicSpec]) -> Result<(), LogError> {
    for (at, spec) in specs.iter().enumerate() {
        name("topic", &spec.name)?;
        if spec.partitions == 0 || spec.partitions > PARTITIONS_MAX {
            return Err(LogError::invalid(format!(
                "topic {} asks for {} partitions: between 1 and {PARTITIONS_MAX} are possible",
                spec.name, spec.partitions
            )));
        }
        if specs[..at].iter().any(|other| other.name == spec.name) {
            return Err(LogError::invalid(format!(
                "topic {} is given twice",
                spec.name
            )));
        }
    }
    Ok(())
}

/// Refuses a topic that exists in another shape. A changed retention is fine.
pub(crate) fn same_shape(existing: &TopicSpec, wanted: &TopicSpec) -> Result<(), LogError> {
    if existing.partitions != wanted.partitions {
        return Err(LogError::PartitionsChanged {
            topic: Arc::clone(&wanted.name),
            existing: existing.partitions,
            wanted: wanted.partitions,
        });
    }
    let compact = |spec: &TopicSpec| spec.cleanup == Cleanup::Compact;
    if compact(existing) != compact(wanted) {
        return Err(LogError::invalid(format!(
            "topic {} cannot change between compaction and retention: use another topic name or an \
             empty log",
            wanted.name
        )));
    }
    Ok(())
}

pub(crate) fn partition(spec: &TopicSpec, partition: u32) -> Result<(), LogError> {
    if partition < spec.partitions {
        return Ok(());
    }
    Err(LogError::UnknownPartition {
        topic: Arc::clone(&spec.name),
        partition,
        partitions: spec.partitions,
    })
}

pub(crate) fn outputs<T: std::borrow::Borrow<TopicSpec>>(
    outputs: &[Output],
    topic: impl Fn(&str) -> Result<T, LogError>,
) -> Result<usize, LogError> {
    let mut total = 0;
    for output in outputs {
        let spec = topic(&output.topic)?;
        let spec = spec.borrow();
        partition(spec, output.partition)?;
        let bytes = output.size();
        if bytes > RECORD_BYTES_MAX {
            return Err(LogError::too_large(&output.topic, bytes));
        }
        key(&output.topic, &output.key)?;
        if output.key.is_empty() && spec.cleanup == Cleanup::Compact {
            return Err(LogError::invalid(format!(
                "topic {} is compacted, so its records need a key",
                output.topic
            )));
        }
        if output.timestamp_us < 0 {
            return Err(LogError::invalid(format!(
                "a record for topic {} has the negative timestamp {}",
                output.topic, output.timestamp_us
            )));
        }
        total += bytes;
    }
    step_size(total)
}

pub(crate) fn state(stage: &StageSpec, deltas: &[StateDelta]) -> Result<usize, LogError> {
    if !stage.changelog && !deltas.is_empty() {
        return Err(LogError::invalid(format!(
            "stage {} was opened without a changelog, so it cannot keep state",
            stage.name
        )));
    }
    let mut total = 0;
    for delta in deltas {
        key(&stage.name, &delta.key)?;
        let bytes = delta.key.len() + delta.value.as_ref().map_or(0, Vec::len);
        if bytes > RECORD_BYTES_MAX {
            return Err(LogError::too_large(&stage.name, bytes));
        }
        if delta.key.is_empty() {
            return Err(LogError::invalid(format!(
                "a state key of stage {} is empty",
                stage.name
            )));
        }
        total += bytes;
    }
    step_size(total)
}

fn key(of: &str, key: &[u8]) -> Result<(), LogError> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    Err(LogError::invalid(format!(
        "a key of {} bytes for {of} is over the limit of {KEY_BYTES_MAX} bytes",
        key.len()
    )))
}

fn step_size(total: usize) -> Result<usize, LogError> {
    if total <= STEP_BYTES_MAX {
        return Ok(total);
    }
    Err(LogError::invalid(format!(
        "a step of {total} bytes is over the limit of {STEP_BYTES_MAX} bytes: commit smaller steps"
    )))
}

/// Names are legal, and all inputs have the same number of partitions, which is returned.
pub(crate) fn stage(
    spec: &StageSpec,
    partitions: impl Fn(&str) -> Result<u32, LogError>,
) -> Result<u32, LogError> {
    name("stage", &spec.name)?;
    name("instance", &spec.instance)?;
    let mut first = None;
    for input in &spec.inputs {
        let count = partitions(input)?;
        let (topic, expected) = *first.get_or_insert((input, count));
        if count != expected {
            return Err(LogError::invalid(format!(
                "stage {} reads {topic} with {expected} partitions and {input} with {count}: its \
                 inputs must have the same number, because partition i of each is read together",
                spec.name
            )));
        }
    }
    first
        .map(|(_, count)| count)
        .ok_or_else(|| LogError::invalid(format!("stage {} has no inputs", spec.name)))
}
