//! A detect stage fed with profiles hour by hour, as the profile stage would append them.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_log::memory::MemoryLog;
use driftline_log::runner::{Stage, StageError, StepInput};
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

/// Feeds so many hours from `begin_us` on with what `cells` gives for each; the findings, in order.
pub(crate) fn findings(
    config: DetectConfig,
    bundle: Arc<Bundle>,
    begin_us: i64,
    hours: i64,
    mut cells: impl FnMut(i64) -> Result<Vec<CellProfile>>,
) -> Result<Vec<Finding>> {
    let log = MemoryLog::new();
    let topics = [
        topic::INFERENCES,
        topic::PROFILES,
        topic::MEASURES,
        topic::FINDINGS,
    ];
    log.ensure_topics(&topics.map(|name| TopicSpec::new(name, 1)))?;
    let mut stage = DetectStage::new(
        config,
        &log,
        Arc::new(Shelf(bundle)),
        DetectStats::default(),
    )?;
    stage.assigned(Assignment {
        partition: 0,
        positions: Vec::new(),
        state: BTreeMap::new(),
    })?;
    let mut findings = Vec::new();
    for hour in 0..hours {
        let batch = ProfileBatch {
            input_partition: 0,
            watermark_us: begin_us + hour * HOUR_US + HOUR_US / 2,
            cells: cells(hour)?,
        };
        let record = Record {
            topic: topic::PROFILES.into(),
            partition: 0,
            offset: hour as u64,
            key: Vec::new().into(),
            value: Some(batch.encode().into()),
            timestamp_us: 0,
        };
        let step = stage.step(StepInput {
            records: &[record],
            now_us: begin_us + hour * HOUR_US,
            caught_up: true,
        })?;
        for output in step.outputs.iter().filter(|o| &*o.topic == topic::FINDINGS) {
            let value = output.value.as_deref().unwrap_or_default();
            findings.push(serde_json::from_slice(value)?);
        }
    }
    Ok(findings)
}
