//! The smallest set of cohorts that explains what moved.

use driftline_schemas::measure::Cohort;

use super::{Part, attribute_values, members};

/// Most causes of one signal that are told apart; more at once are one cause of the whole estate.
pub const CAUSES_MAX: usize = 3;
/// What a further cause must explain, as a squared number of standard errors: a chance of less
/// than one in ten thousand, over tens of candidates.
const GAIN_MIN: f64 = 20.0;
/// What a pair must explain beyond the best single value: pairs are many, so some fit by chance.
const PAIR_GAIN_MIN: f64 = 15.0;
/// What a cohort that did not cross must explain beyond the best that did.
const QUIET_GAIN_MIN: f64 = 9.0;
/// Head start of a cohort that is known to be the cause of another signal.
const KNOWN_GAIN: f64 = 6.0;
/// Share of the deviation of a pair that its values' other cells may show and it still is the pair.
const PAIR_REST_MAX: f64 = 0.4;
/// What a wider cohort must explain beyond a narrower one in it that crossed by itself: four standard errors of
/// what lies outside of the narrower, as it is but one of many that could lie there.
const WIDER_GAIN_MIN: f64 = 16.0;
/// Share of the deviation of the narrower one up to which the rest of the wider does not move as it does.
const WIDER_REST_MAX: f64 = 0.5;
/// Squared standard errors above which a known cause is said to be this signal's as well.
const LOADS_MIN: f64 = 4.0;
/// Most single values looked at; there are rarely hundreds.
const CANDIDATES_MAX: usize = 1_024;
/// Most pairs looked at, those of the first attributes first.
const PAIRS_MAX: usize = 1_024;
/// Most single values that are tried together, the best alone first.
const SEARCHED_MAX: usize = 24;
/// Attributes by which of two cohorts of the same cells is named: a place before a build, a build
/// before a role.
pub(crate) const NAMED_FIRST: [&str; 7] = [
    "site", "region", "firmware", "hardware", "variant", "link", "role",
];

/// A cause that was found before, for another signal of the same window or in earlier windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Its cohort.
    pub scope: Cohort,
    /// Whether what it explains is settled: then further causes must explain what it leaves.
    pub settled: bool,
}

/// One cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// Its cohort.
    pub scope: Cohort,
    /// Cohorts of the same cells, which no data can tell apart from it.
    pub ties: Vec<Cohort>,
    /// By how much the score moved there.
    pub effect: f64,
    /// Squared standard errors that it explains beside the others.
    pub gain: f64,
    /// Whether a narrower cohort in it crossed by itself and the rest of it moved at most half as far: another
    /// window may show that it is the narrower one.
    pub is_mixed: bool,
}

/// What came of peeling.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Peeling {
    /// Causes that are not among the settled ones, the strongest first.
    pub causes: Vec<Cause>,
    /// Indices of the settled causes that this signal moves with as well.
    pub loads_on: Vec<usize>,
}

struct Candidate {
    cohort: Cohort,
    ties: Vec<Cohort>,
    members: Vec<bool>,
    handicap: f64,
}

/// A set of candidates as the causes, and how well it does.
struct Model<'a> {
    causes: Vec<&'a Candidate>,
    /// Squared standard errors explained.
    gain: f64,
    /// The same less what as many causes would explain by chance.
    score: f64,
}

/// What is being explained, beside the causes that are settled.
struct Problem<'a> {
    parts: &'a [Part],
    settled: Vec<Vec<bool>>,
}

impl Problem<'_> {
    fn fit(&self, causes: &[&Candidate]) -> (f64, Vec<f64>, Vec<f64>) {
        let new = causes.iter().map(|candidate| candidate.members.clone());
        let sets: Vec<Vec<bool>> = self.settled.iter().cloned().chain(new).collect();
        fit(self.parts, &sets)
    }

    fn model<'c>(&self, causes: Vec<&'c Candidate>) -> Model<'c> {
        let gain = self.fit(&causes).0;
        // What crossed is named even when it is not sure by this measure, so the first is free.
        let free = usize::from(self.settled.is_empty());
        let paid = causes.len().saturating_sub(free) as f64 * GAIN_MIN;
        let handicaps: f64 = causes.iter().map(|candidate| candidate.handicap).sum();
        Model {
            score: gain - paid - handicaps,
            gain,
            causes,
        }
    }

    /// The model with one more cause that does best.
    fn with_one_more<'c>(
        &self,
        causes: &[&'c Candidate],
        from: &[&'c Candidate],
    ) -> Option<Model<'c>> {
        let mut best: Option<Model<'c>> = None;
        for candidate in from {
            let mut more = causes.to_vec();
            more.push(candidate);
            let model = self.model(more);
            if best.as_ref().is_none_or(|best| model.score > best.score) {
                best = Some(model);
            }
        }
        best
    }
}

