//! A producer, and what became of the records given to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

use super::client::{Clients, failed, log_line};
use super::{CALL_TIMEOUT, lock};
use crate::error::LogError;

/// How long a look for news of what was sent waits when there are none. `BaseProducer::poll` with a time-out stays for
/// all of it, and so do `flush` and `commit_transaction` inside, with 100 ms; besides, it spins through the last
/// millisecond, which librdkafka rounds down to 0. Looking without waiting, and sleeping in between, makes a commit take
/// as long as the broker needs and no core.
const LOOK_AGAIN: Duration = Duration::from_micros(300);

/// A record on its way: names on the broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: u32,
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
    /// `None`: now.
    pub(super) timestamp_ms: Option<i64>,
}

/// What became of the records of one append or step.
#[derive(Debug, Default)]
struct Fates {
    offsets: Vec<Option<u64>>,
    failed: Option<Code>,
}

#[derive(Debug, Default)]
pub(super) struct Tracker {
    fates: Mutex<Fates>,
    /// The client reported an error: a broken connection above all.
    disturbed: AtomicBool,
}

impl ClientContext for Tracker {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
        self.disturbed.store(true, Ordering::Relaxed);
    }
}

impl ProducerContext for Tracker {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut fates = lock(&self.fates);
        match result {
            Ok(message) => {
                if let Some(slot) = fates.offsets.get_mut(index) {
                    *slot = u64::try_from(message.offset()).ok();
                }
            }
            Err((error, _)) => {
                let code = super::decide::code(error).unwrap_or(Code::Fail);
                fates.failed.get_or_insert(code);
            }
        }
    }
}

pub(super) struct Sender {
    pub(super) producer: BaseProducer<Tracker>,
}

impl Sender {
    /// Opens a producer; with a transactional id, whatever an earlier holder of the id left open is
    /// ended when this returns.
    pub(super) fn open(
        clients: &Clients,
        transactional_id: Option<&str>,
    ) -> Result<Self, LogError> {
        let config = clients.producer_config(transactional_id);
        let producer = BaseProducer::from_config_and_context(&config, Tracker::default())
            .map_err(|error| failed("open a producer", &error))?;
        if let Some(id) = transactional_id {
            producer
                .init_transactions(CALL_TIMEOUT)
                .map_err(|error| failed(&format!("take over the transactions of {id}"), &error))?;
        }
        Ok(Self { producer })
    }

    /// Starts to watch for disturbances, and forgets the records of before.
    pub(super) fn reset(&self, records: usize) {
        self.producer.poll(Duration::ZERO);
        *lock(&self.producer.context().fates) = Fates {
            offsets: vec![None; records],
            failed: None,
        };
        self.producer
            .context()
            .disturbed
            .store(false, Ordering::Relaxed);
    }

    /// Whether the client reported an error since [`Sender::reset`].
    pub(super) fn disturbed(&self) -> bool {
        self.producer.poll(Duration::ZERO);
        self.producer.context().disturbed.load(Ordering::Relaxed)
    }

    /// Hands a record to librdkafka, waiting while its buffer is full.
    pub(super) fn send(&self, record: Outgoing<'_>, index: usize) -> Result<(), KafkaError> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut next = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, index)
            .partition(record.partition as i32);
        if let Some(ms) = record.timestamp_ms {
            next = next.timestamp(ms);
        }
        if !record.key.is_empty() {
            next = next.key(record.key);
        }
        if let Some(value) = record.value {
            next = next.payload(value);
        }
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    self.look();
                    next = back;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Takes news of what was sent in, and waits a little when there are none.
    #[allow(
        clippy::disallowed_methods,
        reason = "a third of a millisecond need not be shut down"
    )]
    fn look(&self) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() == before {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until every record is delivered or has failed.
    pub(super) fn settle(&self) -> Result<(), KafkaError> {
        self.settle_within(CALL_TIMEOUT)
    }

    /// The same, with so much patience.
    pub(super) fn settle_within(&self, patience: Duration) -> Result<(), KafkaError> {
        let deadline = Instant::now() + patience;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() >= deadline {
                return Err(KafkaError::Flush(Code::OperationTimedOut));
            }
            self.look();
        }
        match lock(&self.producer.context().fates).failed {
            Some(code) => Err(KafkaError::MessageProduction(code)),
            None => Ok(()),
        }
    }

    /// Offsets of the delivered records.
    pub(super) fn offsets(&self) -> Vec<Option<u64>> {
        std::mem::take(&mut lock(&self.producer.context().fates).offsets)
    }
}
