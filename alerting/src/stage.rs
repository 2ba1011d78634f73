//! The stage on the log: findings in, alerts and outbox out, in one atomic step.
//!
//! A step takes in new findings and what has become of messages. A message is handed to the sender
//! only after the step that decided it is durable; the step that learns of its delivery takes it
//! out of the outbox. A crash in between sends it again under the same identity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use driftline_log::runner::{Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Committed, Output, Record, StageSpec, StateDelta};
use driftline_schemas::measure::{Alert, AlertState, Finding};
use driftline_schemas::topic;

use crate::config::AlertingConfig;
use crate::life;
use crate::outbox::{Delivery, KEY_PREFIX, Outbox};
use crate::sender::Deliver;

/// Name of the stage: its consumer group.
pub const STAGE: &str = "alerting";
const ALERT_PREFIX: &str = "alert/";

#[derive(Default)]
struct Partition {
    alerts: BTreeMap<String, Alert>,
    outbox: Outbox,
}

/// Open alerts that are told one by one, at most; what is over is in the `alerts` table all the same.
pub const OPEN_TOLD_MAX: usize = 1_000;

/// What an open alert is about: tenant, model, kind of the finding, scope.
pub type OpenAlert = [String; 4];

/// The alerts that are open in the partitions of this process, for metrics. Clones share them.
#[derive(Debug, Default, Clone)]
pub struct OpenAlerts(Arc<Mutex<BTreeSet<OpenAlert>>>);

impl OpenAlerts {
    /// As they are now.
    pub fn now(&self) -> BTreeSet<OpenAlert> {
        // Replaced as a whole, so a panic elsewhere leaves it sound.
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone()
    }
}

/// Turns findings into alerts and sees to it that somebody is told.
pub struct AlertingStage {
    config: AlertingConfig,
    sender: Box<dyn Deliver>,
    partitions: BTreeMap<u32, Partition>,
    open: OpenAlerts,
}

impl AlertingStage {
    /// Nothing is open yet; what is comes with the assignment.
    pub fn new(config: AlertingConfig, sender: Box<dyn Deliver>) -> Self {
        Self {
            config,
            sender,
            partitions: BTreeMap::new(),
            open: OpenAlerts::default(),
        }
    }

    /// The alerts that are open, as they come and go.
    pub fn open(&self) -> OpenAlerts {
        self.open.clone()
    }

    fn tell_open(&self) {
        let alerts = self.partitions.values().flat_map(|it| it.alerts.values());
        let about = |alert: &Alert| {
            let finding = &alert.finding;
            let kind = finding.kind.name().to_owned();
            let (tenant, model) = (finding.tenant.clone(), finding.model.clone());
            [tenant, model, kind, finding.scope.clone()]
        };
        let open = alerts
            .filter(|alert| alert.state == AlertState::Open)
            .take(OPEN_TOLD_MAX)
            .map(about)
            .collect();
        *self.open.0.lock().unwrap_or_else(PoisonError::into_inner) = open;
    }

    /// How the stage joins its group.
    pub fn spec() -> StageSpec {
        StageSpec::new(STAGE, &[topic::FINDINGS])
    }

    /// Messages that are not delivered yet.
    pub fn undelivered(&self) -> usize {
        self.partitions
            .values()
            .map(|partition| partition.outbox.len())
            .sum()
    }

    fn take_finding(&mut self, record: &Record, now_us: i64, output: &mut StepOutput) {
        let Some(value) = &record.value else { return };
        let finding: Finding = match serde_json::from_slice(value) {
            Ok(finding) => finding,
            Err(error) => {
                let (at, problem) = (record.offset, error.to_string());
                tracing::error!(
                    partition = record.partition,
                    offset = at,
                    problem,
                    "finding cannot be read"
                );
                output.outputs.push(unreadable(record, &problem, now_us));
                return;
            }
        };
        let partition = self.partitions.entry(record.partition).or_default();
        let current = partition.alerts.get(&finding.key);
        let Some(alert) = life::apply(current, &finding, &self.config, now_us) else {
            return;
        };
        tracing::info!(alert = alert.id, change = ?alert.change, scope = finding.scope, kind = finding.kind.name(), "alert");
        // Strings, numbers and lists of them always have a JSON form.
        let json = serde_json::to_vec(&alert).unwrap_or_default();
        output.state.push(StateDelta {
            partition: record.partition,
            key: format!("{ALERT_PREFIX}{}", alert.key).into_bytes(),
            value: Some(json.clone()),
        });
        output.outputs.push(Output {
            topic: Arc::from(topic::ALERTS),
            partition: record.partition,
            key: alert.key.clone().into_bytes(),
            value: Some(json),
            timestamp_us: now_us.max(0),
        });
        for route in self
            .config
            .routes
            .iter()
            .filter(|route| route.takes(finding.kind))
        {
            let delivery = Delivery::new(&alert, &route.name);
            output.state.push(StateDelta {
                partition: record.partition,
                key: delivery.key(),
                value: serde_json::to_vec(&delivery).ok(),
            });
            if let Some(displaced) = partition.outbox.add(delivery) {
                give_up(
                    record.partition,
                    &displaced,
                    "the outbox is full",
                    now_us,
                    output,
                );
            }
        }
        partition.alerts.insert(alert.key.clone(), alert);
    }

