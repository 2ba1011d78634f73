//! Laws of [`Once`], against a set of everything ever counted.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn frame(device: u64, boot: u64, sequence: u64) -> FrameId {
    FrameId {
        device,
        kind: Kind::Inferences,
        boot,
        sequence,
    }
}

/// Runs a log, cut into steps at `cuts`; a restart happens after each step where `restart` says so.
/// Returns the verdicts and the state as a log would keep it.
fn run(
    log: &[Vec<FrameId>],
    cut: impl Fn(usize) -> bool,
    bounds: Bounds,
) -> (Vec<Verdict>, BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut once = Once {
        bounds,
        ..Once::default()
    };
    let mut state: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut verdicts = Vec::new();
    for (position, record) in log.iter().enumerate() {
        once.advance(position as u64);
        for frame in record {
            verdicts.push(once.admit(position as u64, *frame));
        }
        if cut(position) || position + 1 == log.len() {
            for (key, value) in once.deltas() {
                match value {
                    Some(value) => state.insert(key, value),
                    None => state.remove(&key),
                };
            }
            once = Once {
                bounds,
                ..Once::restore(&state).unwrap()
            };
        }
    }
    (verdicts, state)
}

fn logs() -> impl Strategy<Value = Vec<Vec<FrameId>>> {
    let one = (0u64..3, 0u64..2, 0u64..1_000, any::<bool>()).prop_map(
        |(device, boot, sequence, outcome)| FrameId {
            kind: if outcome {
                Kind::Outcomes
            } else {
                Kind::Inferences
            },
            ..frame(device, boot, sequence % if boot == 0 { 40 } else { 1_000 })
        },
    );
    prop::collection::vec(prop::collection::vec(one, 0..8), 1..60)
}

proptest! {
    /// Frames within the window, sent again in any order: each counts the first time that it is
    /// seen and never again, wherever the log is cut into steps and the process restarted; and the
    /// state of a prefix is the same bytes for all cuts.
    #[test]
    fn each_frame_counts_once_whatever_the_cuts(log in logs(), cuts in any::<u64>()) {
        let (whole, state) = run(&log, |_| false, BOUNDS);
        let mut seen = BTreeSet::new();
        let expected: Vec<bool> = log.iter().flatten()
            .map(|f| seen.insert((f.device, f.kind, f.boot, f.sequence)))
            .collect();
        let counted: Vec<bool> = whole.iter().map(|v| *v == Verdict::New).collect();
        prop_assert_eq!(counted, expected);
        let (cut, cut_state) = run(&log, |at| cuts >> (at % 64) & 1 == 1, BOUNDS);
        prop_assert_eq!(cut, whole);
        prop_assert_eq!(cut_state, state);
    }

    /// With bounds so small that entries are forgotten all the time, verdicts and state still
    /// depend on the prefix only, and the bounds hold.
    #[test]
    fn forgetting_depends_on_the_prefix_only(log in logs(), cuts in any::<u64>()) {
        let bounds = Bounds { horizon: 9, sweep: 4, entries: 3 };
        let (whole, state) = run(&log, |_| false, bounds);
        let (cut, cut_state) = run(&log, |at| cuts >> (at % 64) & 1 == 1, bounds);
        prop_assert_eq!(cut, whole);
        prop_assert_eq!(&cut_state, &state);
        let per_sweep: usize = 4 * 8;
        prop_assert!(state.len() <= bounds.entries + per_sweep + 1);
    }

    /// A boot whose frames get lost, doubled and reordered at random over thousands of sequences:
    /// nothing counts twice, everything within the window of the highest counts, and the entry
    /// stays within its bound.
    #[test]
    fn gaps_are_bounded_and_exact_within_the_window(
        jumps in prop::collection::vec((1u64..400, 0u64..1_500), 1..400),
    ) {
        let mut once = Once::default();
        let mut counted = BTreeSet::new();
        let mut highest = 0;
        for (at, (ahead, behind)) in jumps.iter().enumerate() {
            let next = highest + ahead;
            for sequence in [next, next.saturating_sub(*behind), next] {
                let fresh = once.admit(at as u64, frame(1, 1, sequence)) == Verdict::New;
                highest = highest.max(sequence);
                prop_assert!(!(fresh && counted.contains(&sequence)), "counted twice");
                if highest - sequence < WINDOW {
                    prop_assert_eq!(fresh, !counted.contains(&sequence));
                }
                if fresh {
                    counted.insert(sequence);
                }
            }
            let (_, value) = once.deltas().remove(0);
            prop_assert!(value.unwrap().len() < 20 + 6 * (WINDOW as usize / 2 + OLD_GAPS_MAX));
        }
    }
}

