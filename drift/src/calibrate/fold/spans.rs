//! The spans that end with the window at hand, and the devices in them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::super::SPANS;
use super::super::worth::{Shares, Worth};
use super::{Recent, Terms};

/// Most histories that are kept; the signals of a cohort mostly share one or two.
const HISTORIES_MAX: usize = 8;

/// Some windows that end with the one at hand.
#[derive(Debug)]
pub(super) struct Reach {
    /// Index into [`SPANS`].
    pub(super) index: usize,
    pub(super) first_window: i64,
    /// Windows with data.
    pub(super) points: usize,
    pub(super) devices: Shares,
    /// Against the reference's devices; rows and spread are each score's own.
    pub(super) worth: Worth,
}

/// The spans of one cohort's streams in one window. Most signals come from the same devices in the same windows, so
/// this is worked out once for all of them.
#[derive(Debug, Default)]
pub struct CohortSpans {
    known: Vec<(History, Rc<[Reach]>)>,
}

/// Windows with their devices, which are compared by where they lie.
type History = Vec<(i64, Arc<Shares>)>;

impl CohortSpans {
    /// The spans of a stream's recent windows from `since` on, shortest first; those that reach no further than a
    /// shorter one are left out.
    pub(super) fn of(
        &mut self,
        terms: &Terms<'_>,
        recent: &VecDeque<Recent>,
        since: i64,
    ) -> Rc<[Reach]> {
        let from = recent.partition_point(|it| it.window < since);
        let is_same = |history: &History| {
            history.len() == recent.len() - from
                && history
                    .iter()
                    .zip(recent.range(from..))
                    .all(|((window, devices), it)| {
                        *window == it.window && Arc::ptr_eq(devices, &it.point.devices)
                    })
        };
        if let Some((_, reaches)) = self.known.iter().find(|(history, _)| is_same(history)) {
            return Rc::clone(reaches);
        }
        let history: History = recent
            .range(from..)
            .map(|it| (it.window, Arc::clone(&it.point.devices)))
            .collect();
        let reaches: Rc<[Reach]> = reaches(terms, &history).into();
        if self.known.len() < HISTORIES_MAX {
            self.known.push((history, Rc::clone(&reaches)));
        }
        reaches
    }
}

fn reaches(terms: &Terms<'_>, history: &History) -> Vec<Reach> {
    let Some(&(window, _)) = history.last() else {
        return Vec::new();
    };
    let mut reaches: Vec<Reach> = Vec::with_capacity(SPANS.len());
    let mut devices = Shares::default();
    let mut covered = 0;
    for (index, span) in SPANS.into_iter().enumerate() {
        let first = window - i64::from(span) + 1;
        let from = history.partition_point(|(window, _)| *window < first);
        let points = history.len() - from;
        if points == covered {
            continue;
        }
        // Numbers of rows are whole, so that their order does not matter to the sum.
        for (_, more) in &history[from..history.len() - covered] {
            devices.add(more);
        }
        covered = points;
        reaches.push(Reach {
            index,
            first_window: history[from].0,
            points,
            worth: Worth {
                devices: devices.distance(terms.reference_devices),
                own: devices.concentration(),
                rows: 0.0,
                windows: points as f64 * terms.windows_per_step,
                spread: 1.0,
            },
            devices: devices.clone(),
        });
    }
    reaches
}
