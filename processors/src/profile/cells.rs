//! Base cells as dense numbers, and what keeps the number of attribute values bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use driftline_schemas::clock::SECOND_US;
use driftline_schemas::profile::Cell;
use driftline_schemas::source::{ATTRIBUTES, Origin};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::bundles::Bundles;

/// Values of one attribute of one tenant that keep their names. Every cohort of one attribute is
/// judged by itself, and more than these nobody reads; sites are the most numerous.
pub const ATTRIBUTE_VALUES_MAX: usize = 4_096;
/// How often the registry is asked for new ones.
const LOOK_EVERY_US: i64 = 30 * SECOND_US;
/// What the values beyond are called.
pub const OTHER: &str = "other";

/// The attribute values that keep their names.
///
/// Of the values that the registry knows, the [`ATTRIBUTE_VALUES_MAX`] whose first device was added
/// earliest keep theirs (of those added at once, the first in alphabetical order). The registry only
/// grows, so a value that is kept stays kept, and the order in which telemetry arrives has no say.
/// A value that the registry does not know (a firmware that was updated in the field) keeps its name
/// as long as the attribute is not full.
#[derive(Debug, Default)]
pub struct AttributeLimits {
    revision: Option<u64>,
    looked_at_us: Option<i64>,
    /// Tenants with attributes that are full: the values that are kept.
    full: HashMap<Arc<str>, BTreeMap<usize, BTreeSet<Arc<str>>>>,
}

impl AttributeLimits {
    /// Takes in what the registry learned, if the last look is some time ago: going through a
    /// quarter of a million devices is not for every step.
    pub fn refresh(&mut self, bundles: &dyn Bundles, now_us: i64) {
        let due = |at: i64| !(0..LOOK_EVERY_US).contains(&(now_us - at));
        if self.looked_at_us.is_none_or(due) {
            self.looked_at_us = Some(now_us);
            self.refresh_with(bundles, ATTRIBUTE_VALUES_MAX);
        }
    }

    fn refresh_with(&mut self, bundles: &dyn Bundles, max: usize) {
        let revision = bundles.revision();
        if self.revision == Some(revision) {
            return;
        }
        self.revision = Some(revision);
        let mut first: HashMap<Arc<str>, [HashMap<Arc<str>, i64>; ATTRIBUTES.len()]> =
            HashMap::new();
        bundles.attribute_values(&mut |tenant, values, added_at_us| {
            if !first.contains_key(tenant) {
                first.insert(tenant.into(), Default::default());
            }
            let Some(attributes) = first.get_mut(tenant) else {
                return;
            };
            for (known, value) in attributes.iter_mut().zip(values) {
                match known.get_mut(value) {
                    Some(at) => *at = (*at).min(added_at_us),
                    None => {
                        known.insert(value.into(), added_at_us);
                    }
                }
            }
        });
        self.full.clear();
        for (tenant, attributes) in first {
            for (attribute, known) in attributes.into_iter().enumerate() {
                if known.len() < max {
                    continue;
                }
                let mut by_age: Vec<(i64, Arc<str>)> =
                    known.into_iter().map(|(value, at)| (at, value)).collect();
                by_age.sort_unstable();
                let kept = by_age.into_iter().take(max).map(|(_, value)| value);
                self.full
                    .entry(Arc::clone(&tenant))
                    .or_default()
                    .insert(attribute, kept.collect());
            }
        }
    }

    /// The cell of an origin, with values beyond the limit folded.
    pub fn cell(&self, origin: &Origin) -> Cell {
        let mut cell = Cell::of(origin);
        self.fold(&origin.tenant, &mut cell);
        cell
    }

    /// Folds the values of a tenant's cell that are beyond the limit.
    pub fn fold(&self, tenant: &str, cell: &mut Cell) {
        if let Some(full) = self.full.get(tenant) {
            for (&attribute, kept) in full {
                if !kept.contains(&cell.values[attribute]) {
                    cell.values[attribute] = Arc::from(OTHER);
                }
            }
        }
    }
}

