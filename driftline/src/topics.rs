//! `driftline topics plan|apply`: the topics on a Kafka cluster, as they are and as they should be.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use driftline_alerting::AlertingStage;
use driftline_log::kafka::KafkaLog;
use driftline_log::kafka::plan::{Plan, TopicPlan, TopicState};
use driftline_log::{Cleanup, StageSpec};
use driftline_processors::archive::ArchiveStage;
use driftline_processors::detect::DetectStage;
use driftline_processors::labels::LabelsStage;
use driftline_processors::profile::ProfileStage;
use driftline_processors::vitals::VitalsStage;
use serde_json::{Value, json};

use crate::config::Config;
use crate::output::{self, OutputFormat};
use crate::pipeline;

/// Commands on topics.
#[derive(Debug, Clone, Copy, clap::Subcommand)]
pub(crate) enum TopicsCommand {
    /// Shows what would be done; changes nothing.
    Plan,
    /// Makes what is missing and sets what differs; doing it again changes nothing.
    Apply,
}

/// All stages that may read the log.
fn stages() -> [StageSpec; 6] {
    [
        ProfileStage::spec(),
        LabelsStage::spec(),
        DetectStage::spec(),
        VitalsStage::spec(),
        ArchiveStage::spec(),
        AlertingStage::spec(),
    ]
}

/// Runs a command. The exit code is 1 when a topic cannot be made as it should be.
///
/// # Errors
/// When the log is not on Kafka, or the broker does not answer or refuses.
pub(crate) async fn run(
    config: &Config,
    command: TopicsCommand,
    format: OutputFormat,
) -> anyhow::Result<ExitCode> {
    let Some(brokers) = config.log.kafka.clone() else {
        bail!(
            "the embedded log makes its topics by itself: set [log] kafka for topics on a cluster"
        );
    };
    let options = config.log.kafka_options(&brokers)?;
    let specs = pipeline::topics(config);
    let (done, plan) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let log = KafkaLog::open(options).with_context(|| format!("log at {brokers}"))?;
        let plan = log.plan(&specs, &stages())?;
        if let TopicsCommand::Apply = command {
            log.apply(&plan)?;
        }
        Ok((matches!(command, TopicsCommand::Apply), plan))
    })
    .await??;
    output::write(&document(&plan, done, format), format)?;
    if format != OutputFormat::Json {
        for advice in &plan.advice {
            eprintln!("advice: {advice}");
        }
    }
    for conflict in plan.conflicts() {
        if let TopicState::Conflict(problem) = &conflict.state {
            eprintln!("driftline: topic {}: {problem}", conflict.topic);
        }
    }
    Ok(match plan.conflicts().next() {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

fn document(plan: &Plan, done: bool, format: OutputFormat) -> Value {
    let topics: Vec<Value> = plan.topics.iter().map(|topic| row(topic, done)).collect();
    match format {
        OutputFormat::Json => {
            json!({ "topics": topics, "advice": plan.advice, "done": done || plan.is_done() })
        }
        OutputFormat::Table | OutputFormat::Csv => Value::Array(topics),
    }
}

fn row(topic: &TopicPlan, done: bool) -> Value {
    let retention = match topic.spec.cleanup {
        Cleanup::Compact => "the last of each key".to_owned(),
        Cleanup::Delete {
            retention: Some(retention),
            ..
        } => format!("{} days, once read", retention.as_secs() / 86_400),
        Cleanup::Delete { .. } => "all".to_owned(),
    };
    let in_sync = topic
        .settings
        .iter()
        .find(|(setting, _)| *setting == "min.insync.replicas");
    let (action, changes) = match &topic.state {
        TopicState::Missing if done => ("created", String::new()),
        TopicState::Missing => ("create", String::new()),
        TopicState::Same => ("none", String::new()),
        TopicState::Differs(changes) => {
            let told: Vec<String> = changes
                .iter()
                .map(|change| {
                    let has = change.has.as_deref().unwrap_or("nothing");
                    format!("{} {has} to {}", change.setting, change.wants)
                })
                .collect();
            (if done { "set" } else { "set those" }, told.join(", "))
        }
        TopicState::Conflict(problem) => ("conflict", problem.clone()),
    };
    json!({
        "topic": topic.topic,
        "partitions": topic.spec.partitions,
        "copies": topic.spec.replication,
        "in_sync": in_sync.map(|(_, value)| value),
        "keeps": retention,
        "action": action,
        "changes": changes,
    })
}
