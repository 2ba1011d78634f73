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
/// Squared standard errors above which a known cause is said to be this signal's as well.
const LOADS_MIN: f64 = 4.0;
/// Most cohorts looked at: single values first, so pairs are left out first.
const CANDIDATES_MAX: usize = 1_024;
/// Attributes by which of two cohorts of the same cells is named: a place before a build, a build
/// before a role.
const NAMED_FIRST: [&str; 7] = [
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

/// Finds the causes of one signal's drift. `crossed` are the cohorts that crossed, `known` causes
/// found before. `parts` are in any fixed order; the answer depends on nothing else.
pub fn peel(parts: &[Part], crossed: &[Cohort], known: &[Known]) -> Peeling {
    let settled: Vec<&Known> = known.iter().filter(|known| known.settled).collect();
    let mut model: Vec<Vec<bool>> = Vec::new();
    let mut of_settled = Vec::new();
    for (index, known) in settled.iter().enumerate() {
        let set = members(&known.scope, parts);
        if set.contains(&true) && !model.contains(&set) && model.len() < CAUSES_MAX {
            model.push(set);
            of_settled.push(index);
        }
    }
    let base = model.len();
    let singles = candidates(parts, crossed, known);
    let mut chosen: Vec<Cause> = Vec::new();
    let mut gain = fit(parts, &model).0;
    while model.len() < base + CAUSES_MAX {
        let Some((at, best)) = best(parts, &model, &singles) else {
            break;
        };
        let mut candidate = &singles[at];
        let mut reached = best;
        // What crossed is named even when it is not sure by this measure, once.
        let first = model.is_empty();
        if !first && reached - gain < GAIN_MIN {
            break;
        }
        let pairs = pairs_within(parts, candidate, &singles);
        if let Some((pair, better)) = best_pair(parts, &model, &pairs, candidate, reached) {
            candidate = &pairs[pair];
            reached = better;
        }
        model.push(candidate.members.clone());
        chosen.push(Cause {
            scope: candidate.cohort.clone(),
            ties: candidate.ties.clone(),
            effect: 0.0,
            gain: reached - gain,
        });
        gain = reached;
    }
    let (_, effects, errors) = fit(parts, &model);
    for (cause, effect) in chosen.iter_mut().zip(effects.iter().skip(base)) {
        cause.effect = *effect;
    }
    let mut peeling = Peeling {
        causes: simplest(parts, crossed, chosen, base),
        loads_on: Vec::new(),
    };
    for (at, &index) in of_settled.iter().enumerate() {
        if errors[at] > 0.0 && effects[at] * effects[at] / errors[at] >= LOADS_MIN {
            peeling.loads_on.push(index);
        }
    }
    peeling
}

/// As many causes as are looked for, with the estate among what crossed: it is everywhere.
fn simplest(parts: &[Part], crossed: &[Cohort], causes: Vec<Cause>, base: usize) -> Vec<Cause> {
    if base > 0 || causes.len() < CAUSES_MAX || !crossed.iter().any(Cohort::is_estate) {
        return causes;
    }
    let everything = vec![vec![true; parts.len()]];
    let (gain, effects, _) = fit(parts, &everything);
    vec![Cause {
        scope: Cohort::default(),
        ties: Vec::new(),
        effect: effects[0],
        gain,
    }]
}

/// Single values and the estate, those of the same cells together under one name.
fn candidates(parts: &[Part], crossed: &[Cohort], known: &[Known]) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let mut cohorts = attribute_values(parts.iter().map(|part| &part.cell));
    cohorts.sort_by_key(|cohort| order(cohort));
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

fn order(cohort: &Cohort) -> usize {
    let attribute = cohort.0.keys().next();
    NAMED_FIRST
        .iter()
        .position(|name| attribute.is_some_and(|attribute| attribute == name))
        .unwrap_or(NAMED_FIRST.len())
}

/// The candidate that explains most beside the model, by its place and what is explained then.
fn best(parts: &[Part], model: &[Vec<bool>], candidates: &[Candidate]) -> Option<(usize, f64)> {
    let mut best: Option<(usize, f64, f64)> = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let mut model = model.to_vec();
        model.push(candidate.members.clone());
        let gain = fit(parts, &model).0;
        let judged = gain - candidate.handicap;
        if best.is_none_or(|(_, _, before)| judged > before) {
            best = Some((index, gain, judged));
        }
    }
    best.map(|(index, gain, _)| (index, gain))
}

/// Intersections of a candidate with other values, smaller than both.
fn pairs_within(parts: &[Part], candidate: &Candidate, singles: &[Candidate]) -> Vec<Candidate> {
    let mut pairs: Vec<Candidate> = Vec::new();
    if candidate.cohort.0.len() > 1 {
        return pairs;
    }
    // Of the estate, every pair of values; of a value, its pairs with others.
    for (index, a) in singles.iter().enumerate() {
        let within = candidate.cohort.is_estate() || a.cohort == candidate.cohort;
        if !within || a.cohort.0.len() != 1 {
            continue;
        }
        let others = match candidate.cohort.is_estate() {
            true => &singles[index + 1..],
            false => singles,
        };
        for b in others.iter().filter(|b| b.cohort.0.len() == 1) {
            let mut cohort = a.cohort.clone();
            cohort.0.extend(b.cohort.0.clone());
            let set: Vec<bool> = (0..parts.len())
                .map(|i| a.members[i] && b.members[i])
                .collect();
            let smaller = set.contains(&true) && set != a.members && set != b.members;
            if cohort.0.len() == 2 && smaller && pairs.len() < CANDIDATES_MAX {
                match pairs.iter_mut().find(|there| there.members == set) {
                    Some(there) => there.ties.push(cohort),
                    None => pairs.push(Candidate {
                        cohort,
                        ties: Vec::new(),
                        members: set,
                        handicap: 0.0,
                    }),
                }
            }
        }
    }
    pairs
}

/// The pair that explains clearly more than the single value, and whose values do not move
/// without each other.
fn best_pair(
    parts: &[Part],
    model: &[Vec<bool>],
    pairs: &[Candidate],
    single: &Candidate,
    reached: f64,
) -> Option<(usize, f64)> {
    let (at, gain) = best(parts, model, pairs)?;
    if gain < reached + PAIR_GAIN_MIN {
        return None;
    }
    let pair = &pairs[at];
    let inside = super::mean(parts, |index| pair.members[index]).0;
    let (rest, rows) = super::mean(parts, |i| single.members[i] && !pair.members[i]);
    (rows > 0.0 && rest * inside.signum() <= PAIR_REST_MAX * inside.abs()).then_some((at, gain))
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
