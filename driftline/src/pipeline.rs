//! All roles of one process, started together and ended together.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use driftline_alerting::AlertingStage;
use driftline_alerting::sender::HttpSender;
use driftline_ingest::Gateway;
use driftline_lake::Lake;
use driftline_log::embedded::{EmbeddedLog, EmbeddedOptions};
use driftline_log::kafka::KafkaLog;
use driftline_log::registry::{FolderStore, Registry};
use driftline_log::runner::{RunError, Runner, Shutdown, Stage};
use driftline_log::{Cleanup, Log, ReadLimits, StageSpec, TopicSpec};
use driftline_processors::archive::{ArchiveStage, ArchiveStats};
use driftline_processors::bundles::Bundles;
use driftline_processors::detect::{DetectStage, DetectStats};
use driftline_processors::labels::{LabelsStage, LabelsStats};
use driftline_processors::profile::{ProfileStage, ProfileStats};
use driftline_processors::vitals::VitalsStage;
use driftline_schemas::clock::Clock;
use driftline_schemas::topic;

use crate::config::{Config, Role};
use crate::metrics::{LogObserver, Metrics};

/// How long raw telemetry and what is derived stay in the log after every stage has read them: the
/// lake has them, the log is for replays of the last week.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Opens the configured log and makes its topics.
pub(crate) fn open_log(config: &Config, dir: &Path) -> anyhow::Result<Arc<dyn Log>> {
    let log: Arc<dyn Log> = match &config.log.kafka {
        Some(brokers) => {
            let options = config.log.kafka_options(brokers)?;
            Arc::new(KafkaLog::open(options).with_context(|| format!("log at {brokers}"))?)
        }
        None => {
            let folder = dir.join("log");
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("data folder {}", dir.display()))?;
            Arc::new(EmbeddedLog::open(&folder, EmbeddedOptions::default())?)
        }
    };
    log.ensure_topics(&topics(config))?;
    Ok(log)
}

/// The topics as they should be.
pub(crate) fn topics(config: &Config) -> Vec<TopicSpec> {
    let cleanup = Cleanup::Delete {
        retention: Some(RETENTION),
        retention_bytes: None,
    };
    let mut specs: Vec<TopicSpec> = topic::TELEMETRY
        .into_iter()
        .chain(topic::DERIVED)
        .chain([topic::DEADLETTERS])
        .map(|name| TopicSpec::new(name, config.log.partitions).with_cleanup(cleanup.clone()))
        .collect();
    specs.push(TopicSpec::new(topic::REGISTRY, 1).with_cleanup(Cleanup::Compact));
    for spec in &mut specs {
        spec.replication = config.log.replication;
    }
    specs
}

/// Opens the registry of a log.
pub(crate) fn open_registry(
    config: &Config,
    dir: &Path,
    log: &Arc<dyn Log>,
) -> anyhow::Result<Arc<Registry>> {
    let store = FolderStore::new(config.bundles(dir));
    Ok(Arc::new(Registry::open(Arc::clone(log), Arc::new(store))?))
}

/// How many offsets each stage that runs here has not committed yet, over all its partitions: those
/// of other processes too. Told to the metrics.
///
/// # Errors
/// When the log cannot be read.
pub(crate) fn measure_lag(
    log: &dyn Log,
    stages: &[StageSpec],
    metrics: &Metrics,
) -> anyhow::Result<()> {
    for spec in stages {
        let mut behind = 0;
        for input in &spec.inputs {
            for partition in 0..log.partitions(input)? {
                let (first, end) = log.range(input, partition)?;
                let next = log
                    .committed(&spec.name, input, partition)?
                    .unwrap_or(first);
                if next < end && holds_more(log, input, partition, next)? {
                    behind += end - next;
                }
            }
        }
        metrics.behind(&spec.name, behind);
    }
    Ok(())
}

/// Whether any record follows. On Kafka the end lies beyond the marks that end transactions, which no
/// stage reads or commits past.
fn holds_more(log: &dyn Log, topic: &str, partition: u32, from: u64) -> anyhow::Result<bool> {
    let one = ReadLimits {
        max_records: 1,
        ..ReadLimits::default()
    };
    Ok(!log.read(topic, partition, from, one)?.records.is_empty())
}

type StageThread = JoinHandle<Result<(), RunError>>;

/// Roles under way.
pub(crate) struct Pipeline {
    /// The log that they share.
    pub(crate) log: Arc<dyn Log>,
    /// The registry.
    pub(crate) registry: Arc<Registry>,
    /// Their metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// Names of the stages that run here.
    pub(crate) stages: Vec<StageSpec>,
    shutdown: Shutdown,
    threads: Vec<(String, StageThread)>,
    gateway: Option<RunningGateway>,
}

struct RunningGateway {
    address: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), driftline_ingest::GatewayError>>,
}

impl Pipeline {
    /// Starts the configured roles. Must be called on a runtime.
    pub(crate) async fn start(
        config: &Config,
        dir: &Path,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let registry = open_registry(config, dir, &log)?;
        let metrics = Arc::new(Metrics::default());
        let mut pipeline = Self {
            registry,
            metrics,
            stages: Vec::new(),
            shutdown: Shutdown::new(),
            threads: Vec::new(),
            gateway: None,
            log,
        };
        if config.runs(Role::Ingest) {
            pipeline.start_gateway(config, &clock).await?;
        }
        pipeline.start_stages(config, dir, &clock)?;
        Ok(pipeline)
    }

