use std::sync::{Arc, Mutex};

use driftline_log::memory::{Fault, MemoryLog};
use driftline_log::runner::Runner;
use driftline_log::{Log, TopicSpec};
use driftline_schemas::clock::ManualClock;
use driftline_schemas::measure::{
    AlertChange, Contribution, FindingKind, FindingState, MEASURE_FORMAT,
};

use super::*;
use crate::config::Route;
use crate::sender::Outcome;
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::units::Span;

/// A receiver that answers at once, with what the test says.
#[derive(Clone, Default)]
struct Receiver {
    got: Arc<Mutex<Vec<Delivery>>>,
    refuse: Arc<Mutex<bool>>,
    pending: Arc<Mutex<Vec<Outcome>>>,
}

impl Deliver for Receiver {
    fn start(&mut self, delivery: Delivery) -> bool {
        let refuse = *self.refuse.lock().unwrap();
        let result = if refuse {
            Err("refused".to_owned())
        } else {
            Ok(())
        };
        self.got.lock().unwrap().push(delivery.clone());
        self.pending
            .lock()
            .unwrap()
            .push(Outcome { delivery, result });
        true
    }

    fn outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut *self.pending.lock().unwrap())
    }
}

fn config() -> AlertingConfig {
    AlertingConfig {
        routes: vec![Route {
            name: "ops".into(),
            url: "http://127.0.0.1/".into(),
            secret_file: None,
            kinds: Vec::new(),
            timeout: Span::from_secs(1),
            give_up_after: Span::from_secs(1),
        }],
        ..AlertingConfig::default()
    }
}

fn finding(window: i64, state: FindingState) -> Finding {
    Finding {
        format: MEASURE_FORMAT,
        key: "acme/boiler/1/input_drift/site=a".into(),
        tenant: "acme".into(),
        model: "boiler".into(),
        version: "1".into(),
        kind: FindingKind::InputDrift,
        scope: "site=a".into(),
        state,
        revision: 0,
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

struct World {
    log: Arc<MemoryLog>,
    runner: Runner,
    receiver: Receiver,
}

impl World {
    fn new() -> Self {
        let log = Arc::new(MemoryLog::new());
        let topics = [topic::FINDINGS, topic::ALERTS, topic::DEADLETTERS];
        log.ensure_topics(&topics.map(|name| TopicSpec::new(name, 1)))
            .unwrap();
        let clock = Arc::new(ManualClock::new(10 * HOUR_US));
        let runner = Runner::new(Arc::clone(&log) as Arc<dyn Log>, clock);
        Self {
            log,
            runner,
            receiver: Receiver::default(),
        }
    }

    fn say(&self, finding: &Finding) {
        let output = Output {
            topic: Arc::from(topic::FINDINGS),
            partition: 0,
            key: finding.key.clone().into_bytes(),
            value: Some(serde_json::to_vec(finding).unwrap()),
            timestamp_us: 0,
        };
        self.log
            .appender("test")
            .unwrap()
            .append(vec![output])
            .unwrap();
    }

    /// A new process: nothing in memory, everything from the log.
    fn run(&self) {
        let mut stage = AlertingStage::new(config(), Box::new(self.receiver.clone()));
        // Idle means that nothing was committed; a message that was only just started reports to
        // the next run.
        for _ in 0..3 {
            self.runner
                .run_until_idle(AlertingStage::spec(), &mut stage)
                .unwrap();
        }
        assert_eq!(stage.undelivered(), 0);
    }

    fn told(&self) -> Vec<String> {
        self.receiver
            .got
            .lock()
            .unwrap()
            .iter()
            .map(|delivery| delivery.id.clone())
            .collect()
    }

    fn alerts(&self) -> Vec<AlertChange> {
        let records = self.log.all(topic::ALERTS).unwrap();
        let alert = |record: &Record| -> Alert {
            serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()
        };
        records.iter().map(|record| alert(record).change).collect()
    }
}

/// Scenario: an alert opens, the process ends, and what follows comes to a new process.
/// Guarantee: the new one knows the alert, nothing is told twice, and the outbox is empty at the end.
#[test]
fn an_alert_lives_over_a_restart() {
    let world = World::new();
    world.say(&finding(1, FindingState::Drifted));
    world.run();
    world.say(&finding(2, FindingState::Drifted));
    world.say(&finding(3, FindingState::Recovered));
    world.run();
    assert_eq!(world.alerts(), [AlertChange::Opened, AlertChange::Resolved]);
    let told = world.told();
    assert_eq!(told.len(), 2);
    assert!(
        told[0].ends_with(".1.ops") && told[1].ends_with(".2.ops"),
        "{told:?}"
    );
    assert!(
        world
            .log
            .state(STAGE, 0)
            .keys()
            .all(|key| key.starts_with(b"alert/"))
    );
}

/// Scenario: the commit of a step fails before it takes effect, and after.
/// Guarantee: the alert opens once, and a message that goes out twice has one identity.
#[test]
fn a_step_that_fails_neither_loses_nor_doubles_an_alert() {
    for fault in [Fault::Before, Fault::After] {
        let world = World::new();
        world.say(&finding(1, FindingState::Drifted));
        world.log.fail_next_commit(fault);
        world.run();
        assert_eq!(world.alerts(), [AlertChange::Opened]);
        let mut told = world.told();
        told.dedup();
        assert_eq!(told.len(), 1);
    }
}

/// Scenario: the receiver refuses for good, and a finding is no JSON.
/// Guarantee: both can be read in the dead letters, and nothing waits for ever.
#[test]
fn what_cannot_be_delivered_or_read_goes_to_the_dead_letters() {
    let world = World::new();
    *world.receiver.refuse.lock().unwrap() = true;
    world.say(&finding(1, FindingState::Drifted));
    let garbage = Output {
        topic: Arc::from(topic::FINDINGS),
        partition: 0,
        key: Vec::new(),
        value: Some(b"{".to_vec()),
        timestamp_us: 0,
    };
    world
        .log
        .appender("test")
        .unwrap()
        .append(vec![garbage])
        .unwrap();
    world.run();
    let mut reasons: Vec<String> = world
        .log
        .all(topic::DEADLETTERS)
        .unwrap()
        .iter()
        .map(|record| {
            driftline_schemas::deadletter::DeadLetter::decode(record.value.as_ref().unwrap())
                .unwrap()
                .reason
        })
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["finding_unreadable", "webhook_undelivered"]);
}
