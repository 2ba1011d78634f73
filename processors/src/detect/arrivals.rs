//! Since when each cell is there: what came up in a scope before it drifted.
//!
//! Known from the profiles alone, so that it is as deterministic as they are: a build of firmware, a link, a site
//! that had no rows and has some now.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_drift::explain::{attribute_values, belongs};
use driftline_schemas::clock::DAY_US;
use driftline_schemas::measure::{Change, Cohort};
use driftline_schemas::profile::Cell;
use serde::{Deserialize, Serialize};

/// How long before a drift what came up is told with it.
const BEFORE_MAX_US: i64 = DAY_US;
/// At first everything is new: only from then on is something told.
const KNOWN_MIN_US: i64 = DAY_US;
/// A cell that was away for longer comes anew.
const ABSENT_MAX_US: i64 = 7 * DAY_US;
/// Most cells that are kept, some 3 MB of state; of models with more nothing is told.
const CELLS_MAX: usize = 16_384;
/// Most changes that are told of one finding.
const CHANGES_MAX: usize = 16;

/// First and last window in which a cell had rows, of its last spell: starts, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Spell {
    since_us: i64,
    last_us: i64,
}

/// The cells of a model version and since when they are there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub(super) struct Arrivals {
    /// Start of the first window of all, microseconds.
    begin_us: Option<i64>,
    cells: BTreeMap<Arc<Cell>, Spell>,
    /// Not everything that came up is known: there were more cells than are kept, or nobody noted them.
    incomplete: bool,
}

/// The same as it rests in state: keys of JSON are strings.
#[derive(Serialize, Deserialize)]
struct Kept {
    begin_us: Option<i64>,
    cells: Vec<(Arc<Cell>, Spell)>,
    incomplete: bool,
}

impl From<Kept> for Arrivals {
    fn from(kept: Kept) -> Self {
        Self {
            begin_us: kept.begin_us,
            cells: kept.cells.into_iter().collect(),
            incomplete: kept.incomplete,
        }
    }
}

impl From<Arrivals> for Kept {
    fn from(all: Arrivals) -> Self {
        Self {
            begin_us: all.begin_us,
            cells: all.cells.into_iter().collect(),
            incomplete: all.incomplete,
        }
    }
}

impl Arrivals {
    /// Of a model version that was watched before anybody noted when what came up: nothing is known to be new.
    pub(super) fn of_long_ago() -> Self {
        Self {
            begin_us: Some(i64::MIN),
            incomplete: true,
            ..Self::default()
        }
    }

    /// Takes in the cells that have rows in a window, later than all before it.
    pub(super) fn observe<'a>(
        &mut self,
        start_us: i64,
        cells: impl Iterator<Item = &'a Arc<Cell>>,
    ) {
        self.begin_us.get_or_insert(start_us);
        for cell in cells {
            let is_full = self.cells.len() >= CELLS_MAX;
            match self.cells.get_mut(cell) {
                Some(spell) => spell.last_us = start_us,
                None if is_full => self.incomplete = true,
                None => {
                    let spell = Spell {
                        since_us: start_us,
                        last_us: start_us,
                    };
                    self.cells.insert(Arc::clone(cell), spell);
                }
            }
        }
        self.cells
            .retain(|_, spell| start_us - spell.last_us <= ABSENT_MAX_US);
    }

    /// What came up in a scope in the day before a drift began there, the latest first: the model's version, the
    /// scope as a whole, or else attribute values in it.
    pub(super) fn before(&self, scope: &Cohort, version: &str, drift_us: i64) -> Vec<Change> {
        let Some(begin_us) = self.begin_us else {
            return Vec::new();
        };
        let change = |what: &Cohort, at_us: i64| Change {
            what: what.to_string(),
            at_us,
        };
        if drift_us.saturating_sub(begin_us) <= BEFORE_MAX_US {
            return vec![change(&Cohort::of("version", version), begin_us)];
        }
        if self.incomplete {
            return Vec::new();
        }
        let is_news = |at_us: &i64| {
            *at_us >= begin_us.saturating_add(KNOWN_MIN_US)
                && (drift_us - BEFORE_MAX_US..=drift_us).contains(at_us)
        };
        let since = |cohort: &Cohort| {
            let of =
                |(cell, _): &(&Arc<Cell>, &Spell)| belongs(scope, cell) && belongs(cohort, cell);
            let spells = self.cells.iter().filter(of);
            spells.map(|(_, spell)| spell.since_us).min()
        };
        if let Some(at_us) = since(&Cohort::default()).filter(is_news) {
            return vec![change(scope, at_us)];
        }
        let inside = self.cells.keys().filter(|cell| belongs(scope, cell));
        let mut changes: Vec<Change> = attribute_values(inside.map(|cell| &**cell))
            .iter()
            .filter_map(|value| Some(change(value, since(value).filter(is_news)?)))
            .collect();
        // Stable, so that of one window the order is that of the attributes.
        changes.sort_by_key(|change| std::cmp::Reverse(change.at_us));
        changes.truncate(CHANGES_MAX);
        changes
    }
}

