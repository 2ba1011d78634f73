//! The law that everything rests on: profiles merge to the same bytes whatever the split, the order
//! and the grouping of the rows.

use driftline_schemas::bundle::{FeatureType, Signal, SignalRole};
use driftline_schemas::limits::PROFILE_DEVICES_MAX;
use driftline_schemas::profile::binning::{Binner, Counter};
use driftline_schemas::profile::codec::Reader;
use driftline_schemas::profile::{Layout, Profile, ProfileError, SignalLayout};
use driftline_schemas::quantity::{NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY, UNSEEN, VALUE_MIN};
use proptest::prelude::*;
use proptest::sample::select;

fn layout() -> Layout {
    let numeric = |name: &str, range, edges| SignalLayout {
        signal: Signal {
            name: name.into(),
            role: SignalRole::Input,
            kind: FeatureType::Numeric {
                resolution: 0.1,
                unit: String::new(),
                range,
            },
        },
        edges,
    };
    let category = SignalLayout {
        signal: Signal {
            name: "mode".into(),
            role: SignalRole::Input,
            kind: FeatureType::Categorical {
                categories: vec!["a".into(), "b".into(), "c".into()],
            },
        },
        edges: Vec::new(),
    };
    Layout::new(vec![
        numeric("narrow", Some([-5.0, 5.0]), vec![-20, -1, 0, 15]),
        numeric(
            "wide",
            None,
            vec![i32::MIN + 100, -70_000, 5, 900_000, i32::MAX - 1],
        ),
        category,
        numeric("never", None, vec![]),
    ])
    .unwrap()
}

#[derive(Debug, Clone)]
struct Row {
    device: u64,
    values: [Option<i32>; 3],
}

fn any_row(devices: u64) -> impl Strategy<Value = Row> {
    let value = || {
        prop_oneof![
            4 => (-40i32..40).prop_map(Some),
            1 => any::<i32>().prop_map(Some),
            1 => select(vec![NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY, UNSEEN, VALUE_MIN, i32::MAX])
                .prop_map(Some),
            1 => Just(None),
        ]
    };
    (0..devices, value(), value(), value()).prop_map(|(device, a, b, c)| Row {
        // Spread over the whole range, as hashes are.
        device: device.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        values: [a, b, c],
    })
}

fn count(layout: &Layout, rows: &[Row]) -> Profile {
    let mut counter = Counter::new(layout);
    for row in rows {
        counter.rows(row.device, 1);
        for (signal, value) in row.values.into_iter().enumerate() {
            counter.value(signal, value).unwrap();
        }
    }
    counter.finish()
}

