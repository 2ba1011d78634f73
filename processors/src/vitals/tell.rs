//! Findings from judgements.

use std::sync::Arc;

use driftline_log::Output;
use driftline_schemas::measure::{
    Contribution, Finding, FindingKind, FindingState, MEASURE_FORMAT,
};
use driftline_schemas::source::Origin;
use driftline_schemas::topic;

use super::device::{DeviceState, Told};

/// The finding that tells of something.
pub(super) fn finding(origin: &Origin, _state: &DeviceState, told: Told, now_us: i64) -> Finding {
    let scope = format!("device={}", origin.device);
    let base = |kind: FindingKind, state, sensor: Option<&str>, start_us: i64, end_us: i64| {
        let sensor_key = sensor
            .map(|sensor| format!("/{sensor}"))
            .unwrap_or_default();
        Finding {
            format: MEASURE_FORMAT,
            key: format!(
                "{}/{}/{}/{}/{scope}{sensor_key}",
                origin.tenant,
                origin.model,
                origin.version,
                kind.name()
            ),
            tenant: origin.tenant.to_string(),
            model: origin.model.to_string(),
            version: origin.version.to_string(),
            kind,
            scope: scope.clone(),
            state,
            revision: 0,
            window_start_us: start_us,
            window_end_us: end_us,
            signals: sensor
                .map(|sensor| Contribution {
                    name: sensor.into(),
                    share: 1.0,
                })
                .into_iter()
                .collect(),
            attributes: Vec::new(),
            changes: Vec::new(),
            error_rise: None,
            evidence: String::new(),
            explanation: String::new(),
            sql: String::new(),
            reference: String::new(),
            config: String::new(),
        }
    };
    let device = &origin.device;
    match told {
        Told::Silent { since_us } => Finding {
            evidence: format!("nothing received for {}", span(now_us - since_us)),
            explanation: format!(
                "{device} at {} has not been heard of since {}, for {}; it reports every {}",
                origin.site,
                time(since_us),
                span(now_us - since_us),
                span(i64::from(origin.cadence_s) * 1_000_000)
            ),
            sql: format!(
                "SELECT max(received_at) AS last_heard FROM inferences WHERE tenant = '{}' AND device = '{device}'",
                origin.tenant
            ),
            ..base(
                FindingKind::DeviceSilent,
                FindingState::Drifted,
                None,
                since_us,
                now_us,
            )
        },
        Told::Heard { since_us, at_us } => Finding {
            explanation: format!(
                "{device} was heard of again at {}, after {}",
                time(at_us),
                span(at_us - since_us)
            ),
            ..base(
                FindingKind::DeviceSilent,
                FindingState::Recovered,
                None,
                since_us,
                at_us,
            )
        },
        Told::Stuck {
            sensor,
            value,
            rows,
            since_us,
            until_us,
        } => Finding {
            evidence: format!("{rows} equal readings in a row"),
            explanation: format!(
                "{sensor} of {device} at {} has read {value} {rows} times in a row since {}: the sensor is stuck",
                origin.site,
                time(since_us)
            ),
            sql: format!(
                "SELECT count(DISTINCT features) AS different_rows, count(*) AS rows FROM inferences WHERE tenant = '{}' AND device = '{device}' AND event_time >= '{}'",
                origin.tenant,
                time(since_us)
            ),
            ..base(
                FindingKind::StuckSensor,
                FindingState::Drifted,
                Some(&sensor),
                since_us,
                until_us,
            )
        },
        Told::Unstuck {
            sensor,
            since_us,
            at_us,
        } => Finding {
            explanation: format!(
                "{sensor} of {device} reads other values again since {}",
                time(at_us)
            ),
            ..base(
                FindingKind::StuckSensor,
                FindingState::Recovered,
                Some(&sensor),
                since_us,
                at_us,
            )
        },
    }
}

/// The record that carries a finding.
pub(super) fn output(finding: &Finding, partitions: u32, timestamp_us: i64) -> Output {
    Output {
        topic: Arc::from(topic::FINDINGS),
        partition: topic::model_partition(&finding.tenant, &finding.model, partitions),
        key: finding.key.clone().into_bytes(),
        // Strings, numbers and lists of them always have a JSON form.
        value: Some(serde_json::to_vec(finding).unwrap_or_default()),
        timestamp_us: timestamp_us.max(0),
    }
}

/// RFC 3339, to the second.
fn time(at_us: i64) -> String {
    let seconds = at_us.div_euclid(1_000_000);
    jiff::Timestamp::from_second(seconds)
        .unwrap_or_default()
        .to_string()
}

fn span(us: i64) -> String {
    let minutes = us / 60_000_000;
    match minutes {
        0 => format!("{} s", us / 1_000_000),
        1..120 => format!("{minutes} min"),
        120..2_880 => format!("{} h", minutes / 60),
        _ => format!("{} days", minutes / 1_440),
    }
}
