//! Methods by name, and whose definitions.

use std::fmt;
use std::str::FromStr;

/// A way to measure how far two sides of a column are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each variant is the method of its name")]
pub enum Method {
    Location,
    Spread,
    Ks,
    Shares,
    Missing,
    Psi,
    Js,
    Hellinger,
    Tv,
    Linf,
    Kl,
    Wasserstein,
    Energy,
    Cvm,
    Anderson,
    MannWhitney,
    T,
    Chi2,
    G,
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
