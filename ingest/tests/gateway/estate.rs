//! A gateway on loopback with a log in memory, a registry, some devices and a model.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use driftline_ingest::{Gateway, GatewayConfig};
use driftline_log::memory::MemoryLog;
use driftline_log::registry::Registry;
use driftline_log::registry::store::FolderStore;
use driftline_log::{
    Appender, Cleanup, Log, LogError, Output, ReadBatch, ReadLimits, StageLog, StageSpec,
    TopicSpec, Trimmed,
};
use driftline_schemas::bundle::{
    Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, MANIFEST_FILE, MODEL_FILE, Manifest,
    REFERENCE_FILE, SBOM_FILE,
};
use driftline_schemas::clock::ManualClock;
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::frame::{self, Body, Envelope, Frame, Overrides, Sent};
use driftline_schemas::packed::{PackedRecord, SchemaCache};
use driftline_schemas::profile::reference::{Reference, Season};
use driftline_schemas::profile::{Layout, Profile, SignalLayout};
use driftline_schemas::rows::{Column, RowSchema, Rows};
use driftline_schemas::source::{Link, Origin, Role};
use driftline_schemas::topic::{DEADLETTERS, REGISTRY, TELEMETRY};
use serde_json::Value;

pub(crate) const NOW: i64 = 1_760_000_000_000_000;
pub(crate) const PARTITIONS: u32 = 4;
pub(crate) const FRAMES: &str = "application/vnd.driftline.frames";

#[derive(Default)]
struct Gate {
    /// Whether it is closed, and how many appends wait before it.
    state: Mutex<(bool, usize)>,
    opened: Condvar,
}

/// A log whose appends can be held up, and whose reads can be made to fail.
#[derive(Clone, Default)]
pub(crate) struct GateLog {
    pub(crate) memory: MemoryLog,
    gate: Arc<Gate>,
    pub(crate) reads_fail: Arc<AtomicBool>,
}

impl GateLog {
    /// Appends wait from now on.
    pub(crate) fn block(&self) {
        self.gate.state.lock().unwrap().0 = true;
    }

    /// Those that wait go on.
    pub(crate) fn release(&self) {
        self.gate.state.lock().unwrap().0 = false;
        self.gate.opened.notify_all();
    }

    /// Appends that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.gate.state.lock().unwrap().1
    }
}

struct GateAppender {
    inner: Box<dyn Appender>,
    gate: Arc<Gate>,
}

impl Appender for GateAppender {
    fn append(&mut self, records: Vec<Output>) -> Result<Vec<u64>, LogError> {
        let mut state = self.gate.state.lock().unwrap();
        state.1 += 1;
        while state.0 {
            state = self.gate.opened.wait(state).unwrap();
        }
        state.1 -= 1;
        drop(state);
        self.inner.append(records)
    }
}

impl Log for GateLog {
    fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        self.memory.ensure_topics(specs)
    }

    fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, LogError> {
        self.memory.topics()
    }

    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.memory.partitions(topic)
    }

    fn appender(&self, name: &str) -> Result<Box<dyn Appender>, LogError> {
        let (inner, gate) = (self.memory.appender(name)?, Arc::clone(&self.gate));
        Ok(Box::new(GateAppender { inner, gate }))
    }

    fn stage(&self, spec: StageSpec) -> Result<Box<dyn StageLog>, LogError> {
        self.memory.stage(spec)
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        limits: ReadLimits,
    ) -> Result<ReadBatch, LogError> {
        if self.reads_fail.load(Ordering::SeqCst) {
            return Err(LogError::Closed);
        }
        self.memory.read(topic, partition, from, limits)
    }

    fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        self.memory.range(topic, partition)
    }

    fn committed(&self, stage: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        self.memory.committed(stage, topic, partition)
    }

    fn trim(&self, now_us: i64) -> Result<Trimmed, LogError> {
        self.memory.trim(now_us)
    }

    fn forget_stage(&self, stage: &str) -> Result<(), LogError> {
        self.memory.forget_stage(stage)
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    /// Last part of the problem's type; checks that it is a problem as promised.
    pub(crate) fn problem(&self) -> &str {
        assert_eq!(self.kind, "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], self.status);
        for part in ["title", "detail", "remedy"] {
            let text = self.body[part].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{part} of {self:?}");
        }
        if matches!(self.status, 408 | 429 | 503) {
            assert!(self.retry_after.is_some_and(|it| it > 0), "{self:?}");
        }
        let urn = self.body["type"].as_str().unwrap();
        urn.strip_prefix("urn:driftline:problem:").unwrap()
    }

    pub(crate) fn acknowledged(&self) -> (u64, u64) {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.body["version"], 1);
        let of = |name| self.body["acknowledged"][name].as_u64().unwrap();
        (of("frames"), of("rows"))
    }

    pub(crate) fn rejected(&self) -> BTreeMap<String, u64> {
        let reasons = &self.body["rejected"]["reasons"];
        let reasons: BTreeMap<String, u64> = serde_json::from_value(reasons.clone()).unwrap();
        let rows = self.body["rejected"]["rows"].as_u64().unwrap();
        assert_eq!(rows, reasons.values().sum::<u64>());
        reasons
    }
}

