//! A loss of performance told apart, by what the model's own confidence foresees.

use driftline_schemas::measure::{Finding, FindingKind};
use driftline_schemas::topic;

use super::super::DetectConfig;
use super::estate::{Estate, Fault, Shape, site_name};
use super::{SMALL, final_measures, findings, in_order, log, run, stage};

const HONEST: Shape = Shape {
    honest: true,
    probes_per_site: 4,
    ..SMALL
};
const SITE: usize = 1;

fn told(seed: u64, fault: Fault) -> Vec<Finding> {
    let mut estate = Estate::new(seed, HONEST);
    let bundle = estate.bundle();
    let hours: Vec<_> = (0..60)
        .map(|hour| estate.cells(hour, (hour >= 36).then_some(fault)))
        .collect();
    let log = log(1);
    in_order(&log, &hours, 1);
    let config = DetectConfig::default();
    run(&log, &mut stage(&log, &config, Some(bundle)), 16);
    let measures = final_measures(&log);
    let foreseen = |it: &&driftline_schemas::measure::Measure| it.method == "foreseen_error";
    let told = measures.values().flatten().filter(foreseen).count();
    assert!(told > 0, "{} has what is foreseen", topic::MEASURES);
    findings(&log)
}

/// Scenario: at one site the inputs move to where the model is less sure, and it is wrong as often as its confidence says.
/// Guarantee: an input drift is found there, and once the errors are seen to rise the finding says that they are foreseen.
#[test]
fn inputs_that_moved_explain_the_errors() {
    let fault = Fault::Shift {
        site: SITE,
        sd: 1.5,
    };
    let all = told(61, fault);
    let scope = format!("site={}", site_name(SITE));
    let drift = |it: &&Finding| it.kind == FindingKind::InputDrift && it.scope == scope;
    let mut rises = all.iter().filter(drift).filter_map(|it| it.error_rise);
    let rise = rises.next_back().expect("the errors are told");
    assert!(rise.foreseen_share().unwrap() > 0.6, "{rise:?}");
    let text = &all.iter().rfind(|it| it.error_rise.is_some()).unwrap();
    assert!(
        text.explanation
            .contains("points more of the labelled rows"),
        "{}",
        text.explanation
    );
}

/// Scenario: the truth turns round in a third of the rows of one site, and the inputs stay as they were.
/// Guarantee: concept drift is found there, and next to nothing of it is foreseen.
#[test]
fn a_changed_relation_is_not_foreseen() {
    let fault = Fault::Doubt {
        site: SITE,
        share: 0.33,
    };
    let all = told(62, fault);
    let scope = format!("site={}", site_name(SITE));
    let drift = |it: &&Finding| it.kind == FindingKind::ConceptDrift && it.scope == scope;
    let found = all.iter().rfind(drift).expect("concept drift is found");
    let rise = found.error_rise.expect("it is told apart");
    assert!(rise.foreseen_share().unwrap() < 0.2, "{rise:?}");
    assert!(
        found.explanation.contains("its confidence foresees"),
        "{}",
        found.explanation
    );
}