/// Finds the causes of one signal's drift. `crossed` are the cohorts that crossed, `known` causes
/// found before. `parts` are in any fixed order; the answer depends on nothing else.
pub fn peel(parts: &[Part], crossed: &[Cohort], known: &[Known]) -> Peeling {
    let mut problem = Problem {
        parts,
        settled: Vec::new(),
    };
    let mut of_settled = Vec::new();
    for (index, known) in known.iter().filter(|known| known.settled).enumerate() {
        let set = members(&known.scope, parts);
        let is_new = set.contains(&true) && !problem.settled.contains(&set);
        if is_new && problem.settled.len() < CAUSES_MAX {
            problem.settled.push(set);
            of_settled.push(index);
        }
    }
    let singles = candidates(parts, crossed, known);
    let singles = without_settled(singles, &problem.settled);
    let pairs = pairs(parts, &singles);
    let model = search(&problem, &singles, &pairs);
    let model = narrowed(&problem, model, &singles);
    let base = problem.settled.len();
    let (_, effects, errors) = problem.fit(&model.causes);
    let without = |left_out: usize| {
        let rest: Vec<&Candidate> = (0..model.causes.len())
            .filter(|&at| at != left_out)
            .map(|at| model.causes[at])
            .collect();
        problem.fit(&rest).0
    };
    let mut causes: Vec<Cause> = model
        .causes
        .iter()
        .enumerate()
        .map(|(at, candidate)| Cause {
            scope: candidate.cohort.clone(),
            ties: candidate.ties.clone(),
            effect: effects[base + at],
            gain: model.gain - without(at),
            is_mixed: singles
                .iter()
                .any(|narrow| narrow.handicap <= 0.0 && makes_up(parts, narrow, candidate)),
        })
        .collect();
    causes.sort_by(|a, b| {
        b.gain
            .total_cmp(&a.gain)
            .then_with(|| a.scope.cmp(&b.scope))
    });
    let loads = |at: usize| errors[at] > 0.0 && effects[at] * effects[at] / errors[at] >= LOADS_MIN;
    Peeling {
        causes,
        loads_on: (0..base)
            .filter(|&at| loads(at))
            .map(|at| of_settled[at])
            .collect(),
    }
}

/// The best model of up to [`CAUSES_MAX`] causes. Of one and two single values all are tried, a
/// third and a pair of values in the place of a single one only from the best of these.
fn search<'a>(
    problem: &Problem<'_>,
    singles: &'a [Candidate],
    pairs: &'a [Candidate],
) -> Model<'a> {
    let mut best = problem.model(Vec::new());
    if problem.settled.is_empty() {
        // Something crossed, so there is a cause.
        best.score = f64::NEG_INFINITY;
    }
    let mut alone: Vec<(f64, &Candidate)> = singles
        .iter()
        .map(|candidate| (problem.model(vec![candidate]).score, candidate))
        .collect();
    alone.sort_by(|a, b| {
        b.0.total_cmp(&a.0)
            .then_with(|| a.1.cohort.cmp(&b.1.cohort))
    });
    alone.truncate(SEARCHED_MAX);
    let from: Vec<&Candidate> = alone.into_iter().map(|(_, candidate)| candidate).collect();
    let mut keep = |model: Option<Model<'a>>| {
        if let Some(model) = model
            && model.score > best.score
        {
            best = model;
        }
    };
    keep(problem.with_one_more(&[], &from));
    let mut two: Option<Model<'a>> = None;
    for (index, first) in from.iter().enumerate() {
        let model = problem.with_one_more(&[first], &from[index + 1..]);
        if let Some(model) = model
            && two.as_ref().is_none_or(|two| model.score > two.score)
        {
            two = Some(model);
        }
    }
    if let Some(two) = two {
        let three = problem.with_one_more(&two.causes, &from);
        if let Some(three) = &three
            && problem
                .with_one_more(&three.causes, &from)
                .is_some_and(|four| four.score > three.score)
            && let Some(estate) = singles.iter().find(|single| single.cohort.is_estate())
            && problem.settled.is_empty()
        {
            // More than can be told apart: it is everywhere.
            return problem.model(vec![estate]);
        }
        keep(three);
        keep(Some(two));
    }
    let values: Vec<&Candidate> = pairs.iter().collect();
    if let Some(one) = problem.with_one_more(&[], &values)
        && is_pair(problem.parts, one.causes[0])
    {
        let more = problem.with_one_more(&one.causes, &from);
        keep(Some(one));
        keep(more);
    }
    best
}

