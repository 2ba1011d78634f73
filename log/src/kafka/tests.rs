//! What only Kafka does. Needs a broker, see `tests/kafka/start`.

use std::time::{Duration, Instant};

use super::client::wait;
use super::*;
use crate::api::{Polled, StateDelta, Step};

pub(super) fn broker(case: &str) -> Option<KafkaLog> {
    broker_of(case, GroupProtocol::Classic)
}

pub(super) fn broker_of(case: &str, group_protocol: GroupProtocol) -> Option<KafkaLog> {
    let Ok(brokers) = std::env::var("DRIFTLINE_KAFKA") else {
        eprintln!("SKIPPED {case}: set DRIFTLINE_KAFKA=host:port, see tests/kafka/start");
        return None;
    };
    let mut options = KafkaOptions::new(brokers);
    options.group_protocol = group_protocol;
    let run = tempfile::Builder::new().prefix("run").tempdir().unwrap();
    options.prefix = format!(
        "{}.{case}.",
        run.path().file_name().unwrap().to_str().unwrap()
    );
    Some(KafkaLog::open(options).unwrap())
}

/// Polls until something other than waiting happens.
pub(super) fn next(stage: &mut dyn StageLog) -> Result<Polled, LogError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "nothing happened");
        match stage.poll(Duration::from_millis(100)) {
            Ok(Polled::Idle { .. }) => {}
            Err(error) if error.is_retryable() => {}
            other => return other,
        }
    }
}

/// A stage whose offsets the broker has forgotten, but whose state is there, does not start over in
/// silence.
#[test]
fn refuses_to_count_again() {
    let Some(log) = broker("expired") else { return };
    log.ensure_topics(&[TopicSpec::new("in", 1)]).unwrap();
    let spec = StageSpec::new("s", &["in"]);
    let mut stage = log.stage(spec.clone()).unwrap();
    assert!(matches!(next(&mut *stage), Ok(Polled::Assigned(_))));
    let state = vec![StateDelta {
        partition: 0,
        key: vec![1],
        value: Some(vec![2]),
    }];
    stage
        .commit(Step {
            state,
            ..Step::default()
        })
        .unwrap();
    drop(stage);
    let admin = &log.shared.clients.admin;
    let group = log.shared.clients.name("s");
    let deleted = wait(admin.delete_groups(&[&group], &rdkafka::admin::AdminOptions::new()));
    assert!(deleted.unwrap()[0].is_ok());

    let mut stage = log.stage(spec).unwrap();
    let error = next(&mut *stage).unwrap_err();
    assert!(!error.is_retryable());
    assert!(
        error.to_string().contains("offsets.retention.minutes"),
        "{error}"
    );
}

/// Two members of one name would fence each other for ever; in one process that is refused.
#[test]
fn refuses_a_second_instance_of_one_name() {
    let Some(log) = broker("twice") else { return };
    log.ensure_topics(&[TopicSpec::new("in", 1)]).unwrap();
    let spec = StageSpec::new("s", &["in"]);
    let first = log.stage(spec.clone()).unwrap();
    let Err(error) = log.stage(spec.clone()) else {
        panic!("a second instance was let in")
    };
    assert!(
        error.to_string().contains("already has an instance"),
        "{error}"
    );
    drop(first);
    log.stage(spec).unwrap();
}

/// Settings that the guarantees rest on cannot be changed from outside; a broker that is not there
/// is named in the error.
#[test]
fn refuses_settings_and_names_the_broker() {
    let mut options = KafkaOptions::new("127.0.0.1:1");
    options
        .settings
        .insert("isolation.level".into(), "read_uncommitted".into());
    let error = KafkaLog::open(options.clone()).unwrap_err();
    assert!(error.to_string().contains("isolation.level"), "{error}");
    options.settings.clear();
    let error = KafkaLog::open(options).unwrap_err();
    assert!(
        error.is_retryable() && error.to_string().contains("127.0.0.1:1"),
        "{error}"
    );
}
