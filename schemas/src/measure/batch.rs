//! Measures as they stand in their topic: those of one model version and window together, so that what they have in
//! common is said once. Records of earlier releases are JSON arrays of [`Measure`].

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cohort, MEASURE_FORMAT, Measure};

/// Version of the record that this code writes.
pub const MEASURE_BATCH_FORMAT: u32 = 2;
/// Most measures of one record, but for a cohort that alone has more: at about 120 bytes each this stays well
/// below the largest record.
pub const MEASURES_PER_RECORD_MAX: usize = 16_384;

/// All measures of one model version and window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureBatch {
    /// [`MEASURE_BATCH_FORMAT`].
    pub format: u32,
    /// Owner.
    pub tenant: Arc<str>,
    /// Model name.
    pub model: Arc<str>,
    /// Model version.
    pub version: Arc<str>,
    /// Start of the window, microseconds of event time.
    pub window_start_us: i64,
    /// End of the window, exclusive.
    pub window_end_us: i64,
    /// [`Measure::revision`].
    pub revision: u32,
    /// [`Measure::reference`].
    pub reference: Arc<str>,
    /// [`Measure::config`].
    pub config: Arc<str>,
    /// Whom they are about.
    pub cohorts: Vec<CohortMeasures>,
}

/// Those of one cohort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CohortMeasures {
    /// Whom they are about.
    pub cohort: Cohort,
    /// What was compared.
    pub signals: Vec<SignalMeasures>,
}

/// Those of one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalMeasures {
    /// Its name.
    pub signal: Arc<str>,
    /// Rows of the window.
    pub rows: u64,
    /// Devices of the window.
    pub devices: f64,
    /// Rows of the reference.
    pub reference_rows: u64,
    /// What p-values are held against.
    pub threshold: f64,
    /// One entry per method.
    pub methods: Vec<MethodMeasure>,
}

/// That of one method. One without a p-value is held against nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodMeasure {
    /// [`Measure::method`].
    pub method: Cow<'static, str>,
    /// [`Measure::method_version`].
    pub version: u32,
    /// [`Measure::value`].
    pub value: Option<f64>,
    /// [`Measure::p_value`].
    pub p_value: Option<f64>,
    /// [`Measure::crossed`].
    pub crossed: bool,
}

impl CohortMeasures {
    /// Number of measures.
    pub fn count(&self) -> usize {
        self.signals.iter().map(|it| it.methods.len()).sum()
    }
}