/// Merges parts two at a time, in the places that `picks` says, until one is left.
fn merge_somehow(
    layout: &Layout,
    mut parts: Vec<Profile>,
    picks: &[prop::sample::Index],
) -> Profile {
    let mut picks = picks.iter().cycle();
    while parts.len() > 1 {
        let mut pick = || picks.next().map_or(0, |pick| pick.index(parts.len()));
        let (a, b) = (pick(), pick());
        let part = parts.swap_remove(a);
        let b = b % parts.len();
        parts[b].merge(&part).unwrap();
    }
    parts.pop().unwrap_or_else(|| Profile::empty(layout))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any rows, split in any way, shuffled, merged in any grouping: identical bytes.
    #[test]
    fn split_order_and_grouping_do_not_matter(
        (rows, shuffled) in proptest::collection::vec(any_row(12), 0..80)
            .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let layout = layout();
        let whole = count(&layout, &rows).encode();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(shuffled.len() + 1)).collect();
        cuts.extend([0, shuffled.len()]);
        cuts.sort_unstable();
        let parts: Vec<Profile> = cuts
            .windows(2)
            .map(|cut| count(&layout, &shuffled[cut[0]..cut[1]]))
            .collect();
        prop_assert_eq!(merge_somehow(&layout, parts, &picks).encode(), whole);
    }

    /// A part that is taken away leaves what the other part counted (extremes stay the whole's), and
    /// what was never there cannot be taken away.
    #[test]
    fn subtracting_undoes_merging(
        a in proptest::collection::vec(any_row(12), 0..60),
        b in proptest::collection::vec(any_row(12), 1..60),
    ) {
        let layout = layout();
        let (left, right) = (count(&layout, &a), count(&layout, &b));
        let mut whole = left.clone();
        whole.merge(&right).unwrap();
        let mut rest = whole.without(&right).unwrap();
        for (signal, (mine, whole)) in rest.signals.iter_mut().zip(&whole.signals).enumerate() {
            prop_assert_eq!((mine.min, mine.max), (whole.min, whole.max));
            (mine.min, mine.max) = (left.signals[signal].min, left.signals[signal].max);
        }
        prop_assert_eq!(rest.encode(), left.encode());
        let twice = whole.without(&right).unwrap().without(&whole);
        let refused = matches!(twice, Err(ProfileError::NotContained { .. }));
        prop_assert!(refused);
    }

    /// Profiles come back from their bytes, and what follows them is left to be read.
    #[test]
    fn bytes_round_trip(rows in proptest::collection::vec(any_row(40), 0..80)) {
        let profile = count(&layout(), &rows);
        let mut bytes = profile.encode();
        bytes.extend_from_slice(b"rest");
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(Profile::decode(&mut reader).unwrap(), profile);
        prop_assert_eq!(reader.remaining(), 4);
    }

    /// Hostile bytes: a profile or an error, never a panic, also when what was read is merged with
    /// itself over and over.
    #[test]
    fn hostile_bytes_are_read_or_refused(
        rows in proptest::collection::vec(any_row(40), 0..30),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = Profile::decode(&mut Reader::new(&noise));
        let mut bytes = count(&layout(), &rows).encode();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(profile) = Profile::decode(&mut Reader::new(&bytes)) {
            let mut sum = profile.clone();
            for _ in 0..64 {
                sum.merge(&profile).unwrap();
            }
            prop_assert!(sum.without(&profile).is_ok());
            prop_assert!(sum.signals.iter().all(|signal| signal.variance(0.1).is_none_or(|v| v >= 0.0)));
        }
    }
}

proptest! {
    // Each case counts many rows; thirty are enough to meet every way of merging.
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// More devices than a profile keeps: the sample is still the same however it was merged.
    #[test]
    fn device_samples_do_not_depend_on_the_way(
        rows in proptest::collection::vec(any_row(3 * PROFILE_DEVICES_MAX as u64), 0..1_500),
        size in 1usize..400,
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let layout = layout();
        let whole = count(&layout, &rows);
        let parts: Vec<Profile> = rows.chunks(size).map(|rows| count(&layout, rows)).collect();
        let merged = merge_somehow(&layout, parts, &picks);
        prop_assert_eq!(merged.encode(), whole.encode());
        let devices: std::collections::BTreeSet<u64> = rows.iter().map(|row| row.device).collect();
        prop_assert_eq!(whole.devices.is_truncated(), devices.len() > PROFILE_DEVICES_MAX);
        if !whole.devices.is_truncated() {
            prop_assert_eq!(whole.devices.count(), devices.len() as f64);
        }
    }
}

/// Every beginning of a profile is refused.
#[test]
fn truncation_is_refused() {
    let rows: Vec<Row> = (0..50)
        .map(|row| Row {
            device: row * 77,
            values: [Some(row as i32), None, Some(1)],
        })
        .collect();
    let bytes = count(&layout(), &rows).encode();
    for length in 0..bytes.len() {
        assert!(Profile::decode(&mut Reader::new(&bytes[..length])).is_err());
    }
}

/// Counts that no span of time has are refused, because merging them would run over.
#[test]
fn impossible_counts_are_refused() {
    let mut profile = Profile::empty(&layout());
    profile.rows = u64::MAX;
    assert!(Profile::decode(&mut Reader::new(&profile.encode())).is_err());
    let mut profile = Profile::empty(&layout());
    profile.devices.add(1, u64::MAX);
    assert!(Profile::decode(&mut Reader::new(&profile.encode())).is_err());
}

/// Profiles of other layouts are told apart.
#[test]
fn other_layouts_do_not_merge() {
    let mut mine = Profile::empty(&layout());
    let mut signals = layout().signals().to_vec();
    signals[0].edges.push(16);
    let theirs = Profile::empty(&Layout::new(signals).unwrap());
    assert!(matches!(
        mine.merge(&theirs),
        Err(ProfileError::LayoutDiffers { .. })
    ));
    assert!(!theirs.fits(&layout()));
    assert!(Binner::new(&[i32::MIN, i32::MAX]).bin(0) == 1);
}
