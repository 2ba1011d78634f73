//! What a member reads: where each input begins, and records from all of them in turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use super::{Input, KafkaMember};
use crate::api::Record;
use crate::error::LogError;
use crate::kafka::CALL_TIMEOUT;
use crate::kafka::client::{Membership, failed};
use crate::kafka::reader::record;

impl KafkaMember {
    fn queue(&self, topic: &str, partition: i32) -> Result<Input, LogError> {
        let queue = self.consumer.split_partition_queue(topic, partition);
        let mut queue = queue.ok_or_else(|| {
            LogError::storage(format!("kafka: no queue for {topic}/{partition}"), true)
        })?;
        let signal = Arc::clone(&self.consumer.context().signal);
        queue.set_nonempty_callback(move || signal.notify());
        Ok(Input {
            queue,
            at_end: false,
            moved: false,
        })
    }

    /// Reads what is held from where it stands, each input from a queue of its own.
    pub(super) fn fetch(&mut self) -> Result<(), LogError> {
        if !self.unread {
            return Ok(());
        }
        let anew = self.consumer.context().membership() == Membership::Range;
        if anew {
            self.inputs.clear();
        }
        let (mut start, mut elsewhere) = (TopicPartitionList::new(), TopicPartitionList::new());
        let (mut inputs, mut moved) = (BTreeMap::new(), Vec::new());
        for (cursor, place) in &self.holdings.places {
            let topic = self.shared.clients.name(self.holdings.topic(*cursor));
            let (partition, next) = (cursor.0 as i32, Offset::Offset(place.next as i64));
            let list = match self.inputs.get(cursor) {
                None => {
                    inputs.insert(*cursor, self.queue(&topic, partition)?);
                    &mut start
                }
                Some(input) if input.moved => {
                    moved.push(*cursor);
                    &mut elsewhere
                }
                Some(_) => continue,
            };
            list.add_partition_offset(&topic, partition, next)
                .map_err(|error| failed("name an offset", &error))?;
        }
        let started = match (anew, start.count()) {
            (true, _) => self.consumer.assign(&start),
            (false, 0) => Ok(()),
            (false, _) => self.consumer.incremental_assign(&start),
        };
        started.map_err(|error| failed("start to read", &error))?;
        self.consumer.context().reads(&start);
        self.inputs.extend(inputs);
        if elsewhere.count() > 0 {
            let told = self.consumer.seek_partitions(elsewhere, CALL_TIMEOUT);
            let told = told.map_err(|error| failed("read from elsewhere", &error))?;
            for element in told.elements() {
                element
                    .error()
                    .map_err(|error| failed("read from elsewhere", &error))?;
            }
        }
        for cursor in &moved {
            if let Some(input) = self.inputs.get_mut(cursor) {
                (input.moved, input.at_end) = (false, false);
            }
        }
        self.unread = false;
        Ok(())
    }

    /// Takes what is ready, in turn, up to the limits.
    pub(super) fn records(&mut self) -> Result<Vec<Record>, LogError> {
        let limits = self.spec().limits;
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (at, cursor) in self.holdings.in_turn().into_iter().enumerate() {
            let partition = cursor.0;
            loop {
                let topic = Arc::clone(self.holdings.topic(cursor));
                let Some(input) = self.inputs.get_mut(&cursor) else {
                    break;
                };
                let next = match input.queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => Ok(record(&topic, &message)),
                    Some(Err(error)) => Err(error),
                };
                match next {
                    Ok(record) if self.holdings.is_before(cursor, record.offset) => {
                        tracing::warn!(
                            %topic, partition, offset = record.offset,
                            "a record from before the place that reading started at is left out"
                        );
                    }
                    Ok(record) => {
                        input.at_end = false;
                        bytes += record.size();
                        self.holdings.advance(cursor, record.offset + 1);
                        records.push(record);
                    }
                    Err(KafkaError::PartitionEOF(_)) => input.at_end = true,
                    // What was taken so far is handed out first; the error comes again or passes.
                    Err(error) if records.is_empty() => self.judge(&error)?,
                    Err(error) => tracing::debug!(%error, "kafka member"),
                }
                if records.len() >= limits.max_records.max(1) || bytes >= limits.max_bytes {
                    self.holdings.took(at + 1);
                    return Ok(records);
                }
            }
        }
        Ok(records)
    }
}
