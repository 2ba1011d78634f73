//! The log in memory keeps every promise but durability.

use std::sync::Arc;

use driftline_log::Log;
use driftline_log::conformance::Place;
use driftline_log::memory::MemoryLog;

fn place(_case: &str) -> Option<Place> {
    let log = MemoryLog::new();
    Some(Place {
        open: Box::new(move || Arc::new(log.clone()) as Arc<dyn Log>),
        prefix: String::new(),
        compacts_at_once: true,
        keeps_microseconds: true,
        commits_show_later: false,
        trims_by_size: true,
    })
}

driftline_log::conformance_suite!(crate::place);
