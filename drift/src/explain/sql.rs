//! SQL that recomputes a measure from the lake.
//!
//! This is the one place that knows the shape of the lake's tables: [`PROFILES_TABLE`] has one row
//! per (pane, cell, signal) with the columns `tenant, model, version, pane_start, region, site,
//! hardware, firmware, link, variant, role, signal, bins` (a list of counts) and the counts of what
//! is in no bin; `merge_bins(bins)` adds lists up, `psi(reference, current)` compares two.
//! [`INFERENCES_TABLE`] has the rows themselves, with `event_time` and the list `features`; profiles do not hold
//! how two features go together, so that is asked of the rows, and answers for those that came as rows.

use driftline_schemas::measure::Cohort;

/// Name of the table of profiles.
pub const PROFILES_TABLE: &str = "profiles";
/// Name of the table of rows.
pub const INFERENCES_TABLE: &str = "inferences";

/// Two features of the model.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// Their names.
    pub names: [&'a str; 2],
    /// Their positions among the features, from 0.
    pub at: [usize; 2],
    /// Their correlation in training.
    pub correlation: f64,
}

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
    /// Pairs whose correlation is asked for besides.
    pub pairs: &'a [Pair<'a>],
    /// Counts of the reference's bins.
    pub reference_bins: &'a [u64],
}

/// The query: PSI of the span against the reference, the counts that it comes from, and for each pair the
/// correlation of the span's rows beside that of training.
pub fn sql(query: &Query<'_>) -> String {
    let signal = format!("signal = {}", text(query.signal));
    let reference: Vec<String> = query.reference_bins.iter().map(u64::to_string).collect();
    let pairs: String = query
        .pairs
        .iter()
        .map(|pair| query.correlation(pair))
        .collect();
    format!(
        "SELECT psi(make_array({}), merge_bins(bins)) AS psi, merge_bins(bins) AS bins{pairs} FROM {PROFILES_TABLE} WHERE {}",
        reference.join(", "),
        query.conditions("pane_start", Some(signal))
    )
}

impl Query<'_> {
    /// Whose rows of which span, with the time in a column, and what else must hold.
    fn conditions(&self, time: &str, more: Option<String>) -> String {
        let mut conditions = vec![
            format!("tenant = {}", text(self.tenant)),
            format!("model = {}", text(self.model)),
            format!("version = {}", text(self.version)),
        ];
        conditions.extend(more);
        conditions.push(format!("{time} >= to_timestamp_micros({})", self.start_us));
        conditions.push(format!("{time} < to_timestamp_micros({})", self.end_us));
        for (attribute, value) in &self.cohort.0 {
            conditions.push(format!("{attribute} = {}", text(value)));
        }
        conditions.join(" AND ")
    }

    /// Two more columns: the correlation now and in training.
    fn correlation(&self, pair: &Pair<'_>) -> String {
        let [a, b] = pair.at.map(|at| format!("features[{}]", at + 1));
        let name = format!("{} with {}", pair.names[0], pair.names[1]).replace('"', "\"\"");
        format!(
            ", (SELECT corr({a}, {b}) FILTER (WHERE NOT isnan({a}) AND NOT isnan({b})) FROM {INFERENCES_TABLE} WHERE {}) AS \"{name}\", {:.3} AS \"{name} in training\"",
            self.conditions("event_time", None),
            pair.correlation
        )
    }
}

/// A string literal: quotes are doubled, which is all that standard SQL needs.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
