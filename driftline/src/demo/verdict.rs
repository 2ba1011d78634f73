//! What was injected against what was found.

use std::io::Write;
use std::path::Path;

use driftline_log::{Log, ReadLimits};
use driftline_queries::Session;
use driftline_schemas::measure::{Alert, AlertChange, Cohort, FindingKind};
use driftline_schemas::source::ATTRIBUTES;
use driftline_schemas::topic;
use driftline_simulator::world::QUANTITIES;
use driftline_simulator::{Driven, Estate, Fault, FaultKind, Unit};
use serde::Serialize;

use crate::receiver::Counts;

/// Inference rows at each place that they must have come to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Rows {
    acknowledged: u64,
    lake: u64,
    profiles: u64,
    dead_letters: u64,
}

impl Rows {
    /// Counts the lake's rows by SQL.
    pub(super) async fn count(session: &Session, acknowledged: u64) -> anyhow::Result<Self> {
        let first = QUANTITIES[0].name;
        Ok(Self {
            acknowledged,
            lake: number(session, "SELECT count(*) FROM inferences").await?,
            profiles: number(
                session,
                &format!("SELECT coalesce(sum(rows), 0) FROM profiles WHERE signal = '{first}'"),
            )
            .await?,
            dead_letters: number(session, "SELECT count(*) FROM deadletters").await?,
        })
    }

    fn agree(&self) -> bool {
        self.lake == self.acknowledged
            && self.profiles == self.acknowledged
            && self.dead_letters == 0
    }
}

async fn number(session: &Session, sql: &str) -> anyhow::Result<u64> {
    let batches = session
        .run(&format!("SELECT CAST(({sql}) AS BIGINT) AS n"))
        .await?;
    let column = batches
        .iter()
        .find(|batch| batch.num_rows() > 0)
        .map(|batch| batch.column(0));
    let number = column.and_then(|column| {
        use arrow::array::AsArray as _;
        let numbers = column.as_primitive_opt::<arrow::datatypes::Int64Type>()?;
        Some(numbers.value(0))
    });
    Ok(u64::try_from(number.unwrap_or(0))?)
}

/// The alerts of a log, each as it stands after its last change, in the order in which they opened.
pub(super) fn alerts(log: &dyn Log) -> anyhow::Result<Vec<Alert>> {
    let mut alerts: Vec<Alert> = Vec::new();
    for partition in 0..log.partitions(topic::ALERTS)? {
        let mut from = 0;
        loop {
            let batch = log.read(topic::ALERTS, partition, from, ReadLimits::default())?;
            for value in batch
                .records
                .iter()
                .filter_map(|record| record.value.as_ref())
            {
                let alert: Alert = serde_json::from_slice(value)?;
                match alerts.iter_mut().find(|known| known.id == alert.id) {
                    // The time at which it was found stays that of its opening.
                    Some(known) => {
                        *known = Alert {
                            at_us: known.at_us,
                            ..alert
                        }
                    }
                    None => alerts.push(alert),
                }
            }
            from = batch.next;
            if batch.next >= batch.end {
                break;
            }
        }
    }
    // What late data refuted was never so.
    alerts.retain(|alert| alert.change != AlertChange::Superseded);
    alerts.sort_by_key(|alert| (alert.at_us, alert.id.clone()));
    Ok(alerts)
}

#[derive(Debug, Clone, Serialize)]
struct Injected {
    fault: &'static str,
    scope: String,
    at: String,
}

#[derive(Debug, Clone, Serialize)]
struct Found {
    kind: &'static str,
    scope: String,
    alert_id: String,
    at: String,
    injected: Option<usize>,
    #[serde(skip)]
    explanation: String,
    #[serde(skip)]
    primary: bool,
}

/// What a demo ends with.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Summary {
    seed: u64,
    dir: String,
    rows: Rows,
    injected: Vec<Injected>,
    found: Vec<Found>,
    webhooks: Counts,
}

impl Summary {
    #[allow(clippy::too_many_arguments, reason = "each is one part of the summary")]
    pub(super) fn new(
        seed: u64,
        dir: &Path,
        rows: Rows,
        estate: &Estate,
        faults: &[Fault],
        start_us: i64,
        alerts: &[Alert],
        webhooks: &Counts,
    ) -> Self {
        let injected = faults
            .iter()
            .map(|fault| Injected {
                fault: fault.kind.name(),
                scope: fault.scope(),
                at: time(start_us + fault.after_us),
            })
            .collect();
        let found = alerts
            .iter()
            .map(|alert| {
                let cause = faults.iter().position(|fault| {
                    alert.finding.window_end_us > start_us + fault.after_us
                        && explains(fault, alert, estate)
                });
                Found {
                    kind: alert.finding.kind.name(),
                    scope: alert.finding.scope.clone(),
                    alert_id: alert.id.clone(),
                    at: time(alert.at_us),
                    injected: cause,
                    explanation: alert.finding.explanation.clone(),
                    primary: cause.is_some_and(|index| is_primary(&faults[index], alert)),
                }
            })
            .collect();
        Self {
            seed,
            dir: dir.display().to_string(),
            rows,
            injected,
            found,
            webhooks: *webhooks,
        }
    }

