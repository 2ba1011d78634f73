//! Two references, signal by signal.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use driftline_drift::distance::{Floor, LogBase, Pair};
use driftline_log::registry::references::get_reference;
use driftline_schemas::bundle::Bundle;
use driftline_schemas::profile::{Layout, Reference, SignalProfile};
use serde_json::{Value, json};

use super::{ModelArgs, TRAINING, shelf};
use crate::config::Config;
use crate::model::registered;

/// Arguments of `driftline reference diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// Identity of a reference, or `training` for the bundle's own.
    left: String,
    /// The other one.
    right: String,
    #[command(flatten)]
    of: ModelArgs,
}

/// A row per signal: how much each side holds, where it lies, and how far the two are apart.
///
/// # Errors
/// When one is not there, or they have other edges.
pub(super) async fn run(config: &Config, dir: &Path, args: &DiffArgs) -> Result<Value> {
    let own = registered(config, dir, &args.of.tenant, &args.of.model).await?;
    let read = |id: &str| reference(config, dir, &args.of, &own, id);
    let (left, right) = (read(&args.left)?, read(&args.right)?);
    let edges = differing(&left.layout, &right.layout);
    if left.layout != right.layout {
        bail!(
            "{} and {} have other edges or signals ({}), and are not compared: build one of them again from the lake's rows with `driftline reference build --model {}`",
            args.left,
            args.right,
            edges.join(", "),
            args.of.model
        );
    }
    let sides = (left.total()?, right.total()?);
    let rows = left
        .layout
        .signals()
        .iter()
        .enumerate()
        .map(|(at, layout)| {
            let (a, b) = (&sides.0.signals[at], &sides.1.signals[at]);
            let pair = Pair::new(&a.bins, &b.bins).ok();
            let number = |of: fn(&SignalProfile, f64) -> Option<f64>, side| {
                layout
                    .is_numeric()
                    .then(|| of(side, layout.resolution()))
                    .flatten()
            };
            let sd = |side: &SignalProfile, resolution| side.variance(resolution).map(f64::sqrt);
            json!({
                "signal": layout.signal.name,
                "role": layout.signal.role,
                "left_rows": a.rows(),
                "right_rows": b.rows(),
                "left_mean": number(SignalProfile::mean, a),
                "right_mean": number(SignalProfile::mean, b),
                "left_sd": number(sd, a),
                "right_sd": number(sd, b),
                "left_missing": missing(a),
                "right_missing": missing(b),
                "psi": pair.and_then(|pair| pair.psi(Floor::NATIVE).ok()),
                "js": pair.map(|pair| pair.jensen_shannon(LogBase::Two)),
                "ks": pair.filter(|_| layout.is_numeric()).map(|pair| pair.kolmogorov_smirnov().d),
            })
        });
    Ok(Value::Array(rows.collect()))
}

/// Share of the rows with a signal in which it had no value in a bin.
fn missing(profile: &SignalProfile) -> Option<f64> {
    let rows = profile.rows();
    (rows > 0).then(|| (rows - profile.binned()) as f64 / rows as f64)
}

/// Names of the signals that are not binned alike.
fn differing(left: &Layout, right: &Layout) -> Vec<String> {
    let names = |a: &Layout, b: &Layout| -> Vec<String> {
        let other = |name: &str| b.signal(name).map(|(_, layout)| layout.clone());
        let signals = a.signals().iter();
        let differs = signals.filter(|it| other(&it.signal.name).as_ref() != Some(*it));
        differs.map(|it| it.signal.name.clone()).collect()
    };
    let mut all = names(left, right);
    for name in names(right, left) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

fn reference(
    config: &Config,
    dir: &Path,
    of: &ModelArgs,
    own: &Bundle,
    id: &str,
) -> Result<Reference> {
    if id == TRAINING || id == own.reference.id() {
        return Ok(own.reference.clone());
    }
    let place = (
        of.tenant.as_str(),
        of.model.name.as_str(),
        of.model.version.as_str(),
    );
    let built = get_reference(&shelf(config, dir), place, id).with_context(|| {
        format!(
            "reference {id} of {}; `training` is the bundle's own",
            of.model
        )
    })?;
    Ok(built.reference)
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::bundle::{FeatureType, Signal, SignalRole};
    use driftline_schemas::profile::SignalLayout;

    fn layout(signals: &[(&str, i32)]) -> Layout {
        let signal = |(name, edge): &(&str, i32)| SignalLayout {
            signal: Signal {
                name: (*name).into(),
                role: SignalRole::Input,
                kind: FeatureType::Numeric {
                    resolution: 0.1,
                    unit: String::new(),
                    range: None,
                },
            },
            edges: vec![*edge],
        };
        Layout::new(signals.iter().map(signal).collect()).unwrap()
    }

    /// Other edges, and signals that one side lacks, are named.
    #[test]
    fn what_is_binned_otherwise_is_named() {
        let one = layout(&[("a", 1), ("b", 1), ("c", 1)]);
        let other = layout(&[("a", 1), ("b", 2), ("d", 1)]);
        assert_eq!(differing(&one, &other), ["b", "c", "d"]);
        assert!(differing(&one, &one).is_empty());
    }

    /// What is in no bin is missing; without rows there is no share.
    #[test]
    fn shares_of_what_is_missing() {
        let profile = SignalProfile {
            bins: vec![6],
            nulls: 1,
            non_finite: 1,
            ..SignalProfile::default()
        };
        assert_eq!(missing(&profile), Some(0.25));
        assert_eq!(missing(&SignalProfile::empty(1)), None);
    }
}