#[cfg(test)]
mod tests {
    use driftline_schemas::clock::HOUR_US;

    use super::*;

    fn cell(site: &str, firmware: &str) -> Arc<Cell> {
        let text = |value: &str| -> Arc<str> { value.into() };
        Arc::new(Cell {
            values: [
                text("eu"),
                text(site),
                text("g1"),
                text(firmware),
                text("wifi"),
                text(""),
                text("device"),
            ],
            cadence_s: 0,
        })
    }

    fn told(changes: Vec<Change>) -> Vec<(String, i64)> {
        let pair = |it: Change| (it.what, it.at_us / HOUR_US);
        changes.into_iter().map(pair).collect()
    }

    /// Two sites for four days; at one a new firmware comes up in hour 50, and in hour 60 a third site.
    fn story() -> Arrivals {
        let mut all = Arrivals::default();
        for hour in 0..96 {
            let mut cells = vec![cell("s0", "2.0"), cell("s1", "2.0")];
            cells.extend((hour >= 50).then(|| cell("s1", "2.1")));
            cells.extend((hour >= 60).then(|| cell("s2", "2.0")));
            all.observe(hour * HOUR_US, cells.iter());
        }
        all
    }

    /// What came up is told where it did, in the day after, and a scope that is new as a whole as that.
    #[test]
    fn what_came_up_is_told_where_it_did() {
        let all = story();
        let at = |scope: &Cohort, hour: i64| told(all.before(scope, "1", hour * HOUR_US));
        let s1 = Cohort::of("site", "s1");
        assert_eq!(at(&s1, 55), [("firmware=2.1".into(), 50)]);
        assert_eq!(at(&s1, 50), [("firmware=2.1".into(), 50)]);
        assert_eq!(at(&s1, 49), []);
        assert_eq!(at(&s1, 75), []);
        assert_eq!(at(&Cohort::of("site", "s0"), 55), []);
        let s2 = Cohort::of("site", "s2");
        assert_eq!(at(&s2, 62), [("site=s2".into(), 60)]);
        let of_estate = [("site=s2".into(), 60), ("firmware=2.1".into(), 50)];
        assert_eq!(at(&Cohort::default(), 62), of_estate);
    }

    /// On the first day the version itself is what is new; of one that was watched for long nothing is.
    #[test]
    fn at_first_the_version_is_new() {
        let all = story();
        let s0 = Cohort::of("site", "s0");
        assert_eq!(
            told(all.before(&s0, "1.4", 20 * HOUR_US)),
            [("version=1.4".into(), 0)]
        );
        let mut before = Arrivals::of_long_ago();
        before.observe(0, std::iter::once(&cell("s0", "2.0")));
        assert_eq!(before.before(&s0, "1.4", HOUR_US), []);
    }

    /// A cell that was away for more than a week comes anew, one that reports seldom does not; and what rests in
    /// state is the same.
    #[test]
    fn what_comes_back_late_is_new() {
        let mut all = Arrivals::default();
        let (always, seldom, back) = (cell("s0", "2.0"), cell("s0", "2.1"), cell("s0", "2.2"));
        for hour in 0..400 {
            let mut cells = vec![&always];
            cells.extend((hour % 48 == 0).then_some(&seldom));
            cells.extend((!(10..390).contains(&hour)).then_some(&back));
            all.observe(hour * HOUR_US, cells.into_iter());
        }
        let changes = all.before(&Cohort::default(), "1", 395 * HOUR_US);
        assert_eq!(told(changes), [("firmware=2.2".into(), 390)]);
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Arrivals>(&text).unwrap(), all);
    }
}
