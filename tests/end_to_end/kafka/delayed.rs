//! The request that ends a transaction, held back until the next transaction has written.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use driftline_log::kafka::{KafkaLog, KafkaOptions};
use driftline_log::{
    Log, Output, Polled, Position, ReadLimits, StageLog, StageSpec, Step, TopicSpec,
};

use super::server::Server;
use super::{alone, broker};

/// Number of the request `EndTxn` in Kafka's protocol.
const END_TXN: i16 = 26;
/// Time for one request; the client sends it again then.
const REQUEST: Duration = Duration::from_secs(2);

/// A request that did not get on, and where it was going.
struct Held {
    frame: Vec<u8>,
    to: TcpStream,
}

#[derive(Default)]
struct Shared {
    /// How many requests that end a transaction are still to be held back.
    wanted: AtomicUsize,
    held: Mutex<Vec<Held>>,
}

/// Passes on what clients and a broker say, and holds back the ends of transactions when it is told to.
struct Proxy {
    port: u16,
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Proxy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            port: listener.local_addr().unwrap().port(),
            listener,
            shared: Arc::default(),
        }
    }

    fn forward_to(&self, broker: &str) {
        let (listener, broker) = (self.listener.try_clone().unwrap(), broker.to_owned());
        let shared = Arc::clone(&self.shared);
        // Ends with the process: nothing wakes an accept.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(upstream)) = (client, TcpStream::connect(&broker)) else {
                    continue;
                };
                let (mut from, mut to) =
                    (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || {
                    // Whoever hangs up ends it.
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || requests(client, upstream, &shared));
            }
        });
    }

    fn hold(&self, count: usize) {
        self.shared.wanted.store(count, Ordering::SeqCst);
    }

    fn held(&self) -> usize {
        self.shared.held.lock().unwrap().len()
    }

    /// Lets the first request that was held back get on, on the connection that it came on.
    fn release_first(&self) {
        let mut held = self.shared.held.lock().unwrap().remove(0);
        held.to.write_all(&held.frame).unwrap();
    }
}

/// Passes requests on, one by one.
fn requests(mut client: TcpStream, mut upstream: TcpStream, shared: &Shared) {
    let mut kept = false;
    loop {
        let mut length = [0; 4];
        if client.read_exact(&mut length).is_err() {
            break;
        }
        let mut frame = vec![0; 4 + u32::from_be_bytes(length) as usize];
        frame[..4].copy_from_slice(&length);
        if client.read_exact(&mut frame[4..]).is_err() {
            break;
        }
        let key = i16::from_be_bytes([frame[4], frame[5]]);
        if key == END_TXN {
            let take = |left: usize| left.checked_sub(1);
            if shared
                .wanted
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
                .is_ok()
            {
                let to = upstream.try_clone().unwrap();
                shared.held.lock().unwrap().push(Held { frame, to });
                kept = true;
                continue;
            }
        }
        if upstream.write_all(&frame).is_err() {
            break;
        }
    }
    // What is held back still wants to get on when the client has long gone.
    if !kept {
        let _ = upstream.shutdown(Shutdown::Both);
    }
}

fn output(value: &str) -> Output {
    Output {
        topic: "out".into(),
        partition: 0,
        key: Vec::new(),
        value: Some(value.as_bytes().to_vec()),
        timestamp_us: 0,
    }
}

fn step(value: &str, next: u64) -> Step {
    Step {
        outputs: vec![output(value)],
        offsets: vec![Position {
            topic: "in".into(),
            partition: 0,
            next,
        }],
        ..Step::default()
    }
}

/// What the steps write.
const VALUES: [&str; 2] = ["first", "second"];

fn spec() -> StageSpec {
    StageSpec::new("s", &["in"]).stateless()
}

/// What a reader of committed records sees.
fn seen(log: &KafkaLog) -> Vec<String> {
    let batch = log.read("out", 0, 0, ReadLimits::default()).unwrap();
    let values = batch.records.into_iter().filter_map(|record| record.value);
    values
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect()
}

