//! Bare Kafka clients, as fast as librdkafka goes: what the gateway and the profile stage are held against.
//!
//! Not run by itself: `tests/kafka/speed.py` runs its parts. Arguments are `name=value`: `do` is `consume` (decodes
//! stored records and counts every value into its bin), `again` (appends the payloads of a topic once more) or
//! `produce` (rows of 64 bytes in records of `per` rows, with `transaction` rows in each transaction where that is
//! not 0); `brokers`, `prefix`, `topic`, `rows`, `partitions`, `members`, `reference` (the layout), `run`. Prints
//! one JSON document.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints, and stops at the first surprise"
)]

#[path = "../../tests/kafka/part.rs"]
mod part;

use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use driftline_log::{Log, TopicSpec};
use driftline_schemas::packed::{PackedRecord, SchemaCache};
use driftline_schemas::profile::{Binner, Reference, SignalLayout};
use part::Arguments;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

/// Sixteen floats.
const ROW_BYTES: usize = 64;
/// Longest wait for one call.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for acknowledgements.
const STEP: Duration = Duration::from_millis(1);
/// What the broker takes of one record, as the log's topics are made.
const MESSAGE_BYTES_MAX: &str = "8454144";

fn main() {
    let Some(arguments) = Arguments::of_process() else {
        println!("run by tests/kafka/speed.py");
        return;
    };
    match arguments.text("do") {
        "consume" => consume(&arguments),
        "again" => again(&arguments),
        "produce" => produce(&arguments),
        other => println!("do={other}: consume, again or produce"),
    }
}

fn on_broker(arguments: &Arguments, topic: &str) -> String {
    format!("{}{topic}", arguments.text("prefix"))
}

/// A fresh topic, made as the log makes its own; gives its name on the broker.
fn topic(arguments: &Arguments, name: &str, partitions: u32) -> String {
    let log = arguments.log();
    log.ensure_topics(&[TopicSpec::new(name, partitions)])
        .unwrap();
    on_broker(arguments, name)
}

/// When it began, and the CPU time until then.
#[derive(Clone, Copy)]
struct Begin(Instant, f64);

impl Begin {
    fn now() -> Self {
        Self(Instant::now(), part::process_s())
    }

    fn tell(self, rows: usize, bytes: usize, records: usize) {
        let took = self.0.elapsed().as_secs_f64();
        println!(
            "{{\"rows\": {rows}, \"seconds\": {took:.3}, \"rate\": {:.0}, \"cpu_s\": {:.2}, \"bytes_per_row\": {:.1}, \
             \"records\": {records}}}",
            rows as f64 / took,
            part::process_s() - self.1,
            bytes as f64 / rows as f64,
        );
    }
}

/// Reads partitions to their end, each record through `each`.
fn read(arguments: &Arguments, partitions: &[i32], mut each: impl FnMut(&[u8])) {
    let consumer: BaseConsumer<DefaultConsumerContext> = ClientConfig::new()
        .set("bootstrap.servers", arguments.text("brokers"))
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("fetch.message.max.bytes", "8388608")
        .set("queued.max.messages.kbytes", "65536")
        .set("message.max.bytes", MESSAGE_BYTES_MAX)
        .set("receive.message.max.bytes", "200000000")
        .create()
        .unwrap();
    let name = on_broker(arguments, arguments.text("topic"));
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(&name, *partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut open = partitions.len();
    while open > 0 {
        match consumer.poll(PATIENCE).unwrap() {
            Ok(message) => each(message.payload().unwrap_or_default()),
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => println!("{error}"),
        }
    }
}

/// Decodes and counts: no resends, ages, panes, cells or devices.
struct Count<'a> {
    schemas: SchemaCache,
    signals: Vec<(&'a SignalLayout, Binner, Vec<u64>)>,
    rows: usize,
    bytes: usize,
    records: usize,
    begin: Option<Begin>,
}

impl<'a> Count<'a> {
    fn new(reference: &'a Reference) -> Self {
        let signals = reference.layout.signals().iter();
        Self {
            schemas: SchemaCache::default(),
            signals: signals
                .map(|it| (it, Binner::new(&it.edges), vec![0; it.bins()]))
                .collect(),
            rows: 0,
            bytes: 0,
            records: 0,
            begin: None,
        }
    }

    fn record(&mut self, payload: &[u8]) {
        self.begin.get_or_insert_with(Begin::now);
        let bytes = Bytes::copy_from_slice(payload);
        let packed = PackedRecord::decode(bytes, &self.schemas).unwrap();
        self.rows += packed.rows();
        self.bytes += payload.len();
        self.records += 1;
        for (signal, binner, counts) in &mut self.signals {
            let Some(column) = packed.batch.column_by_name(&signal.signal.name) else {
                continue;
            };
            let values = column.as_primitive::<Int32Type>().values();
            if signal.is_numeric() {
                binner.for_each(values, |_, bin| counts[bin] += 1);
            } else {
                values.iter().for_each(|code| counts[*code as usize] += 1);
            }
        }
    }
}

fn consume(arguments: &Arguments) {
    let reference = std::fs::read(arguments.text("reference")).unwrap();
    let reference = Reference::decode(&reference).unwrap();
    let members = arguments.number("members");
    let partitions: Vec<i32> = (0..arguments.number("partitions") as i32).collect();
    let mut counts: Vec<Count<'_>> = (0..members).map(|_| Count::new(&reference)).collect();
    std::thread::scope(|scope| {
        for (at, count) in counts.iter_mut().enumerate() {
            let mine: Vec<i32> = partitions
                .iter()
                .copied()
                .skip(at)
                .step_by(members)
                .collect();
            scope.spawn(move || read(arguments, &mine, |payload| count.record(payload)));
        }
    });
    let begin = counts.iter().filter_map(|it| it.begin);
    let begin = begin.min_by_key(|it| it.0).unwrap();
    std::hint::black_box(&counts.iter().map(|it| &it.signals).collect::<Vec<_>>());
    begin.tell(
        counts.iter().map(|it| it.rows).sum(),
        counts.iter().map(|it| it.bytes).sum(),
        counts.iter().map(|it| it.records).sum(),
    );
}

/// Idempotent, acknowledged by all; what is sent waits a little for company.
fn producer(arguments: &Arguments, transactional: bool) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", arguments.text("brokers"))
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("message.max.bytes", MESSAGE_BYTES_MAX);
    if transactional {
        config.set(
            "transactional.id",
            on_broker(arguments, arguments.text("run")),
        );
    }
    config.create().unwrap()
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, payload: &[u8]) {
    let mut next = BaseRecord::<(), [u8]>::to(topic)
        .partition(partition)
        .payload(payload);
    loop {
        match producer.send(next) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                producer.poll(STEP);
                next = back;
            }
            Err((error, _)) => {
                println!("{error}");
                return;
            }
        }
    }
}

