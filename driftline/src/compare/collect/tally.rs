//! What is counted for one column on one side.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use driftline_drift::compare::{Binned, Categories, Reservoir, Running, Sides};

/// Categories of a column, side and group that are told apart by name; with more, all are counted in
/// [`BUCKETS`] by a hash of their name.
pub(in crate::compare) const CATEGORIES_MAX: usize = 10_000;
/// Buckets of a column with too many categories: enough that a category of a thousandth stands out.
const BUCKETS: u64 = 1024;
/// Longest name of a category, bytes; a longer one is cut and told apart by a hash.
const NAME_BYTES_MAX: usize = 200;

/// Sums of weights.
#[derive(Debug, Clone, Copy, Default)]
struct Weights {
    all: f64,
    squares: f64,
    missing: f64,
    not_finite: f64,
}

/// The first pass.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    rows: u64,
    pub(super) missing: u64,
    not_finite: u64,
    pub(super) running: Running,
    pub(super) sample: Reservoir,
    /// The first text that is no number, and its row.
    pub(super) text: Option<(u64, String)>,
    weights: Option<Weights>,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new(1, false)
    }
}

impl Tally {
    pub(super) fn new(sample_values: usize, is_weighted: bool) -> Self {
        Self {
            rows: 0,
            missing: 0,
            not_finite: 0,
            running: Running::default(),
            sample: Reservoir::new(sample_values),
            text: None,
            weights: is_weighted.then(Weights::default),
        }
    }

    /// Takes finite numbers that weigh nothing special.
    pub(super) fn plain(&mut self, values: &[f64]) {
        self.rows += values.len() as u64;
        self.running.extend(values);
        self.sample.extend(values);
    }

    /// Counts a row without a finite number, or whose number [`Tally::values`] takes.
    pub(super) fn row(&mut self, is_missing: bool, is_finite: bool, weight: Option<f64>) {
        let is_odd = !is_missing && !is_finite;
        self.rows += 1;
        self.missing += u64::from(is_missing);
        self.not_finite += u64::from(is_odd);
        if let (Some(weights), Some(weight)) = (&mut self.weights, weight) {
            weights.all += weight;
            weights.squares += weight * weight;
            weights.missing += if is_missing { weight } else { 0.0 };
            weights.not_finite += if is_odd { weight } else { 0.0 };
        }
    }

    /// Takes finite numbers whose rows are counted already.
    pub(super) fn values(&mut self, values: &[f64]) {
        self.running.extend(values);
        self.sample.extend(values);
    }

    /// Rows, missing ones and those that are not finite; weighted ones by what they are worth (Kish
    /// 1965).
    pub(super) fn counts(&self) -> [u64; 3] {
        let Some(weights) = self.weights else {
            return [self.rows, self.missing, self.not_finite];
        };
        if weights.squares <= 0.0 {
            return [0; 3];
        }
        let of = |weight: f64| (weight * weights.all / weights.squares).round() as u64;
        [weights.all, weights.missing, weights.not_finite].map(of)
    }
}

/// The second pass.
#[derive(Debug)]
pub(super) enum Counted {
    Binned(Binned),
    Names(Names),
}

/// Rows of each category.
#[derive(Debug, Default, Clone)]
pub(super) struct Names {
    /// Place of a category in the order of appearance.
    places: HashMap<String, u32>,
    counts: Vec<Count>,
    /// Every row's category, where that is kept.
    codes: Option<Vec<u32>>,
    /// Whether there were too many, so that the names are buckets'.
    is_hashed: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    rows: u64,
    weight: f64,
    squares: f64,
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn bucket(name: &str) -> String {
    format!("bucket {} of {BUCKETS}", hash(name) % BUCKETS)
}

/// A name of bounded length.
fn bounded(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES_MAX {
        return name.into();
    }
    let end = (0..=NAME_BYTES_MAX)
        .rev()
        .find(|at| name.is_char_boundary(*at));
    format!("{}… ({:016x})", &name[..end.unwrap_or(0)], hash(name)).into()
}

impl Names {
    pub(super) fn new(keeps_codes: bool) -> Self {
        Self {
            codes: keeps_codes.then(Vec::new),
            ..Self::default()
        }
    }

    /// Counts a row.
    pub(super) fn take(&mut self, name: &str, weight: f64) {
        let name = bounded(name);
        let place = match self.is_hashed {
            true => self.place(&bucket(&name)),
            false => self.place(&name),
        };
        let count = &mut self.counts[place as usize];
        count.rows += 1;
        count.weight += weight;
        count.squares += weight * weight;
        if let Some(codes) = &mut self.codes {
            codes.push(place);
        } else if self.counts.len() > CATEGORIES_MAX && !self.is_hashed {
            *self = self.hashed();
        }
    }

    fn place(&mut self, name: &str) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        // Bounded by CATEGORIES_MAX, or by the rows that --compat keeps.
        let place = self.counts.len() as u32;
        self.places.insert(name.to_owned(), place);
        self.counts.push(Count::default());
        place
    }

