//! How many rows a second go through the gateway to a durable log on this machine, beside what the
//! log alone takes of the same bytes.
//!
//! Frames of 100 rows of 16 features, several per request, from several devices over loopback with
//! HTTP/1.1; every request waits until its rows are on disk. `cargo bench -p driftline-ingest`;
//! `SECONDS=10` sets how long each line measures.
//!
//! `tests/kafka/speed.py` runs it on Kafka, with `name=value` arguments: `brokers`, `prefix`, `clients`, `frames` (of a
//! request) and `rows`. The frames are made before the clock starts then, and one JSON document is printed;
//! what the log alone takes of the same bytes is measured by `log/benches/bare.rs`.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it ends where it fails"
)]

#[path = "../../tests/kafka/part.rs"]
mod part;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driftline_ingest::{Gateway, GatewayConfig};
use driftline_log::embedded::{EmbeddedLog, EmbeddedOptions};
use driftline_log::registry::Registry;
use driftline_log::registry::store::FolderStore;
use driftline_log::{Cleanup, Log, Output, ReadLimits, TopicSpec};
use driftline_schemas::bundle::{
    Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, MANIFEST_FILE, MODEL_FILE, Manifest,
    REFERENCE_FILE, SBOM_FILE,
};
use driftline_schemas::clock::{Clock, SystemClock};
use driftline_schemas::frame::{self, Body, Envelope, Frame, Overrides, Sent};
use driftline_schemas::profile::reference::{Reference, Season};
use driftline_schemas::profile::{Layout, Profile, SignalLayout};
use driftline_schemas::rows::{Column, RowSchema, Rows};
use driftline_schemas::source::{Link, Origin, Role};
use driftline_schemas::topic::{DEADLETTERS, INFERENCES, REGISTRY, TELEMETRY};
use part::Arguments;

const ROWS: usize = 100;
const FEATURES: usize = 16;
const PARTITIONS: u32 = 4;

fn main() {
    if let Some(arguments) = Arguments::of_process() {
        return on_kafka(&arguments);
    }
    // `cargo test` runs benchmarks once to see that they work.
    let is_bench = std::env::args().any(|it| it == "--bench");
    let seconds = std::env::var("SECONDS").ok().and_then(|it| it.parse().ok());
    let span = match is_bench {
        true => Duration::from_secs_f64(seconds.unwrap_or(5.0)),
        false => Duration::from_millis(50),
    };
    println!("{ROWS} rows a frame, {FEATURES} features");
    for (clients, frames) in [(1, 1), (16, 1), (4, 16), (16, 16)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (rows, appends, took, records) = on_disk(folder.path(), clients, frames, span);
        let bytes: usize = records.iter().map(Output::size).sum();
        let bare = bare(records, appends);
        println!(
            "{clients:>2} clients, {frames:>2} frames a request: {:>9.0} rows/s, {:>6.1} B/row in the log, \
             {:>6.0} appends/s; bare append of the same bytes: {:>9.0} rows/s",
            rows as f64 / took.as_secs_f64(),
            bytes as f64 / rows as f64,
            appends as f64 / took.as_secs_f64(),
            rows as f64 / bare.as_secs_f64(),
        );
    }
}

fn topics(log: &dyn Log) {
    let mut topics: Vec<TopicSpec> = TELEMETRY
        .into_iter()
        .chain([DEADLETTERS])
        .map(|topic| TopicSpec::new(topic, PARTITIONS))
        .collect();
    topics.push(TopicSpec::new(REGISTRY, 1).with_cleanup(Cleanup::Compact));
    log.ensure_topics(&topics).expect("topics");
}

/// A gateway on Kafka, and clients whose requests are ready.
fn on_kafka(arguments: &Arguments) {
    let (clients, frames) = (arguments.number("clients"), arguments.number("frames"));
    let log = arguments.log();
    topics(&log);
    let folder = tempfile::tempdir().expect("a folder");
    let requests = arguments.number("rows") / (clients * frames * ROWS);
    let Passed {
        rows,
        appends,
        took,
        cpu_s,
        clients_cpu_s,
    } = through_gateway(
        folder.path(),
        &(Arc::new(log) as Arc<dyn Log>),
        clients,
        |schema| {
            let bodies: Vec<Vec<u8>> = (0..requests)
                .map(|at| body(schema, frames, (at * frames) as u64))
                .collect();
            bodies.into_iter()
        },
        frames * ROWS,
    );
    println!(
        "{{\"rows\": {rows}, \"seconds\": {:.3}, \"rate\": {:.0}, \"cpu_s\": {cpu_s:.2}, \
         \"clients_cpu_s\": {clients_cpu_s:.2}, \"appends\": {appends}}}",
        took.as_secs_f64(),
        rows as f64 / took.as_secs_f64(),
    );
}

