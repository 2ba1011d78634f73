use super::super::tests::{Attribute, attribute, floats, run_op};
use super::*;
use tract_onnx::pb::AttributeProto;

/// One tree: `x0 <= 1 ? (x1 > 2 ? leaf 3 : leaf 4) : leaf 2`.
fn nodes() -> Vec<AttributeProto> {
    vec![
        attribute("nodes_treeids", Attribute::Ints(&[0, 0, 0, 0, 0])),
        attribute("nodes_nodeids", Attribute::Ints(&[0, 1, 2, 3, 4])),
        attribute("nodes_featureids", Attribute::Ints(&[0, 1, 0, 0, 0])),
        attribute("nodes_truenodeids", Attribute::Ints(&[1, 3, 0, 0, 0])),
        attribute("nodes_falsenodeids", Attribute::Ints(&[2, 4, 0, 0, 0])),
        attribute(
            "nodes_values",
            Attribute::Floats(&[1.0, 2.0, 0.0, 0.0, 0.0]),
        ),
        attribute(
            "nodes_modes",
            Attribute::Texts(&["BRANCH_LEQ", "BRANCH_GT", "LEAF", "LEAF", "LEAF"]),
        ),
        attribute(
            "nodes_missing_value_tracks_true",
            Attribute::Ints(&[0, 1, 0, 0, 0]),
        ),
    ]
}

fn leaves(kind: &str, targets: &[i64], weights: &[f32]) -> Vec<AttributeProto> {
    vec![
        attribute(&format!("{kind}_treeids"), Attribute::Ints(&[0, 0, 0])),
        attribute(&format!("{kind}_nodeids"), Attribute::Ints(&[2, 3, 4])),
        attribute(&format!("{kind}_ids"), Attribute::Ints(targets)),
        attribute(&format!("{kind}_weights"), Attribute::Floats(weights)),
    ]
}

fn rows() -> Tensor {
    tensor2(&[
        [2f32, 0.0],
        [1.0, 3.0],
        [0.0, 2.0],
        [f32::NAN, 0.0],
        [0.0, f32::NAN],
    ])
}

#[test]
fn a_regression_tree_is_walked_by_its_modes_and_nan_tracks() {
    let mut attributes = nodes();
    attributes.extend(leaves("target", &[0, 0, 0], &[20.0, 30.0, 40.0]));
    attributes.push(attribute("n_targets", Attribute::Int(1)));
    attributes.push(attribute("base_values", Attribute::Floats(&[0.5])));
    let out = run_op("TreeEnsembleRegressor", attributes, 1, rows()).unwrap();
    assert_eq!(out[0].shape(), [5, 1]);
    assert_eq!(floats(&out[0]), [20.5, 30.5, 40.5, 20.5, 30.5]);
}

#[test]
fn a_classifier_with_one_stored_class_gives_both_probabilities() {
    let mut attributes = nodes();
    attributes.extend(leaves("class", &[0, 0, 0], &[0.25, 0.75, 1.0]));
    attributes.push(attribute("classlabels_int64s", Attribute::Ints(&[7, 9])));
    let out = run_op("TreeEnsembleClassifier", attributes, 2, rows()).unwrap();
    assert_eq!(floats(&out[0]), [7.0, 9.0, 9.0, 7.0, 9.0]);
    assert_eq!(
        floats(&out[1]),
        [0.75, 0.25, 0.25, 0.75, 0.0, 1.0, 0.75, 0.25, 0.25, 0.75]
    );
}

#[test]
fn boosted_scores_of_two_classes_go_through_the_logistic() {
    let mut attributes = nodes();
    attributes.extend(leaves("class", &[0, 0, 0], &[-2.0, 0.0, 2.0]));
    attributes.push(attribute("classlabels_int64s", Attribute::Ints(&[0, 1])));
    attributes.push(attribute("post_transform", Attribute::Text("LOGISTIC")));
    let out = run_op("TreeEnsembleClassifier", attributes, 2, rows()).unwrap();
    assert_eq!(floats(&out[0]), [0.0, 0.0, 1.0, 0.0, 0.0]);
    let scores = floats(&out[1]);
    let expected = 1.0 / (1.0 + 2f32.exp());
    assert!((scores[1] - expected).abs() < 1e-6);
    assert!((scores[5] - (1.0 - expected)).abs() < 1e-6);
    assert_eq!(scores[2..4], [0.5, 0.5]);
}

#[test]
fn scores_of_several_classes_are_summed_per_class() {
    let mut attributes = nodes();
    attributes.extend(leaves("class", &[0, 1, 2], &[1.0, 1.0, 1.0]));
    attributes.push(attribute(
        "classlabels_strings",
        Attribute::Texts(&["a", "b", "c"]),
    ));
    let out = run_op("TreeEnsembleClassifier", attributes, 2, rows()).unwrap();
    let labels = out[0].try_as_plain_ram().unwrap();
    assert_eq!(
        labels.as_slice::<String>().unwrap(),
        ["a", "b", "c", "a", "b"]
    );
    assert_eq!(floats(&out[1])[..6], [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
}

/// A file whose node numbers lead nowhere, in circles or out of bounds is refused when it is read.
#[test]
fn trees_that_cannot_be_walked_are_refused() {
    let broken = |replace: AttributeProto, says: &str| {
        let mut attributes = nodes();
        attributes.extend(leaves("target", &[0, 0, 0], &[1.0, 2.0, 3.0]));
        attributes.retain(|attribute| attribute.name != replace.name);
        attributes.push(replace);
        let error = run_op("TreeEnsembleRegressor", attributes, 1, rows()).unwrap_err();
        assert!(format!("{error:?}").contains(says), "{error:?}");
    };
    broken(
        attribute("nodes_truenodeids", Attribute::Ints(&[1, 99, 0, 0, 0])),
        "child 99",
    );
    broken(
        attribute("nodes_truenodeids", Attribute::Ints(&[1, 0, 0, 0, 0])),
        "in a circle",
    );
    broken(
        attribute("nodes_truenodeids", Attribute::Ints(&[1, 2, 0, 0, 0])),
        "child of two",
    );
    broken(
        attribute("target_ids", Attribute::Ints(&[0, 5, 0])),
        "target 5",
    );
    broken(
        attribute("target_nodeids", Attribute::Ints(&[2, 3, 77])),
        "node 77",
    );
    broken(
        attribute("nodes_featureids", Attribute::Ints(&[0, 8, 0, 0, 0])),
        "9 features",
    );
}
