//! What the stages conclude: measures, findings, alerts, and dead letters.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Field};

use super::columns::{
    Describe, dates, flag, flags, float, floats, int, ints, leading, list, lists, long, longs,
    text, texts, time, times, trailing,
};
use super::{Place, Table, TableError};
use crate::deadletter::DeadLetter;
use crate::measure::{
    Alert, AlertChange, AlertState, Contribution, Finding, FindingState, Measure,
};

pub(super) fn measures_fields() -> Vec<Field> {
    let mut fields = leading("window_start");
    fields.extend([
        text("model", "name of the model").required(),
        text("version", "version of the model").required(),
        text(
            "cohort",
            "whom it is about: estate, or attribute=value joined by &",
        )
        .required(),
        text("signal", "what was compared").required(),
        time("window_start", "start of the window, of event time").required(),
        time("window_end", "end of the window, exclusive").required(),
        int(
            "revision",
            "counts judgements of the same window from 0; the highest holds",
        )
        .required(),
        text("method", "name of the method").required(),
        int("method_version", "version of the method's definition").required(),
        float(
            "value",
            "value of the statistic; null when there was nothing to compare",
        ),
        float("p_value", "calibrated p-value, where the method has one").range("0..1"),
        float(
            "threshold",
            "what the value or, where there is one, the p-value is held against",
        ),
        flag("crossed", "whether it crossed").required(),
        long("rows", "rows of the window").required(),
        float("devices", "devices of the window").required(),
        long("reference_rows", "rows of the reference").required(),
        text("reference", "identity of the reference").required(),
        text("config", "digest of the configuration that was in force").required(),
    ]);
    fields.extend(trailing());
    fields
}

fn finding_fields() -> Vec<Field> {
    vec![
        text(
            "finding_key",
            "identity of what it is about; findings of one key tell one story",
        )
        .required(),
        text("model", "name of the model").required(),
        text("version", "version of the model").required(),
        text(
            "kind",
            "input_drift, output_drift, concept_drift, stuck_sensor or device_silent",
        )
        .required(),
        text("scope", "whom it is about: estate, a cohort, or a device").required(),
        text("finding_state", "drifted, recovered or refuted").required(),
        int(
            "revision",
            "counts what was said of this key and window; the highest holds",
        )
        .required(),
        time("window_start", "start of the window, of event time").required(),
        time("window_end", "end of the window, exclusive").required(),
        list(
            "signals",
            DataType::Utf8,
            "signals that crossed, the strongest first",
        ),
        list(
            "signal_shares",
            DataType::Float64,
            "share of the drift that each of them explains",
        )
        .range("0..1"),
        list(
            "attributes",
            DataType::Utf8,
            "attribute values, by how much of the drift goes away without them",
        ),
        list(
            "attribute_shares",
            DataType::Float64,
            "share of the drift that each of them explains",
        )
        .range("0..1"),
        float(
            "error_rise",
            "by how much more of the labelled rows are wrong there; null where that did not move or is not told apart",
        )
        .range("0..1"),
        float(
            "error_foreseen",
            "how much of it the model's own confidence foresees; the rest is what inputs and truth have to do with each other",
        ),
        text("evidence", "the strongest measure, for people").required(),
        text("explanation", "one or two sentences, for people").required(),
        text("sql", "query that recomputes the measure from the lake").required(),
        text("reference", "identity of the reference").required(),
        text("config", "digest of the configuration").required(),
    ]
}

pub(super) fn findings_fields() -> Vec<Field> {
    let mut fields = leading("window_start");
    fields.extend(finding_fields());
    fields.extend(trailing());
    fields
}

pub(super) fn alerts_fields() -> Vec<Field> {
    let mut fields = leading("at");
    fields.extend([
        text("alert_id", "identity of the alert").required(),
        text("state", "open, resolved or superseded").required(),
        text("change", "opened, updated, resolved or superseded").required(),
        int("sequence", "counts changes of this alert from 1").required(),
        time("at", "when the change was made").required(),
        time("opened_window", "start of the window in which it opened").required(),
        flag(
            "about_the_past",
            "whether the window had ended long before anybody could see it",
        )
        .required(),
    ]);
    fields.extend(finding_fields());
    fields.extend(trailing());
    fields
}

