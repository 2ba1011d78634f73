//! Who sends which row when: decided before anything is sent.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use driftline_emitter::pack::Data;
use driftline_emitter::{Runtime, store};
use driftline_schemas::clock::{Clock as _, SystemClock};
use driftline_schemas::source::Origin;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::ReplayArgs;
use crate::model::columns::{Columns, times_us};

/// A device that takes part.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) origin: Origin,
    pub(super) token: String,
}

/// A row of the file, as one of the senders sends it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Row of the file.
    pub(super) row: usize,
    /// Index of the sender.
    pub(super) sender: usize,
    /// Event time; `None` is when it is sent.
    pub(super) time_us: Option<i64>,
}

/// Everything that is decided beforehand.
pub(super) struct Plan<'a> {
    pub(super) runtime: Arc<Runtime>,
    pub(super) senders: Vec<Sender>,
    /// In the order in which they are sent.
    pub(super) turns: Vec<Turn>,
    /// One column per feature, then per extra signal.
    pub(super) features: Vec<&'a Data>,
    /// The truth.
    pub(super) label: Option<&'a Data>,
}

impl<'a> Plan<'a> {
    pub(super) fn make(args: &ReplayArgs, columns: &'a Columns) -> Result<Self> {
        let bundle = Arc::new(store::load(&args.bundle)?);
        let runtime = Runtime::load(Arc::clone(&bundle))
            .with_context(|| args.bundle.display().to_string())?;
        let features = bundle
            .manifest
            .features
            .iter()
            .chain(&bundle.manifest.signals)
            .map(|feature| {
                let mapped = args.map.iter().find(|(name, _)| *name == feature.name);
                columns.get(mapped.map_or(feature.name.as_str(), |(_, column)| column.as_str()))
            })
            .collect::<Result<Vec<_>>>()?;
        if let Some((unknown, _)) = args.map.iter().find(|(name, _)| {
            let manifest = &bundle.manifest;
            let mut all = manifest.features.iter().chain(&manifest.signals);
            all.all(|feature| feature.name != *name)
        }) {
            bail!("--map {unknown}: {} has no such feature", bundle.title());
        }
        let label = args
            .label
            .as_ref()
            .map(|name| columns.get(name))
            .transpose()?;
        let mut rows = columns.matching(&args.only)?;
        if let Some(seed) = args.shuffle_seed {
            rows.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
        let (senders, of_row) = senders(args, columns, &rows)?;
        let times = times(args, columns, &rows)?;
        let turns = rows
            .iter()
            .enumerate()
            .map(|(at, row)| Turn {
                row: *row,
                sender: of_row[at],
                time_us: times.as_ref().map(|times| times[at]),
            })
            .collect();
        Ok(Self {
            runtime,
            senders,
            turns,
            features,
            label,
        })
    }
}

/// The devices that take part, and which of them each row belongs to.
fn senders(
    args: &ReplayArgs,
    columns: &Columns,
    rows: &[usize],
) -> Result<(Vec<Sender>, Vec<usize>)> {
    let tokens = tokens(args)?;
    let sender = |name: &str, token: &str| Sender {
        origin: origin(args, name),
        token: token.to_owned(),
    };
    let Some(column) = &args.device else {
        let count = args.devices.max(1);
        if tokens.len() < count {
            bail!(
                "{count} devices need as many tokens, there are {}: a token speaks for one device, add devices with `driftline device add` and list them with --tokens-file",
                tokens.len()
            );
        }
        let senders = tokens[..count]
            .iter()
            .map(|(name, token)| sender(name, token))
            .collect();
        return Ok((senders, (0..rows.len()).map(|at| at % count).collect()));
    };
    let known: HashMap<&str, &str> = tokens
        .iter()
        .map(|(name, token)| (name.as_str(), token.as_str()))
        .collect();
    let data = columns.get(column)?;
    let mut senders = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut of_row = Vec::with_capacity(rows.len());
    for row in rows {
        let name = match data.value(*row) {
            driftline_emitter::Value::Missing => {
                bail!("column {column}, row {}: the device is missing", row + 1)
            }
            driftline_emitter::Value::Number(number) => number.to_string(),
            driftline_emitter::Value::Text(text) => text.to_owned(),
        };
        let at = match index.get(&name) {
            Some(at) => *at,
            None => {
                let Some(token) = known.get(name.as_str()) else {
                    bail!("device {name:?} of column {column} has no token in the tokens file");
                };
                senders.push(sender(&name, token));
                index.insert(name, senders.len() - 1);
                senders.len() - 1
            }
        };
        of_row.push(at);
    }
    Ok((senders, of_row))
}

/// Names and tokens: `name token` or `name,token` a line, or the JSON that `device add` prints.
fn tokens(args: &ReplayArgs) -> Result<Vec<(String, String)>> {
    let Some(file) = &args.tokens_file else {
        let token = args.token.clone().unwrap_or_default();
        return Ok(vec![(args.name.clone(), token)]);
    };
    let place = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(place)?;
    parse_tokens(&text).with_context(place)
}

fn parse_tokens(text: &str) -> Result<Vec<(String, String)>> {
    #[derive(serde::Deserialize)]
    struct Added {
        device: String,
        token: String,
    }
    if text.trim_start().starts_with(['{', '[']) {
        let mut all = Vec::new();
        for value in serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>() {
            let value = value?;
            let added: Vec<Added> = match value.is_array() {
                true => serde_json::from_value(value)?,
                false => vec![serde_json::from_value(value)?],
            };
            all.extend(added.into_iter().map(|added| (added.device, added.token)));
        }
        return Ok(all);
    }
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(at, line)| {
            let mut parts = line.split([' ', '\t', ',']).filter(|part| !part.is_empty());
            match (parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(token), None) => Ok((name.to_owned(), token.to_owned())),
                _ => bail!("line {}: write the device's name and its token", at + 1),
            }
        })
        .collect()
}

