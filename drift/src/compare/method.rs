//! Methods by name, and whose definitions.

use std::fmt;
use std::str::FromStr;

/// A way to measure how far two sides of a column are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Values moved up or down: rank sum test.
    Location,
    /// Values spread or drew together: Mood's rank test.
    Spread,
    /// Kolmogorov-Smirnov: the largest difference of the distribution functions.
    Ks,
    /// The share of one value or category that changed most clearly: Fisher's exact test, times the
    /// shares asked.
    Shares,
    /// Shares of missing values and of values that are not finite: Fisher's exact test.
    Missing,
    /// Population stability index, in nats; shares below one in ten thousand count as one in ten thousand.
    Psi,
    /// Jensen-Shannon distance, the root of the divergence: 0 to 1 in base 2 (SciPy: natural base).
    Js,
    /// Hellinger distance, 0 to 1.
    Hellinger,
    /// Total variation: half the sum of the shares' differences, 0 to 1.
    Tv,
    /// The largest difference of a share, 0 to 1.
    Linf,
    /// Kullback-Leibler divergence, in nats, with shares floored as [`Self::Psi`]'s.
    Kl,
    /// Wasserstein distance of order 1, in the column's unit.
    Wasserstein,
    /// Energy distance, in the root of the column's unit.
    Energy,
    /// Cramér-von Mises' T.
    Cvm,
    /// Anderson and Darling's A² for two samples, with mid-ranks.
    Anderson,
    /// Mann and Whitney's U.
    MannWhitney,
    /// Welch's t, of means where variances differ.
    T,
    /// Pearson's chi-square on shares.
    Chi2,
    /// G, the likelihood ratio on shares.
    G,
    /// z of two proportions, for a column of two values.
    Z,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 20] = [
        Self::Location,
        Self::Spread,
        Self::Ks,
        Self::Shares,
        Self::Missing,
        Self::Psi,
        Self::Js,
        Self::Hellinger,
        Self::Tv,
        Self::Linf,
        Self::Kl,
        Self::Wasserstein,
        Self::Energy,
        Self::Cvm,
        Self::Anderson,
        Self::MannWhitney,
        Self::T,
        Self::Chi2,
        Self::G,
        Self::Z,
    ];

    /// The name on the command line and in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Location => "location",
            Self::Spread => "spread",
            Self::Ks => "ks",
            Self::Shares => "shares",
            Self::Missing => "missing",
            Self::Psi => "psi",
            Self::Js => "js",
            Self::Hellinger => "hellinger",
            Self::Tv => "tv",
            Self::Linf => "linf",
            Self::Kl => "kl",
            Self::Wasserstein => "wasserstein",
            Self::Energy => "energy",
            Self::Cvm => "cvm",
            Self::Anderson => "anderson",
            Self::MannWhitney => "mannwhitney",
            Self::T => "t",
            Self::Chi2 => "chi2",
            Self::G => "g",
            Self::Z => "z",
        }
    }

    /// Whether it needs numbers, not just categories.
    #[must_use]
    pub const fn needs_numbers(self) -> bool {
        matches!(
            self,
            Self::Location
                | Self::Spread
                | Self::Ks
                | Self::Wasserstein
                | Self::Energy
                | Self::Cvm
                | Self::Anderson
                | Self::MannWhitney
                | Self::T
        )
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No method, or no definitions, of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is unknown: use one of {known}")]
pub struct UnknownName {
    name: String,
    known: String,
}

impl FromStr for Method {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|method| method.name() == name);
        found.ok_or_else(|| UnknownName {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Whose definitions, thresholds and default methods are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Definitions {
    /// Driftline's own.
    #[default]
    Native,
    /// SciPy's statistics and p-values, judged as our own are.
    Scipy,
    /// Evidently 0.7's, with its thresholds, which hold no rate.
    Evidently,
    /// NannyML 0.13's, with its thresholds, which hold no rate.
    Nannyml,
}

impl FromStr for Definitions {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "scipy" => Ok(Self::Scipy),
            "evidently" => Ok(Self::Evidently),
            "nannyml" => Ok(Self::Nannyml),
            _ => Err(UnknownName {
                name: name.to_owned(),
                known: "scipy, evidently, nannyml".to_owned(),
            }),
        }
    }
}