/// The whole of it; ends with the test.
pub(crate) struct Estate {
    pub(crate) log: GateLog,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) bundle: Bundle,
    pub(crate) address: SocketAddr,
    pub(crate) agent: ureq::Agent,
    tokens: BTreeMap<String, String>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Drop for Estate {
    fn drop(&mut self) {
        self.log.release();
        self.stop();
        if let Some(server) = self.server.take() {
            let ended = server.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// Limits that no test meets unless it wants to.
pub(crate) fn config() -> GatewayConfig {
    let mut config = GatewayConfig::default();
    config.rate.requests_burst = 1e9;
    config.rate.rows_burst = 1e9;
    config
}

pub(crate) fn agent() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
}

impl Estate {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    /// Devices `d1` to `d3`, a probe `p1`, and the model `boiler@1`.
    pub(crate) fn with(config: GatewayConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = GateLog::default();
        let mut topics: Vec<TopicSpec> = TELEMETRY
            .into_iter()
            .chain([DEADLETTERS])
            .map(|topic| TopicSpec::new(topic, PARTITIONS))
            .collect();
        topics.push(TopicSpec::new(REGISTRY, 1).with_cleanup(Cleanup::Compact));
        log.ensure_topics(&topics).unwrap();
        let shared: Arc<dyn Log> = Arc::new(log.clone());
        let store = Arc::new(FolderStore::new(folder.path()));
        let registry = Arc::new(Registry::open(Arc::clone(&shared), store).unwrap());
        let clock = Arc::new(ManualClock::new(NOW));
        let gateway = Gateway::new(config, shared, Arc::clone(&registry), clock.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let shutdown = async {
                stopped.await.ok();
            };
            runtime
                .block_on(async {
                    listener.set_nonblocking(true).unwrap();
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    gateway.serve(listener, shutdown).await
                })
                .unwrap();
        });
        let bundle = bundle("1", 0.01);
        let mut estate = Self {
            log,
            registry,
            clock,
            bundle: bundle.clone(),
            address,
            agent: agent().build().into(),
            tokens: BTreeMap::new(),
            stop: Some(stop),
            server: Some(server),
            _folder: folder,
        };
        estate.register(&bundle);
        for device in ["d1", "d2", "d3"] {
            estate.add(device, Role::Device);
        }
        estate.add("p1", Role::Probe);
        estate
    }

    pub(crate) fn register(&self, bundle: &Bundle) {
        let mut appender = self.log.memory.appender("test").unwrap();
        self.registry
            .register_bundle(&mut *appender, "acme", bundle, NOW)
            .unwrap();
    }

    pub(crate) fn add(&mut self, device: &str, role: Role) {
        let mut appender = self.log.memory.appender("test").unwrap();
        let token = self
            .registry
            .add_device(&mut *appender, origin(device, role), NOW)
            .unwrap();
        self.tokens
            .insert(device.to_owned(), token.expose().to_owned());
    }

    pub(crate) fn revoke(&self, device: &str) {
        let mut appender = self.log.memory.appender("test").unwrap();
        self.registry
            .revoke_device(&mut *appender, "acme", device, NOW)
            .unwrap();
    }

    /// Asks the server to end, once requests under way have.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(self.url(path)).call().unwrap())
    }

    /// Posts with the token of `device` (none where it has none).
    pub(crate) fn post(
        &self,
        device: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = self.agent.post(self.url(path));
        if let Some(token) = self.tokens.get(device) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body).unwrap())
    }

    /// Posts frames.
    pub(crate) fn send(&self, device: &str, frames: &[Vec<u8>]) -> Answer {
        self.send_body(device, &frame::join(frames))
    }

    pub(crate) fn send_body(&self, device: &str, body: &[u8]) -> Answer {
        self.post(device, "/v1/frames", &[("content-type", FRAMES)], body)
    }

    pub(crate) fn token(&self, device: &str) -> &str {
        &self.tokens[device]
    }

    /// All packed records of a topic, with their partitions.
    pub(crate) fn records(&self, topic: &str) -> Vec<(u32, PackedRecord)> {
        let cache = SchemaCache::default();
        self.log
            .memory
            .all(topic)
            .unwrap()
            .into_iter()
            .map(|record| {
                let packed = PackedRecord::decode(record.value.unwrap(), &cache).unwrap();
                (record.partition, packed)
            })
            .collect()
    }

    /// (device, boot, sequence, rows) of all frames of a topic, sorted.
    pub(crate) fn frames_of(&self, topic: &str) -> Vec<(String, u64, u64, u32)> {
        let mut frames: Vec<_> = self
            .records(topic)
            .iter()
            .flat_map(|(_, record)| &record.frames)
            .map(|it| {
                let device = it.origin.device.to_string();
                (device, it.head.boot, it.head.sequence, it.rows)
            })
            .collect();
        frames.sort();
        frames
    }

    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        let records = self.log.memory.all(DEADLETTERS).unwrap();
        records
            .iter()
            .map(|record| DeadLetter::decode(record.value.as_ref().unwrap()).unwrap())
            .collect()
    }

    /// Nothing from a device is in the log.
    pub(crate) fn assert_nothing_written(&self) {
        for topic in TELEMETRY.into_iter().chain([DEADLETTERS]) {
            assert_eq!(self.log.memory.all(topic).unwrap(), [], "{topic}");
        }
    }

    /// A frame of inferences at these times.
    pub(crate) fn inferences(&self, boot: u64, sequence: u64, times: &[i64]) -> Vec<u8> {
        self.frame(boot, sequence, Sent::At(NOW), times, Overrides::default())
    }

    pub(crate) fn frame(
        &self,
        boot: u64,
        sequence: u64,
        sent: Sent,
        times: &[i64],
        overrides: Overrides,
    ) -> Vec<u8> {
        let schema = &self.bundle.inferences;
        let body = Body::Rows(rows(schema, times));
        encode(boot, sequence, sent, overrides, body, schema)
    }
}