/// Puts the narrower in the place of a wider cause that is as good an explanation only because the rest of
/// it moved a little the same way by chance: few windows tell a site from its region badly.
fn narrowed<'a>(problem: &Problem<'_>, model: Model<'a>, singles: &'a [Candidate]) -> Model<'a> {
    let mut now = problem.model(model.causes.clone());
    for at in 0..now.causes.len() {
        let wide = now.causes[at];
        let instead = singles
            .iter()
            .filter(|narrow| narrow.handicap <= 0.0 && makes_up(problem.parts, narrow, wide))
            .map(|narrow| {
                let mut causes = now.causes.clone();
                causes[at] = narrow;
                problem.model(causes)
            })
            .max_by(|a, b| a.gain.total_cmp(&b.gain));
        if let Some(instead) = instead
            && model.gain - instead.gain < WIDER_GAIN_MIN
        {
            now = instead;
        }
    }
    now
}

/// Whether one candidate lies in another, the rest of which does not move as it does.
fn makes_up(parts: &[Part], narrow: &Candidate, wide: &Candidate) -> bool {
    let mut sets = narrow.members.iter().zip(&wide.members);
    if narrow.members == wide.members || sets.any(|(narrow, wide)| *narrow && !wide) {
        return false;
    }
    let inside = super::mean(parts, |index| narrow.members[index]).0;
    let (rest, rows) = super::mean(parts, |index| wide.members[index] && !narrow.members[index]);
    rows > 0.0 && rest * inside.signum() <= WIDER_REST_MAX * inside.abs()
}

/// Whether a pair's values do not move without each other: the rest of each stays where it was.
fn is_pair(parts: &[Part], pair: &Candidate) -> bool {
    let inside = super::mean(parts, |index| pair.members[index]).0;
    pair.cohort.0.iter().all(|(attribute, value)| {
        let value = members(&Cohort::of(attribute, value), parts);
        let (rest, rows) = super::mean(parts, |index| value[index] && !pair.members[index]);
        rows > 0.0 && rest * inside.signum() <= PAIR_REST_MAX * inside.abs()
    })
}

/// Single values and the estate, those of the same cells together under one name.
fn candidates(parts: &[Part], crossed: &[Cohort], known: &[Known]) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut cohorts = attribute_values(parts.iter().map(|part| &part.cell));
    cohorts.sort_by_key(order);
    cohorts.insert(0, Cohort::default());
    let named = known.iter().map(|known| &known.scope);
    for cohort in named.chain(crossed) {
        if !cohorts.contains(cohort) {
            cohorts.push(cohort.clone());
        }
    }
    for cohort in cohorts.into_iter().take(CANDIDATES_MAX) {
        let set = members(&cohort, parts);
        if !set.contains(&true) {
            continue;
        }
        let did = crossed.contains(&cohort);
        let before = known.iter().any(|known| known.scope == cohort);
        let handicap = match (did, before) {
            (_, true) => -KNOWN_GAIN,
            (true, false) => 0.0,
            (false, false) => QUIET_GAIN_MIN,
        };
        match found.iter_mut().find(|there| there.members == set) {
            Some(there) => {
                there.handicap = there.handicap.min(handicap);
                // The name that is known already stays.
                if before && !known.iter().any(|known| known.scope == there.cohort) {
                    there
                        .ties
                        .push(std::mem::replace(&mut there.cohort, cohort));
                } else {
                    there.ties.push(cohort);
                }
            }
            None => found.push(Candidate {
                cohort,
                ties: Vec::new(),
                members: set,
                handicap,
            }),
        }
    }
    found
}