/// Rows acknowledged, appends, how long it took, and the records that the log holds after it.
fn on_disk(
    folder: &Path,
    clients: usize,
    frames: usize,
    span: Duration,
) -> (usize, usize, Duration, Vec<Output>) {
    let log = EmbeddedLog::open(&folder.join("log"), EmbeddedOptions::default()).expect("log");
    topics(&log);
    let log: Arc<dyn Log> = Arc::new(log);
    let sent = through_gateway(
        folder,
        &log,
        clients,
        |schema| {
            let schema = Arc::clone(schema);
            // The time begins with the first request.
            let mut deadline = None;
            (0u64..).map_while(move |at| {
                let end = *deadline.get_or_insert_with(|| Instant::now() + span);
                (Instant::now() < end).then(|| body(&schema, frames, at * frames as u64))
            })
        },
        frames * ROWS,
    );
    (sent.rows, sent.appends, sent.took, records(&*log))
}

/// What went through a gateway.
struct Passed {
    /// Acknowledged.
    rows: usize,
    appends: usize,
    took: Duration,
    /// Of gateway and log, without the clients.
    cpu_s: f64,
    clients_cpu_s: f64,
}

/// Sends what `bodies` gives for each client, each request of `rows`.
fn through_gateway<B: Iterator<Item = Vec<u8>> + Send>(
    folder: &Path,
    shared: &Arc<dyn Log>,
    clients: usize,
    bodies: impl Fn(&Arc<RowSchema>) -> B,
    rows: usize,
) -> Passed {
    let store = Arc::new(FolderStore::new(folder.join("bundles")));
    let registry = Arc::new(Registry::open(Arc::clone(shared), store).expect("registry"));
    let bundle = bundle();
    let mut appender = shared.appender("setup").expect("appender");
    registry
        .register_bundle(&mut *appender, "acme", &bundle, 0)
        .expect("bundle");
    let tokens: Vec<String> = (0..clients)
        .map(|client| {
            let added = registry.add_device(&mut *appender, origin(client), 0);
            added.expect("device").expose().to_owned()
        })
        .collect();
    let mut config = GatewayConfig::default();
    config.rate.rows_burst = 1e12;
    config.rate.requests_burst = 1e12;
    let gateway = Gateway::new(config, Arc::clone(shared), registry, Arc::new(SystemClock));
    let gateway = gateway.expect("gateway");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let shutdown = async {
            stopped.await.ok();
        };
        runtime.block_on(async {
            listener.set_nonblocking(true).expect("a listener");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            gateway.serve(listener, shutdown).await.expect("serving");
        });
    });
    let ready: Vec<(&String, B)> = tokens
        .iter()
        .map(|token| (token, bodies(&bundle.inferences)))
        .collect();
    let (started, before_s) = (Instant::now(), part::process_s());
    let clients: Vec<(usize, f64)> = std::thread::scope(|scope| {
        let running: Vec<_> = ready
            .into_iter()
            .map(|(token, bodies)| {
                scope.spawn(move || (client(address, token, bodies), part::thread_s()))
            })
            .collect();
        running
            .into_iter()
            .map(|it| it.join().expect("a client"))
            .collect()
    });
    let (took, after_s) = (started.elapsed(), part::process_s());
    let clients_cpu_s = clients.iter().map(|it| it.1).sum();
    let metrics = ureq::get(format!("http://{address}/metrics")).call();
    let metrics = metrics.and_then(|mut it| it.body_mut().read_to_string());
    let metrics = metrics.expect("metrics");
    stop.send(()).ok();
    server.join().expect("the server");
    let appends = metrics
        .lines()
        .find_map(|line| line.strip_prefix("driftline_gateway_append_seconds_count "))
        .and_then(|value| value.parse().ok())
        .unwrap_or(1);
    Passed {
        rows: clients.iter().map(|it| it.0 * rows).sum(),
        appends,
        took,
        cpu_s: after_s - before_s - clients_cpu_s,
        clients_cpu_s,
    }
}

/// Sends one request after the other; gives how many were acknowledged.
fn client(address: SocketAddr, token: &str, bodies: impl Iterator<Item = Vec<u8>>) -> usize {
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("http://{address}/v1/frames");
    let authorization = format!("Bearer {token}");
    bodies
        .map(|body| {
            let sent = agent
                .post(&url)
                .header("authorization", &authorization)
                .header("content-type", "application/vnd.driftline.frames")
                .send(&body[..]);
            sent.expect("acknowledged");
        })
        .count()
}

