//! The HTML report: one file without anything outside of it, in the colours that the reader's system
//! prefers.
//!
//! Columns are listed by how clearly they changed. Each is one line with a small picture; it opens on
//! the large one and all measures. Pictures are drawn by the browser only when they are in view, so
//! that hundreds of columns stay quick; a field filters them by name.

use std::fmt::Write as _;

use driftline_drift::compare::{Column, Definitions, Measure, Plan, Sides, Values};

use super::CompareArgs;
use super::answer::{Judged, Table, digits, is_drifted, kind, strongest};
use super::chart::{bars, escape, svg};

/// The page around the columns.
const PAGE: &str = include_str!("report.html");
/// Bars whose names fit below a large picture.
const NAMED_BARS_MAX: usize = 8;

/// The whole page.
pub(super) fn page(args: &CompareArgs, plan: &Plan, judged: &Judged) -> String {
    let mut body = String::new();
    for table in &judged.tables {
        section(&mut body, table, judged.tables.len() > 1);
    }
    if !judged.skipped.is_empty() {
        body.push_str("<section><h2>Not compared</h2><ul>");
        for (column, why) in &judged.skipped {
            let _ = write!(body, "<li><b>{}</b>: {}</li>", escape(column), escape(why));
        }
        body.push_str("</ul></section>");
    }
    let all = judged.tables.first();
    let rows = all.map_or(Sides::default(), |table| table.rows);
    let columns = all.map_or(0, |table| table.columns.len());
    let drifted = all.map_or(0, |table| {
        table
            .columns
            .iter()
            .filter(|(_, measures)| is_drifted(measures))
            .count()
    });
    let verdict = match judged.drifted {
        true => "<span class=\"verdict yes\">Drift found</span>",
        false => "<span class=\"verdict no\">No drift found</span>",
    };
    let rule = match plan.definitions {
        Definitions::Native | Definitions::Scipy => format!(
            "Chance that anything is called drifted when nothing has changed: {} for the whole comparison.",
            plan.false_alarm_rate
        ),
        Definitions::Evidently => {
            "Evidently's definitions and thresholds, which hold no false-alarm rate.".to_owned()
        }
        Definitions::Nannyml => {
            "NannyML's definitions and thresholds, which hold no false-alarm rate.".to_owned()
        }
    };
    let file = |path: &std::path::Path| escape(&path.display().to_string());
    PAGE.replace("{{verdict}}", verdict)
        .replace("{{drifted}}", &drifted.to_string())
        .replace("{{columns}}", &columns.to_string())
        .replace("{{reference_rows}}", &thousands(rows.reference))
        .replace("{{current_rows}}", &thousands(rows.current))
        .replace("{{rule}}", &rule)
        .replace("{{reference}}", &file(&args.reference))
        .replace("{{current}}", &file(&args.current))
        // Last, so that no name of a column is taken for a place of the page.
        .replace("{{body}}", &body)
}

