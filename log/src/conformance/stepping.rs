//! Groups and their steps.

use super::*;
use crate::error::{CommitError, LogError};
use crate::limits::RECORD_BYTES_MAX;

/// Outputs, state and offsets of a step appear together, and not before the commit.
pub fn steps_are_atomic(place: &Place) {
    let log = place.with_topics(&["in", "out"]);
    let offsets = place.append(&*log, "in", 0, &["a", "b"]);
    let spec = place.stage("s", &["in"]);
    let mut stage = Joined::with(&*log, spec.clone(), 2);
    assert_eq!(
        stage.read(2).iter().map(|r| r.offset).collect::<Vec<_>>(),
        offsets
    );
    assert!(place.values(&*log, "out", 0).is_empty());
    let next = offsets[1] + 1;
    let step = Step {
        outputs: vec![place.output("out", 0, "sum"), place.output("out", 1, "too")],
        state: vec![delta(0, "k", Some("v")), delta(1, "k", Some("w"))],
        offsets: vec![place.position("in", 0, next)],
    };
    stage.log.commit(step).unwrap();
    place.holds(&*log, "out", 0, &["sum"]);
    place.holds(&*log, "out", 1, &["too"]);
    assert_eq!(
        log.committed(&spec.name, &place.name("in"), 0).unwrap(),
        Some(next)
    );
    drop(stage);
    let stage = Joined::with(&*log, spec, 2);
    assert_eq!((stage.next(0, 0), stage.next(1, 0)), (next, 0));
    assert_eq!(stage.state(0, "k").as_deref(), Some("v"));
    assert_eq!(stage.state(1, "k").as_deref(), Some("w"));
}

/// State survives reopening; removed keys stay removed; the last of several changes to a key wins.
pub fn state_comes_back(place: &Place) {
    let spec = place.stage("s", &["in"]);
    let log = place.with_topics(&["in"]);
    let mut stage = Joined::with(&*log, spec.clone(), 2);
    let first = vec![
        delta(0, "a", Some("1")),
        delta(0, "b", Some("2")),
        delta(1, "c", Some("3")),
    ];
    let first = stage
        .log
        .commit(Step {
            state: first,
            ..Step::default()
        })
        .unwrap();
    let second = vec![
        delta(0, "a", None),
        delta(0, "b", Some("4")),
        delta(0, "b", Some("5")),
    ];
    let second = stage
        .log
        .commit(Step {
            state: second,
            ..Step::default()
        })
        .unwrap();
    assert!(second.number > first.number);
    drop(stage);
    drop(log);
    let log = (place.open)();
    let mut stage = Joined::with(&*log, spec, 2);
    assert_eq!(stage.state(0, "a"), None);
    assert_eq!(stage.state(0, "b").as_deref(), Some("5"));
    assert_eq!(stage.state(1, "c").as_deref(), Some("3"));
    assert_eq!(stage.state(1, "b"), None);
    let third = Step {
        state: vec![delta(0, "d", Some("6"))],
        ..Step::default()
    };
    assert!(
        stage.log.commit(third).unwrap().number > second.number,
        "numbers go on"
    );
}

/// What was polled but not committed comes again: after a rewind, and after the member is gone.
pub fn unfinished_steps_leave_no_trace(place: &Place) {
    let log = place.with_topics(&["in"]);
    place.append(&*log, "in", 0, &["a", "b"]);
    let spec = place.stage("s", &["in"]);
    let mut stage = Joined::with(&*log, spec.clone(), 2);
    stage.read(2);
    stage.log.rewind().unwrap();
    stage.until("revocation", |stage| stage.assigned.is_empty());
    assert!(stage.records.is_empty());
    assert_eq!(stage.read(2).len(), 2);
    drop(stage);
    let mut stage = Joined::with(&*log, spec.clone(), 2);
    stage.read(2);
    assert_eq!(stage.values(), ["a", "b"]);
    assert_eq!(
        log.committed(&spec.name, &place.name("in"), 1)
            .unwrap()
            .unwrap_or(0),
        0
    );
}

