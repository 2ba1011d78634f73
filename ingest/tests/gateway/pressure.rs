//! When the log is slow, full or away.

use std::sync::mpsc;

use driftline_log::memory::Fault;
use driftline_schemas::frame;
use driftline_schemas::topic::INFERENCES;
use driftline_schemas::units::{Size, Span};

use crate::estate::{Answer, Estate, NOW, config, eventually};

fn metric(estate: &Estate, name: &str) -> f64 {
    let text = estate.get("/metrics").text;
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split(' ').nth(1));
    value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

/// While the log does not answer, what waits is bounded and the rest is told to come again; nothing
/// is acknowledged before the log has it, and everything acknowledged is in it.
#[test]
fn a_slow_log_is_answered_with_503_in_bounded_memory() {
    let mut config = config();
    config.queue_requests = 3;
    config.linger = Span::from_us(0);
    let estate = Estate::with(config);
    estate.log.block();
    let (sender, answers) = mpsc::channel::<(u64, Answer)>();
    std::thread::scope(|scope| {
        let send = |sequence: u64| {
            let (estate, sender) = (&estate, sender.clone());
            scope.spawn(move || {
                let answer = estate.send("d1", &[estate.inferences(1, sequence, &[NOW])]);
                sender.send((sequence, answer)).unwrap();
            });
        };
        // One is with the writer, three wait.
        send(0);
        eventually("the writer has the first", || estate.log.waiting() == 1);
        (1..4).for_each(send);
        eventually("the queue is full", || {
            metric(&estate, "driftline_gateway_queue_requests") == 3.0
        });
        for sequence in 4..10 {
            let answer = estate.send("d1", &[estate.inferences(1, sequence, &[NOW])]);
            assert_eq!((answer.status, answer.problem()), (503, "overloaded"));
        }
        assert_eq!(
            answers.try_iter().count(),
            0,
            "nothing may be acknowledged yet"
        );
        estate.assert_nothing_written();
        estate.log.release();
    });
    drop(sender);
    let mut acknowledged: Vec<u64> = answers
        .iter()
        .map(|(sequence, answer)| {
            assert_eq!(answer.acknowledged(), (1, 1));
            sequence
        })
        .collect();
    acknowledged.sort_unstable();
    assert_eq!(acknowledged, [0, 1, 2, 3]);
    let written: Vec<u64> = estate.frames_of(INFERENCES).iter().map(|it| it.2).collect();
    assert_eq!(written, acknowledged);
    // The last answer may be on its way while its share is given back.
    eventually("all memory is given back", || {
        metric(&estate, "driftline_gateway_inflight_bytes") == 0.0
    });
}

/// Bytes in flight are bounded over all requests: one that does not fit is told to come again, and
/// goes through once there is room.
#[test]
fn bytes_in_flight_are_bounded() {
    let mut config = config();
    config.body_bytes = Size(16 << 10);
    config.request_bytes = Size(24 << 10);
    config.bytes_in_flight = Size(40 << 10);
    let estate = Estate::with(config);
    let large = |sequence| estate.inferences(1, sequence, &[NOW; 600]);
    estate.log.block();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| estate.send("d1", &[large(0)]));
        eventually("the writer has the first", || estate.log.waiting() == 1);
        assert!(metric(&estate, "driftline_gateway_inflight_bytes") > 20_000.0);
        let answer = estate.send("d2", &[large(0)]);
        assert_eq!((answer.status, answer.problem()), (503, "overloaded"));
        estate.log.release();
        assert_eq!(first.join().unwrap().status, 200);
    });
    assert_eq!(estate.send("d2", &[large(0)]).acknowledged(), (1, 600));
    // More than one request may take, however much room there is.
    let answer = estate.send("d2", &[large(1), large(2)]);
    assert_eq!((answer.status, answer.problem()), (413, "too-large"));
}