    fn take_outcomes(&mut self, now_us: i64, output: &mut StepOutput) {
        for outcome in self.sender.outcomes() {
            let key = outcome.delivery.key();
            // A partition that was lost since then delivers again from its new owner.
            let found = self
                .partitions
                .iter_mut()
                .find_map(|(&number, partition)| Some((number, partition.outbox.remove(&key)?)));
            let Some((number, delivery)) = found else {
                continue;
            };
            match outcome.result {
                Ok(()) => output.state.push(StateDelta {
                    partition: number,
                    key,
                    value: None,
                }),
                Err(reason) => give_up(number, &delivery, &reason, now_us, output),
            }
        }
    }

    fn start_deliveries(&mut self) {
        for partition in self.partitions.values_mut() {
            for delivery in partition.outbox.start() {
                let key = delivery.key();
                if !self.sender.start(delivery) {
                    partition.outbox.put_back(&key);
                }
            }
        }
    }
}

/// A message that nobody took leaves the outbox for the dead letters, where it can be read.
fn give_up(
    partition: u32,
    delivery: &Delivery,
    reason: &str,
    now_us: i64,
    output: &mut StepOutput,
) {
    tracing::error!(
        route = delivery.route,
        id = delivery.id,
        reason,
        "webhook given up"
    );
    output.state.push(StateDelta {
        partition,
        key: delivery.key(),
        value: None,
    });
    output.outputs.push(dead_letter(
        &delivery.tenant,
        "webhook_undelivered",
        &format!("route {}: {reason}", delivery.route),
        delivery.body.as_bytes(),
        partition,
        now_us,
    ));
}

fn unreadable(record: &Record, problem: &str, now_us: i64) -> Output {
    let detail = format!(
        "findings partition {} offset {}: {problem}",
        record.partition, record.offset
    );
    let payload = record.value.as_deref().unwrap_or_default();
    dead_letter(
        "",
        "finding_unreadable",
        &detail,
        payload,
        record.partition,
        now_us,
    )
}

fn dead_letter(
    tenant: &str,
    reason: &str,
    detail: &str,
    payload: &[u8],
    partition: u32,
    now_us: i64,
) -> Output {
    let letter =
        driftline_schemas::deadletter::DeadLetter::new(tenant, "", reason, detail, payload, now_us);
    Output {
        topic: Arc::from(topic::DEADLETTERS),
        partition,
        key: Vec::new(),
        value: Some(letter.encode()),
        timestamp_us: now_us.max(0),
    }
}

impl Stage for AlertingStage {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let mut partition = Partition::default();
        for (key, value) in &assignment.state {
            let unreadable = |error: serde_json::Error| {
                StageError::Fatal(format!(
                    "state of alerting, partition {}, key {}: {error}; it was written by a newer version, or is damaged",
                    assignment.partition,
                    String::from_utf8_lossy(key)
                ))
            };
            if key.starts_with(KEY_PREFIX.as_bytes()) {
                partition
                    .outbox
                    .add(serde_json::from_slice(value).map_err(unreadable)?);
            } else if key.starts_with(ALERT_PREFIX.as_bytes()) {
                let alert: Alert = serde_json::from_slice(value).map_err(unreadable)?;
                partition.alerts.insert(alert.key.clone(), alert);
            }
        }
        self.partitions.insert(assignment.partition, partition);
        self.tell_open();
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        self.partitions.remove(&partition);
        self.tell_open();
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        let mut output = StepOutput::default();
        for record in input.records {
            self.take_finding(record, input.now_us, &mut output);
        }
        self.take_outcomes(input.now_us, &mut output);
        if input.records.is_empty() && output.state.is_empty() {
            // Nothing to commit, so `committed` will not come: what a restart or a freed place
            // left waiting starts here. It is durable already.
            self.start_deliveries();
        }
        Ok(output)
    }

    fn committed(&mut self, _committed: Committed) {
        self.tell_open();
        self.start_deliveries();
    }
}

#[cfg(test)]
#[path = "stage/tests.rs"]
mod tests;
