//! Both files, in at most two passes, as columns to compare.
//!
//! The first pass finds what each column holds (numbers, unless a text is none), and keeps a bounded
//! sample of every numeric one. A column whose values all fit in the samples is compared value by value.
//! The second pass counts the rest: numbers between cuts that the samples of both sides fix, and
//! categories. Nothing else is held, so memory depends on the columns and groups, not on the rows.
//!
//! # Layout
//!
//! - `tally`: what is counted for one column on one side, in both passes
//! - `scan`: one reading of one file

mod scan;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use anyhow::{Result, anyhow, bail};
use driftline_drift::compare::{Binned, Categories, Column, Cuts, Numbers, Sides, Values};

use super::source::{Declared, Source};
use scan::{First, Job, Second, join_first, join_second};
use tally::{Counted, Names, Tally};

/// Values of a column, side and group that are kept before they are counted in bins: 80 kB. Up to here
/// the Kolmogorov-Smirnov p-value is exact as well.
pub(super) const SAMPLE_VALUES: usize = 10_000;
/// The same where a peer's definitions need every value: 16 MB, at which they stop being quick too.
pub(super) const COMPAT_VALUES_MAX: usize = 2_000_000;
/// Values of a `--by` column: each has columns of its own in memory.
pub(super) const GROUPS_MAX: usize = 256;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Category,
}

/// A column to compare.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Its name in the reference.
    pub(super) name: String,
    /// Its place in both files.
    pub(super) place: Sides<usize>,
    /// What it is said to be, where somebody said so.
    pub(super) kind: Option<Kind>,
}

/// What to read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) sources: Sides<Source>,
    pub(super) columns: Vec<Wanted>,
    /// Place of the column that tells groups apart.
    pub(super) by: Option<Sides<usize>>,
    /// Place of the column with the rows' weights.
    pub(super) weights: Option<Sides<usize>>,
    /// Values kept of a column and side.
    pub(super) sample_values: usize,
    /// Whether a column with more values is refused.
    pub(super) needs_all: bool,
}

/// All rows, or those of one group.
#[derive(Debug)]
pub(super) struct Table {
    /// The group's value; none for all rows.
    pub(super) group: Option<String>,
    pub(super) rows: Sides<u64>,
    pub(super) columns: Vec<Column>,
}

/// Reads both files: all rows first, then the groups in the order of their names.
///
/// # Errors
/// Names the file, and the column or row that is wrong.
pub(super) fn collect(request: &Request) -> Result<Vec<Table>> {
    let first = run(request, |job| job.first())?;
    let first = first.map(|parts| join_first(parts, request.columns.len()));
    for (side, source) in [
        (&first.reference, &request.sources.reference),
        (&first.current, &request.sources.current),
    ] {
        if side.all.rows == 0 {
            bail!("{}: there are no rows to compare", source.name);
        }
    }
    let kinds = kinds(request, &first)?;
    let groups: BTreeSet<&String> = first
        .reference
        .groups
        .keys()
        .chain(first.current.groups.keys())
        .collect();
    let groups: Vec<Option<String>> = std::iter::once(None)
        .chain(groups.into_iter().cloned().map(Some))
        .collect();
    // Columns that were kept whole in every group need no second look.
    let mut plans = Vec::new();
    for (at, wanted) in request.columns.iter().enumerate() {
        plans.push(plan(request, wanted, at, kinds[at], &groups, &first)?);
    }
    let second = match plans.iter().all(|plan| plan.is_whole()) {
        true => Sides::new(Second::default(), Second::default()),
        false => {
            run(request, |job| job.second(&plans))?.map(|parts| join_second(parts, plans.len()))
        }
    };
    let empty = Tally::default();
    groups
        .iter()
        .map(|group| {
            let sides = first.as_ref().map(|side| side.of(group.as_deref()));
            let rows = sides.map(|side| side.map_or(0, |side| side.rows));
            let columns = request.columns.iter().enumerate().map(|(at, wanted)| {
                let tallies = sides.map(|side| side.map_or(&empty, |side| &side.columns[at]));
                let counted = second
                    .as_ref()
                    .map(|side| side.of(group.as_deref())?.get(at)?.as_ref());
                let cuts = plans[at].cuts(group.as_deref());
                column(
                    wanted,
                    tallies,
                    counted,
                    cuts,
                    kinds[at],
                    request.weights.is_some(),
                )
            });
            Ok(Table {
                group: group.clone(),
                rows,
                columns: columns.collect::<Result<_>>()?,
            })
        })
        .collect()
}