/// A step that is refused (here for one record that is too large) leaves nothing at all.
pub fn refused_steps_leave_no_trace(place: &Place) {
    let log = place.with_topics(&["in", "out"]);
    let offsets = place.append(&*log, "in", 0, &["a"]);
    let spec = place.stage("s", &["in"]);
    let mut stage = Joined::with(&*log, spec.clone(), 2);
    stage.read(1);
    let mut over = place.output("out", 0, "");
    over.value = Some(vec![0; RECORD_BYTES_MAX + 1]);
    let step = Step {
        outputs: vec![place.output("out", 0, "before"), over],
        state: vec![delta(0, "k", Some("v"))],
        offsets: vec![place.position("in", 0, offsets[0] + 1)],
    };
    let error = stage.log.commit(step).unwrap_err();
    assert!(
        matches!(error, CommitError::Fatal(LogError::TooLarge { .. })),
        "{error}"
    );
    drop(stage);
    assert!(place.values(&*log, "out", 0).is_empty());
    let mut stage = Joined::with(&*log, spec, 2);
    assert_eq!(stage.state(0, "k"), None);
    assert_eq!(stage.read(1).len(), 1);
}

/// Two stages read the same topic each at its own pace, with state of their own.
pub fn stages_are_independent(place: &Place) {
    let log = place.with_topics(&["in"]);
    let offsets = place.append(&*log, "in", 0, &["a", "b"]);
    let (one, two) = (place.stage("one", &["in"]), place.stage("two", &["in"]));
    let mut first = Joined::with(&*log, one, 2);
    let mut second = Joined::with(&*log, two.clone(), 2);
    first.read(2);
    second.read(2);
    let step = Step {
        state: vec![delta(0, "k", Some("first"))],
        offsets: vec![place.position("in", 0, offsets[1] + 1)],
        ..Step::default()
    };
    first.log.commit(step).unwrap();
    drop(second);
    let mut second = Joined::with(&*log, two, 2);
    assert_eq!(second.state(0, "k"), None);
    assert_eq!(second.read(2).len(), 2);
}

/// Partition i of every input goes to the same member; all members together hold all partitions,
/// none twice; inputs with different counts are refused.
pub fn inputs_are_copartitioned(place: &Place) {
    let log = (place.open)();
    let spec = |name: &str, count| TopicSpec::new(place.name(name), count);
    log.ensure_topics(&[spec("a", 4), spec("b", 4), spec("odd", 3)])
        .unwrap();
    let Err(error) = log.stage(place.stage("refused", &["a", "odd"])) else {
        panic!("inputs with different partition counts were taken");
    };
    assert!(error.to_string().contains("same number"), "{error}");
    for partition in 0..4 {
        place.append(&*log, "a", partition, &[&format!("a{partition}")]);
        place.append(&*log, "b", partition, &[&format!("b{partition}")]);
    }
    let spec = place.stage("s", &["a", "b"]);
    let mut one = Joined::new(&*log, spec.clone().with_instance("one"));
    let mut two = Joined::new(&*log, spec.with_instance("two"));
    let deadline = Instant::now() + PATIENCE;
    let settled = |one: &Joined, two: &Joined| {
        let ready = |member: &Joined| member.assigned.len() == 2 && member.records.len() == 4;
        ready(one) && ready(two)
    };
    while !settled(&one, &two) {
        assert!(Instant::now() < deadline, "the group did not settle");
        one.turn();
        two.turn();
    }
    let mut held: Vec<u32> = one
        .assigned
        .iter()
        .chain(&two.assigned)
        .map(|assigned| assigned.partition)
        .collect();
    held.sort_unstable();
    assert_eq!(held, [0, 1, 2, 3]);
    for member in [&one, &two] {
        let mut values = member.values();
        values.sort();
        let mut expected: Vec<String> = member
            .assigned
            .iter()
            .flat_map(|assigned| ["a", "b"].map(|input| format!("{input}{}", assigned.partition)))
            .collect();
        expected.sort();
        assert_eq!(values, expected);
        assert!(
            member
                .assigned
                .iter()
                .all(|assigned| assigned.positions.len() == 2)
        );
    }
}

