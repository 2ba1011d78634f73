//! What SciPy, Evidently and NannyML answer where their definitions differ from the native ones, for
//! people who compare numbers.
//!
//! Everything that is not here is the same in the native modules; the table says where to look. The
//! versions are SciPy 1.17, Evidently 0.7 and NannyML 0.13; the numbers in the tests were computed
//! with them.
//!
//! | quantity | native | SciPy | Evidently | NannyML |
//! | --- | --- | --- | --- | --- |
//! | bins of numbers | the reference's, fixed | – | Sturges over both sides; by value up to 20 distinct reference values | Doane over the reference, one more bin for what lies outside |
//! | PSI | shares at least 1e-4 | – | empty shares become 1e-4 or less ([`evidently::Shares::psi`]) | – |
//! | Jensen-Shannon | base 2 or natural | natural | natural | base 2 |
//! | Kullback-Leibler | floored, scaled | unfloored | its empty-share rule | – |
//! | Hellinger | on the fixed bins | – | Sturges over the *distinct* values ([`evidently::hellinger`]) | on its bins |
//! | Wasserstein | in the unit of the values | the same | in reference deviations, at least 0.001 ([`evidently::wasserstein`]) | the same below 10,000 rows, else estimated ([`nannyml::wasserstein`]) |
//! | Kolmogorov-Smirnov | D; p by limit | `auto` | SciPy's p | D alone; estimated from 10,000 rows ([`nannyml::kolmogorov_smirnov`]) |
//! | chi-square | 2 × B, no Yates | Yates at 1 degree ([`scipy::chi2_contingency`]) | goodness of fit, reference exact ([`evidently::chi_square`]) | SciPy's |
//! | G | 2 × B | the same | goodness of fit ([`evidently::g_test`]) | – |
//! | t | Welch | both | Student's pooled | – |
//! | Mann-Whitney | two-sided | two-sided | one-sided `less` | – |
//! | Cramér-von Mises | tail computed | series to 1e-7 ([`scipy::cramer_von_mises`]) | SciPy's | – |
//! | Anderson-Darling | tail computed (two samples) | interpolated, 0.001 to 0.25 (`interpolated_p`) | SciPy's | – |
//!
//! # Layout
//!
//! - [`numpy`]: bin edges, histograms and quantiles by NumPy's rules, which the others build on
//! - [`scipy`], [`evidently`], [`nannyml`]: the variants

pub mod evidently;
pub mod nannyml;
pub mod numpy;
pub mod scipy;