fn origin(args: &ReplayArgs, name: &str) -> Origin {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    Origin {
        tenant: args.tenant.as_str().into(),
        device: name.into(),
        role: Default::default(),
        model: "".into(),
        version: "".into(),
        variant: "".into(),
        hardware: text(&args.hardware),
        firmware: text(&args.firmware),
        region: text(&args.region),
        site: text(&args.site),
        link: args.link.unwrap_or_default(),
        cadence_s: 0,
    }
}

/// Event times of the rows, where they do not follow from the time of sending.
fn times(args: &ReplayArgs, columns: &Columns, rows: &[usize]) -> Result<Option<Vec<i64>>> {
    if let Some(name) = &args.time {
        let all = times_us(name, columns.get(name)?)?;
        return Ok(Some(rows.iter().map(|row| all[*row]).collect()));
    }
    let interval_us = match (args.interval, args.start) {
        (Some(interval), _) => interval.us(),
        (None, Some(_)) => 1_000_000,
        (None, None) => return Ok(None),
    };
    // A file in memory has fewer rows than that.
    let span_us = interval_us.saturating_mul(rows.len() as i64);
    let start_us = match args.start {
        Some(start) => start.as_microsecond(),
        None => SystemClock.now_us().saturating_sub(span_us),
    };
    Ok(Some(
        (0..rows.len() as i64)
            .map(|at| start_us.saturating_add(interval_us.saturating_mul(at)))
            .collect(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_lines_or_what_device_add_prints() {
        let expected = vec![
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "2".to_owned()),
        ];
        for text in [
            "# devices\na 1\nb\t2\n\n",
            "a,1\nb,2",
            "{\"device\":\"a\",\"token\":\"1\"}\n{\"device\":\"b\",\"token\":\"2\"}",
            "[{\"device\":\"a\",\"token\":\"1\"},{\"device\":\"b\",\"token\":\"2\"}]",
        ] {
            assert_eq!(parse_tokens(text).unwrap(), expected);
        }
        assert!(
            parse_tokens("a\n")
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
    }
}
