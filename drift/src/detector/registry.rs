//! One type for all detectors, built by name.

use serde::{Deserialize, Serialize};

use super::adwin::Adwin;
use super::bocpd::Bocpd;
use super::cusum::Cusum;
use super::ddm::Ddm;
use super::ecdd::Ecdd;
use super::eddm::Eddm;
use super::fhddm::Fhddm;
use super::hddm_a::HddmA;
use super::hddm_w::HddmW;
use super::kswin::Kswin;
use super::page_hinkley::PageHinkley;
use super::params::Checked;
use super::rddm::Rddm;
use super::seed::Seed;
use super::stepd::Stepd;
use super::{
    Compat, Detector, DetectorError, Kind, Parameter, Params, Verdict, adwin, bocpd, cusum, ddm,
    ecdd, eddm, fhddm, hddm_a, hddm_w, kswin, page_hinkley, rddm, seed, stepd,
};

/// Any detector, with its parameters and its state: what a changelog holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is the kind of its name")]
pub enum AnyDetector {
    Adwin(Adwin),
    PageHinkley(PageHinkley),
    Cusum(Cusum),
    Ddm(Ddm),
    Eddm(Eddm),
    Rddm(Rddm),
    HddmA(HddmA),
    HddmW(HddmW),
    Fhddm(Fhddm),
    Kswin(Kswin),
    Stepd(Stepd),
    Ecdd(Ecdd),
    Seed(Seed),
    Bocpd(Bocpd),
}

macro_rules! each {
    ($any:expr, $d:ident => $body:expr) => {
        match $any {
            AnyDetector::Adwin($d) => $body,
            AnyDetector::PageHinkley($d) => $body,
            AnyDetector::Cusum($d) => $body,
            AnyDetector::Ddm($d) => $body,
            AnyDetector::Eddm($d) => $body,
            AnyDetector::Rddm($d) => $body,
            AnyDetector::HddmA($d) => $body,
            AnyDetector::HddmW($d) => $body,
            AnyDetector::Fhddm($d) => $body,
            AnyDetector::Kswin($d) => $body,
            AnyDetector::Stepd($d) => $body,
            AnyDetector::Ecdd($d) => $body,
            AnyDetector::Seed($d) => $body,
            AnyDetector::Bocpd($d) => $body,
        }
    };
}

impl Kind {
    /// The parameters that this detector accepts, with defaults as the given implementation has
    /// them.
    ///
    /// # Errors
    /// [`DetectorError::NotInCompat`] when that implementation lacks the detector.
    pub fn parameters(self, compat: Compat) -> Result<&'static [Parameter], DetectorError> {
        let in_river = matches!(
            self,
            Self::Adwin
                | Self::PageHinkley
                | Self::Ddm
                | Self::Eddm
                | Self::HddmA
                | Self::HddmW
                | Self::Fhddm
                | Self::Kswin
        );
        let in_moa = !matches!(self, Self::Fhddm | Self::Kswin | Self::Bocpd);
        let exists = match compat {
            Compat::Native => true,
            Compat::River => in_river,
            Compat::Moa => in_moa,
        };
        if !exists {
            return Err(DetectorError::NotInCompat { kind: self, compat });
        }
        let moa = compat == Compat::Moa;
        Ok(match self {
            Self::Adwin if moa => adwin::PARAMETERS_MOA,
            Self::Adwin => adwin::PARAMETERS,
            Self::PageHinkley if moa => page_hinkley::PARAMETERS_MOA,
            Self::PageHinkley => page_hinkley::PARAMETERS,
            Self::Cusum if moa => cusum::PARAMETERS_MOA,
            Self::Cusum => cusum::PARAMETERS,
            Self::Ddm => ddm::PARAMETERS,
            Self::Eddm => eddm::PARAMETERS,
            Self::Rddm => rddm::PARAMETERS,
            Self::HddmA if moa => hddm_a::PARAMETERS_MOA,
            Self::HddmA => hddm_a::PARAMETERS,
            Self::HddmW => hddm_w::PARAMETERS,
            Self::Fhddm => fhddm::PARAMETERS,
            Self::Kswin => kswin::PARAMETERS,
            Self::Stepd => stepd::PARAMETERS,
            Self::Ecdd => ecdd::PARAMETERS,
            Self::Seed => seed::PARAMETERS,
            Self::Bocpd => bocpd::PARAMETERS,
        })
    }

    /// Builds the detector; parameters that are not given take their defaults.
    ///
    /// # Errors
    /// [`DetectorError`] names the parameter that is unknown, given twice or out of its domain, or
    /// the implementation that lacks the detector.
    pub fn build(self, compat: Compat, params: &Params) -> Result<AnyDetector, DetectorError> {
        let p = Checked::new(self, compat, self.parameters(compat)?, params)?;
        Ok(match self {
            Self::Adwin => AnyDetector::Adwin(Adwin::build(&p)?),
            Self::PageHinkley => AnyDetector::PageHinkley(PageHinkley::build(&p)?),
            Self::Cusum => AnyDetector::Cusum(Cusum::build(&p)?),
            Self::Ddm => AnyDetector::Ddm(Ddm::build(&p)?),
            Self::Eddm => AnyDetector::Eddm(Eddm::build(&p)?),
            Self::Rddm => AnyDetector::Rddm(Rddm::build(&p)?),
            Self::HddmA => AnyDetector::HddmA(HddmA::build(&p)?),
            Self::HddmW => AnyDetector::HddmW(HddmW::build(&p)?),
            Self::Fhddm => AnyDetector::Fhddm(Fhddm::build(&p)?),
            Self::Kswin => AnyDetector::Kswin(Kswin::build(&p)?),
            Self::Stepd => AnyDetector::Stepd(Stepd::build(&p)?),
            Self::Ecdd => AnyDetector::Ecdd(Ecdd::build(&p)?),
            Self::Seed => AnyDetector::Seed(Seed::build(&p)?),
            Self::Bocpd => AnyDetector::Bocpd(Bocpd::build(&p)?),
        })
    }
}

impl AnyDetector {
    /// Which detector this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Adwin(_) => Kind::Adwin,
            Self::PageHinkley(_) => Kind::PageHinkley,
            Self::Cusum(_) => Kind::Cusum,
            Self::Ddm(_) => Kind::Ddm,
            Self::Eddm(_) => Kind::Eddm,
            Self::Rddm(_) => Kind::Rddm,
            Self::HddmA(_) => Kind::HddmA,
            Self::HddmW(_) => Kind::HddmW,
            Self::Fhddm(_) => Kind::Fhddm,
            Self::Kswin(_) => Kind::Kswin,
            Self::Stepd(_) => Kind::Stepd,
            Self::Ecdd(_) => Kind::Ecdd,
            Self::Seed(_) => Kind::Seed,
            Self::Bocpd(_) => Kind::Bocpd,
        }
    }

    /// Takes many values and calls `on` with the position and verdict of each that is not
    /// [`Verdict::Stable`]. The detector is looked up once, so this is the fast way in.
    pub fn update_all(&mut self, xs: &[f64], mut on: impl FnMut(usize, Verdict)) {
        each!(self, d => for (i, x) in xs.iter().enumerate() {
            let verdict = d.update(*x);
            if verdict != Verdict::Stable {
                on(i, verdict);
            }
        });
    }
}

impl Detector for AnyDetector {
    #[inline]
    fn update(&mut self, x: f64) -> Verdict {
        each!(self, d => d.update(x))
    }

    fn reset(&mut self) {
        each!(self, d => d.reset());
    }
}
