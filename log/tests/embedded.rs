//! The embedded log keeps every promise.

#![allow(clippy::unwrap_used, reason = "the place of a test case")]

use std::sync::Arc;

use driftline_log::Log;
use driftline_log::conformance::Place;
use driftline_log::embedded::{EmbeddedLog, EmbeddedOptions};

fn place(_case: &str) -> Option<Place> {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions {
        cache_bytes: 16 * 1024 * 1024,
    };
    let open = move || EmbeddedLog::open(folder.path(), options).unwrap();
    Some(Place {
        open: Box::new(move || Arc::new(open()) as Arc<dyn Log>),
        prefix: String::new(),
        compacts_at_once: true,
        keeps_microseconds: true,
        commits_show_later: false,
        trims_by_size: true,
    })
}

driftline_log::conformance_suite!(crate::place);
