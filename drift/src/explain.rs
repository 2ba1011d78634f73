//! Root cause: which attribute values a drift comes from, which signals carry it, in words and SQL.
//!
//! # The method
//!
//! A drift that was seen in some cohorts is looked at cell by cell (a cell is one combination of
//! attribute values, the finest cohort there is): how far has the signal moved there, and how sure
//! is that. A cause is a cohort whose cells moved by one common amount while the others did not.
//! Of the cohorts that can be named (attribute values, the whole estate, and pairs where no single
//! value will do), the one is chosen that leaves the least unexplained (weighted least squares, so
//! each cell counts by what its rows are worth). More causes are added while each explains what
//! the others leave by more than chance would. That tells a region apart from the one site in it
//! that moved, a site from its firmware, and two faults at once from one that is everywhere.
//!
//! Cohorts of exactly the same cells cannot be told apart by any data: they are reported as ties.
//!
//! # Layout
//!
//! - here: [`Part`], what is known of a cell, and cohorts as sets of cells
//! - `peel`: [`peel()`], the causes
//! - `rank`: [`rank_attributes`] and [`rank_signals`], shares for people
//! - `text`: [`Story`], a sentence that a person understands
//! - `sql`: [`sql()`], the query that recomputes a measure from the lake

mod peel;
mod rank;
mod sql;
mod text;

use driftline_schemas::measure::Cohort;
use driftline_schemas::profile::Cell;
use driftline_schemas::source::ATTRIBUTES;

pub(crate) use peel::NAMED_FIRST;
pub use peel::{CAUSES_MAX, Cause, Known, Peeling, peel};
pub use rank::{rank_attributes, rank_signals};
pub use sql::{INFERENCES_TABLE, PROFILES_TABLE, Pair, Query, sql};
pub use text::{ABOUT_THE_PAST, Story};

/// What one cell contributes to the deviation of one score over one span.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its attribute values.
    pub cell: Cell,
    /// Rows that the score is a mean over, above 0.
    pub rows: f64,
    /// Mean deviation of those rows.
    pub deviation: f64,
    /// Variance of that mean when nothing has changed.
    pub variance: f64,
}

/// Whether a cell belongs to a cohort.
pub fn belongs(cohort: &Cohort, cell: &Cell) -> bool {
    cohort
        .0
        .iter()
        .all(|(attribute, value)| cell.get(attribute) == Some(value.as_str()))
}

/// Which parts a cohort has.
fn members(cohort: &Cohort, parts: &[Part]) -> Vec<bool> {
    parts
        .iter()
        .map(|part| belongs(cohort, &part.cell))
        .collect()
}

/// Mean deviation of the chosen parts, and their rows.
fn mean(parts: &[Part], chosen: impl Fn(usize) -> bool) -> (f64, f64) {
    let (mut sum, mut rows) = (0.0, 0.0);
    for (_, part) in parts.iter().enumerate().filter(|(index, _)| chosen(*index)) {
        sum += part.rows * part.deviation;
        rows += part.rows;
    }
    if rows > 0.0 {
        (sum / rows, rows)
    } else {
        (0.0, 0.0)
    }
}

/// All attribute values that occur, in the order of [`ATTRIBUTES`] and then of the values; those
/// that were not declared are left out.
pub fn attribute_values<'a>(cells: impl Iterator<Item = &'a Cell> + Clone) -> Vec<Cohort> {
    let mut found = Vec::new();
    for (index, attribute) in ATTRIBUTES.iter().enumerate() {
        let values: std::collections::BTreeSet<&str> = cells
            .clone()
            .map(|cell| cell.values[index].as_ref())
            .filter(|value| !value.is_empty())
            .collect();
        found.extend(values.into_iter().map(|value| Cohort::of(attribute, value)));
    }
    found
}

#[cfg(test)]
mod tests;
