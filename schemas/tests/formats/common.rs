//! Models, schemas and rows to test with.

use std::path::PathBuf;
use std::sync::Arc;

use driftline_schemas::bundle::Manifest;
use driftline_schemas::frame::{Body, Envelope, Frame, Overrides, Sent};
use driftline_schemas::rows::{Column, FieldType, RowSchema, Rows, Values};
use driftline_schemas::source::{Link, Role};
use proptest::prelude::*;
use proptest::sample::select;

/// A classifier with two numbers, a category and an extra signal.
pub(crate) const BOILER: &str = r#"
format = 1
name = "boiler"
version = "1.4.0"
task = "classification"

[[features]]
name = "temperature"
type = "numeric"
resolution = 0.01
unit = "°C"
range = [-40.0, 125.0]

[[features]]
name = "pressure"
type = "numeric"
resolution = 0.5
unit = "hPa"

[[features]]
name = "mode"
type = "categorical"
categories = ["heat", "idle", "defrost"]

[output]
classes = ["ok", "leak", "fail"]
scores = true

[[signals]]
name = "brightness"
type = "numeric"
resolution = 0.001
"#;

pub(crate) fn boiler() -> Manifest {
    Manifest::parse(BOILER).unwrap()
}

/// A schema of every kind of rows.
pub(crate) fn schemas() -> [RowSchema; 4] {
    [
        RowSchema::inferences(&boiler()),
        RowSchema::outcomes(&boiler()),
        RowSchema::health(),
        RowSchema::events(),
    ]
}

/// A regressor with numeric features of given resolutions, and nothing else.
pub(crate) fn numbers(features: &[(&str, f64)]) -> RowSchema {
    let mut text = String::from(
        "format = 1\nname = \"n\"\nversion = \"1\"\ntask = \"regression\"\n[output]\nresolution = 1.0\n",
    );
    for (name, resolution) in features {
        text += &format!(
            "[[features]]\nname = \"{name}\"\ntype = \"numeric\"\nresolution = {resolution:?}\n"
        );
    }
    RowSchema::inferences(&Manifest::parse(&text).unwrap())
}

/// Folder of what is shared between repositories; `None`, loudly, where it is absent.
pub(crate) fn shared(file: &str) -> Option<PathBuf> {
    let root = std::env::var_os("DRIFTLINE_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = root.join(file);
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: {} is not there (DRIFTLINE_SHARED names the folder)",
        path.display()
    );
    None
}

/// Equal rows look alike, however their missing values were noted.
pub(crate) fn normal(rows: &Rows) -> Rows {
    fn values<T: Clone + Default>(values: &Values<T>) -> Values<T> {
        values.iter().map(|value| value.cloned()).collect()
    }
    let columns = rows.columns.iter().map(|column| match column {
        Column::Time(it) => Column::Time(values(it)),
        Column::Int32(it) => Column::Int32(values(it)),
        Column::Int64(it) => Column::Int64(values(it)),
        Column::Text(it) => Column::Text(values(it)),
        Column::Id(it) => Column::Id(values(it)),
    });
    Rows {
        columns: columns.collect(),
    }
}

/// Numbers as sensors, counters, clocks and attackers make them.
fn integers(count: usize) -> impl Strategy<Value = Vec<i64>> {
    let step = select(vec![0i64, 1, 7, 1_000, 60_000_000]);
    prop_oneof![
        (any::<i64>(), step.clone()).prop_map(move |(first, step)| (0..count as i64)
            .map(|row| first.wrapping_add(row.wrapping_mul(step)))
            .collect()),
        (any::<i64>(), proptest::collection::vec(-40i64..40, count)).prop_map(|(base, noise)| {
            noise.into_iter().map(|n| base.wrapping_add(n)).collect()
        }),
        (
            1_500_000_000_000i64..1_900_000_000_000,
            step,
            proptest::collection::vec(0i64..5_000, count)
        )
            .prop_map(|(first, step, noise)| {
                noise
                    .into_iter()
                    .scan(first, |time, noise| {
                        *time += step + noise;
                        Some(*time * 1_000)
                    })
                    .collect()
            }),
        proptest::collection::vec(any::<i64>(), count),
        proptest::collection::vec(
            select(vec![
                i64::MIN,
                i64::MAX,
                0,
                -1,
                1,
                i64::from(i32::MIN),
                i64::from(i32::MAX)
            ]),
            count
        ),
        proptest::collection::vec(prop_oneof![9 => 0i64..4, 1 => any::<i64>()], count),
    ]
}