impl MeasureBatch {
    /// The values of its records, in order: one, or parts of whole cohorts when the measures are many.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let mut rest = self.cohorts.as_slice();
        while !rest.is_empty() {
            let mut count = 0;
            let fits = rest.iter().take_while(|it| {
                count += it.count();
                count <= MEASURES_PER_RECORD_MAX
            });
            let (cohorts, others) = rest.split_at(fits.count().max(1));
            rest = others;
            records.push(self.record(cohorts));
        }
        records
    }

    fn record(&self, cohorts: &[CohortMeasures]) -> Vec<u8> {
        /// A [`MeasureBatch`] with some of its cohorts.
        #[derive(Serialize)]
        struct Part<'a> {
            format: u32,
            tenant: &'a str,
            model: &'a str,
            version: &'a str,
            window_start_us: i64,
            window_end_us: i64,
            revision: u32,
            reference: &'a str,
            config: &'a str,
            cohorts: &'a [CohortMeasures],
        }
        // Strings and numbers always have a JSON form; what is not finite becomes null.
        serde_json::to_vec(&Part {
            format: self.format,
            tenant: &self.tenant,
            model: &self.model,
            version: &self.version,
            window_start_us: self.window_start_us,
            window_end_us: self.window_end_us,
            revision: self.revision,
            reference: &self.reference,
            config: &self.config,
            cohorts,
        })
        .unwrap_or_default()
    }

    /// Reads the measures of one record, of this or an earlier release.
    ///
    /// # Errors
    /// When it is neither.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Measure>, serde_json::Error> {
        match bytes.first() {
            Some(b'[') => serde_json::from_slice(bytes),
            _ => serde_json::from_slice(bytes).map(|batch: Self| batch.measures()),
        }
    }

    /// One by one.
    pub fn measures(&self) -> Vec<Measure> {
        let mut all = Vec::with_capacity(self.cohorts.iter().map(CohortMeasures::count).sum());
        for of in &self.cohorts {
            for signal in &of.signals {
                all.extend(signal.methods.iter().map(|it| self.measure(of, signal, it)));
            }
        }
        all
    }

    fn measure(
        &self,
        of: &CohortMeasures,
        signal: &SignalMeasures,
        method: &MethodMeasure,
    ) -> Measure {
        Measure {
            format: MEASURE_FORMAT,
            tenant: self.tenant.to_string(),
            model: self.model.to_string(),
            version: self.version.to_string(),
            cohort: of.cohort.clone(),
            signal: signal.signal.to_string(),
            window_start_us: self.window_start_us,
            window_end_us: self.window_end_us,
            revision: self.revision,
            method: method.method.to_string(),
            method_version: method.version,
            value: method.value,
            p_value: method.p_value,
            threshold: method.p_value.map(|_| signal.threshold),
            crossed: method.crossed,
            rows: signal.rows,
            devices: signal.devices,
            reference_rows: signal.reference_rows,
            reference: self.reference.to_string(),
            config: self.config.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(cohorts: usize, methods: usize) -> MeasureBatch {
        let method = |number| MethodMeasure {
            method: format!("m{number}").into(),
            version: 1,
            value: Some(0.25),
            p_value: (number > 0).then_some(0.5),
            crossed: false,
        };
        let cohort = |number| CohortMeasures {
            cohort: Cohort::of("site", &format!("s{number}")),
            signals: vec![SignalMeasures {
                signal: "temperature".into(),
                rows: 20,
                devices: 2.0,
                reference_rows: 1_000,
                threshold: 1e-4,
                methods: (0..methods).map(method).collect(),
            }],
        };
        MeasureBatch {
            format: MEASURE_BATCH_FORMAT,
            tenant: "acme".into(),
            model: "boiler".into(),
            version: "1".into(),
            window_start_us: 0,
            window_end_us: 1,
            revision: 3,
            reference: "abc".into(),
            config: "def".into(),
            cohorts: (0..cohorts).map(cohort).collect(),
        }
    }

    /// What was put in comes out, in order; only what has a p-value has a threshold.
    #[test]
    fn measures_come_back() {
        let batch = batch(2, 2);
        let records = batch.encode();
        assert_eq!(records.len(), 1);
        let found = MeasureBatch::decode(&records[0]).unwrap();
        assert_eq!(found, batch.measures());
        let brief = |it: &Measure| (it.cohort.to_string(), it.method.clone(), it.threshold);
        let told: Vec<_> = found.iter().map(brief).collect();
        let row = |site: &str, method: &str, threshold| (site.into(), method.into(), threshold);
        let wanted = [
            row("site=s0", "m0", None),
            row("site=s0", "m1", Some(1e-4)),
            row("site=s1", "m0", None),
            row("site=s1", "m1", Some(1e-4)),
        ];
        assert_eq!(told, wanted);
    }

    /// Many measures are cut between cohorts, and one cohort that has too many alone is one record.
    #[test]
    fn many_measures_are_cut() {
        let methods = MEASURES_PER_RECORD_MAX / 2;
        let of = |batch: MeasureBatch| -> Vec<usize> {
            let records = batch.encode();
            let count = |record: &Vec<u8>| MeasureBatch::decode(record).unwrap().len();
            records.iter().map(count).collect()
        };
        assert_eq!(of(batch(3, methods)), [2 * methods, methods]);
        let large = MEASURES_PER_RECORD_MAX + 1;
        assert_eq!(of(batch(2, large)), [large, large]);
        assert!(of(batch(0, 1)).is_empty());
    }

    /// Records of earlier releases are lists of measures.
    #[test]
    fn lists_are_read() {
        let measures = batch(1, 2).measures();
        let record = serde_json::to_vec(&measures).unwrap();
        assert_eq!(MeasureBatch::decode(&record).unwrap(), measures);
    }
}
