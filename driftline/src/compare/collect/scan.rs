//! One reading of one file, or of some of its columns.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use arrow::array::{Array, ArrayRef, Float64Array, StringArray};
use driftline_drift::compare::{Binned, Cuts, Sides};

use super::super::source::{self, Declared, Source};
use super::tally::{Counted, Names, Tally};
use super::{COMPAT_VALUES_MAX, GROUPS_MAX, Grouped, Kind, Parts, Plan, Request, Wanted};

/// Columns of one file to read together.
pub(super) struct Job<'a> {
    request: &'a Request,
    pub(super) is_current: bool,
    /// Indices of the request's columns.
    pub(super) columns: Vec<usize>,
    /// Places in the file, ascending.
    places: Vec<usize>,
}

/// The columns of some rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: u64,
    pub(super) columns: Vec<Tally>,
}

/// The first pass over one file.
pub(super) type First = Grouped<Rows>;

/// The second pass over one file: what was counted, by column.
pub(super) type Second = Grouped<Vec<Option<Counted>>>;

/// Puts the columns of several readings in their places.
pub(super) fn join_first(parts: Parts<First>, columns: usize) -> First {
    let blank = || Rows {
        rows: 0,
        columns: (0..columns).map(|_| Tally::default()).collect(),
    };
    Grouped::join(parts, blank, |to, places, part| {
        to.rows = part.rows;
        for (at, tally) in places.iter().zip(part.columns) {
            to.columns[*at] = tally;
        }
    })
}

/// The same for the second pass.
pub(super) fn join_second(parts: Parts<Second>, columns: usize) -> Second {
    let blank = || (0..columns).map(|_| None).collect();
    Grouped::join(parts, blank, |to: &mut Vec<_>, places, part| {
        for (at, counted) in places.iter().zip(part) {
            to[*at] = counted;
        }
    })
}

/// A block's rows: which group each is of, and what it weighs.
struct Heads {
    members: BTreeMap<String, Vec<usize>>,
    weights: Option<Float64Array>,
}

/// Rows of a block.
#[derive(Clone, Copy)]
enum Members<'a> {
    All,
    Some(&'a [usize]),
}

impl<'a> Job<'a> {
    pub(super) fn new(request: &'a Request, is_current: bool, columns: Vec<usize>) -> Self {
        let mut job = Self {
            request,
            is_current,
            columns,
            places: Vec::new(),
        };
        let columns = job
            .columns
            .iter()
            .map(|at| job.side(request.columns[*at].place));
        let heads = [request.by, request.weights].into_iter().flatten();
        let mut places: Vec<usize> = columns.chain(heads.map(|it| job.side(it))).collect();
        places.sort_unstable();
        places.dedup();
        job.places = places;
        job
    }

    fn side(&self, sides: Sides<usize>) -> usize {
        match self.is_current {
            true => sides.current,
            false => sides.reference,
        }
    }

    fn source(&self) -> &Source {
        match self.is_current {
            true => &self.request.sources.current,
            false => &self.request.sources.reference,
        }
    }

