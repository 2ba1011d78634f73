//! What the changelog holds beside windows, read back.

use std::collections::BTreeMap;

use super::super::model::{Model, SavedFold};
use super::super::state::{Key, ModelId, value};
use super::Partition;

/// Folds that wait for their bundle to be made again.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) folds: BTreeMap<ModelId, SavedFold>,
}

/// Takes one entry in.
pub(super) fn kept(
    state: &mut Partition,
    partition: u32,
    key: Key,
    bytes: &[u8],
) -> Result<(), String> {
    let model = |state: &mut Partition, id: &ModelId| {
        state
            .models
            .entry(id.clone())
            .or_insert_with(|| Model::new(id.clone(), partition));
    };
    match key {
        Key::Judged(id, start_us) => {
            model(state, &id);
            let judged = value(bytes)?;
            if let Some(model) = state.models.get_mut(&id) {
                model.restore_judged(start_us, judged);
            }
        }
        Key::Said(id, start_us, key) => {
            model(state, &id);
            let said = value(bytes)?;
            if let Some(model) = state.models.get_mut(&id) {
                model.restore_said(start_us, key, said);
            }
        }
        Key::Cutoff(id) => {
            model(state, &id);
            let cutoff_us = value(bytes)?;
            if let Some(model) = state.models.get_mut(&id) {
                model.restore_cutoff(cutoff_us);
            }
        }
        Key::Streams(id, cohort) => {
            let saved = state.saved.folds.entry(id).or_default();
            saved.streams.insert(cohort, value(bytes)?);
        }
        Key::Cells(id, cell) => {
            let saved = state.saved.folds.entry(id).or_default();
            saved.cells.insert(cell, value(bytes)?);
        }
        Key::Stories(id) => {
            state.saved.folds.entry(id).or_default().stories = value(bytes)?;
        }
        Key::Arrivals(id) => {
            state.saved.folds.entry(id).or_default().arrivals = Some(value(bytes)?);
        }
        Key::Config(_) | Key::Watermark(_) | Key::Cell(..) => {}
    }
    Ok(())
}
