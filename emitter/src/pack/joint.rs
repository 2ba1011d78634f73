//! The signal that looks at the numeric features together, learned or kept.

use driftline_drift::joint::{JointColumn, Learned, learn};
use driftline_schemas::bundle::{Bundle, FeatureType, Manifest};
use driftline_schemas::joint::{Joint, JointSpec};
use driftline_schemas::rows::Values;

use super::{PackError, PackInput};
use crate::features::Encoders;

/// What the signal is computed with, where the draft asks for it, and whether it is the earlier bundle's, so
/// that its edges mean what they meant. The manifest is completed.
pub(super) fn make(
    input: &PackInput<'_>,
    manifest: &mut Manifest,
    notes: &mut Vec<String>,
) -> Result<Option<Made>, PackError> {
    let Some(asked) = &input.draft.joint else {
        return Ok(None);
    };
    let made = match kept(asked, input.edges_from, manifest) {
        Some(joint) => Made { joint, kept: true },
        None => Made {
            joint: learned(input, asked, manifest, notes)?,
            kept: false,
        },
    };
    let features: Vec<String> = made
        .joint
        .features
        .iter()
        .map(|it| it.name.clone())
        .collect();
    notes.push(format!(
        "signal \"joint\" looks at {} together{}",
        features.join(", "),
        match made.kept {
            true => ", with the earlier bundle's numbers",
            false => "",
        }
    ));
    manifest.joint = Some(JointSpec { features });
    manifest.check()?;
    Ok(Some(made))
}

/// What the signal is computed with.
pub(super) struct Made {
    pub(super) joint: Joint,
    /// Whether it is the earlier bundle's.
    pub(super) kept: bool,
}

/// The earlier bundle's, where its features are what is asked for and have not changed.
fn kept(asked: &[String], old: Option<&Bundle>, manifest: &Manifest) -> Option<Joint> {
    let old = old?;
    let mut joint = Joint::clone(old.joint.as_deref()?);
    let same = |name: &String| joint.features.iter().any(|it| it.name == *name);
    if !asked.is_empty() && (asked.len() != joint.features.len() || !asked.iter().all(same)) {
        return None;
    }
    for feature in &mut joint.features {
        let mut all = manifest.features.iter();
        feature.at = all.position(|it| it.name == feature.name)?;
        let before = old.manifest.features.iter();
        let before = before.into_iter().find(|it| it.name == feature.name)?;
        if manifest.features[feature.at].kind != before.kind {
            return None;
        }
    }
    Some(joint)
}

fn learned(
    input: &PackInput<'_>,
    asked: &[String],
    manifest: &Manifest,
    notes: &mut Vec<String>,
) -> Result<Joint, PackError> {
    let encoders = Encoders::new(manifest);
    let mut columns = Vec::new();
    for (at, (feature, encoder)) in manifest.features.iter().zip(&encoders.features).enumerate() {
        let is_asked = asked.contains(&feature.name);
        match feature.kind {
            FeatureType::Numeric { resolution, .. } if asked.is_empty() || is_asked => {
                let codes = input.rows.column(&feature.name)?.codes(encoder);
                columns.push((feature.name.as_str(), at, resolution, codes));
            }
            FeatureType::Categorical { .. } if is_asked => {
                return Err(PackError::Column {
                    column: feature.name.clone(),
                    problem: "is a category, and the signal \"joint\" looks at numbers".into(),
                });
            }
            _ => {}
        }
    }
    let is_feature = |name: &&String| manifest.features.iter().all(|it| it.name != **name);
    if let Some(unknown) = asked.iter().find(is_feature) {
        return Err(PackError::Column {
            column: unknown.clone(),
            problem: "is asked for in the signal \"joint\", and is no feature of the model".into(),
        });
    }
    let columns: Vec<JointColumn<'_>> = columns
        .iter()
        .map(|(name, at, resolution, codes)| JointColumn {
            name,
            at: *at,
            resolution: *resolution,
            codes,
        })
        .collect();
    let Learned {
        joint,
        left_out,
        rows,
    } = learn(&columns, input.rows.times_us.as_deref())?;
    if !left_out.is_empty() {
        notes.push(format!(
            "signal \"joint\" leaves out {}, which hardly vary in the reference",
            left_out.join(", ")
        ));
    }
    if rows < input.rows.len() {
        notes.push(format!(
            "signal \"joint\": {} of {} rows lack a feature, and have no value",
            input.rows.len() - rows,
            input.rows.len()
        ));
    }
    Ok(joint)
}

/// The signal of all rows, from the features' values, which `features` gives in the manifest's order.
pub(super) fn values(
    joint: &Joint,
    features: &[&Values<i32>],
    input: &PackInput<'_>,
) -> Values<i32> {
    // Where rows have no times there is no season.
    let times = input.rows.times_us.as_deref();
    let time = |row: usize| times.map_or(0, |times| times[row]);
    let code = |row: usize, at: usize| features.get(at)?.get(row).copied();
    (0..input.rows.len())
        .map(|row| joint.value(time(row), |it| code(row, it.at)))
        .collect()
}

#[cfg(test)]
mod tests;
