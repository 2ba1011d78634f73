//! The log on Kafka keeps every promise. Needs a broker:
//! `DRIFTLINE_KAFKA=$(tests/kafka/start) cargo test -p driftline-log --test kafka`.

#![allow(clippy::unwrap_used, reason = "the place of a test case")]

use std::sync::Arc;

use driftline_log::Log;
use driftline_log::conformance::Place;
use driftline_log::kafka::{GroupProtocol, KafkaLog, KafkaOptions};

fn place(case: &str, group_protocol: GroupProtocol) -> Option<Place> {
    let Ok(brokers) = std::env::var("DRIFTLINE_KAFKA") else {
        eprintln!("SKIPPED {case}: set DRIFTLINE_KAFKA=host:port, see tests/kafka/start");
        return None;
    };
    // Cases share the broker and must not meet, nor meet an earlier run of themselves.
    let run = tempfile::Builder::new().prefix("run").tempdir().unwrap();
    let run = run.path().file_name().unwrap().to_str().unwrap().to_owned();
    let mut options = KafkaOptions::new(brokers);
    options.prefix = format!("{run}.{case}.");
    options.group_protocol = group_protocol;
    let open = move || KafkaLog::open(options.clone()).unwrap();
    Some(Place {
        open: Box::new(move || Arc::new(open()) as Arc<dyn Log>),
        prefix: String::new(),
        compacts_at_once: false,
        keeps_microseconds: false,
        commits_show_later: true,
        trims_by_size: false,
    })
}

/// The protocol in which one of the members deals out the partitions.
mod classic {
    use super::{GroupProtocol, Place};

    pub(crate) fn place(case: &str) -> Option<Place> {
        super::place(case, GroupProtocol::Classic)
    }

    driftline_log::conformance_suite!(crate::classic::place);
}

/// KIP-848, where the broker does.
mod consumer {
    use super::{GroupProtocol, Place};

    pub(crate) fn place(case: &str) -> Option<Place> {
        super::place(case, GroupProtocol::Consumer)
    }

    driftline_log::conformance_suite!(crate::consumer::place);
}
