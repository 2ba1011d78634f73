//! Questions that commands ask the lake.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use driftline_queries::Session;
use driftline_schemas::clock::DAY_US;
use driftline_schemas::source::ATTRIBUTES;
use jiff::Timestamp;

use crate::model::parse_pair;
use crate::output::Usage;
use crate::times::{Range, parse_range};

/// Rows of a model version over a span of time.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) tenant: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    /// Attribute to value; empty is the estate.
    pub(crate) cohort: BTreeMap<String, String>,
}

/// Which rows of a model a command is about.
#[derive(Debug, clap::Args)]
pub(crate) struct SelectionArgs {
    /// Name of the model.
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Version of the model [default: the one that ran last].
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// How far to look back from the newest row, or from when to when: FROM..TO, times or days (UTC).
    #[arg(long, value_name = "30d|FROM..TO", default_value = "30d", value_parser = parse_range)]
    since: Range,
    /// Take a part of the estate; may be given again.
    #[arg(long, value_name = "ATTRIBUTE=VALUE", value_parser = parse_pair)]
    cohort: Vec<(String, String)>,
    /// Owner of the devices.
    #[arg(long, default_value = driftline_emitter::pack::TENANT_DEFAULT)]
    tenant: String,
}

impl SelectionArgs {
    /// The rows, where the lake knows the version that ran last and when.
    ///
    /// # Errors
    /// [`Usage`] when an attribute is none; when the lake has no rows of the model.
    pub(crate) async fn selection(&self, session: &Session) -> Result<Selection> {
        let version = self.version.as_deref();
        let (version, newest_us) = newest(session, &self.tenant, &self.model, version).await?;
        let (from, to) = match self.since {
            Range::Between(from, to) => (from, to),
            Range::Back(span) => (
                Timestamp::from_microsecond(newest_us.saturating_sub(span.us()))?,
                Timestamp::from_microsecond(newest_us + 1)?,
            ),
        };
        let selection = Selection {
            tenant: self.tenant.clone(),
            model: self.model.clone(),
            version,
            from,
            to,
            cohort: self.cohort.iter().cloned().collect(),
        };
        let checked = selection.check();
        checked.map_err(|error| Usage(error.to_string()))?;
        Ok(selection)
    }
}

impl Selection {
    /// # Errors
    /// When an attribute is none.
    pub(crate) fn check(&self) -> Result<()> {
        if self.from >= self.to {
            bail!(
                "{} does not lie before {}: from must come before to",
                self.from,
                self.to
            );
        }
        match self
            .cohort
            .keys()
            .find(|name| !ATTRIBUTES.contains(&name.as_str()))
        {
            Some(unknown) => bail!(
                "{unknown:?} is no attribute: write one of {}",
                ATTRIBUTES.join(", ")
            ),
            None => Ok(()),
        }
    }

    /// The condition on inferences, over a span of the selection's.
    pub(crate) fn condition(&self, from: Timestamp, to: Timestamp) -> String {
        let mut all = vec![
            format!("tenant = {}", quoted(&self.tenant)),
            format!("model = {}", quoted(&self.model)),
            format!("version = {}", quoted(&self.version)),
            format!("event_time >= {}", sql_time(from)),
            format!("event_time < {}", sql_time(to)),
        ];
        all.extend(
            self.cohort
                .iter()
                .map(|(name, value)| format!("{name} = {}", quoted(value))),
        );
        all.join(" AND ")
    }

    /// The days that it spans, the first and the last cut to it.
    pub(crate) fn days(&self) -> Vec<(Timestamp, Timestamp)> {
        let (from_us, to_us) = (self.from.as_microsecond(), self.to.as_microsecond());
        let first = from_us.div_euclid(DAY_US);
        let last = (to_us - 1).div_euclid(DAY_US);
        let time = |us: i64| Timestamp::from_microsecond(us).unwrap_or(self.to);
        (first..=last)
            .map(|day| {
                let start_us = (day * DAY_US).max(from_us);
                (time(start_us), time(((day + 1) * DAY_US).min(to_us)))
            })
            .collect()
    }