    /// The block of a column, which `places` holds by construction.
    fn block<'b>(&self, blocks: &'b [ArrayRef], place: Sides<usize>) -> &'b ArrayRef {
        &blocks[self.places.partition_point(|it| *it < self.side(place))]
    }

    fn heads(&self, blocks: &[ArrayRef], row: u64) -> Result<Heads> {
        let mut members: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        if let Some(by) = self.request.by {
            // A row without a value is of no group.
            let groups = source::texts(self.block(blocks, by))?;
            for at in (0..groups.len()).filter(|at| groups.is_valid(*at)) {
                match members.get_mut(groups.value(at)) {
                    Some(rows) => rows.push(at),
                    None => {
                        members.insert(groups.value(at).to_owned(), vec![at]);
                    }
                }
            }
        }
        let weights = match self.request.weights {
            None => None,
            Some(place) => Some(weights(self.block(blocks, place), row)?),
        };
        Ok(Heads { members, weights })
    }

    /// Finds kinds, samples numbers.
    pub(super) fn first(&self) -> Result<First> {
        let request = self.request;
        let is_weighted = request.weights.is_some();
        let blank = || Rows {
            rows: 0,
            columns: self
                .columns
                .iter()
                .map(|_| Tally::new(request.sample_values, is_weighted))
                .collect(),
        };
        let mut first = First {
            all: blank(),
            groups: BTreeMap::new(),
        };
        self.source().scan(&self.places, |blocks| {
            let rows = blocks.first().map_or(0, |block| block.len());
            let row = first.all.rows + 1;
            let heads = self.heads(blocks, row)?;
            first.all.rows += rows as u64;
            for (group, rows) in &heads.members {
                first.groups.entry(group.clone()).or_insert_with(blank).rows += rows.len() as u64;
            }
            if first.groups.len() > GROUPS_MAX {
                bail!(
                    "the column of --by has more than {GROUPS_MAX} values: take one that tells few groups apart"
                );
            }
            for (at, column) in self.columns.iter().enumerate() {
                let wanted = &request.columns[*column];
                let text = &mut first.all.columns[at].text;
                let block = self
                    .first_block(self.block(blocks, wanted.place), wanted, text, row)
                    .with_context(|| format!("column {}", wanted.name))?;
                let weights = heads.weights.as_ref();
                tally(&mut first.all.columns[at], &block, Members::All, weights);
                for (group, rows) in &heads.members {
                    if let Some(to) = first.groups.get_mut(group) {
                        tally(&mut to.columns[at], &block, Members::Some(rows), weights);
                    }
                }
            }
            Ok(())
        })?;
        Ok(first)
    }

    /// A block as numbers, unless it is known to hold texts or turns out to.
    fn first_block(
        &self,
        block: &ArrayRef,
        wanted: &Wanted,
        text: &mut Option<(u64, String)>,
        row: u64,
    ) -> Result<Block> {
        let declared = self.source().declared[self.side(wanted.place)];
        let is_text = text.is_some()
            || wanted.kind == Some(Kind::Category)
            || matches!(declared, Declared::Category | Declared::Other);
        if !is_text {
            match source::numbers(block)? {
                source::Numbers::All(values) => return Ok(Block::Numbers(values)),
                source::Numbers::Text(at, found) => {
                    let found = found.chars().take(40).collect();
                    *text = Some((row + at as u64, found));
                }
            }
        }
        Ok(Block::Texts(source::texts(block)?))
    }

    /// Counts.
    pub(super) fn second(&self, plans: &[Plan]) -> Result<Second> {
        let new = |group: Option<&str>| -> Vec<Option<Counted>> {
            let counted = |at: &usize| match &plans[*at] {
                Plan::Whole => None,
                Plan::Cut(cuts) => Some(Counted::Binned(Binned::new(cuts.of(group)?))),
                Plan::Count(keeps) => Some(Counted::Names(Names::new(*keeps))),
            };
            self.columns.iter().map(counted).collect()
        };
        let mut second = Second {
            all: new(None),
            groups: BTreeMap::new(),
        };
        if self.columns.iter().all(|at| plans[*at].is_whole()) {
            return Ok(second);
        }
        self.source().scan(&self.places, |blocks| {
            let heads = self.heads(blocks, 1)?;
            let weights = heads.weights.as_ref();
            for (at, column) in self.columns.iter().enumerate() {
                let wanted = &self.request.columns[*column];
                let plan = &plans[*column];
                if plan.is_whole() {
                    continue;
                }
                let block = Block::read(self.block(blocks, wanted.place), plan)
                    .with_context(|| format!("column {}", wanted.name))?;
                count(
                    &mut second.all[at],
                    plan.cuts(None),
                    &block,
                    Members::All,
                    weights,
                );
                for (group, rows) in &heads.members {
                    let to = second.groups.entry(group.clone());
                    let to = &mut to.or_insert_with(|| new(Some(group)))[at];
                    count(
                        to,
                        plan.cuts(Some(group)),
                        &block,
                        Members::Some(rows),
                        weights,
                    );
                }
                if let Some(Counted::Names(names)) = &second.all[at]
                    && names.kept() > COMPAT_VALUES_MAX
                {
                    return Err(super::too_many(wanted));
                }
            }
            Ok(())
        })?;
        Ok(second)
    }
}