/// How a column is counted in the second pass.
#[derive(Debug)]
pub(super) enum Plan {
    /// Its values were all kept.
    Whole,
    /// Between cuts, for all rows and by group.
    Cut(Grouped<Cuts>),
    /// By category; whether every row's category is kept, in order.
    Count(bool),
}

impl Plan {
    fn is_whole(&self) -> bool {
        matches!(self, Self::Whole)
    }

    fn cuts(&self, group: Option<&str>) -> Option<&Cuts> {
        match self {
            Self::Cut(cuts) => cuts.of(group),
            _ => None,
        }
    }
}

/// Something of all rows, and of the rows of each group.
#[derive(Debug, Default)]
pub(super) struct Grouped<T> {
    all: T,
    groups: BTreeMap<String, T>,
}

impl<T> Grouped<T> {
    fn of(&self, group: Option<&str>) -> Option<&T> {
        match group {
            None => Some(&self.all),
            Some(group) => self.groups.get(group),
        }
    }

    /// Joins readings of some of the columns each: `put` writes what one holds to its places in what
    /// began as `blank`.
    fn join(parts: Parts<Self>, blank: impl Fn() -> T, put: impl Fn(&mut T, &[usize], T)) -> Self {
        let mut joined = Self {
            all: blank(),
            groups: BTreeMap::new(),
        };
        for (places, part) in parts {
            put(&mut joined.all, &places, part.all);
            for (group, part) in part.groups {
                let to = joined.groups.entry(group).or_insert_with(&blank);
                put(to, &places, part);
            }
        }
        joined
    }
}

/// A column whose values do not fit where all are needed.
fn too_many(wanted: &Wanted) -> anyhow::Error {
    anyhow!(
        "column {}: --compat needs every value in memory, at most {COMPAT_VALUES_MAX} a side, and there are more; leave --compat out",
        wanted.name
    )
}

fn plan(
    request: &Request,
    wanted: &Wanted,
    at: usize,
    kind: Kind,
    groups: &[Option<String>],
    first: &Sides<First>,
) -> Result<Plan> {
    if kind == Kind::Category {
        return Ok(Plan::Count(request.needs_all));
    }
    let is_whole = |side: &First| side.all.columns[at].sample.is_whole();
    if is_whole(&first.reference) && is_whole(&first.current) && request.weights.is_none() {
        return Ok(Plan::Whole);
    }
    if request.needs_all {
        return Err(too_many(wanted));
    }
    let cuts = |group: Option<&str>| {
        let samples = first.as_ref().map(|side| {
            let side = side.of(group);
            side.map_or(&[][..], |side| side.columns[at].sample.values())
        });
        Cuts::new(samples)
    };
    let named = groups.iter().flatten();
    Ok(Plan::Cut(Grouped {
        all: cuts(None),
        groups: named
            .map(|group| (group.clone(), cuts(Some(group))))
            .collect(),
    }))
}

/// What each column holds: both files must agree.
fn kinds(request: &Request, first: &Sides<First>) -> Result<Vec<Kind>> {
    let of = |source: &Source, side: &First, place: usize, at: usize| match source.declared[place] {
        Declared::Number | Declared::Time => Some(Kind::Number),
        Declared::Category | Declared::Other => Some(Kind::Category),
        Declared::Text => {
            let tally = &side.all.columns[at];
            match (&tally.text, tally.missing == side.all.rows) {
                (Some(_), _) => Some(Kind::Category),
                (None, true) => None,
                (None, false) => Some(Kind::Number),
            }
        }
    };
    let mut kinds = Vec::new();
    for (at, wanted) in request.columns.iter().enumerate() {
        let sources = &request.sources;
        let reference = of(
            &sources.reference,
            &first.reference,
            wanted.place.reference,
            at,
        );
        let current = of(&sources.current, &first.current, wanted.place.current, at);
        kinds.push(match (wanted.kind, reference, current) {
            (Some(kind), _, _) => kind,
            (None, Some(one), Some(other)) if one != other => {
                let (text, side) = match one {
                    Kind::Category => (&first.reference.all.columns[at].text, "reference"),
                    Kind::Number => (&first.current.all.columns[at].text, "current"),
                };
                let example = text
                    .as_ref()
                    .map(|(row, text)| format!(" (row {row}: {text:?})"))
                    .unwrap_or_default();
                bail!(
                    "column {} holds texts in the {side} file{example} and numbers in the other: compare it as categories with --categorical {}, or choose others with --columns",
                    wanted.name, wanted.name
                );
            }
            (None, one, other) => one.or(other).unwrap_or(Kind::Category),
        });
    }
    Ok(kinds)
}

