//! What the benchmarks share that `tests/kafka/speed.py` runs: their arguments, the log that these name, and CPU
//! time: a rate says little on a machine that others use, what was computed for it says more.
#![allow(dead_code, reason = "not every benchmark asks for all")]

use std::collections::BTreeMap;

use driftline_log::kafka::{KafkaLog, KafkaOptions};

/// `name=value` arguments.
pub(crate) struct Arguments(BTreeMap<String, String>);

impl Arguments {
    /// Those of this process; none where no brokers are named: then `tests/kafka/speed.py` has not started it.
    pub(crate) fn of_process() -> Option<Self> {
        let pair = |it: String| {
            it.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let all: BTreeMap<String, String> = std::env::args().skip(1).filter_map(pair).collect();
        all.contains_key("brokers").then_some(Self(all))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        &self.0[name]
    }

    pub(crate) fn number(&self, name: &str) -> usize {
        self.text(name).parse().expect(name)
    }

    /// The log on `brokers`, whose topics begin with `prefix`.
    pub(crate) fn log(&self) -> KafkaLog {
        let mut options = KafkaOptions::new(self.text("brokers"));
        options.prefix = self.text("prefix").to_owned();
        KafkaLog::open(options).expect("the log on Kafka")
    }
}

/// Of this process, ended threads included, seconds.
pub(crate) fn process_s() -> f64 {
    seconds("/proc/self/stat")
}

/// Of this thread, seconds.
pub(crate) fn thread_s() -> f64 {
    seconds("/proc/thread-self/stat")
}

/// User and system time in hundredths of a second are the twelfth and thirteenth words after the name, which is
/// in brackets. Zero where there is no such file.
fn seconds(path: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let words = text.rsplit(')').next().unwrap_or_default();
    let times = words.split_whitespace().skip(11).take(2);
    times.filter_map(|it| it.parse::<f64>().ok()).sum::<f64>() / 100.0
}