pub(crate) fn encode(
    boot: u64,
    sequence: u64,
    sent: Sent,
    overrides: Overrides,
    body: Body,
    schema: &RowSchema,
) -> Vec<u8> {
    let envelope = Envelope {
        boot,
        sequence,
        sent,
        overrides,
    };
    frame::encode(&Frame { envelope, body }, schema).unwrap()
}

/// Rows of any schema: times as given, every number the row's index, no texts.
pub(crate) fn rows(schema: &RowSchema, times: &[i64]) -> Rows {
    let mut rows = Rows::empty(schema);
    for (row, time) in times.iter().enumerate() {
        for (column, field) in rows.columns.iter_mut().zip(schema.fields()) {
            match column {
                Column::Time(values) => values.push(Some(*time)),
                Column::Int64(values) => values.push(Some(row as i64)),
                Column::Int32(values) => {
                    let codes = field.categories.unwrap_or(u32::MAX);
                    values.push(Some((row as u32 % codes) as i32));
                }
                Column::Text(values) => values.push(None),
                Column::Id(values) => values.push(Some(row as u128)),
            }
        }
    }
    rows
}

fn origin(device: &str, role: Role) -> Origin {
    Origin {
        tenant: "acme".into(),
        device: device.into(),
        role,
        model: "boiler".into(),
        version: "1".into(),
        variant: "".into(),
        hardware: "h1".into(),
        firmware: "f1".into(),
        region: "eu".into(),
        site: "s1".into(),
        link: Link::Wifi,
        cadence_s: 60,
    }
}

/// A bundle of a classifier with a number and a category.
pub(crate) fn bundle(version: &str, resolution: f64) -> Bundle {
    let manifest = Manifest::parse(&format!(
        "format = 1\nname = \"boiler\"\nversion = \"{version}\"\ntask = \"classification\"\n\
         output = {{ classes = [\"ok\", \"bad\"] }}\n\
         [[features]]\nname = \"temp\"\ntype = \"numeric\"\nresolution = {resolution}\n\
         [[features]]\nname = \"mode\"\ntype = \"categorical\"\ncategories = [\"a\", \"b\", \"c\"]\n"
    ))
    .unwrap();
    let signals = manifest
        .signals()
        .into_iter()
        .map(|signal| SignalLayout {
            edges: match signal.kind {
                driftline_schemas::bundle::FeatureType::Numeric { .. } => vec![0, 10, 20],
                driftline_schemas::bundle::FeatureType::Categorical { .. } => vec![],
            },
            signal,
        })
        .collect();
    let layout = Layout::new(signals).unwrap();
    let reference = Reference {
        made_from: "a test".into(),
        season: Season::None,
        slots: vec![Profile::empty(&layout)],
        layout,
    };
    let mut files = BTreeMap::from([
        (
            MANIFEST_FILE.to_owned(),
            manifest.to_toml().unwrap().into_bytes(),
        ),
        (MODEL_FILE.to_owned(), b"onnx".to_vec()),
        (REFERENCE_FILE.to_owned(), reference.encode()),
        (CALIBRATION_FILE.to_owned(), b"{}".to_vec()),
        (SBOM_FILE.to_owned(), b"{}".to_vec()),
    ]);
    let digest = serde_json::to_vec(&Digest::of(&files)).unwrap();
    files.insert(DIGEST_FILE.to_owned(), digest);
    Bundle::from_files(files).unwrap()
}

pub(crate) fn answer(mut response: ureq::http::Response<ureq::Body>) -> Answer {
    let header = |name: &str| {
        let value = response.headers().get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let (kind, retry_after) = (header("content-type"), header("retry-after"));
    let text = response.body_mut().read_to_string().unwrap();
    Answer {
        status: response.status().as_u16(),
        kind: kind.unwrap_or_default(),
        retry_after: retry_after.and_then(|text| text.parse().ok()),
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    }
}

/// Asks again until it is so; fails after half a minute.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}
