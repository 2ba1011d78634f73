//! What is said of a window, held against what was said before: revisions, findings, refutations.

use std::collections::BTreeSet;
use std::sync::Arc;

use driftline_schemas::measure::{FindingState, MEASURE_BATCH_FORMAT, MeasureBatch};
use xxhash_rust::xxh3::xxh3_64;

use super::super::config::DetectConfig;
use super::super::state::{Judged, Key, Said, delta};
use super::super::stats::DetectStats;
use super::super::stories::Statement;
use super::super::subject::Subject;
use super::super::tell;
use super::super::window::Outcome;
use super::{Model, Told};

/// Windows whose end lies further back than this many windows when something is first said of them
/// are told as being about the past.
const PAST_WINDOWS: i64 = 6;

impl Model {
    /// Keys of findings of which something else was said in a window than that they hold.
    pub(super) fn again(&self, start_us: i64) -> BTreeSet<String> {
        self.said_in(start_us)
            .filter(|(_, said)| said.finding.state != FindingState::Drifted)
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn said_in(&self, start_us: i64) -> impl Iterator<Item = (&String, &Said)> {
        self.said
            .range((start_us, String::new())..)
            .take_while(move |((at, _), _)| *at == start_us)
            .map(|((_, key), said)| (key, said))
    }

    /// Holds what a window came to against what was said of it.
    pub(super) fn tell(
        &mut self,
        config: &(DetectConfig, String),
        (start_us, subject): (i64, &Subject),
        outcome: Outcome,
        told: &mut Told,
        stats: &DetectStats,
    ) {
        let batch = MeasureBatch {
            format: MEASURE_BATCH_FORMAT,
            tenant: Arc::clone(&self.id.tenant),
            model: Arc::clone(&self.id.model),
            version: Arc::clone(&self.id.version),
            window_start_us: start_us,
            window_end_us: start_us + config.0.window.us(),
            revision: 0,
            reference: subject.reference_id.as_str().into(),
            config: config.1.as_str().into(),
            cohorts: outcome.measures,
        };
        self.tell_measures(batch, subject.reference_hash(), told);
        for statement in outcome.statements {
            self.say(&config.0, start_us, statement, told, stats);
        }
    }

    /// Findings that were said to hold in a window after which their story is not open, nor after any later one: a
    /// story that only begins later than was said is still the same. Of all windows, not of those at hand alone: one
    /// whose story was still to begin when it was looked at last can lose it to data of later windows.
    pub(super) fn unfounded(&self) -> Vec<(i64, String)> {
        let is_open = |start_us: i64, key: &str| {
            let mut later = self.open.range(start_us..);
            later.any(|(_, keys)| keys.contains(key))
        };
        let holds = |said: &Said| said.finding.state == FindingState::Drifted;
        let said = self.said.iter().filter(|(_, said)| holds(said));
        said.map(|((start_us, key), _)| (*start_us, key.clone()))
            .filter(|(start_us, _)| self.open.contains_key(start_us))
            .filter(|(start_us, key)| !is_open(*start_us, key))
            .collect()
    }

    /// Says of a finding that it never was.
    pub(super) fn refute(
        &mut self,
        config: &DetectConfig,
        start_us: i64,
        key: String,
        told: &mut Told,
        stats: &DetectStats,
    ) {
        let Some(before) = self.said.get(&(start_us, key)) else {
            return;
        };
        let mut finding = before.finding.clone();
        finding.state = FindingState::Refuted;
        finding.explanation = format!(
            "data that came late shows that this never was: {}",
            finding.explanation
        );
        let statement = Statement {
            material: "refuted".into(),
            finding,
        };
        self.say(config, start_us, statement, told, stats);
    }

    fn tell_measures(&mut self, mut batch: MeasureBatch, reference: Option<u64>, told: &mut Told) {
        let start_us = batch.window_start_us;
        // Mostly there is no second revision, and these are the records.
        let mut records = batch.encode();
        let digest = records
            .iter()
            .fold(0, |before: u64, part| before.rotate_left(7) ^ xxh3_64(part));
        let before = self.judged.get(&start_us);
        let is_same = before.is_some_and(|before| before.digest == digest);
        if is_same && before.is_some_and(|before| before.reference == reference) {
            return;
        }
        let revision = before.map_or(0, |before| before.revision + u32::from(!is_same));
        if revision > 0 && !is_same {
            batch.revision = revision;
            records = batch.encode();
        }
        let judged = Judged {
            revision,
            digest,
            reference,
        };
        let key = Key::Judged(self.id.clone(), start_us);
        told.state.push(delta(self.partition, &key, Some(&judged)));
        self.judged.insert(start_us, judged);
        if !is_same {
            let records = records.into_iter().map(|record| (start_us, record));
            told.measures.extend(records);
        }
    }

    fn say(
        &mut self,
        config: &DetectConfig,
        start_us: i64,
        statement: Statement,
        told: &mut Told,
        stats: &DetectStats,
    ) {
        let Statement {
            material,
            mut finding,
        } = statement;
        let key = (start_us, finding.key.clone());
        let before = self.said.get(&key);
        if before.is_some_and(|before| before.material == material) {
            return;
        }
        finding.revision = before.map_or(0, |before| before.finding.revision + 1);
        let behind_us = self.watermark_us - finding.window_end_us - config.grace.us();
        if behind_us > PAST_WINDOWS * config.window.us() {
            finding.explanation = tell::about_the_past(&finding.explanation);
        }
        stats.findings.inc();
        told.findings.push(finding.clone());
        let said = Said { material, finding };
        let state_key = Key::Said(self.id.clone(), start_us, key.1.clone());
        told.state
            .push(delta(self.partition, &state_key, Some(&said)));
        self.said.insert(key, said);
    }
}

#[cfg(test)]
mod tests {
    use driftline_schemas::clock::HOUR_US;
    use driftline_schemas::measure::Finding;
    use serde_json::json;

    use super::super::super::state::ModelId;
    use super::*;

    fn finding(key: &str) -> Finding {
        serde_json::from_value(json!({
            "format": 1, "key": key, "tenant": "t", "model": "m", "version": "1", "kind": "input_drift",
            "scope": "estate", "state": "drifted", "revision": 0, "window_start_us": 0, "window_end_us": 1,
            "signals": [], "attributes": [], "evidence": "", "explanation": "", "sql": "", "reference": "", "config": ""
        }))
        .unwrap()
    }

    /// Scenario: a finding is said of hour 2; then its story begins in hour 4 only, and data for hour 4, after hour 2, take it
    /// away altogether.
    /// Guarantee: what was said of hour 2 stands while the story begins later, and is unfounded once it does not.
    #[test]
    fn what_begins_later_and_then_never_is_unfounded() {
        let id = ModelId {
            tenant: "t".into(),
            model: "m".into(),
            version: "1".into(),
        };
        let mut model = Model::new(id, 0);
        let said = Said {
            material: String::new(),
            finding: finding("a"),
        };
        model.said.insert((2 * HOUR_US, "a".into()), said);
        assert!(model.unfounded().is_empty(), "nothing is folded yet");
        for hour in 1..6 {
            let keys = (hour >= 4).then(|| "a".to_owned());
            model
                .open
                .insert(hour * HOUR_US, keys.into_iter().collect());
        }
        assert!(model.unfounded().is_empty());
        for hour in 4..6 {
            model.open.insert(hour * HOUR_US, BTreeSet::new());
        }
        assert_eq!(model.unfounded(), [(2 * HOUR_US, "a".to_owned())]);
    }
}