/// Polls until partitions are assigned; where reading goes on.
fn assigned(stage: &mut dyn StageLog) -> u64 {
    super::super::harness::until("an assignment", || {
        match stage.poll(Duration::from_millis(200)) {
            Ok(Polled::Assigned(assignments)) => Ok(assignments[0].positions[0].next),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Two steps, of which the end of the first is held back until the second has written and waits for its
/// own end; what a reader sees of the second then, and what it sees after all.
fn held_back(without_guard: bool) -> (Vec<String>, Vec<String>) {
    let proxy = Proxy::new();
    let server = Server::start(&["--behind", &proxy.port.to_string()]);
    proxy.forward_to(&server.address);
    let log = KafkaLog::open(KafkaOptions {
        request_timeout: REQUEST,
        session_timeout: Duration::from_secs(30),
        without_guard,
        ..KafkaOptions::new(format!("127.0.0.1:{}", proxy.port))
    })
    .unwrap();
    log.ensure_topics(&[TopicSpec::new("in", 1), TopicSpec::new("out", 1)])
        .unwrap();
    let records = ["a", "b"].map(|value| Output {
        topic: "in".into(),
        ..output(value)
    });
    log.appender("t").unwrap().append(records.into()).unwrap();
    let mut stage = log.stage(spec()).unwrap();
    assigned(&mut *stage);

    // The end of the first step never gets on in time; librdkafka sends it again by itself.
    proxy.hold(1);
    let first = stage.commit(step(VALUES[0], 1));
    assert_eq!(proxy.held(), 1, "{first:?}");
    let from = match first {
        Ok(_) => 1,
        Err(_) => assigned(&mut *stage),
    };

    // The second step writes, and from here on every end is held back: only the stray one, which is the
    // first, can end it.
    proxy.hold(usize::MAX);
    let value = VALUES[from as usize];
    let committing = std::thread::spawn(move || {
        let done = stage.commit(step(value, from + 1));
        drop(stage);
        done
    });
    super::super::harness::until("the second end", || match proxy.held() {
        0 | 1 => Err(proxy.held().to_string()),
        _ => Ok(()),
    });
    proxy.release_first();
    let released = Instant::now();
    let mut early = seen(&log);
    while early.len() < 2 && released.elapsed() < REQUEST {
        early = seen(&log);
    }

    proxy.hold(0);
    while proxy.held() > 0 {
        proxy.release_first();
    }
    let _ = committing.join().unwrap();
    finish(&log);
    (early, seen(&log))
}

/// Does the steps that did not happen, as a stage that starts again would.
fn finish(log: &KafkaLog) {
    let mut stage = log.stage(spec()).unwrap();
    let mut next = assigned(&mut *stage);
    while let Some(value) = VALUES.get(next as usize) {
        next = match stage.commit(step(value, next + 1)) {
            Ok(_) => next + 1,
            Err(_) => assigned(&mut *stage),
        };
    }
}

/// Scenario: a proxy holds back the request that ends a transaction for longer than the client waits for
/// it, and lets it get on when the next transaction has written and is not ended yet. Once as it is, and
/// once with the guard against it switched off.
/// Guarantee: nothing of a transaction is seen before it is ended by its own request, and in the end every
/// step is there once; without the guard the test sees the next transaction exposed.
#[test]
fn a_stray_end_ends_nothing() {
    if broker("delayed").is_none() || Server::is_missing() {
        return;
    }
    let _alone = alone();
    let (early, after_all) = held_back(false);
    assert!(
        early.iter().all(|value| value == "first"),
        "exposed: {early:?}"
    );
    assert_eq!(after_all, VALUES);
    let (early, _) = held_back(true);
    assert!(
        early.contains(&"second".to_owned()),
        "the guard is switched off and nothing is exposed, so this test shows nothing: {early:?}"
    );
}
