//! Records: one from a message, and many outside any group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{Timestamp, TopicPartitionList};

use super::CALL_TIMEOUT;
use super::client::{Clients, Quiet, failed, watermarks};
use crate::api::{ReadBatch, ReadLimits, Record};
use crate::error::LogError;

pub(super) fn record(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
    let timestamp_ms = match message.timestamp() {
        Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms,
        Timestamp::NotAvailable => 0,
    };
    Record {
        topic: Arc::clone(topic),
        partition: message.partition().max(0) as u32,
        offset: message.offset().max(0) as u64,
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        value: message.payload().map(Bytes::copy_from_slice),
        timestamp_us: timestamp_ms.saturating_mul(1_000),
    }
}

/// Starts a consumer at one place and nowhere else.
pub(super) fn assign<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: u32,
    from: u64,
) -> Result<(), LogError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, partition as i32, Offset::Offset(from as i64))
        .and_then(|()| consumer.assign(&list))
        .map_err(|error| failed(&format!("read {topic}/{partition}"), &error))
}

pub(super) fn read(
    clients: &Clients,
    topic: &str,
    partition: u32,
    from: u64,
    limits: ReadLimits,
) -> Result<ReadBatch, LogError> {
    let reader = clients.reader()?;
    let batch = read_with(&reader, clients, topic, partition, from, limits);
    // A reader that failed is dropped with whatever is the matter with it.
    if batch.is_ok() {
        let _ = reader.unassign();
        clients.put_back(reader);
    }
    batch
}

fn read_with(
    reader: &BaseConsumer<Quiet>,
    clients: &Clients,
    topic: &str,
    partition: u32,
    from: u64,
    limits: ReadLimits,
) -> Result<ReadBatch, LogError> {
    let started = Instant::now();
    let on_broker = clients.name(topic);
    let (first, end) = watermarks(reader, &on_broker, partition)?;
    let mut batch = ReadBatch {
        records: Vec::new(),
        next: from.max(first),
        first,
        end,
    };
    if batch.next > end || (batch.next == end && limits.wait.is_zero()) {
        return Ok(batch);
    }
    assign(reader, &on_broker, partition, batch.next)?;
    let topic: Arc<str> = Arc::from(topic);
    let mut bytes = 0;
    loop {
        // While there is something before the end it must come; beyond it, only the wait counts.
        let patience = if batch.next < end {
            CALL_TIMEOUT
        } else {
            limits.wait
        };
        let left = patience.saturating_sub(started.elapsed());
        match reader.poll(left.max(Duration::from_millis(1))) {
            Some(Ok(message)) => {
                let record = record(&topic, &message);
                let full = batch.records.len() >= limits.max_records.max(1)
                    || bytes + record.size() > limits.max_bytes;
                if full && !batch.records.is_empty() {
                    return Ok(batch);
                }
                bytes += record.size();
                batch.next = record.offset + 1;
                batch.end = batch.end.max(batch.next);
                batch.records.push(record);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                // The end may lie beyond transaction marks, which are not handed out.
                batch.next = batch.next.max(end);
                if !batch.records.is_empty() || started.elapsed() >= limits.wait {
                    return Ok(batch);
                }
            }
            Some(Err(error)) => {
                return Err(failed(&format!("read {topic}/{partition}"), &error));
            }
            None if !batch.records.is_empty() => return Ok(batch),
            None if batch.next < end && started.elapsed() >= CALL_TIMEOUT => {
                return Err(LogError::storage(
                    format!(
                        "kafka: nothing came of {topic}/{partition} from {}",
                        batch.next
                    ),
                    true,
                ));
            }
            None if batch.next >= end && started.elapsed() >= limits.wait => return Ok(batch),
            None => {}
        }
    }
}