/// A disk that is full refuses, nothing is acknowledged, readiness says so, and it goes on by itself
/// afterwards.
#[test]
fn a_full_disk_is_answered_with_503_and_goes_on_afterwards() {
    let estate = Estate::new();
    let send = |sequence| estate.send("d1", &[estate.inferences(1, sequence, &[NOW])]);
    for fault in [Fault::Before, Fault::Fatal] {
        estate.log.memory.fail_next_append(fault);
        let answer = send(0);
        assert_eq!((answer.status, answer.problem()), (503, "log-unavailable"));
        assert_eq!(estate.get("/readyz").status, 503);
        estate.assert_nothing_written();
    }
    assert_eq!(send(0).acknowledged(), (1, 1));
    assert_eq!(estate.get("/readyz").status, 200);
    // The answer of the log got lost: the sender is told to send again, and the resend is the same
    // frame, which is removed later.
    estate.log.memory.fail_next_append(Fault::After);
    assert_eq!(send(1).problem(), "log-unavailable");
    assert_eq!(send(1).acknowledged(), (1, 1));
    let sequences: Vec<u64> = estate.frames_of(INFERENCES).iter().map(|it| it.2).collect();
    assert_eq!(sequences, [0, 1, 1]);
    assert_eq!(
        metric(&estate, "driftline_gateway_append_failures_total"),
        3.0
    );
}

/// A log that does not answer in time is a 503, whatever becomes of the rows.
#[test]
fn waiting_for_the_log_ends() {
    let mut config = config();
    config.append_timeout = Span::from_us(50_000);
    let estate = Estate::with(config);
    estate.log.block();
    let answer = estate.send("d1", &[estate.inferences(1, 0, &[NOW])]);
    assert_eq!((answer.status, answer.problem()), (503, "log-unavailable"));
    estate.log.release();
    eventually("the rows are written all the same", || {
        estate.frames_of(INFERENCES).len() == 1
    });
}

/// Requests that wait while the log is busy are written together: fewer appends than requests, one
/// record for all devices of a partition, and still each frame whole.
#[test]
fn what_waits_is_packed_together() {
    let estate = Estate::new();
    estate.log.block();
    std::thread::scope(|scope| {
        let send = |device: &'static str, sequence: u64| {
            let estate = &estate;
            scope.spawn(move || {
                let frame = estate.inferences(1, sequence, &[NOW; 10]);
                assert_eq!(estate.send(device, &[frame]).acknowledged(), (1, 10));
            });
        };
        send("d1", 0);
        eventually("the writer has the first", || estate.log.waiting() == 1);
        for device in ["d1", "d2", "d3", "p1"] {
            (1..6).for_each(|sequence| send(device, sequence));
        }
        eventually("all wait", || {
            metric(&estate, "driftline_gateway_queue_requests") == 20.0
        });
        estate.log.release();
    });
    let records = estate.records(INFERENCES);
    let frames: usize = records.iter().map(|(_, record)| record.frames.len()).sum();
    assert_eq!(frames, 21);
    assert!(records.len() <= 5, "{} records", records.len());
    assert_eq!(
        metric(&estate, "driftline_gateway_append_seconds_count"),
        2.0
    );
}

/// At shutdown, what was let in is written and acknowledged; nothing new is let in.
#[test]
fn shutdown_writes_what_was_let_in() {
    let mut estate = Estate::new();
    estate.log.block();
    let body = frame::join([estate.inferences(1, 0, &[NOW])]);
    let (agent, url) = (estate.agent.clone(), estate.url("/v1/frames"));
    let token = format!("Bearer {}", estate.token("d1"));
    let waiting = std::thread::spawn(move || {
        let request = agent.post(url).header("authorization", token);
        let request = request.header("content-type", crate::estate::FRAMES);
        crate::estate::answer(request.send(&body[..]).unwrap())
    });
    eventually("it is with the writer", || estate.log.waiting() == 1);
    estate.stop();
    estate.log.release();
    assert_eq!(waiting.join().unwrap().acknowledged(), (1, 1));
    assert_eq!(estate.frames_of(INFERENCES).len(), 1);
}