/// Dense numbers of cells, for the length of one step.
#[derive(Debug, Default)]
pub struct Cells {
    codes: HashMap<Cell, u32>,
    cells: Vec<Cell>,
    /// Attributes as they came, by their hash: a frame whose attributes were seen allocates nothing.
    seen: HashMap<u64, (Cell, u32)>,
}

impl Cells {
    /// The number of an origin's cell.
    pub fn code(&mut self, origin: &Origin, limits: &AttributeLimits) -> u32 {
        let attributes = origin.attributes();
        let mut hash = u64::from(origin.cadence_s);
        for value in attributes {
            hash = xxh3_64_with_seed(value.as_bytes(), hash);
        }
        if let Some((cell, code)) = self.seen.get(&hash)
            && cell.cadence_s == origin.cadence_s
            && cell.values.iter().zip(attributes).all(|(a, b)| **a == *b)
        {
            return *code;
        }
        let cell = limits.cell(origin);
        let code = match self.codes.get(&cell) {
            Some(code) => *code,
            None => {
                // A step has fewer frames than 2^32.
                let code = self.cells.len() as u32;
                self.codes.insert(cell.clone(), code);
                self.cells.push(cell);
                code
            }
        };
        self.seen.insert(hash, (Cell::of(origin), code));
        code
    }

    /// The cell of a number.
    pub fn get(&self, code: u32) -> Option<&Cell> {
        self.cells.get(code as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_log::runner::StageError;
    use driftline_schemas::bundle::Bundle;

    struct Estate(Vec<(&'static str, i64)>);

    impl Bundles for Estate {
        fn bundle(
            &self,
            _: &str,
            _: &str,
            _: &str,
            _: &str,
        ) -> Result<Option<Arc<Bundle>>, StageError> {
            Ok(None)
        }

        fn revision(&self) -> u64 {
            self.0.len() as u64
        }

        fn attribute_values(&self, each: &mut dyn FnMut(&str, [&str; ATTRIBUTES.len()], i64)) {
            for (site, at) in &self.0 {
                each("acme", ["eu", site, "", "", "", "", ""], *at);
            }
        }
    }

    fn origin(site: &str) -> Arc<Origin> {
        let text = format!(r#"{{"tenant":"acme","device":"d","site":{site:?},"region":"us"}}"#);
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    /// The earliest values keep their names whatever the order in which devices are listed, later
    /// ones fold, and growth of the registry changes nothing for those that were kept. Another
    /// attribute that is not full is not touched.
    #[test]
    fn values_beyond_the_limit_fold_by_age() {
        let site = |limits: &AttributeLimits, site: &str| {
            let cell = limits.cell(&origin(site));
            assert_eq!(cell.get("region"), Some("us"));
            cell.get("site").unwrap().to_owned()
        };
        let mut limits = AttributeLimits::default();
        limits.refresh_with(&Estate(vec![("c", 3)]), 2);
        assert_eq!(site(&limits, "new in the field"), "new in the field");
        limits.refresh_with(&Estate(vec![("c", 3), ("b", 2), ("c", 9), ("a", 3)]), 2);
        assert_eq!(site(&limits, "b"), "b");
        assert_eq!(site(&limits, "a"), "a");
        assert_eq!(site(&limits, "c"), OTHER);
        assert_eq!(site(&limits, "new in the field"), OTHER);
        let more = vec![("z", 4), ("a", 3), ("b", 2), ("c", 3), ("y", 5)];
        limits.refresh_with(&Estate(more), 2);
        assert_eq!(site(&limits, "a"), "a");
        assert_eq!(site(&limits, "z"), OTHER);
    }

    /// Equal cells have one number, whichever origin they come from.
    #[test]
    fn cells_are_numbered_densely() {
        let limits = AttributeLimits::default();
        let mut cells = Cells::default();
        let north = origin("north");
        assert_eq!(cells.code(&north, &limits), 0);
        assert_eq!(cells.code(&origin("south"), &limits), 1);
        assert_eq!(cells.code(&origin("north"), &limits), 0);
        assert_eq!(cells.code(&north, &limits), 0);
        assert_eq!(cells.get(1).unwrap().get("site"), Some("south"));
        assert!(cells.get(2).is_none());
    }
}