pub(super) fn dead_letters_fields() -> Vec<Field> {
    let mut fields = leading("at");
    fields.extend([
        text("device", "the device that sent it, where known").required(),
        text("kind", "what it should have been, where known").required(),
        time("at", "when it was refused").required(),
        text("reason", "short stable word to count by").required(),
        text("detail", "what exactly is wrong, and where").required(),
        text(
            "payload",
            "beginning of what was refused; bytes that are no text are replaced",
        )
        .required(),
    ]);
    fields.extend(trailing());
    fields
}

fn small(number: u32) -> Option<i32> {
    Some(i32::try_from(number).unwrap_or(i32::MAX))
}

fn places<'a>(places: impl Iterator<Item = &'a Place> + Clone) -> [ArrayRef; 2] {
    [
        ints(places.clone().map(|place| Some(place.partition as i32))),
        longs(places.map(|place| Some(place.offset as i64))),
    ]
}

/// Rows of [`Table::Measures`].
///
/// # Errors
/// [`TableError::Arrow`] when they are too many for one batch.
pub fn measures(items: &[(Place, Measure)]) -> Result<RecordBatch, TableError> {
    let rows = || items.iter().map(|(_, measure)| measure);
    let cohorts: Vec<String> = rows().map(|it| it.cohort.to_string()).collect();
    let mut columns = vec![
        texts(rows().map(|it| it.tenant.as_str())),
        dates(rows().map(|it| it.window_start_us)),
        texts(rows().map(|it| it.model.as_str())),
        texts(rows().map(|it| it.version.as_str())),
        texts(cohorts.iter().map(String::as_str)),
        texts(rows().map(|it| it.signal.as_str())),
        times(rows().map(|it| Some(it.window_start_us))),
        times(rows().map(|it| Some(it.window_end_us))),
        ints(rows().map(|it| small(it.revision))),
        texts(rows().map(|it| it.method.as_str())),
        ints(rows().map(|it| small(it.method_version))),
        floats(rows().map(|it| it.value)),
        floats(rows().map(|it| it.p_value)),
        floats(rows().map(|it| it.threshold)),
        flags(rows().map(|it| Some(it.crossed))),
        longs(rows().map(|it| Some(it.rows as i64))),
        floats(rows().map(|it| Some(it.devices))),
        longs(rows().map(|it| Some(it.reference_rows as i64))),
        texts(rows().map(|it| it.reference.as_str())),
        texts(rows().map(|it| it.config.as_str())),
    ];
    columns.extend(places(items.iter().map(|(place, _)| place)));
    Ok(RecordBatch::try_new(Table::Measures.schema(), columns)?)
}

/// Names and shares of contributions, a list each.
fn contributions<'a>(
    rows: impl Iterator<Item = &'a Vec<Contribution>> + Clone,
) -> Result<[ArrayRef; 2], TableError> {
    let all = || rows.clone().flatten();
    let names = texts(all().map(|it| it.name.as_str()));
    let shares = Float64Array::from_iter_values(all().map(|it| it.share));
    let lengths = || rows.clone().map(Vec::len);
    Ok([
        lists(DataType::Utf8, lengths(), names)?,
        lists(DataType::Float64, lengths(), Arc::new(shares))?,
    ])
}