/// Waits until all is acknowledged. `flush` and `commit_transaction` poll in steps of 100 ms.
fn settle(producer: &BaseProducer) {
    while producer.in_flight_count() > 0 {
        producer.poll(STEP);
    }
}

/// The payloads of a topic, partition by partition in turn, to a fresh one.
fn again(arguments: &Arguments) {
    let partitions = arguments.number("partitions");
    let mut payloads: Vec<Vec<Bytes>> = vec![Vec::new(); partitions];
    for (partition, mine) in payloads.iter_mut().enumerate() {
        read(arguments, &[partition as i32], |payload| {
            mine.push(Bytes::copy_from_slice(payload));
        });
    }
    let schemas = SchemaCache::default();
    let all = || payloads.iter().flatten();
    let rows = all()
        .map(|it| PackedRecord::decode(it.clone(), &schemas).unwrap().rows())
        .sum();
    let name = format!(
        "{}-again-{}",
        arguments.text("topic"),
        arguments.text("run")
    );
    let to = topic(arguments, &name, partitions as u32);
    let producer = producer(arguments, false);
    producer
        .client()
        .fetch_metadata(Some(&to), PATIENCE)
        .unwrap();
    let begin = Begin::now();
    for at in 0..payloads.iter().map(Vec::len).max().unwrap_or(0) {
        for (partition, mine) in payloads.iter().enumerate() {
            if let Some(payload) = mine.get(at) {
                send(&producer, &to, partition as i32, payload);
            }
        }
    }
    settle(&producer);
    begin.tell(rows, all().map(Bytes::len).sum(), all().count());
}

/// Rows that do not compress.
fn produce(arguments: &Arguments) {
    let (rows, per) = (arguments.number("rows"), arguments.number("per"));
    let transaction = arguments.number("transaction");
    let partitions = arguments.number("partitions");
    let to = topic(arguments, arguments.text("topic"), partitions as u32);
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
    .take(2 * per.max(1_000) * ROW_BYTES)
    .collect();
    let producer = producer(arguments, transaction > 0);
    if transaction > 0 {
        producer.init_transactions(PATIENCE).unwrap();
    }
    producer
        .client()
        .fetch_metadata(Some(&to), PATIENCE)
        .unwrap();
    let begin = Begin::now();
    let mut open = 0;
    for record in 0..rows / per {
        if transaction > 0 && open == 0 {
            producer.begin_transaction().unwrap();
        }
        let from = record * 61 % (noise.len() - per * ROW_BYTES);
        let partition = (record % partitions) as i32;
        send(
            &producer,
            &to,
            partition,
            &noise[from..from + per * ROW_BYTES],
        );
        open += per;
        if transaction > 0 && open >= transaction {
            settle(&producer);
            producer.commit_transaction(PATIENCE).unwrap();
            open = 0;
        }
    }
    if transaction > 0 && open > 0 {
        settle(&producer);
        producer.commit_transaction(PATIENCE).unwrap();
    }
    settle(&producer);
    let records = rows / per;
    begin.tell(records * per, records * per * ROW_BYTES, records);
}