    async fn start_gateway(
        &mut self,
        config: &Config,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<()> {
        let listener = tokio::net::TcpListener::bind(config.gateway.listen)
            .await
            .with_context(|| format!("[gateway] listen: {}", config.gateway.listen))?;
        let address = listener.local_addr()?;
        let gateway = Gateway::new(
            config.gateway.clone(),
            Arc::clone(&self.log),
            Arc::clone(&self.registry),
            Arc::clone(clock),
        )?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(gateway.serve(listener, async move {
            // A sender that was dropped asks as well.
            let _ = stopped.await;
        }));
        tracing::info!(%address, "gateway listens");
        self.gateway = Some(RunningGateway {
            address,
            stop,
            task,
        });
        Ok(())
    }

    fn start_stages(
        &mut self,
        config: &Config,
        dir: &Path,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<()> {
        let log = Arc::clone(&self.log);
        let bundles: Arc<dyn Bundles> = Arc::clone(&self.registry) as Arc<dyn Bundles>;
        let lake = || Lake::new(&config.lake(dir));
        let runner = Runner {
            shutdown: self.shutdown.clone(),
            observer: Arc::new(LogObserver::new(Arc::clone(&self.metrics))),
            ..Runner::new(Arc::clone(&log), Arc::clone(clock))
        };
        let mut stages: Vec<(StageSpec, Box<dyn Stage>)> = Vec::new();
        if config.runs(Role::Profile) {
            let stats = ProfileStats::default();
            self.metrics.add(|registry| stats.register(registry));
            let stage =
                ProfileStage::new(config.profile.clone(), &*log, Arc::clone(&bundles), stats)?;
            stages.push((ProfileStage::spec(), Box::new(stage)));
        }
        if config.runs(Role::Labels) {
            let stats = LabelsStats::default();
            self.metrics.add(|registry| stats.register(registry));
            let stage = LabelsStage::new(
                config.labels.clone(),
                config.profile.clone(),
                lake(),
                Arc::clone(&log),
                Arc::clone(clock),
                Arc::clone(&bundles),
                stats,
            )?;
            stages.push((LabelsStage::spec(), Box::new(stage)));
        }
        if config.runs(Role::Detect) {
            let stats = DetectStats::default();
            self.metrics.add(|registry| stats.register(registry));
            let stage =
                DetectStage::new(config.detect.clone(), &*log, Arc::clone(&bundles), stats)?;
            stages.push((DetectStage::spec(), Box::new(stage)));
        }
        if config.runs(Role::Vitals) {
            let stage = VitalsStage::new(config.vitals.clone(), &*log, Arc::clone(&bundles))?;
            stages.push((VitalsStage::spec(), Box::new(stage)));
        }
        if config.runs(Role::Archive) {
            let stats = ArchiveStats::default();
            self.metrics.add(|registry| stats.register(registry));
            let stage = ArchiveStage::new(
                config.archive.clone(),
                lake(),
                Arc::clone(&log),
                Arc::clone(clock),
                Arc::clone(&bundles),
                stats,
            )?;
            stages.push((ArchiveStage::spec(), Box::new(stage)));
        }
        if config.runs(Role::Alerting) {
            let sender = HttpSender::new(&config.alerting, tokio::runtime::Handle::current())?;
            let counters = sender.counters();
            let stage = AlertingStage::new(config.alerting.clone(), Box::new(sender));
            self.metrics.alerting(counters, stage.open());
            stages.push((AlertingStage::spec(), Box::new(stage)));
        }
        let instance = config.instance();
        for (mut spec, stage) in stages {
            if let Some(instance) = &instance {
                spec = spec.with_instance(instance.as_str());
            }
            self.stages.push(spec.clone());
            let name = spec.name.to_string();
            let thread = runner
                .spawn(spec, stage)
                .with_context(|| format!("thread of stage {name}"))?;
            self.threads.push((name, thread));
        }
        Ok(())
    }

    /// Where the gateway listens.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.gateway.as_ref().map(|gateway| gateway.address)
    }

    /// Name of a role that ended although nobody asked it to.
    pub(crate) fn ended(&self) -> Option<String> {
        let stage = self
            .threads
            .iter()
            .find(|(_, thread)| thread.is_finished())
            .map(|(name, _)| name.clone());
        let gateway = self
            .gateway
            .as_ref()
            .filter(|gateway| gateway.task.is_finished())
            .map(|_| "gateway".to_owned());
        stage.or(gateway)
    }

    /// A stage that has not committed past everything that its inputs hold, and where it is.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(crate) fn behind(&self) -> anyhow::Result<Option<String>> {
        for spec in &self.stages {
            for input in &spec.inputs {
                for partition in 0..self.log.partitions(input)? {
                    let (_, end) = self.log.range(input, partition)?;
                    let next = self
                        .log
                        .committed(&spec.name, input, partition)?
                        .unwrap_or(0);
                    if next < end && holds_more(&*self.log, input, partition, next)? {
                        let name = &spec.name;
                        return Ok(Some(format!(
                            "{name} at {next} of {end} of {input}/{partition}"
                        )));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Ends all roles: the gateway first, so that what it acknowledged is in the log, then the
    /// stages, each after its step under way.
    ///
    /// # Errors
    /// What a role failed with.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let mut failed = None;
        if let Some(gateway) = self.gateway.take() {
            // Fails only when the gateway has ended already.
            let _ = gateway.stop.send(());
            failed = gateway
                .task
                .await
                .context("gateway")?
                .context("gateway")
                .err();
        }
        self.shutdown.request();
        for (name, thread) in std::mem::take(&mut self.threads) {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
            let result = match joined {
                Ok(result) => result.map_err(anyhow::Error::from),
                Err(_) => Err(anyhow::anyhow!(
                    "stage {name} panicked; see its message above"
                )),
            };
            failed = failed.or(result.err());
        }
        failed.map_or(Ok(()), Err)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shutdown.request();
    }
}
