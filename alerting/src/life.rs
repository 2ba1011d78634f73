//! The states of an alert, and what a finding does to them. Pure.
//!
//! ```text
//!              drifted                 drifted, with news
//!   (nothing) ─────────► open ◄──────────────────────┐
//!                         │ └─────────────────────────┘
//!                         ├── recovered ──────────────► resolved
//!                         └── refuted (its opening window) ► superseded
//! ```
//!
//! A finding about a window that an alert has already been told of, with no higher revision, is a
//! repetition and does nothing; so does a recovery or a refutation where nothing is open.

use driftline_schemas::measure::{
    Alert, AlertChange, AlertState, Finding, FindingState, MEASURE_FORMAT,
};
use sha2::{Digest, Sha256};

use crate::config::AlertingConfig;

/// What a finding does to the alert of its key: the alert after the change, or nothing.
pub fn apply(
    current: Option<&Alert>,
    finding: &Finding,
    config: &AlertingConfig,
    now_us: i64,
) -> Option<Alert> {
    let open = current.filter(|alert| alert.state == AlertState::Open);
    if current.is_some_and(|alert| is_repetition(alert, finding)) {
        return None;
    }
    match (finding.state, open) {
        (FindingState::Drifted, None) => Some(opened(finding, config, now_us)),
        (FindingState::Drifted, Some(alert)) => has_news(alert, finding, config).then(|| {
            changed(
                alert,
                finding,
                AlertState::Open,
                AlertChange::Updated,
                now_us,
            )
        }),
        (FindingState::Recovered, Some(alert)) => Some(changed(
            alert,
            finding,
            AlertState::Resolved,
            AlertChange::Resolved,
            now_us,
        )),
        (FindingState::Refuted, Some(alert))
            if finding.window_start_us <= alert.opened_window_us =>
        {
            Some(changed(
                alert,
                finding,
                AlertState::Superseded,
                AlertChange::Superseded,
                now_us,
            ))
        }
        (FindingState::Recovered | FindingState::Refuted, _) => None,
    }
}

/// The same window, told again with no higher revision, or a story older than what is known.
fn is_repetition(alert: &Alert, finding: &Finding) -> bool {
    let known = &alert.finding;
    finding.window_start_us == known.window_start_us
        && finding.revision <= known.revision
        && finding.state == known.state
}

/// Identity of the alert that a finding opens: the same finding opens the same alert on a replay.
pub fn alert_id(key: &str, opened_window_us: i64) -> String {
    let hash = Sha256::digest(format!("{key}\n{opened_window_us}"));
    let hex: String = hash
        .iter()
        .take(10)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("al_{hex}")
}

fn opened(finding: &Finding, config: &AlertingConfig, now_us: i64) -> Alert {
    Alert {
        format: MEASURE_FORMAT,
        id: alert_id(&finding.key, finding.window_start_us),
        key: finding.key.clone(),
        state: AlertState::Open,
        change: AlertChange::Opened,
        sequence: 1,
        at_us: now_us,
        opened_window_us: finding.window_start_us,
        about_the_past: now_us - finding.window_end_us > config.past_after.us(),
        finding: finding.clone(),
    }
}

fn changed(
    alert: &Alert,
    finding: &Finding,
    state: AlertState,
    change: AlertChange,
    now_us: i64,
) -> Alert {
    Alert {
        state,
        change,
        sequence: alert.sequence + 1,
        at_us: now_us,
        finding: finding.clone(),
        ..alert.clone()
    }
}

/// News is another set of signals, or so much time that the reader should hear that it goes on.
fn has_news(alert: &Alert, finding: &Finding, config: &AlertingConfig) -> bool {
    let names = |finding: &Finding| {
        let mut names: Vec<String> = finding
            .signals
            .iter()
            .map(|signal| signal.name.clone())
            .collect();
        names.sort();
        names
    };
    names(&alert.finding) != names(finding)
        || finding.window_start_us - alert.finding.window_start_us >= config.update_every.us()
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::clock::HOUR_US;
    use driftline_schemas::measure::{Contribution, FindingKind};

    pub(crate) fn finding(window: i64, state: FindingState, revision: u32) -> Finding {
        Finding {
            format: MEASURE_FORMAT,
            key: "acme/boiler/1/input_drift/site=a".into(),
            tenant: "acme".into(),
            model: "boiler".into(),
            version: "1".into(),
            kind: FindingKind::InputDrift,
            scope: "site=a".into(),
            state,
            revision,
            window_start_us: window * HOUR_US,
            window_end_us: (window + 1) * HOUR_US,
            signals: vec![Contribution {
                name: "temp".into(),
                share: 1.0,
            }],
            attributes: Vec::new(),
            changes: Vec::new(),
            error_rise: None,
            evidence: String::new(),
            explanation: String::new(),
            sql: String::new(),
            reference: String::new(),
            config: String::new(),
        }
    }

    fn run(findings: &[Finding]) -> Vec<(AlertChange, u32)> {
        let config = AlertingConfig::default();
        let mut current = None;
        let mut changes = Vec::new();
        for finding in findings {
            if let Some(alert) = apply(current.as_ref(), finding, &config, finding.window_end_us) {
                changes.push((alert.change, alert.sequence));
                current = Some(alert);
            }
        }
        changes
    }

    #[test]
    fn an_alert_opens_is_quiet_without_news_and_resolves() {
        use FindingState::{Drifted, Recovered};
        let story = [
            finding(1, Drifted, 0),
            finding(2, Drifted, 0),
            finding(3, Drifted, 0),
            finding(30, Drifted, 0),
            finding(31, Recovered, 0),
            finding(32, Recovered, 0),
            finding(40, Drifted, 0),
        ];
        assert_eq!(
            run(&story),
            [
                (AlertChange::Opened, 1),
                (AlertChange::Updated, 2),
                (AlertChange::Resolved, 3),
                (AlertChange::Opened, 1),
            ]
        );
    }

    #[test]
    fn the_same_finding_twice_changes_nothing() {
        let once = finding(1, FindingState::Drifted, 0);
        assert_eq!(
            run(&[once.clone(), once.clone(), once]),
            [(AlertChange::Opened, 1)]
        );
    }

    #[test]
    fn a_backlog_that_refutes_the_opening_window_supersedes_the_alert() {
        let story = [
            finding(5, FindingState::Drifted, 0),
            finding(5, FindingState::Refuted, 1),
        ];
        assert_eq!(
            run(&story),
            [(AlertChange::Opened, 1), (AlertChange::Superseded, 2)]
        );
        let later = [
            finding(5, FindingState::Drifted, 0),
            finding(6, FindingState::Refuted, 1),
        ];
        assert_eq!(run(&later), [(AlertChange::Opened, 1)]);
    }

    #[test]
    fn an_alert_that_a_backlog_reveals_says_that_it_is_about_the_past() {
        let config = AlertingConfig::default();
        let old = finding(1, FindingState::Drifted, 1);
        let alert = apply(None, &old, &config, 100 * HOUR_US).unwrap();
        assert!(alert.about_the_past);
        let now = apply(None, &old, &config, 3 * HOUR_US).unwrap();
        assert!(!now.about_the_past);
        assert_eq!(
            alert.id, now.id,
            "a replay at another time opens the same alert"
        );
    }
}
