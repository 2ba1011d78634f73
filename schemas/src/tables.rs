//! The lake's tables: their columns, with what they mean, and how records become rows of them.
//!
//! A table has its topic's name. Every table has `tenant` and `date` first, by which it is
//! partitioned, and the log position that its row came from last, by which anybody can check that
//! nothing is missing or there twice. Values are in their units here, as floats; quantised integers
//! stay in the log. There are no unsigned types, because Delta has none.
//!
//! Every column carries a description, and its unit and range where it has them, in its metadata
//! ([`DESCRIPTION`], [`UNIT`], [`RANGE`]).
//!
//! # Layout of this module
//!
//! - here: [`Table`], [`Place`], errors
//! - `columns`: making columns and their descriptions
//! - `source`: the columns that say who sent a row
//! - `telemetry`: inferences, outcomes, health, events
//! - `profiles`: profiles, a row per signal
//! - `derived`: measures, findings, alerts, dead letters

mod columns;
mod derived;
mod profiles;
mod source;
mod telemetry;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{Schema, SchemaRef};

pub use columns::{DESCRIPTION, RANGE, UNIT, date_of};
pub use derived::{alerts, dead_letters, findings, measures};
pub use profiles::profiles;
pub use telemetry::{Telemetry, events, health, inferences, outcomes};

/// Columns that every table is partitioned by, in order.
pub const PARTITION_COLUMNS: [&str; 2] = ["tenant", "date"];

/// A table of the lake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Predictions with their features.
    Inferences,
    /// Ground truth.
    Outcomes,
    /// Power and connectivity readings.
    Health,
    /// Boots and changes.
    Events,
    /// Partial profiles, a row per signal.
    Profiles,
    /// Comparisons.
    Measures,
    /// What crossed its threshold, explained.
    Findings,
    /// Lives of alerts.
    Alerts,
    /// What was refused, with the reason.
    DeadLetters,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 9] = [
        Self::Inferences,
        Self::Outcomes,
        Self::Health,
        Self::Events,
        Self::Profiles,
        Self::Measures,
        Self::Findings,
        Self::Alerts,
        Self::DeadLetters,
    ];

    /// Name of the table and of its topic.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inferences => crate::topic::INFERENCES,
            Self::Outcomes => crate::topic::OUTCOMES,
            Self::Health => crate::topic::HEALTH,
            Self::Events => crate::topic::EVENTS,
            Self::Profiles => crate::topic::PROFILES,
            Self::Measures => crate::topic::MEASURES,
            Self::Findings => crate::topic::FINDINGS,
            Self::Alerts => crate::topic::ALERTS,
            Self::DeadLetters => crate::topic::DEADLETTERS,
        }
    }

    /// What a row of it is.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Inferences => "one prediction of a model on a device, with its inputs",
            Self::Outcomes => "what was true of one prediction, as a probe or a person saw it",
            Self::Health => "one reading of a device's power and connectivity",
            Self::Events => "one boot of a device, or one change of what runs on it",
            Self::Profiles => {
                "a part of the summary of one signal, cohort and pane; parts of the same key add up"
            }
            Self::Measures => {
                "one comparison of a signal with its reference, for one window and cohort"
            }
            Self::Findings => "what crossed its threshold, or no longer does, explained",
            Self::Alerts => "one change in the life of an alert",
            Self::DeadLetters => "one frame or row that was refused, and why",
        }
    }

    /// The table of a topic.
    pub fn of_topic(topic: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == topic)
    }

    /// Columns, with their descriptions.
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 9]> = LazyLock::new(|| {
            Table::ALL.map(|table| {
                let fields = match table {
                    Table::Inferences => telemetry::inferences_fields(),
                    Table::Outcomes => telemetry::outcomes_fields(),
                    Table::Health => telemetry::health_fields(),
                    Table::Events => telemetry::events_fields(),
                    Table::Profiles => profiles::fields(),
                    Table::Measures => derived::measures_fields(),
                    Table::Findings => derived::findings_fields(),
                    Table::Alerts => derived::alerts_fields(),
                    Table::DeadLetters => derived::dead_letters_fields(),
                };
                Arc::new(Schema::new(fields))
            })
        });
        Arc::clone(&SCHEMAS[self as usize])
    }
}

/// Where in the log a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Partition of the table's topic.
    pub partition: u32,
    /// Offset of the record in the partition.
    pub offset: u64,
}

/// Why records do not become rows.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The bundle at hand is not the one that the rows were made with.
    #[error(
        "rows of {model} {version} were made with schema {record:08x}, the bundle at hand gives {bundle:08x}: register the bundle that the devices run"
    )]
    OtherBundle {
        /// Model of the record.
        model: String,
        /// Its version.
        version: String,
        /// Fingerprint in the record.
        record: u32,
        /// Fingerprint of the bundle's schema.
        bundle: u32,
    },
    /// A profile was made with another layout.
    #[error(
        "profile of layout {profile:016x} does not fit the bundle's layout {bundle:016x}: register the bundle that it was made with"
    )]
    OtherLayout {
        /// Digest in the profile.
        profile: u64,
        /// Digest of the layout at hand.
        bundle: u64,
    },
    /// The columns are not those of the schema.
    #[error("columns of the table: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}