/// A device that sends its backlog newest first loses nothing, although the backlog is far longer
/// than the window and single frames of it are missing.
#[test]
fn a_backlog_sent_newest_first_counts() {
    let mut once = Once::default();
    let lost = |sequence: u64| sequence % 97 == 5;
    let mut counted = 0;
    for sequence in (0..20_000u64).rev().filter(|sequence| !lost(*sequence)) {
        if once.admit(0, frame(1, 1, sequence)) == Verdict::New {
            counted += 1;
        }
    }
    assert_eq!(counted, (0..20_000).filter(|s| !lost(*s)).count());
}

/// A device that restarts for ever keeps a bounded number of boots; the last ones are exact.
#[test]
fn boots_of_one_device_are_bounded() {
    let mut once = Once::default();
    for boot in 0..10_000u64 {
        once.advance(boot * 10);
        assert_eq!(once.admit(boot * 10, frame(1, boot, 0)), Verdict::New);
        assert_eq!(once.admit(boot * 10, frame(1, boot, 0)), Verdict::Resent);
    }
    let between_sweeps = (SWEEP_RECORDS / 10) as usize + 1;
    assert!(once.len() <= BOOTS_MAX + between_sweeps, "{}", once.len());
    assert_eq!(once.admit(100_000, frame(1, 9_999, 0)), Verdict::Resent);
}

/// What a former version may have left, or a disk garbled, is refused by name and not guessed at.
#[test]
fn state_of_another_format_is_refused() {
    let key = encode_key(Key {
        device: 1,
        kind: Kind::Health,
        boot: 2,
    });
    let wrong = BTreeMap::from([(key, vec![9, 1, 1, 0, 0])]);
    let error = Once::restore(&wrong).unwrap_err();
    assert_eq!(error.problem, "value");
    assert!(error.to_string().contains("6f03"));
    let others = BTreeMap::from([(b"labels".to_vec(), vec![1])]);
    assert!(Once::restore(&others).unwrap().is_empty());
}

/// The bytes of an entry, as released: they must stay readable.
#[test]
fn the_bytes_of_the_state_are_fixed() {
    let mut once = Once::default();
    for sequence in [2, 5, 300, 299] {
        once.admit(77, frame(0x0102, 0x0304, sequence));
    }
    let deltas = once.deltas();
    assert_eq!(deltas.len(), 1);
    assert_eq!(
        deltas[0].0,
        [b'o', 1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4]
    );
    // format 1; highest 300; position 77; nothing forgotten; gaps 6..=298, 3..=4, 0..=1
    assert_eq!(
        deltas[0].1.as_deref(),
        Some([1, 0xac, 2, 77, 0, 3, 2, 0xa4, 2, 2, 1, 2, 1].as_slice())
    );
    let state: BTreeMap<_, _> = deltas.into_iter().map(|(k, v)| (k, v.unwrap())).collect();
    let mut again = Once::restore(&state).unwrap();
    assert_eq!(again.admit(78, frame(0x0102, 0x0304, 4)), Verdict::New);
    assert_eq!(again.admit(78, frame(0x0102, 0x0304, 5)), Verdict::Resent);
}
