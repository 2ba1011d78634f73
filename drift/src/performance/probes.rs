//! From the labelled rows of probes to strata whose rows are worth what they are worth.
//!
//! Rows of one probe are alike, so n rows of a stratum count as n over their design effect, 1 + (m − 1) ρ for m
//! rows a probe. The intraclass correlation ρ is estimated over all strata together, within them, by the
//! analysis of variance (Fleiss 1981; Donner 1986), since one stratum rarely has probes enough. Where no
//! stratum has two probes nothing is known of it, and all rows of a probe count as one.

use std::collections::BTreeMap;

use super::interval::cluster_design_effect;
use super::stratified::Stratum;

/// Labelled rows of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The stratum that it stands in.
    pub stratum: String,
    /// Its labelled rows.
    pub rows: u64,
    /// Those of them on which the model was right.
    pub right: u64,
}

/// Strata of an estate as its probes see them.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbedStrata {
    /// One per stratum of the estate or of a probe, by name; the metric is accuracy.
    pub strata: Vec<Stratum>,
    /// Correlation of the rows of one probe; none where no stratum has two probes with labels.
    pub intraclass: Option<f64>,
}

/// Sums over the probes of one stratum.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    probes: f64,
    rows: f64,
    right: f64,
    /// Σ rows².
    squares: f64,
    /// Σ right² / rows.
    between: f64,
}

/// Makes strata of shares (any positive numbers, such as the estate's rows) and probes.
pub fn probed_strata(shares: &BTreeMap<String, f64>, probes: &[Probe]) -> ProbedStrata {
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    for probe in probes.iter().filter(|probe| probe.rows > 0) {
        let (rows, right) = (probe.rows as f64, probe.right.min(probe.rows) as f64);
        let sum = sums.entry(&probe.stratum).or_default();
        sum.probes += 1.0;
        sum.rows += rows;
        sum.right += right;
        sum.squares += rows * rows;
        sum.between += right * right / rows;
    }
    let intraclass = intraclass(sums.values());
    let mut all: BTreeMap<&str, f64> = shares.iter().map(|(name, it)| (&**name, *it)).collect();
    for name in sums.keys() {
        all.entry(name).or_insert(0.0);
    }
    let strata = all.into_iter().map(|(name, share)| {
        let sum = sums.get(name).copied().unwrap_or_default();
        stratum(name, share, &sum, intraclass.unwrap_or(1.0))
    });
    ProbedStrata {
        strata: strata.collect(),
        intraclass,
    }
}

fn stratum(name: &str, share: f64, sum: &Sums, intraclass: f64) -> Stratum {
    let (rows, mean) = match sum.rows > 0.0 {
        true => {
            let effect = cluster_design_effect(sum.squares / sum.rows, intraclass);
            (sum.rows / effect, sum.right / sum.rows)
        }
        false => (0.0, 0.0),
    };
    // One right and one wrong row more, so that a stratum without an error is not taken for one that cannot
    // err (Agresti and Coull 1998).
    let p = (mean * rows + 1.0) / (rows + 2.0);
    Stratum {
        name: name.to_owned(),
        share,
        rows,
        mean,
        variance: p * (1.0 - p),
    }
}

fn intraclass<'a>(sums: impl Iterator<Item = &'a Sums> + Clone) -> Option<f64> {
    let total = |of: &dyn Fn(&Sums) -> f64| sums.clone().map(of).sum::<f64>();
    let of_probes = total(&|it| it.probes - 1.0);
    let of_rows = total(&|it| it.rows - it.probes);
    if of_probes <= 0.0 || of_rows <= 0.0 {
        return None;
    }
    let between = total(&|it| it.between - it.right * it.right / it.rows) / of_probes;
    let within = total(&|it| it.right - it.between) / of_rows;
    let size = total(&|it| it.rows - it.squares / it.rows) / of_probes;
    let spread = between + (size - 1.0) * within;
    // All right or all wrong: there is nothing that could be alike.
    let found = if spread > 0.0 {
        (between - within) / spread
    } else {
        0.0
    };
    Some(found.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::performance::stratified::post_stratify;
    use crate::random::Random;

    fn probe(stratum: &str, rows: u64, right: u64) -> Probe {
        Probe {
            stratum: stratum.to_owned(),
            rows,
            right,
        }
    }

    fn shares<const N: usize>(of: [(&str, f64); N]) -> BTreeMap<String, f64> {
        of.map(|(name, share)| (name.to_owned(), share)).into()
    }

    /// Probes that are all right or all wrong are worth one row each; probes that are alike are worth their rows.
    #[test]
    fn rows_are_worth_what_probes_differ() {
        let shares = shares([("a", 1.0)]);
        let extreme = [
            probe("a", 50, 50),
            probe("a", 50, 0),
            probe("a", 50, 50),
            probe("a", 50, 0),
        ];
        let apart = probed_strata(&shares, &extreme);
        assert_eq!(apart.intraclass, Some(1.0));
        assert!((apart.strata[0].rows - 4.0).abs() < 1e-9);
        let alike = probed_strata(&shares, &[probe("a", 50, 45), probe("a", 50, 45)]);
        assert_eq!(alike.intraclass, Some(0.0));
        assert_eq!(alike.strata[0].rows, 100.0);
    }

    /// With one probe a stratum nothing is known of it, so each counts as one row; a stratum without probes
    /// has none, and a probe outside of the estate no share.
    #[test]
    fn one_probe_is_one_row() {
        let shares = shares([("a", 3.0), ("b", 1.0)]);
        let found = probed_strata(&shares, &[probe("a", 80, 60), probe("z", 9, 9)]);
        assert_eq!(found.intraclass, None);
        let rows: Vec<(&str, f64, f64)> = found
            .strata
            .iter()
            .map(|it| (it.name.as_str(), it.share, it.rows))
            .collect();
        assert_eq!(rows, [("a", 3.0, 1.0), ("b", 1.0, 0.0), ("z", 0.0, 1.0)]);
        let estimate = post_stratify(&found.strata).unwrap();
        assert_eq!(estimate.missing, ["b"]);
        assert_eq!(estimate.covered.value, 0.75);
    }

    /// The correlation that units of a known beta law have is found, and the interval of the estimate holds
    /// the truth about as often as it says.
    #[test]
    fn the_interval_holds() {
        let mut random = Random::new(8);
        let shares = shares([("a", 1.0), ("b", 2.0)]);
        let (mut held, mut correlation) = (0, 0.0);
        for _ in 0..400 {
            // Accuracies uniform on 0.7 to 0.9: variance 0.04 / 12, so ρ = 0.00333 / 0.16.
            let probes: Vec<Probe> = (0..24)
                .map(|at| {
                    let accuracy = 0.7 + 0.2 * random.uniform();
                    let right = (0..100).filter(|_| random.uniform() < accuracy).count();
                    probe(if at < 12 { "a" } else { "b" }, 100, right as u64)
                })
                .collect();
            let found = probed_strata(&shares, &probes);
            correlation += found.intraclass.unwrap() / 400.0;
            let covered = post_stratify(&found.strata).unwrap().covered;
            held += usize::from(covered.interval(0.95).unwrap().contains(0.8));
        }
        assert!((correlation - 0.0208).abs() < 0.002, "{correlation}");
        assert!(
            held >= 365,
            "{held} of 400, of 380 expected less three standard errors"
        );
    }
}
