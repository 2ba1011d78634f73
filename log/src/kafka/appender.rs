//! A writer outside any group: idempotent, not transactional.

use std::sync::Arc;

use super::Shared;
use super::client::failed;
use super::producer::{Outgoing, Sender};
use crate::api::{Appender, Output};
use crate::check;
use crate::error::LogError;

pub(super) struct KafkaAppender {
    shared: Arc<Shared>,
    name: String,
    /// `None` after a failure: an idempotent producer that lost a record is of no more use.
    sender: Option<Sender>,
}

impl KafkaAppender {
    pub(super) fn open(shared: &Arc<Shared>, name: &str) -> Result<Self, LogError> {
        let sender = Some(Sender::open(&shared.clients, None)?);
        Ok(Self {
            shared: Arc::clone(shared),
            name: name.to_owned(),
            sender,
        })
    }
}

impl Appender for KafkaAppender {
    fn append(&mut self, records: Vec<Output>) -> Result<Vec<u64>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        check::outputs(&records, |topic| self.shared.topic(topic))?;
        let sender = match self.sender.take() {
            Some(sender) => sender,
            None => Sender::open(&self.shared.clients, None)?,
        };
        sender.reset(records.len());
        let what = || format!("append {} records for {}", records.len(), self.name);
        for (index, record) in records.iter().enumerate() {
            let outgoing = Outgoing {
                topic: &self.shared.clients.name(&record.topic),
                partition: record.partition,
                key: &record.key,
                value: record.value.as_deref(),
                timestamp_ms: Some(record.timestamp_us.div_euclid(1_000)),
            };
            sender
                .send(outgoing, index)
                .map_err(|error| failed(&what(), &error))?;
        }
        sender.settle().map_err(|error| failed(&what(), &error))?;
        let offsets: Option<Vec<u64>> = sender.offsets().into_iter().collect();
        self.sender = Some(sender);
        offsets.ok_or_else(|| {
            LogError::storage("kafka: a record was acknowledged without its offset", true)
        })
    }
}