/// When a member leaves, the other takes its partitions over with the state committed there.
pub fn partitions_move_with_their_state(place: &Place) {
    let log = place.with_topics(&["in"]);
    let spec = place.stage("s", &["in"]);
    let mut one = Joined::with(&*log, spec.clone().with_instance("one"), 2);
    let state = vec![delta(0, "k", Some("v0")), delta(1, "k", Some("v1"))];
    one.log
        .commit(Step {
            state,
            ..Step::default()
        })
        .unwrap();
    let mut two = Joined::new(&*log, spec.with_instance("two"));
    let deadline = Instant::now() + PATIENCE;
    while one.assigned.len() != 1 || two.assigned.len() != 1 {
        assert!(Instant::now() < deadline, "the group did not settle");
        one.turn();
        two.turn();
    }
    let partition = two.assigned[0].partition;
    assert_eq!(two.state(partition, "k"), Some(format!("v{partition}")));
    let state = vec![delta(partition, "k", Some("changed"))];
    two.log
        .commit(Step {
            state,
            ..Step::default()
        })
        .unwrap();
    drop(two);
    one.until("take-over", |one| {
        one.assigned.len() == 2 && one.state(partition, "k").as_deref() == Some("changed")
    });
}

/// Steps that only move offsets, or only keep time with an output, are steps like others.
pub fn steps_without_records(place: &Place) {
    let log = place.with_topics(&["in", "out"]);
    let offsets = place.append(&*log, "in", 0, &["a", "b"]);
    let spec = place.stage("s", &["in"]);
    let mut stage = Joined::with(&*log, spec.clone(), 2);
    stage.read(2);
    let moved = vec![place.position("in", 0, offsets[1] + 1)];
    let one = stage
        .log
        .commit(Step {
            offsets: moved,
            ..Step::default()
        })
        .unwrap();
    let time = vec![place.output("out", 1, "watermark")];
    let two = stage
        .log
        .commit(Step {
            outputs: time,
            ..Step::default()
        })
        .unwrap();
    assert!(two.number > one.number);
    stage.drain();
    drop(stage);
    let mut stage = Joined::with(&*log, spec, 2);
    stage.drain();
    assert!(stage.records.is_empty());
    place.holds(&*log, "out", 1, &["watermark"]);
}

/// A stage that keeps its offsets elsewhere can start from there.
pub fn seeks_once_assigned(place: &Place) {
    let log = place.with_topics(&["in"]);
    let offsets = place.append(&*log, "in", 0, &["a", "b", "c"]);
    let mut stage = Joined::with(&*log, place.stage("s", &["in"]), 2);
    stage
        .log
        .seek(&[place.position("in", 0, offsets[2])])
        .unwrap();
    stage.drain();
    assert_eq!(stage.values(), ["c"]);
    assert!(stage.log.seek(&[place.position("in", 7, 0)]).is_err());
}

/// Offsets do not go back, and neither offsets nor state of partitions that are not held, nor state
/// without a changelog, are taken.
pub fn refuses_steps_out_of_place(place: &Place) {
    let log = place.with_topics(&["in", "other"]);
    let offsets = place.append(&*log, "in", 0, &["a", "b"]);
    let mut stage = Joined::with(&*log, place.stage("s", &["in"]), 2);
    stage.read(2);
    let to = |topic, partition, next| Step {
        offsets: vec![place.position(topic, partition, next)],
        ..Step::default()
    };
    stage.log.commit(to("in", 0, offsets[1] + 1)).unwrap();
    let kept = |partition| Step {
        state: vec![delta(partition, "k", None)],
        ..Step::default()
    };
    for step in [
        to("in", 0, offsets[0]),
        to("in", 9, 0),
        to("other", 0, 0),
        kept(9),
    ] {
        let error = stage.log.commit(step.clone()).unwrap_err();
        assert!(
            matches!(error, CommitError::Fatal(LogError::Invalid { .. })),
            "{step:?} gave {error}"
        );
    }
    drop(stage);
    let mut stage = Joined::with(&*log, place.stage("stateless", &["in"]).stateless(), 2);
    assert!(stage.log.commit(kept(0)).is_err());
    assert!(stage.log.commit(to("in", 0, offsets[0] + 1)).is_ok());
}