/// Of cohorts that differ by settled causes only, the smallest is named and the others are its ties:
/// beside the settled ones they explain the same. Whether it crossed is asked of the smallest, since a
/// larger one crosses for what is settled in it.
fn without_settled(candidates: Vec<Candidate>, settled: &[Vec<bool>]) -> Vec<Candidate> {
    let rest = |candidate: &Candidate| {
        let mut rest = candidate.members.clone();
        for set in settled {
            let is_part = set
                .iter()
                .zip(&candidate.members)
                .all(|(settled, member)| !settled || *member);
            if is_part {
                rest.iter_mut()
                    .zip(set)
                    .for_each(|(rest, settled)| *rest &= !settled);
            }
        }
        rest
    };
    let size = |members: &[bool]| members.iter().filter(|member| **member).count();
    let mut kept: Vec<(Vec<bool>, Candidate)> = Vec::new();
    for mut candidate in candidates {
        let rest = rest(&candidate);
        match kept.iter_mut().find(|(there, _)| *there == rest) {
            Some((_, there)) if size(&rest) > 0 => {
                if size(&candidate.members) < size(&there.members) {
                    std::mem::swap(there, &mut candidate);
                }
                there.ties.push(candidate.cohort);
                there.ties.extend(candidate.ties);
            }
            _ => kept.push((rest, candidate)),
        }
    }
    kept.into_iter().map(|(_, candidate)| candidate).collect()
}

fn order(cohort: &Cohort) -> usize {
    let attribute = cohort.0.keys().next();
    NAMED_FIRST
        .iter()
        .position(|name| attribute.is_some_and(|attribute| attribute == name))
        .unwrap_or(NAMED_FIRST.len())
}

/// Intersections of two values, smaller than both, that no single value names.
fn pairs(parts: &[Part], singles: &[Candidate]) -> Vec<Candidate> {
    let mut pairs: Vec<Candidate> = Vec::new();
    let values: Vec<&Candidate> = singles.iter().filter(|a| a.cohort.0.len() == 1).collect();
    for (index, a) in values.iter().enumerate() {
        for b in &values[index + 1..] {
            let mut cohort = a.cohort.clone();
            cohort.0.extend(b.cohort.0.clone());
            let set: Vec<bool> = (0..parts.len())
                .map(|at| a.members[at] && b.members[at])
                .collect();
            let named = singles.iter().any(|single| single.members == set);
            if cohort.0.len() < 2 || !set.contains(&true) || named || pairs.len() >= PAIRS_MAX {
                continue;
            }
            match pairs.iter_mut().find(|there| there.members == set) {
                Some(there) => there.ties.push(cohort),
                None => pairs.push(Candidate {
                    cohort,
                    ties: Vec::new(),
                    members: set,
                    handicap: PAIR_GAIN_MIN,
                }),
            }
        }
    }
    pairs
}

/// Weighted least squares of the deviations on the sets' indicators: squared standard errors
/// explained, the effect of each set, and its variance. Sets that add nothing get no effect.
fn fit(parts: &[Part], sets: &[Vec<bool>]) -> (f64, Vec<f64>, Vec<f64>) {
    let count = sets.len();
    // Normal equations, with the unit matrix beside them for the inverse.
    let mut matrix = vec![vec![0.0; count]; count];
    let mut right = vec![0.0; count];
    for (index, part) in parts.iter().enumerate() {
        let weight = 1.0 / part.variance.max(f64::MIN_POSITIVE);
        for a in (0..count).filter(|&a| sets[a][index]) {
            right[a] += weight * part.deviation;
            for b in (0..count).filter(|&b| sets[b][index]) {
                matrix[a][b] += weight;
            }
        }
    }
    let mut inverse = vec![vec![0.0; count]; count];
    for (at, row) in inverse.iter_mut().enumerate() {
        row[at] = 1.0;
    }
    let scale: Vec<f64> = (0..count).map(|at| matrix[at][at]).collect();
    let mut kept = vec![true; count];
    for pivot in 0..count {
        // What is left of the diagonal is what the set has that the sets before it do not.
        if matrix[pivot][pivot] <= scale[pivot] * 1e-9 {
            kept[pivot] = false;
            continue;
        }
        let divisor = matrix[pivot][pivot];
        for column in 0..count {
            matrix[pivot][column] /= divisor;
            inverse[pivot][column] /= divisor;
        }
        for row in (0..count).filter(|&row| row != pivot) {
            let factor = matrix[row][pivot];
            for column in 0..count {
                matrix[row][column] -= factor * matrix[pivot][column];
                inverse[row][column] -= factor * inverse[pivot][column];
            }
        }
    }
    let mut effects = vec![0.0; count];
    let mut variances = vec![0.0; count];
    let mut gain = 0.0;
    for a in (0..count).filter(|&a| kept[a]) {
        for b in (0..count).filter(|&b| kept[b]) {
            effects[a] += inverse[a][b] * right[b];
        }
        variances[a] = inverse[a][a];
        gain += effects[a] * right[a];
    }
    (gain, effects, variances)
}
