//! What the measurements of the detect stage share: profiles fed to it hour by hour, as the profile stage would
//! append them, runs on all cores, and the arguments.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use driftline_log::memory::MemoryLog;
use driftline_log::runner::{Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Log, Record, TopicSpec};
use driftline_processors::bundles::Bundles;
use driftline_processors::detect::{DetectConfig, DetectStage, DetectStats};
use driftline_schemas::bundle::Bundle;
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::measure::Finding;
use driftline_schemas::profile::CellProfile;
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::topic;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Shelf(Arc<Bundle>);

impl Bundles for Shelf {
    fn bundle(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: &str,
    ) -> std::result::Result<Option<Arc<Bundle>>, StageError> {
        Ok(Some(Arc::clone(&self.0)))
    }
}

/// A detect stage, and the hour from which it is fed.
pub(crate) struct Fed {
    stage: DetectStage,
    begin_us: i64,
}

impl Fed {
    pub(crate) fn new(config: DetectConfig, bundle: Arc<Bundle>, begin_us: i64) -> Result<Self> {
        let log = MemoryLog::new();
        let topics = [
            topic::INFERENCES,
            topic::PROFILES,
            topic::MEASURES,
            topic::FINDINGS,
        ];
        log.ensure_topics(&topics.map(|name| TopicSpec::new(name, 1)))?;
        let shelf = Arc::new(Shelf(bundle));
        let mut stage = DetectStage::new(config, &log, shelf, DetectStats::default())?;
        stage.assigned(Assignment {
            partition: 0,
            positions: Vec::new(),
            state: BTreeMap::new(),
        })?;
        Ok(Self { stage, begin_us })
    }

    /// The record of an hour's profiles.
    pub(crate) fn record(&self, hour: i64, cells: Vec<CellProfile>) -> Record {
        let batch = ProfileBatch {
            input_partition: 0,
            watermark_us: self.begin_us + hour * HOUR_US + HOUR_US / 2,
            cells,
        };
        Record {
            topic: topic::PROFILES.into(),
            partition: 0,
            offset: hour as u64,
            key: Vec::new().into(),
            value: Some(batch.encode().into()),
            timestamp_us: 0,
        }
    }

    /// One step with the record of an hour.
    pub(crate) fn step(&mut self, hour: i64, record: Record) -> Result<StepOutput> {
        Ok(self.stage.step(StepInput {
            records: &[record],
            now_us: self.begin_us + hour * HOUR_US,
            caught_up: true,
        })?)
    }
}

/// Feeds so many hours from `begin_us` on with what `cells` gives for each; the findings, in order.
pub(crate) fn findings(
    config: DetectConfig,
    bundle: Arc<Bundle>,
    begin_us: i64,
    hours: i64,
    mut cells: impl FnMut(i64) -> Result<Vec<CellProfile>>,
) -> Result<Vec<Finding>> {
    let mut fed = Fed::new(config, bundle, begin_us)?;
    let mut findings = Vec::new();
    for hour in 0..hours {
        let record = fed.record(hour, cells(hour)?);
        let step = fed.step(hour, record)?;
        for output in step.outputs.iter().filter(|o| &*o.topic == topic::FINDINGS) {
            let value = output.value.as_deref().unwrap_or_default();
            findings.push(serde_json::from_slice(value)?);
        }
    }
    Ok(findings)
}

/// What `one` makes of each number below `count`, in their order, on as many threads as there are cores.
pub(crate) fn on_all_cores<T: Send>(
    count: u64,
    one: impl Fn(u64) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicU64::new(0);
    let work = || -> Result<Vec<(u64, T)>> {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return Ok(done);
            }
            done.push((at, one(at)?));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = std::thread::scope(|scope| -> Result<Vec<(u64, T)>> {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a run panicked")??);
        }
        Ok(all)
    })?;
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, made)| made).collect())
}

/// The arguments of a measurement: `--name value` and `--name`.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    /// Those of this process, of which only `known` are taken.
    pub(crate) fn of_process(known: &[&str]) -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let is_foreign =
            |argument: &&String| argument.starts_with("--") && !known.contains(&argument.as_str());
        match arguments.iter().find(is_foreign) {
            Some(argument) => {
                Err(format!("{argument} is not known, only {}", known.join(", ")).into())
            }
            None => Ok(Self(arguments)),
        }
    }

    /// Whether it is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    /// The value after it; `otherwise` where it is not there.
    pub(crate) fn number<T: FromStr>(&self, name: &str, otherwise: T) -> Result<T> {
        let Some(at) = self.0.iter().position(|argument| argument == name) else {
            return Ok(otherwise);
        };
        let value = self.0.get(at + 1).map(String::as_str).unwrap_or_default();
        let wrong = || format!("{name} takes a number, not {value:?}").into();
        value.parse().map_err(|_| wrong())
    }
}