/// Weights of a block that begins at a row.
fn weights(block: &ArrayRef, row: u64) -> Result<Float64Array> {
    let weights = match source::numbers(block)? {
        source::Numbers::All(weights) => weights,
        source::Numbers::Text(at, text) => {
            bail!("row {}: weight {text:?} is no number", row + at as u64)
        }
    };
    let is_bad = |it: Option<f64>| it.is_none_or(|it| !(it.is_finite() && it >= 0.0));
    match weights.iter().position(is_bad) {
        Some(at) => bail!(
            "row {}: the weight is missing, negative or not finite",
            row + at as u64
        ),
        None => Ok(weights),
    }
}

/// A block of a column.
enum Block {
    Numbers(Float64Array),
    Texts(StringArray),
}

impl Block {
    fn read(block: &ArrayRef, plan: &Plan) -> Result<Self> {
        match plan {
            Plan::Count(_) => Ok(Self::Texts(source::texts(block)?)),
            _ => match source::numbers(block)? {
                source::Numbers::All(numbers) => Ok(Self::Numbers(numbers)),
                source::Numbers::Text(_, text) => {
                    bail!("{text:?} was not there when the file was read first: it has changed")
                }
            },
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Numbers(values) => values.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// The numbers, when there is nothing to look at row by row.
    fn plain(&self, members: Members<'_>, weights: Option<&Float64Array>) -> Option<&[f64]> {
        match (self, members, weights) {
            (Self::Numbers(values), Members::All, None) if values.null_count() == 0 => {
                let values: &[f64] = values.values();
                values
                    .iter()
                    .all(|value| value.is_finite())
                    .then_some(values)
            }
            _ => None,
        }
    }
}

/// Calls `on` with the rows that are meant.
fn each(members: Members<'_>, rows: usize, on: impl FnMut(usize)) {
    match members {
        Members::All => (0..rows).for_each(on),
        Members::Some(rows) => rows.iter().copied().for_each(on),
    }
}

fn tally(to: &mut Tally, block: &Block, members: Members<'_>, weights: Option<&Float64Array>) {
    if let Some(values) = block.plain(members, weights) {
        return to.plain(values);
    }
    let weight = |row: usize| weights.map(|weights| weights.value(row));
    match block {
        Block::Texts(texts) => each(members, block.len(), |row| {
            to.row(texts.is_null(row), true, weight(row));
        }),
        Block::Numbers(values) => {
            let mut finite = Vec::with_capacity(values.len());
            each(members, block.len(), |row| {
                let (is_missing, value) = (values.is_null(row), values.value(row));
                to.row(is_missing, value.is_finite(), weight(row));
                if !is_missing && value.is_finite() {
                    finite.push(value);
                }
            });
            to.values(&finite);
        }
    }
}

fn count(
    to: &mut Option<Counted>,
    cuts: Option<&Cuts>,
    block: &Block,
    members: Members<'_>,
    weights: Option<&Float64Array>,
) {
    let weight = |row: usize| weights.map(|weights| weights.value(row));
    match (to, block, cuts) {
        (Some(Counted::Binned(binned)), Block::Numbers(values), Some(cuts)) => {
            if let Some(values) = block.plain(members, weights) {
                return binned.extend(cuts, values);
            }
            each(members, block.len(), |row| {
                let value = values.value(row);
                if values.is_null(row) || !value.is_finite() {
                    return;
                }
                match weight(row) {
                    Some(weight) => binned.weigh(cuts, value, weight),
                    None => binned.extend(cuts, &[value]),
                }
            });
        }
        (Some(Counted::Names(names)), Block::Texts(texts), _) => {
            each(members, block.len(), |row| {
                if texts.is_valid(row) {
                    names.take(texts.value(row), weight(row).unwrap_or(1.0));
                }
            });
        }
        _ => {}
    }
}