fn column(ty: FieldType, nullable: bool, count: usize) -> BoxedStrategy<Column> {
    let missing = match nullable {
        true => prop_oneof![
            Just(vec![false; count]),
            Just(vec![true; count]),
            proptest::collection::vec(any::<bool>(), count),
        ]
        .boxed(),
        false => Just(vec![false; count]).boxed(),
    };
    fn with<T: Clone + Default>(values: Vec<T>, missing: Vec<bool>) -> Values<T> {
        let pairs = values.into_iter().zip(missing);
        pairs
            .map(|(value, missing)| (!missing).then_some(value))
            .collect()
    }
    match ty {
        FieldType::Time => (integers(count), missing)
            .prop_map(|(values, missing)| Column::Time(with(values, missing)))
            .boxed(),
        FieldType::Int64 => (integers(count), missing)
            .prop_map(|(values, missing)| Column::Int64(with(values, missing)))
            .boxed(),
        FieldType::Int32 => (integers(count), missing)
            .prop_map(|(values, missing)| {
                let values = values.into_iter().map(|value| value as i32).collect();
                Column::Int32(with(values, missing))
            })
            .boxed(),
        FieldType::Text => (
            proptest::collection::vec(select(vec!["", "boot", "größer", "2.1", "x"]), count),
            missing,
        )
            .prop_map(|(values, missing)| {
                Column::Text(with(values.into_iter().map(Arc::from).collect(), missing))
            })
            .boxed(),
        FieldType::Id => (proptest::collection::vec(any::<u128>(), count), missing)
            .prop_map(|(values, missing)| Column::Id(with(values, missing)))
            .boxed(),
    }
}

/// Any rows of a schema, up to `most`.
pub(crate) fn any_rows(schema: &RowSchema, most: usize) -> BoxedStrategy<Rows> {
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|it| (it.ty, it.nullable))
        .collect();
    (0..=most)
        .prop_flat_map(move |count| {
            let columns: Vec<_> = fields
                .iter()
                .map(|(ty, nullable)| column(*ty, *nullable, count))
                .collect();
            columns.prop_map(|columns| Rows { columns })
        })
        .boxed()
}

pub(crate) fn any_envelope() -> impl Strategy<Value = Envelope> {
    let text = || proptest::option::of("[a-zä0-9.]{0,12}".prop_map(Arc::<str>::from));
    let sent = prop_oneof![
        Just(Sent::Unsaid),
        any::<i64>().prop_map(Sent::At),
        (0..i64::MAX / 1_000_000).prop_map(|seconds| Sent::At(seconds * 1_000_000)),
        (0..1i64 << 50).prop_map(Sent::SinceBoot),
    ];
    let overrides = (
        (
            text(),
            text(),
            text(),
            text(),
            text(),
            text(),
            text(),
            text(),
        ),
        proptest::option::of(select(vec![Link::Unknown, Link::Wifi, Link::Satellite])),
        proptest::option::of(select(vec![Role::Device, Role::Probe])),
        proptest::option::of(any::<u32>()),
    )
        .prop_map(|(texts, link, role, cadence_s)| {
            let (device, model, version, variant, hardware, firmware, region, site) = texts;
            Overrides {
                device,
                model,
                version,
                variant,
                hardware,
                firmware,
                region,
                site,
                link,
                role,
                cadence_s,
            }
        });
    let overrides = prop_oneof![Just(Overrides::default()), overrides];
    (any::<u64>(), any::<u64>(), sent, overrides).prop_map(|(boot, sequence, sent, overrides)| {
        Envelope {
            boot,
            sequence,
            sent,
            overrides,
        }
    })
}

/// Any frame of rows, with its schema.
pub(crate) fn any_frame(most: usize) -> impl Strategy<Value = (Arc<RowSchema>, Frame)> {
    (0..schemas().len(), any_envelope()).prop_flat_map(move |(schema, envelope)| {
        let [a, b, c, d] = schemas();
        let schema = Arc::new([a, b, c, d][schema].clone());
        any_rows(&schema, most).prop_map(move |rows| {
            let frame = Frame {
                envelope: envelope.clone(),
                body: Body::Rows(rows),
            };
            (Arc::clone(&schema), frame)
        })
    })
}