    /// Whether every fault was found as what it is, nothing else was found, no row is missing or
    /// double, and every webhook was verified.
    pub(super) fn matches(&self) -> bool {
        let all_found = (0..self.injected.len()).all(|index| {
            self.found
                .iter()
                .any(|found| found.primary && found.injected == Some(index))
        });
        all_found
            && self.found.iter().all(|found| found.injected.is_some())
            && self.rows.agree()
            && self.webhooks.verified == self.webhooks.delivered
            && (self.found.is_empty() || self.webhooks.delivered >= self.found.len() as u64)
    }

    /// Writes it for people.
    pub(super) fn write(&self, out: &mut dyn Write, driven: &Driven) -> std::io::Result<()> {
        writeln!(out, "\ninjected:")?;
        for (index, injected) in self.injected.iter().enumerate() {
            let by = self
                .found
                .iter()
                .filter(|found| found.primary && found.injected == Some(index));
            let by: Vec<String> = by
                .map(|found| format!("{} at {}", found.alert_id, found.at))
                .collect();
            let by = if by.is_empty() {
                "NOT FOUND".to_owned()
            } else {
                format!("found: {}", by.join(", "))
            };
            writeln!(
                out,
                "  {} {} at {}  {by}",
                injected.fault, injected.scope, injected.at
            )?;
        }
        writeln!(out, "found:")?;
        for found in &self.found {
            let by = match found.injected {
                Some(index) => format!("because of {}", self.injected[index].fault),
                None => "WITHOUT CAUSE".into(),
            };
            writeln!(
                out,
                "  {} {} at {} ({by})\n    {}",
                found.kind, found.scope, found.at, found.explanation
            )?;
        }
        let Rows {
            acknowledged,
            lake,
            profiles,
            dead_letters,
        } = self.rows;
        writeln!(
            out,
            "rows: {acknowledged} acknowledged, {lake} in the lake, {profiles} in profiles, {dead_letters} dead letters; {:.1} bytes a row on the link",
            driven.bytes as f64 / acknowledged.max(1) as f64
        )?;
        let Counts {
            delivered,
            verified,
            duplicates,
        } = self.webhooks;
        writeln!(
            out,
            "webhooks: {delivered} delivered, {verified} verified, {duplicates} came twice"
        )?;
        let verdict = if self.matches() {
            "what was found is what was injected"
        } else {
            "WHAT WAS FOUND IS NOT WHAT WAS INJECTED"
        };
        writeln!(out, "{verdict}")
    }
}

fn time(at_us: i64) -> String {
    jiff::Timestamp::from_microsecond(at_us)
        .unwrap_or_default()
        .to_string()
}

/// The kind of finding that a fault should lead to.
fn primary_kind(fault: &Fault) -> FindingKind {
    match fault.kind {
        FaultKind::InputShift { .. } => FindingKind::InputDrift,
        FaultKind::ConceptFlip => FindingKind::ConceptDrift,
        FaultKind::StuckSensor { .. } => FindingKind::StuckSensor,
        FaultKind::Offline { .. } => FindingKind::DeviceSilent,
    }
}

fn is_primary(fault: &Fault, alert: &Alert) -> bool {
    alert.finding.kind == primary_kind(fault) && alert.finding.scope == fault.scope()
}

/// Whether an alert is the fault's, or a consequence of it: predictions follow the inputs that moved,
/// and a sensor that is stuck moves the inputs of its site. The scope must be the fault's, or, for a
/// device, its site or a part of the site that it is in.
fn explains(fault: &Fault, alert: &Alert, estate: &Estate) -> bool {
    let finding = &alert.finding;
    if is_primary(fault, alert) {
        return true;
    }
    match fault.kind {
        FaultKind::InputShift { .. } => {
            finding.scope == fault.scope()
                && matches!(
                    finding.kind,
                    FindingKind::OutputDrift | FindingKind::ConceptDrift
                )
        }
        FaultKind::StuckSensor { feature } => {
            let unit = estate.units.iter().find(|unit| fault.hits(&unit.origin));
            unit.is_some_and(|unit| is_around(&finding.scope, unit))
                && finding.kind == FindingKind::InputDrift
                && finding
                    .signals
                    .iter()
                    .all(|signal| signal.name == QUANTITIES[feature].name)
        }
        FaultKind::ConceptFlip | FaultKind::Offline { .. } => false,
    }
}

/// Whether a scope is a unit's site, or a part of the site that the unit is in.
fn is_around(scope: &str, unit: &Unit) -> bool {
    let site = Cohort::of("site", &unit.origin.site).to_string();
    let values: Vec<String> = ATTRIBUTES
        .iter()
        .zip(unit.origin.attributes())
        .map(|(attribute, value)| Cohort::of(attribute, value).to_string())
        .collect();
    let mut parts = scope.split(" & ");
    parts.clone().any(|part| part == site)
        && parts.all(|part| values.iter().any(|value| value == part))
}
