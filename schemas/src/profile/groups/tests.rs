//! The columnar way against the plain one, row by row.

use proptest::prelude::*;

use super::*;
use crate::bundle::{FeatureType, Signal, SignalRole};
use crate::profile::SignalLayout;
use crate::profile::binning::Counter;
use crate::quantity::{NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY, UNSEEN, VALUE_MAX};

fn layout() -> Arc<Layout> {
    let signal = |name: &str, kind, edges: &[i32]| SignalLayout {
        signal: Signal {
            name: name.into(),
            role: SignalRole::Input,
            kind,
        },
        edges: edges.to_vec(),
    };
    let number = |range| FeatureType::Numeric {
        resolution: 1.0,
        unit: String::new(),
        range,
    };
    let signals = vec![
        signal("narrow", number(Some([-50.0, 60.0])), &[-20, 0, 7, 40]),
        signal(
            "wide",
            number(None),
            &[-2_000_000_000, -5, 5, 1_900_000_000],
        ),
        signal("flat", number(None), &[]),
        signal(
            "mode",
            FeatureType::Categorical {
                categories: vec!["a".into(), "b".into(), "c".into()],
            },
            &[],
        ),
    ];
    Arc::new(Layout::new(signals).unwrap())
}

fn value() -> impl Strategy<Value = Option<i32>> {
    prop_oneof![
        8 => (-80i32..80).prop_map(Some),
        1 => any::<i32>().prop_map(Some),
        1 => prop::sample::select(vec![NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY, UNSEEN, VALUE_MIN, VALUE_MAX]).prop_map(Some),
        1 => Just(None),
    ]
}

type Row = (usize, u64, [Option<i32>; 4]);

fn plain(rows: &[Row], groups: usize) -> Vec<Profile> {
    let mut counters: Vec<Counter> = (0..groups).map(|_| Counter::new(&layout())).collect();
    for (group, device, values) in rows {
        counters[*group].rows(*device, 1);
        for (signal, value) in values.iter().enumerate() {
            counters[*group].value(signal, *value).unwrap();
        }
    }
    counters.into_iter().map(Counter::finish).collect()
}

fn count(groups: &mut ProfileGroups, rows: &[Row]) {
    let of: Vec<usize> = rows.iter().map(|row| row.0).collect();
    let devices: Vec<u64> = rows.iter().map(|row| row.1).collect();
    groups.begin(&of, Some(&devices));
    for signal in 0..4 {
        let values: Vec<i32> = rows.iter().map(|row| row.2[signal].unwrap_or(1)).collect();
        let valid: Vec<bool> = rows.iter().map(|row| row.2[signal].is_some()).collect();
        groups.column(signal, &values, Some(&NullBuffer::from(valid)));
    }
}

proptest! {
    /// Any rows in any groups, long runs and short ones, nulls and codes of non-finite numbers, cut
    /// into batches anywhere, some of them merged as profiles: the same bytes as row by row.
    #[test]
    fn columns_count_like_rows(
        runs in prop::collection::vec((0usize..4, 0u64..5, prop::array::uniform4(value()), 1usize..900), 1..12),
        same in any::<bool>(),
        cut in 0usize..4_000,
        more in prop::collection::vec((0usize..4, 0u64..5, prop::array::uniform4(value())), 0..60),
    ) {
        let mut rows: Vec<Row> = runs.iter().flat_map(|&(group, device, values, length)| {
            (0..length).map(move |at| {
                // The same value over and over, or one that moves with the row.
                let moved = values.map(|value| value.map(|v| if same { v } else { v.saturating_add(at as i32 % 7) }));
                (group, device, moved)
            })
        }).collect();
        rows.extend(more);
        let expected = plain(&rows, 4);

        let (left, right) = rows.split_at(cut.min(rows.len()));
        let mut groups = ProfileGroups::new(layout());
        groups.grow(4);
        count(&mut groups, left);
        let mut elsewhere = ProfileGroups::new(layout());
        elsewhere.grow(4);
        count(&mut elsewhere, right);
        for (group, profile) in elsewhere.take_all().iter().enumerate() {
            groups.merge(group, profile);
        }
        let mut actual = groups.take(1);
        actual.extend(groups.take_all());
        prop_assert_eq!(actual, expected);
    }
}

/// Groups that are left after the first were taken go on under their new numbers, and so do those
/// that come after.
#[test]
fn groups_move_up_when_others_are_taken() {
    let row = |group, device| (group, device, [Some(1), None, Some(3), Some(2)]);
    let mut groups = ProfileGroups::new(layout());
    groups.grow(3);
    count(&mut groups, &[row(0, 1), row(1, 1), row(2, 9), row(1, 2)]);
    assert_eq!(groups.take(1), plain(&[row(0, 1)], 1));
    groups.grow(3);
    count(&mut groups, &[row(2, 7), row(0, 2)]);
    let rest = plain(&[row(0, 1), row(0, 2), row(0, 2), row(1, 9), row(2, 7)], 3);
    assert_eq!(groups.take_all(), rest);
    assert_eq!(groups.take_all(), []);
}