    /// A statement that selects columns of inferences (`i`) and their truth (`o`) over a span of the
    /// selection's. Of several labels of an inference the first in the log counts, as in the labels stage.
    pub(crate) fn labelled(&self, from: Timestamp, to: Timestamp, columns: &str) -> String {
        // Identities carry whole milliseconds.
        let labels_from_us = from.as_microsecond() - 1_000;
        format!(
            "SELECT {columns} FROM (SELECT * FROM inferences WHERE {}) i LEFT JOIN (
                 SELECT inference_id, truth_code, truth_class, truth_value FROM (
                     SELECT inference_id, truth_code, truth_class, truth_value, row_number() OVER (
                         PARTITION BY inference_id ORDER BY log_partition, log_offset, row) AS nth
                     FROM outcomes WHERE tenant = {} AND inference_time < {}
                         AND inference_time >= to_timestamp_micros({labels_from_us}))
                 WHERE nth = 1) o ON i.inference_id = o.inference_id",
            self.condition(from, to),
            quoted(&self.tenant),
            sql_time(to),
        )
    }

    /// `boiler@1.0.0 from … to …, site=north-1`.
    pub(crate) fn title(&self) -> String {
        let cohort: Vec<String> = self
            .cohort
            .iter()
            .map(|(name, value)| format!(", {name}={value}"))
            .collect();
        format!(
            "{}@{} from {} to {}{}",
            self.model,
            self.version,
            self.from,
            self.to,
            cohort.concat()
        )
    }
}

/// A time in SQL.
fn sql_time(time: Timestamp) -> String {
    format!("to_timestamp_micros({})", time.as_microsecond())
}

/// A text in SQL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A time of the lake for people.
pub(crate) fn time_text(us: i64) -> String {
    let time = Timestamp::from_microsecond(us);
    time.map_or_else(|_| format!("{us} us"), |it| it.to_string())
}

/// The version of a model that ran last, and the newest event time of it or of the version given,
/// microseconds.
///
/// # Errors
/// When there is none, or the lake cannot be read.
async fn newest(
    session: &Session,
    tenant: &str,
    model: &str,
    version: Option<&str>,
) -> Result<(String, i64)> {
    let only = version.map(|version| format!("AND version = {}", quoted(version)));
    let statement = format!(
        "SELECT version, CAST(max(event_time) AS BIGINT) AS newest FROM inferences
         WHERE tenant = {} AND model = {} {} GROUP BY version ORDER BY newest DESC, version DESC LIMIT 1",
        quoted(tenant),
        quoted(model),
        only.unwrap_or_default()
    );
    let mut rows = ask(session, &statement, 1).await?.into_iter();
    match rows.next() {
        Some((mut texts, numbers)) if numbers.len() == 1 => Ok((texts.swap_remove(0), numbers[0])),
        _ => bail!(
            "the lake has no rows of {model}{}{} of tenant {tenant:?}: `driftline model list` shows what there is",
            if version.is_some() { "@" } else { "" },
            version.unwrap_or_default()
        ),
    }
}

/// The rows of a statement whose first columns are texts and whose others are whole numbers, none of
/// them null.
///
/// # Errors
/// When the statement fails, or its columns are others.
pub(crate) async fn ask(
    session: &Session,
    statement: &str,
    texts: usize,
) -> Result<Vec<(Vec<String>, Vec<i64>)>> {
    let mut rows = Vec::new();
    for batch in session.run(statement).await? {
        let column = |at: usize, ty: &DataType| arrow::compute::cast(batch.column(at), ty);
        let text = (0..texts)
            .map(|at| column(at, &DataType::Utf8))
            .collect::<Result<Vec<_>, _>>()?;
        let number = (texts..batch.num_columns())
            .map(|at| column(at, &DataType::Int64))
            .collect::<Result<Vec<_>, _>>()?;
        rows.extend((0..batch.num_rows()).map(|row| {
            let texts = text
                .iter()
                .map(|it| it.as_string::<i32>().value(row).to_owned());
            let numbers = number
                .iter()
                .map(|it| it.as_primitive::<Int64Type>().value(row));
            (texts.collect(), numbers.collect())
        }));
    }
    Ok(rows)
}
