//! Commits that do not simply work. Needs a broker, see `tests/kafka/start`.

use rdkafka::producer::Producer as _;

use super::*;
use crate::api::{Log, Output, ReadLimits, StateDelta, TopicSpec};
use crate::error::CommitError;
use crate::kafka::producer::Outgoing;
use crate::kafka::tests::{broker, next};
use crate::kafka::{CALL_TIMEOUT, KafkaLog};

fn output(value: &str) -> Output {
    Output {
        topic: "out".into(),
        partition: 0,
        key: Vec::new(),
        value: Some(value.as_bytes().to_vec()),
        timestamp_us: 0,
    }
}

fn joined(log: &KafkaLog) -> KafkaMember {
    log.ensure_topics(&[TopicSpec::new("in", 1), TopicSpec::new("out", 1)])
        .unwrap();
    let mut member = KafkaMember::join(&log.shared, StageSpec::new("s", &["in"])).unwrap();
    assert!(matches!(next(&mut member), Ok(Polled::Assigned(_))));
    member
}

/// What was committed to `out`.
pub(super) fn values(log: &KafkaLog) -> Vec<String> {
    let limits = ReadLimits {
        wait: Duration::from_secs(2),
        ..ReadLimits::default()
    };
    let read = log.read("out", 0, 0, limits).unwrap().records;
    read.iter()
        .map(|r| String::from_utf8_lossy(r.value.as_deref().unwrap()).into_owned())
        .collect()
}

/// When another producer takes the transactional id, a step fails without a trace, the partitions
/// are revoked and assigned anew, and the step then goes through with a new producer.
#[test]
fn comes_back_after_being_fenced() {
    let Some(log) = broker("fenced") else { return };
    let mut member = joined(&log);
    let other = Sender::open(&log.shared.clients, Some(&member.transactional_id)).unwrap();
    let step = |value| Step {
        outputs: vec![output(value)],
        ..Step::default()
    };
    let error = member.commit(step("lost")).unwrap_err();
    assert!(
        matches!(error, CommitError::Fenced(_) | CommitError::Aborted(_)),
        "{error}"
    );
    let error = member.commit(step("early")).unwrap_err();
    assert!(matches!(error, CommitError::Fenced(_)), "{error}");
    drop(other);
    assert_eq!(next(&mut member).unwrap(), Polled::Revoked(vec![0]));
    assert!(matches!(next(&mut member), Ok(Polled::Assigned(_))));
    member.commit(step("kept")).unwrap();
    assert_eq!(values(&log), ["kept"]);
}

/// A doubtful commit is looked up by offset and number: one that happened is found even when it
/// moved no offset, one that did not is not, and the member goes on with a new producer.
#[test]
fn looks_up_what_happened() {
    let Some(log) = broker("doubt") else { return };
    let mut member = joined(&log);
    let step = Step {
        outputs: vec![output("one")],
        ..Step::default()
    };
    let number = member.commit(step).unwrap().number;
    let at = |next| vec![((Arc::from("in"), 0), next)];
    assert!(member.happened(&at(0), number).unwrap());
    assert!(!member.happened(&at(0), number + 1).unwrap());
    assert!(!member.happened(&at(1), number).unwrap());
    member
        .commit(Step {
            outputs: vec![output("two")],
            ..Step::default()
        })
        .unwrap();
    assert_eq!(values(&log), ["one", "two"]);
}

/// Scenario: somebody was stopped in the middle of a step, so its transaction is open; the step of the
/// partition's next owner lies behind it in the changelog, committed.
/// Guarantee: nobody takes the state that can be read before the open transaction for all of it.
#[test]
fn misses_no_state_behind_an_open_transaction() {
    let Some(log) = broker("hidden") else { return };
    let clients = &log.shared.clients;
    let mut member = joined(&log);
    let stopped = Sender::open(clients, Some("stopped")).unwrap();
    stopped.producer.begin_transaction().unwrap();
    let outgoing = Outgoing {
        topic: &clients.changelog("s"),
        partition: 0,
        key: b"stale",
        value: Some(b"1"),
        timestamp_ms: None,
    };
    stopped.reset(1);
    stopped.send(outgoing, 0).unwrap();
    stopped.settle().unwrap();
    member
        .commit(Step {
            state: vec![StateDelta {
                partition: 0,
                key: b"kept".to_vec(),
                value: Some(b"2".to_vec()),
            }],
            ..Step::default()
        })
        .unwrap();
    let hidden = changelog::restore_within(clients, "s", 0, Duration::from_secs(2));
    assert!(hidden.unwrap_err().is_retryable());
    stopped.producer.abort_transaction(CALL_TIMEOUT).unwrap();
    let state = changelog::restore(clients, "s", 0).unwrap();
    assert_eq!(
        state.into_iter().collect::<Vec<_>>(),
        [(b"kept".to_vec(), b"2".to_vec())]
    );
}