fn section(out: &mut String, table: &Table, has_groups: bool) {
    let title = match &table.group {
        Some(group) => format!("Rows of {}", escape(group)),
        None if has_groups => "All rows".to_owned(),
        None => "Columns".to_owned(),
    };
    let _ = write!(
        out,
        "<section><h2>{title} <small>{} reference, {} current</small></h2>",
        thousands(table.rows.reference),
        thousands(table.rows.current)
    );
    let mut columns: Vec<&(Column, Vec<Measure>)> = table.columns.iter().collect();
    let rank = |measures: &[Measure]| {
        let p = strongest(measures).and_then(|it| it.p_value).unwrap_or(1.0);
        (!is_drifted(measures), p)
    };
    columns.sort_by(|a, b| {
        let (a, b) = (rank(&a.1), rank(&b.1));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    for (column, measures) in columns {
        one(out, column, measures);
    }
    out.push_str("</section>");
}

fn one(out: &mut String, column: &Column, measures: &[Measure]) {
    let drifted = is_drifted(measures);
    let bars = bars(column);
    let says = match strongest(measures) {
        Some(measure) => sentence(measure),
        None => "no test could answer".to_owned(),
    };
    let _ = write!(
        out,
        "<details class=\"column{}\" data-name=\"{}\"><summary><span class=\"mark\">{}</span><span class=\"name\">{}</span><span class=\"kind\">{}</span><span class=\"small\">{}</span><span class=\"says\">{}</span></summary><div class=\"open\">",
        if drifted { " drifted" } else { "" },
        escape(&column.name.to_lowercase()),
        if drifted { "drifted" } else { "" },
        escape(&column.name),
        kind(column),
        svg(&bars, 160.0, 28.0, false),
        escape(&says),
    );
    if !bars.bars.is_empty() {
        let _ = write!(out, "<figure>{}", svg(&bars, 720.0, 180.0, true));
        axis(
            out,
            &bars
                .bars
                .iter()
                .map(|bar| bar.label.as_str())
                .collect::<Vec<_>>(),
            column,
        );
        let _ = write!(
            out,
            "<figcaption><i class=\"r\"></i>reference <i class=\"c\"></i>current; shares of each side's values{}</figcaption></figure>",
            match bars.outside > 0.0 {
                true => format!(", {:.2} % lie outside of the picture", 100.0 * bars.outside),
                false => String::new(),
            }
        );
    }
    facts(out, column);
    out.push_str("<table><thead><tr><th>method</th><th>value</th><th>p-value</th><th>held against</th><th></th></tr></thead><tbody>");
    for measure in measures {
        let or_nothing = |value: Option<f64>| value.map_or("–".to_owned(), digits);
        let _ = write!(
            out,
            "<tr{}><td>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            if measure.drifted {
                " class=\"drifted\""
            } else {
                ""
            },
            measure.method,
            measure
                .at
                .as_ref()
                .map_or(String::new(), |at| format!(" of <q>{}</q>", escape(at))),
            digits(measure.value),
            or_nothing(measure.p_value),
            or_nothing(measure.threshold),
            if measure.drifted { "drifted" } else { "" },
        );
    }
    out.push_str("</tbody></table></div></details>");
}

/// Names below the large picture: all where there are few, else both ends.
fn axis(out: &mut String, labels: &[&str], column: &Column) {
    let (class, shown): (&str, Vec<&str>) = match (&column.values, labels) {
        (_, labels) if labels.len() <= NAMED_BARS_MAX => ("axis each", labels.to_vec()),
        (Values::Numbers(_), [first, .., last]) => ("axis", vec![first, last]),
        _ => ("axis", Vec::new()),
    };
    let _ = write!(out, "<div class=\"{class}\">");
    for label in shown {
        let _ = write!(out, "<span>{}</span>", escape(label));
    }
    out.push_str("</div>");
}

/// Rows, missing values, moments.
fn facts(out: &mut String, column: &Column) {
    out.push_str("<table class=\"facts\"><thead><tr><th></th><th>reference</th><th>current</th></tr></thead><tbody>");
    let mut row = |name: &str, reference: String, current: String| {
        let _ = write!(
            out,
            "<tr><td>{name}</td><td>{reference}</td><td>{current}</td></tr>"
        );
    };
    let count = |sides: Sides<u64>| (thousands(sides.reference), thousands(sides.current));
    let (r, c) = count(column.rows);
    row("rows", r, c);
    let (r, c) = count(column.missing);
    row("missing", r, c);
    match &column.values {
        Values::Numbers(numbers) => {
            let (r, c) = count(column.not_finite);
            row("not finite", r, c);
            let (r, c) = (&numbers.moments.reference, &numbers.moments.current);
            row("mean", digits(r.mean), digits(c.mean));
            row(
                "standard deviation",
                digits(r.variance.sqrt()),
                digits(c.variance.sqrt()),
            );
        }
        Values::Categories(categories) => {
            let filled = |counts: &Vec<u64>| counts.iter().filter(|count| **count > 0).count();
            let (r, c) = (&categories.counts.reference, &categories.counts.current);
            row("categories", filled(r).to_string(), filled(c).to_string());
            let new = r.iter().zip(c).filter(|(r, c)| **r == 0 && **c > 0).count();
            row("not seen before", "–".to_owned(), new.to_string());
        }
    }
    out.push_str("</tbody></table>");
}

/// The strongest measure in words.
fn sentence(measure: &Measure) -> String {
    use driftline_drift::compare::Method;
    let at = measure.at.as_deref().unwrap_or("one value");
    let p = measure
        .p_value
        .map_or(String::new(), |p| format!(", p = {}", digits(p)));
    let points = format!("{:+.1} points", 100.0 * measure.value);
    match measure.method {
        Method::Location if measure.value > 0.0 => format!("values moved up{p}"),
        Method::Location => format!("values moved down{p}"),
        Method::Spread if measure.value > 0.0 => format!("values spread{p}"),
        Method::Spread => format!("values drew together{p}"),
        Method::Ks => format!("shape: distance {}{p}", digits(measure.value)),
        Method::Shares => format!("share of “{at}” {points}{p}"),
        Method::Missing => format!("{at} values {points}{p}"),
        method => format!("{method} {}{p}", digits(measure.value)),
    }
}

/// 1234567 as 1,234,567.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