/// What readings of some columns each of a file found.
type Parts<T> = Vec<(Vec<usize>, T)>;

/// Runs one reading of both files, on as many threads as there are processors.
fn run<T: Send>(
    request: &Request,
    work: impl Fn(&Job<'_>) -> Result<T> + Sync,
) -> Result<Sides<Parts<T>>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut jobs = Vec::new();
    for is_current in [true, false] {
        let source = match is_current {
            true => &request.sources.current,
            false => &request.sources.reference,
        };
        let parts = match source.is_columnar() {
            true => threads.min(request.columns.len()).max(1),
            false => 1,
        };
        for part in 0..parts {
            let columns = (part..request.columns.len()).step_by(parts).collect();
            jobs.push(Job::new(request, is_current, columns));
        }
    }
    let queue = Mutex::new(jobs.into_iter());
    let done = Mutex::new(Sides::<Parts<T>>::new(Vec::new(), Vec::new()));
    let worker = || -> Result<()> {
        loop {
            // The lock is held for a moment and nothing in it panics.
            let job = queue
                .lock()
                .map_err(|_| anyhow!("a thread has failed"))?
                .next();
            let Some(job) = job else { return Ok(()) };
            let answer = work(&job)?;
            let mut done = done.lock().map_err(|_| anyhow!("a thread has failed"))?;
            let side = match job.is_current {
                true => &mut done.current,
                false => &mut done.reference,
            };
            side.push((job.columns, answer));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|it| it.join().map_err(|_| anyhow!("a thread has failed"))?)
    })?;
    done.into_inner()
        .map_err(|_| anyhow!("a thread has failed"))
}

/// A column of a table from what was counted: in bins where there are cuts, by category where names
/// were, else by the values that were kept.
fn column(
    wanted: &Wanted,
    tallies: Sides<&Tally>,
    counted: Sides<Option<&Counted>>,
    cuts: Option<&Cuts>,
    kind: Kind,
    is_weighted: bool,
) -> Result<Column> {
    let counts = tallies.map(Tally::counts);
    let count = |at: usize| counts.map(|counts| counts[at]);
    let values = match (kind, cuts) {
        (Kind::Category, _) => Values::Categories(categories(counted)),
        (Kind::Number, Some(cuts)) => {
            let none = Binned::new(cuts);
            let binned = counted.map(|it| match it {
                Some(Counted::Binned(binned)) => binned,
                _ => &none,
            });
            let moments = tallies.map(|tally| tally.running.moments());
            Values::Numbers(match is_weighted {
                true => Numbers::of_weights(cuts, binned),
                false => Numbers::of_bins(cuts, binned, moments),
            })
        }
        (Kind::Number, None) => {
            let values = tallies.map(|tally| tally.sample.values().to_vec());
            Values::Numbers(Numbers::of_values(values.reference, values.current)?)
        }
    };
    Ok(Column {
        name: wanted.name.clone(),
        rows: count(0),
        missing: count(1),
        // "nan" and "inf" are texts like others where a column holds texts.
        not_finite: match kind {
            Kind::Number => count(2),
            Kind::Category => Sides::default(),
        },
        values,
    })
}

fn categories(counted: Sides<Option<&Counted>>) -> Categories {
    let none = Names::default();
    let names = counted.map(|it| match it {
        Some(Counted::Names(names)) => names,
        _ => &none,
    });
    Names::join(names)
}
