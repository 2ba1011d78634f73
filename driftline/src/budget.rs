//! `driftline budget`: the false alarms that were promised against the alarms that came.
//!
//! The promise is `[detect.budget] false_alarms_per_month`, for each model version and 30 days of judged
//! windows, when nothing has changed. What came are the stories that the detect stage opened (input,
//! output and concept drift; silent devices and stuck sensors have no budget), those among them that late
//! data refuted, and the alerts. Whether something had changed nobody here knows: a story is a false
//! alarm for certain when it was refuted, and more stories than chance allows mean drift or a broken
//! promise. The p-value is the chance of so many under a Poisson law of the promised number.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use driftline_drift::special::poisson_sf;
use driftline_lake::Lake;
use driftline_queries::Session;
use driftline_schemas::clock::DAY_US;
use driftline_schemas::units::Span;
use serde_json::{Value, json};

use crate::config::Config;
use crate::lake::{ask, quoted, time_text};
use crate::output::{self, OutputFormat};
use crate::spells::{Said, spells};

/// A month of the budget, microseconds of judged windows.
const MONTH_US: f64 = (30 * DAY_US) as f64;
/// Kinds of findings that the budget is for.
const KINDS: &str = "('input_drift', 'output_drift', 'concept_drift')";

/// Columns of tables, in their order.
const COLUMNS: [&str; 14] = [
    "tenant",
    "model",
    "version",
    "from",
    "to",
    "windows",
    "months",
    "promised",
    "alarms",
    "refuted",
    "alarms_per_month",
    "p_value",
    "alerts",
    "alerts_superseded",
];

/// Arguments of `driftline budget`.
#[derive(Debug, clap::Args)]
pub(crate) struct BudgetArgs {
    /// How far to look back from the newest window that was judged.
    #[arg(long, value_name = "SPAN", default_value = "30d")]
    since: Span,
    /// Of one tenant only.
    #[arg(long)]
    tenant: Option<String>,
}

/// A model version by tenant, model and version.
type Key = [String; 3];

/// Runs it.
///
/// # Errors
/// When the lake cannot be read.
pub(crate) async fn run(
    config: &Config,
    dir: &Path,
    args: &BudgetArgs,
    format: OutputFormat,
) -> Result<()> {
    let session = Session::open(Lake::new(&config.lake(dir))).await?;
    let windows = windows(&session, args).await?;
    let stories = stories(&session).await?;
    let alerts = alerts(&session).await?;
    let per_month = config.detect.budget.false_alarms_per_month;
    let rows = windows.iter().map(|(key, judged)| {
        let none = Vec::new();
        let of = |all: &BTreeMap<Key, Vec<(i64, bool)>>| {
            let within = all.get(key).unwrap_or(&none).iter();
            let within = within.filter(|(at, _)| *at >= judged.from_us);
            let (all, withdrawn) = within.fold((0_u64, 0_u64), |(all, withdrawn), (_, is)| {
                (all + 1, withdrawn + u64::from(*is))
            });
            [all, withdrawn]
        };
        let ([alarms, refuted], [told, superseded]) = (of(&stories), of(&alerts));
        row(key, judged, per_month, [alarms, refuted, told, superseded])
    });
    output::write_in_order(&Value::Array(rows.collect()), &COLUMNS, format)
}

fn row(
    key: &Key,
    judged: &Judged,
    per_month: f64,
    [alarms, refuted, told, superseded]: [u64; 4],
) -> Value {
    let months = judged.length_us as f64 / MONTH_US;
    let promised = per_month * months;
    json!({
        "tenant": key[0],
        "model": key[1],
        "version": key[2],
        "from": time_text(judged.from_us),
        "to": time_text(judged.to_us),
        "windows": judged.windows,
        "months": months,
        "promised": promised,
        "alarms": alarms,
        "refuted": refuted,
        "alarms_per_month": alarms as f64 / months,
        "p_value": poisson_sf(alarms, promised),
        "alerts": told,
        "alerts_superseded": superseded,
    })
}

/// What was judged of a model version.
#[derive(Debug)]
struct Judged {
    windows: i64,
    /// Length of all of them.
    length_us: i64,
    from_us: i64,
    to_us: i64,
}

async fn windows(session: &Session, args: &BudgetArgs) -> Result<BTreeMap<Key, Judged>> {
    let tenant = match &args.tenant {
        Some(tenant) => format!("AND tenant = {}", quoted(tenant)),
        None => String::new(),
    };
    let statement = format!(
        "WITH judged AS (
             SELECT DISTINCT tenant, model, version, CAST(window_start AS BIGINT) AS start,
                 CAST(window_end AS BIGINT) AS end
             FROM measures WHERE method = 'shift' {tenant}),
         newest AS (SELECT tenant, model, version, max(end) AS last FROM judged GROUP BY 1, 2, 3)
         SELECT tenant, model, version, count(*), sum(end - start), min(start), max(end)
         FROM judged JOIN newest USING (tenant, model, version)
         WHERE start >= last - {} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        args.since.us()
    );
    let rows = ask(session, &statement, 3).await?.into_iter();
    Ok(rows
        .filter_map(|(key, numbers)| {
            let [windows, length_us, from_us, to_us] = numbers[..] else {
                return None;
            };
            let judged = Judged {
                windows,
                length_us,
                from_us,
                to_us,
            };
            Some((key.try_into().ok()?, judged))
        })
        .collect())
}

/// Stories by model version: the window in which each opened, and whether it was refuted.
async fn stories(session: &Session) -> Result<BTreeMap<Key, Vec<(i64, bool)>>> {
    let statement = format!(
        "SELECT tenant, model, version, finding_key, finding_state, CAST(window_start AS BIGINT) AS start_us,
             CAST(window_end AS BIGINT)
         FROM findings WHERE kind IN {KINDS} ORDER BY start_us, revision"
    );
    let mut said: BTreeMap<Key, Vec<Said>> = BTreeMap::new();
    for (texts, numbers) in ask(session, &statement, 5).await? {
        if let ([tenant, model, version, key, state], [start_us, end_us]) =
            (&texts[..], &numbers[..])
        {
            let of = [tenant.clone(), model.clone(), version.clone()];
            said.entry(of).or_default().push(Said {
                key: key.clone(),
                state: state.clone(),
                start_us: *start_us,
                end_us: *end_us,
            });
        }
    }
    let told = |said: Vec<Said>| {
        spells(&said)
            .iter()
            .map(|it| (it.from_us, it.is_refuted))
            .collect()
    };
    Ok(said
        .into_iter()
        .map(|(key, said)| (key, told(said)))
        .collect())
}

/// Alerts by model version: the window in which each opened, and whether it was superseded.
async fn alerts(session: &Session) -> Result<BTreeMap<Key, Vec<(i64, bool)>>> {
    let statement = format!(
        "SELECT tenant, model, version, alert_id, min(CAST(opened_window AS BIGINT)),
             max(CASE WHEN state = 'superseded' THEN 1 ELSE 0 END)
         FROM alerts WHERE kind IN {KINDS} GROUP BY 1, 2, 3, 4"
    );
    let mut all: BTreeMap<Key, Vec<(i64, bool)>> = BTreeMap::new();
    for (texts, numbers) in ask(session, &statement, 4).await? {
        if let ([tenant, model, version, _], [at, superseded]) = (&texts[..], &numbers[..]) {
            let of = [tenant.clone(), model.clone(), version.clone()];
            all.entry(of).or_default().push((*at, *superseded == 1));
        }
    }
    Ok(all)
}
