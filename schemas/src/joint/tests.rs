use proptest::prelude::*;

use super::*;

fn joint(weights: Vec<Vec<f32>>, centers: &[i64]) -> Joint {
    let features = centers.iter().enumerate().map(|(at, center)| JointFeature {
        name: format!("f{at}"),
        at,
        resolution: 0.1,
        centers: vec![*center],
    });
    Joint {
        format: JOINT_FORMAT,
        season: Season::None,
        features: features.collect(),
        weights,
        ties: Vec::new(),
    }
}

/// Two features with mean 10 and 20 codes, standard deviation 1, correlation 0.6.
fn pair() -> Joint {
    let part = 1.0 / 256.0;
    let weights = vec![vec![part], vec![-0.75 * part, 1.25 * part]];
    joint(weights, &[10 * 256, 20 * 256])
}

/// The distance by hand: at the mean 0; one deviation up in both 1/(1 + ρ), in opposite directions 1/(1 − ρ).
/// A row with a missing or non-finite feature has none.
#[test]
fn a_distance_by_hand() {
    let joint = pair();
    let at = |a: Option<i32>, b: Option<i32>| joint.value(0, |it| [a, b][it.at]);
    assert_eq!(at(Some(10), Some(20)), Some(0));
    assert_eq!(at(Some(11), Some(21)), Some(625));
    assert_eq!(at(Some(11), Some(19)), Some(2_500));
    assert_eq!(at(Some(11), None), None);
    assert_eq!(at(Some(quantity::NAN), Some(20)), None);
    assert_eq!(
        at(Some(quantity::VALUE_MAX), Some(20)),
        Some(quantity::VALUE_MAX)
    );
}

/// A known answer with weights that no short decimal is: changes of the order of operations, of the
/// rounding or of how weights come back from JSON would show here on every machine.
#[test]
fn a_known_answer_holds_on_every_machine() {
    let weights: Vec<Vec<f32>> = (0..5u8)
        .map(|row| {
            let of = |column| (f32::from(row) * 0.7 + f32::from(column) * 1.3 - 2.0) / 3.0e4;
            (0..=row).map(of).collect()
        })
        .collect();
    let joint = joint(weights, &[12_345, -777, 0, 99_999, 1]);
    let read = Joint::from_json(joint.to_json().as_bytes()).unwrap();
    assert_eq!(read, joint);
    let codes = [1_234, -567, 89, 4_321, -2];
    assert_eq!(read.value(0, |it| Some(codes[it.at])), Some(8_533_456));
}

proptest! {
    /// Any weights, any codes, some missing: many rows at once give what each gives by itself, and what the
    /// file says after it was read again.
    #[test]
    fn many_rows_are_each_row(
        features in 2..9usize,
        weights in proptest::collection::vec(-1e-2f32..1e-2, 45),
        centers in proptest::collection::vec(-1_000_000i64..1_000_000, 9),
        rows in proptest::collection::vec(proptest::collection::vec(any::<Option<i32>>(), 9), 0..200),
        hourly in any::<bool>(),
    ) {
        let mut weights = weights.into_iter();
        let triangle = (0..features).map(|row| weights.by_ref().take(row + 1).collect());
        let mut joint = joint(triangle.collect(), &centers[..features]);
        if hourly {
            joint.season = Season::HourOfDay;
            for feature in &mut joint.features {
                feature.centers = (0..24).map(|hour| feature.centers[0] * hour).collect();
            }
        }
        let joint = Joint::from_json(joint.to_json().as_bytes()).unwrap();
        let columns: Vec<(Vec<i32>, NullBuffer)> = (0..features)
            .map(|at| {
                let codes = rows.iter().map(|row| row[at].unwrap_or_default()).collect();
                (codes, rows.iter().map(|row| row[at].is_some()).collect())
            })
            .collect();
        let columns: Vec<Codes<'_>> = columns
            .iter()
            .map(|(codes, nulls)| (codes.as_slice(), Some(nulls)))
            .collect();
        let times: Vec<i64> = (0..rows.len() as i64).map(|row| row * 1_234_567_890).collect();
        let each: Vec<Option<i32>> = rows
            .iter()
            .zip(&times)
            .map(|(row, time)| joint.value(*time, |it| row[it.at]))
            .collect();
        prop_assert_eq!(joint.values(&times, &columns), each);
    }
}

/// What the file says is checked before it is used, and so is that it is the manifest's.
#[test]
fn what_does_not_fit_is_named() {
    let broken = |change: fn(&mut Joint)| {
        let mut joint = pair();
        change(&mut joint);
        Joint::from_json(joint.to_json().as_bytes())
            .unwrap_err()
            .to_string()
    };
    assert!(broken(|it| it.format = 9).contains("format 9"));
    assert!(broken(|it| it.weights[1].truncate(1)).contains("triangle"));
    assert!(broken(|it| it.features.truncate(1)).contains("1 features"));
    assert!(broken(|it| it.season = Season::HourOfDay).contains("24 means"));
    assert!(broken(|it| it.features[0].resolution = 0.0).contains("resolution"));
    let tie = |it: &mut Joint| {
        it.ties.push(Tie {
            a: 0,
            b: 2,
            correlation: 0.6,
        });
    };
    assert!(broken(tie).contains("pairs"));

    let text = r#"
format = 1
name = "pump"
version = "1"
task = "anomaly"
[[features]]
name = "f0"
type = "numeric"
resolution = 0.1
[[features]]
name = "f1"
type = "numeric"
resolution = 0.1
[[features]]
name = "mode"
type = "categorical"
categories = ["a", "b"]
[output]
resolution = 0.1
[joint]
features = ["f0", "f1"]
"#;
    let manifest = Manifest::parse(text).unwrap();
    let names: Vec<String> = manifest.signals().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["f0", "f1", "mode", "prediction", "joint", "error"]);
    assert_eq!(
        Manifest::parse(&manifest.to_toml().unwrap()).unwrap(),
        manifest
    );
    pair().check(&manifest).unwrap();
    let mut other = manifest.clone();
    other.features.swap(0, 1);
    assert!(
        pair()
            .check(&other)
            .unwrap_err()
            .to_string()
            .contains("\"f0\"")
    );
    other.joint = None;
    assert!(pair().check(&other).is_err());
    for (list, why) in [
        (r#"["f0"]"#, "not 1"),
        (r#"["f0", "f0"]"#, "twice"),
        (r#"["f0", "mode"]"#, "numeric"),
        (r#"["f0", "f9"]"#, "\"f9\""),
    ] {
        let text = text.replace(r#"["f0", "f1"]"#, list);
        let error = Manifest::parse(&text).unwrap_err().to_string();
        assert!(error.contains("joint") && error.contains(why), "{error}");
    }
    let taken = text.replace("\"mode\"", "\"joint\"");
    assert!(
        Manifest::parse(&taken)
            .unwrap_err()
            .to_string()
            .contains("name it otherwise")
    );
}