/// A request's frames, from a sequence on.
fn body(schema: &RowSchema, frames: usize, from: u64) -> Vec<u8> {
    frame::join((from..from + frames as u64).map(|sequence| encoded(schema, sequence)))
}

fn encoded(schema: &RowSchema, sequence: u64) -> Vec<u8> {
    let now_us = SystemClock.now_us();
    let mut rows = Rows::empty(schema);
    // A fixed linear congruence: the same noise each time, cheap beside the request.
    let mut state = sequence;
    for row in 0..ROWS {
        for (column, field) in rows.columns.iter_mut().zip(schema.fields()) {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            match column {
                Column::Time(values) => values.push(Some(now_us - (ROWS - row) as i64 * 1_000)),
                Column::Int32(values) => {
                    let codes = field.categories.unwrap_or(1_000);
                    values.push(Some(((state >> 33) as u32 % codes) as i32));
                }
                Column::Int64(values) => values.push(None),
                Column::Text(values) => values.push(None),
                Column::Id(values) => values.push(None),
            }
        }
    }
    let envelope = Envelope {
        boot: 1,
        sequence,
        sent: Sent::At(now_us),
        overrides: Overrides::default(),
    };
    let body = Body::Rows(rows);
    frame::encode(&Frame { envelope, body }, schema).expect("a frame")
}

fn records(log: &dyn Log) -> Vec<Output> {
    let mut outputs = Vec::new();
    for partition in 0..PARTITIONS {
        let mut from = 0;
        loop {
            let batch = log
                .read(INFERENCES, partition, from, ReadLimits::default())
                .expect("records");
            outputs.extend(batch.records.into_iter().map(|record| Output {
                topic: record.topic,
                partition: record.partition,
                key: record.key.to_vec(),
                value: record.value.map(|value| value.to_vec()),
                timestamp_us: record.timestamp_us,
            }));
            from = batch.next;
            if batch.next >= batch.end {
                break;
            }
        }
    }
    outputs
}

/// How long the log alone takes for the same records in as many appends.
fn bare(records: Vec<Output>, appends: usize) -> Duration {
    let folder = tempfile::tempdir().expect("a folder");
    let log = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).expect("log");
    topics(&log);
    let mut appender = log.appender("bare").expect("appender");
    let per_append = records.len().div_ceil(appends.max(1)).max(1);
    let started = Instant::now();
    let mut records = records.into_iter();
    loop {
        let some: Vec<Output> = records.by_ref().take(per_append).collect();
        if some.is_empty() {
            return started.elapsed();
        }
        appender.append(some).expect("appended");
    }
}

fn origin(client: usize) -> Origin {
    Origin {
        tenant: "acme".into(),
        device: format!("device-{client}").into(),
        role: Role::Device,
        model: "bench".into(),
        version: "1".into(),
        variant: "".into(),
        hardware: "h1".into(),
        firmware: "f1".into(),
        region: "eu".into(),
        site: "s1".into(),
        link: Link::Ethernet,
        cadence_s: 1,
    }
}

fn bundle() -> Bundle {
    let mut text = String::from(
        "format = 1\nname = \"bench\"\nversion = \"1\"\ntask = \"regression\"\noutput = { resolution = 0.1 }\n",
    );
    for feature in 0..FEATURES {
        text.push_str(&format!(
            "[[features]]\nname = \"f{feature}\"\ntype = \"numeric\"\nresolution = 0.01\n"
        ));
    }
    let manifest = Manifest::parse(&text).expect("a manifest");
    let signals = manifest.signals().into_iter().map(|signal| SignalLayout {
        signal,
        edges: vec![0, 500],
    });
    let layout = Layout::new(signals.collect()).expect("a layout");
    let reference = Reference {
        made_from: "nothing".into(),
        season: Season::None,
        slots: vec![Profile::empty(&layout)],
        layout,
    };
    let mut files = BTreeMap::from([
        (
            MANIFEST_FILE.to_owned(),
            manifest.to_toml().expect("a manifest").into_bytes(),
        ),
        (MODEL_FILE.to_owned(), Vec::new()),
        (REFERENCE_FILE.to_owned(), reference.encode()),
        (CALIBRATION_FILE.to_owned(), b"{}".to_vec()),
        (SBOM_FILE.to_owned(), b"{}".to_vec()),
    ]);
    let digest = serde_json::to_vec(&Digest::of(&files)).expect("a digest");
    files.insert(DIGEST_FILE.to_owned(), digest);
    Bundle::from_files(files).expect("a bundle")
}