    /// The same in buckets.
    fn hashed(&self) -> Self {
        let mut buckets = Self {
            is_hashed: true,
            ..Self::default()
        };
        for (name, place) in &self.places {
            let count = self.counts[*place as usize];
            let to = buckets.place(&bucket(name)) as usize;
            buckets.counts[to].rows += count.rows;
            buckets.counts[to].weight += count.weight;
            buckets.counts[to].squares += count.squares;
        }
        buckets
    }

    /// Rows for which a category is kept, for a bound on them.
    pub(super) fn kept(&self) -> usize {
        self.codes.as_ref().map_or(0, Vec::len)
    }

    /// Both sides by name. Where one is in buckets, so is the other.
    pub(super) fn join(sides: Sides<&Self>) -> Categories {
        if sides.reference.is_hashed != sides.current.is_hashed {
            let hashed = sides.map(|side| match side.is_hashed {
                true => side.clone(),
                false => side.hashed(),
            });
            return Self::join(hashed.as_ref());
        }
        let mut all: BTreeMap<&str, Sides<u64>> = BTreeMap::new();
        for (name, rows) in sides.reference.rows() {
            all.entry(name).or_default().reference = rows;
        }
        for (name, rows) in sides.current.rows() {
            all.entry(name).or_default().current = rows;
        }
        let at: HashMap<&str, u32> = all.keys().zip(0..).map(|(name, at)| (*name, at)).collect();
        let codes = sides.map(|side| -> Option<Vec<u32>> {
            let mut to = vec![0; side.counts.len()];
            for (name, place) in &side.places {
                to[*place as usize] = at.get(name.as_str()).copied().unwrap_or(0);
            }
            let codes = side.codes.as_ref()?;
            Some(codes.iter().map(|code| to[*code as usize]).collect())
        });
        Categories {
            names: all.keys().map(|name| (*name).to_owned()).collect(),
            counts: Sides::new(
                all.values().map(|rows| rows.reference).collect(),
                all.values().map(|rows| rows.current).collect(),
            ),
            codes: codes
                .reference
                .zip(codes.current)
                .map(|(reference, current)| Sides::new(reference, current)),
        }
    }

    /// Rows of each category, or what they are worth where they weigh other than 1.
    fn rows(&self) -> impl Iterator<Item = (&str, u64)> {
        let weight: f64 = self.counts.iter().map(|count| count.weight).sum();
        let squares: f64 = self.counts.iter().map(|count| count.squares).sum();
        let rows: u64 = self.counts.iter().map(|count| count.rows).sum();
        // Weights of 1 add up to exactly the rows.
        let is_plain = weight == rows as f64 && squares == rows as f64;
        self.places.iter().map(move |(name, place)| {
            let count = self.counts[*place as usize];
            let worth = match is_plain || squares <= 0.0 {
                true => count.rows,
                false => (count.weight * weight / squares).round() as u64,
            };
            (name.as_str(), worth)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Up to the limit categories have names; beyond it both sides are in the same buckets, and no row is
    /// lost.
    #[test]
    fn too_many_categories_are_hashed_on_both_sides() {
        let (mut many, mut few) = (Names::new(false), Names::new(false));
        for i in 0..=CATEGORIES_MAX {
            many.take(&format!("user {i}"), 1.0);
            few.take(if i % 2 == 0 { "user 1" } else { "user 2" }, 1.0);
        }
        assert!(many.is_hashed && !few.is_hashed);
        let joined = Names::join(Sides::new(&few, &many));
        assert!(joined.names.len() <= BUCKETS as usize);
        let rows = joined.counts.map(|counts| counts.iter().sum::<u64>());
        assert_eq!(
            rows,
            Sides::new(CATEGORIES_MAX as u64 + 1, CATEGORIES_MAX as u64 + 1)
        );
    }

    /// A long name is cut, and two long names that begin alike stay two.
    #[test]
    fn long_names_are_cut_and_told_apart() {
        let mut names = Names::new(false);
        let long = "ä".repeat(500);
        names.take(&long, 1.0);
        names.take(&format!("{long}!"), 1.0);
        let joined = Names::join(Sides::new(&names, &names));
        assert_eq!(joined.counts.reference, [1, 1]);
        assert!(joined.names.iter().all(|name| name.len() < 240));
    }

    /// Three rows that weigh 2, 1 and 1 are worth 16/6 rows; a missing one its share of that.
    #[test]
    fn weighted_rows_are_worth_fewer() {
        let mut tally = Tally::new(10, true);
        tally.row(false, true, Some(2.0));
        tally.row(true, false, Some(1.0));
        tally.row(false, false, Some(1.0));
        assert_eq!(tally.counts(), [3, 1, 1]);
        let mut names = Names::new(false);
        for (name, weight) in [("a", 20.0), ("b", 10.0), ("b", 10.0)] {
            names.take(name, weight);
        }
        let counts = Names::join(Sides::new(&names, &names)).counts.current;
        assert_eq!(counts, [1, 1]);
    }
}