fn finding_columns<'a>(
    rows: impl Iterator<Item = &'a Finding> + Clone,
) -> Result<Vec<ArrayRef>, TableError> {
    let rows = || rows.clone();
    let mut columns = vec![
        texts(rows().map(|it| it.key.as_str())),
        texts(rows().map(|it| it.model.as_str())),
        texts(rows().map(|it| it.version.as_str())),
        texts(rows().map(|it| it.kind.name())),
        texts(rows().map(|it| it.scope.as_str())),
        texts(rows().map(|it| match it.state {
            FindingState::Drifted => "drifted",
            FindingState::Recovered => "recovered",
            FindingState::Refuted => "refuted",
        })),
        ints(rows().map(|it| small(it.revision))),
        times(rows().map(|it| Some(it.window_start_us))),
        times(rows().map(|it| Some(it.window_end_us))),
    ];
    columns.extend(contributions(rows().map(|it| &it.signals))?);
    columns.extend(contributions(rows().map(|it| &it.attributes))?);
    let rise = || rows().map(|it| it.error_rise);
    columns.extend([
        floats(rise().map(|it| it.map(|it| it.rise))),
        floats(rise().map(|it| it.map(|it| it.foreseen))),
        texts(rows().map(|it| it.evidence.as_str())),
        texts(rows().map(|it| it.explanation.as_str())),
        texts(rows().map(|it| it.sql.as_str())),
        texts(rows().map(|it| it.reference.as_str())),
        texts(rows().map(|it| it.config.as_str())),
    ]);
    Ok(columns)
}

/// Rows of [`Table::Findings`].
///
/// # Errors
/// [`TableError::Arrow`] when they are too many for one batch.
pub fn findings(items: &[(Place, Finding)]) -> Result<RecordBatch, TableError> {
    let rows = || items.iter().map(|(_, finding)| finding);
    let mut columns = vec![
        texts(rows().map(|it| it.tenant.as_str())),
        dates(rows().map(|it| it.window_start_us)),
    ];
    columns.extend(finding_columns(rows())?);
    columns.extend(places(items.iter().map(|(place, _)| place)));
    Ok(RecordBatch::try_new(Table::Findings.schema(), columns)?)
}

/// Rows of [`Table::Alerts`].
///
/// # Errors
/// [`TableError::Arrow`] when they are too many for one batch.
pub fn alerts(items: &[(Place, Alert)]) -> Result<RecordBatch, TableError> {
    let rows = || items.iter().map(|(_, alert)| alert);
    let mut columns = vec![
        texts(rows().map(|it| it.finding.tenant.as_str())),
        dates(rows().map(|it| it.at_us)),
        texts(rows().map(|it| it.id.as_str())),
        texts(rows().map(|it| match it.state {
            AlertState::Open => "open",
            AlertState::Resolved => "resolved",
            AlertState::Superseded => "superseded",
        })),
        texts(rows().map(|it| match it.change {
            AlertChange::Opened => "opened",
            AlertChange::Updated => "updated",
            AlertChange::Resolved => "resolved",
            AlertChange::Superseded => "superseded",
        })),
        ints(rows().map(|it| small(it.sequence))),
        times(rows().map(|it| Some(it.at_us))),
        times(rows().map(|it| Some(it.opened_window_us))),
        flags(rows().map(|it| Some(it.about_the_past))),
    ];
    columns.extend(finding_columns(rows().map(|it| &it.finding))?);
    columns.extend(places(items.iter().map(|(place, _)| place)));
    Ok(RecordBatch::try_new(Table::Alerts.schema(), columns)?)
}

/// Rows of [`Table::DeadLetters`].
///
/// # Errors
/// [`TableError::Arrow`] when they are too many for one batch.
pub fn dead_letters(items: &[(Place, DeadLetter)]) -> Result<RecordBatch, TableError> {
    let rows = || items.iter().map(|(_, letter)| letter);
    let mut columns = vec![
        texts(rows().map(|it| it.tenant.as_str())),
        dates(rows().map(|it| it.at_us)),
        texts(rows().map(|it| it.device.as_str())),
        texts(rows().map(|it| it.kind.as_str())),
        times(rows().map(|it| Some(it.at_us))),
        texts(rows().map(|it| it.reason.as_str())),
        texts(rows().map(|it| it.detail.as_str())),
        texts(rows().map(|it| it.payload.as_str())),
    ];
    columns.extend(places(items.iter().map(|(place, _)| place)));
    Ok(RecordBatch::try_new(Table::DeadLetters.schema(), columns)?)
}
