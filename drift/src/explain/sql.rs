//! SQL that recomputes a measure from the lake.
//!
//! This is the one place that knows the shape of the lake's table: [`PROFILES_TABLE`] has one row
//! per (pane, cell, signal) with the columns `tenant, model, version, pane_start, region, site,
//! hardware, firmware, link, variant, role, signal, bins` (a list of counts) and the counts of what
//! is in no bin; `merge_bins(bins)` adds lists up, `psi(reference, current)` compares two.

use driftline_schemas::measure::Cohort;

/// Name of the table of profiles.
pub const PROFILES_TABLE: &str = "profiles";

/// What is recomputed.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Owner.
    pub tenant: &'a str,
    /// Model name.
    pub model: &'a str,
    /// Model version.
    pub version: &'a str,
    /// Signal.
    pub signal: &'a str,
    /// Cohort.
    pub cohort: &'a Cohort,
    /// Start of the span, microseconds of event time.
    pub start_us: i64,
    /// Its end, exclusive.
    pub end_us: i64,
    /// Counts of the reference's bins.
    pub reference_bins: &'a [u64],
}

/// The query: PSI of the span against the reference, and the counts that it comes from.
pub fn sql(query: &Query<'_>) -> String {
    let mut conditions = vec![
        format!("tenant = {}", text(query.tenant)),
        format!("model = {}", text(query.model)),
        format!("version = {}", text(query.version)),
        format!("signal = {}", text(query.signal)),
        format!("pane_start >= to_timestamp_micros({})", query.start_us),
        format!("pane_start < to_timestamp_micros({})", query.end_us),
    ];
    for (attribute, value) in &query.cohort.0 {
        conditions.push(format!("{attribute} = {}", text(value)));
    }
    let reference: Vec<String> = query.reference_bins.iter().map(u64::to_string).collect();
    format!(
        "SELECT psi(make_array({}), merge_bins(bins)) AS psi, merge_bins(bins) AS bins FROM {PROFILES_TABLE} WHERE {}",
        reference.join(", "),
        conditions.join(" AND ")
    )
}

/// A string literal: quotes are doubled, which is all that standard SQL needs.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
