//! References from the lake's rows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use driftline_drift::calibrate::{Calibration, ErrorsByConfidence, Learner};
use driftline_lake::Lake;
use driftline_log::registry::references::{Built, put_reference};
use driftline_queries::Session;
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{Binner, Layout, Profile, Reference};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::recipe::{Recipe, SeasonChoice};
use super::rows::{Reading, Row};
use super::{ModelArgs, shelf, stable};
use crate::config::Config;
use crate::lake::Selection;
use crate::model::{Version, registered};
use crate::output::Usage;

/// Most profiles of a device and an hour that one day may make; a model of ten signals takes about 2 kB
/// for each.
const DEVICE_HOURS_MAX: usize = 500_000;

/// Arguments of `driftline reference build`. What is not given is taken from `[references.MODEL]` of
/// the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    of: ModelArgs,
    /// First event time of the rows: a time, or a day (UTC).
    #[arg(long, value_name = "TIME", value_parser = crate::times::parse, requires = "to")]
    from: Option<Timestamp>,
    /// End of the rows, exclusive.
    #[arg(long, value_name = "TIME", value_parser = crate::times::parse, requires = "from")]
    to: Option<Timestamp>,
    /// Take the first so many days in the field on which nothing was found.
    #[arg(long, value_name = "N", conflicts_with = "from", value_parser = clap::value_parser!(u32).range(1..))]
    stable_days: Option<u32>,
    /// Take rows of this earlier version.
    #[arg(long, value_name = "VERSION")]
    rows_of: Option<String>,
    /// Take rows of one cohort; may be given again.
    #[arg(long, value_name = "ATTRIBUTE=VALUE", value_parser = crate::model::parse_pair)]
    cohort: Vec<(String, String)>,
    /// What part of the present is compared with what part of the reference.
    #[arg(long, value_enum)]
    season: Option<SeasonChoice>,
}

impl BuildArgs {
    /// What was asked for, filled up from the configuration.
    fn recipe(&self, config: &Config) -> Recipe {
        let known = config.references.get(&self.of.model.name).cloned();
        let known = known.unwrap_or_default();
        Recipe {
            rows_of: self.rows_of.clone().or(known.rows_of),
            stable_days: self.stable_days.or(known.stable_days),
            cohort: match self.cohort.is_empty() {
                true => known.cohort,
                false => self.cohort.iter().cloned().collect(),
            },
            season: self.season.unwrap_or(known.season),
        }
    }
}

/// Builds one, puts it where every role finds it, and says what it is.
///
/// # Errors
/// When there are no rows, or the lake cannot be read.
pub(super) async fn run(config: &Config, dir: &Path, args: &BuildArgs) -> Result<Value> {
    let recipe = args.recipe(config);
    let (tenant, model) = (&args.of.tenant, &args.of.model);
    let judged = registered(config, dir, tenant, model).await?;
    let version = recipe.rows_of.as_ref().unwrap_or(&model.version).clone();
    let of = Version {
        name: model.name.clone(),
        version,
    };
    let manifest = match of == *model {
        true => judged.manifest.clone(),
        false => registered(config, dir, tenant, &of).await?.manifest,
    };
    let session = Session::open(Lake::new(&config.lake(dir))).await?;
    let (from, to) = match (args.from.zip(args.to), recipe.stable_days) {
        (Some(span), _) => span,
        (None, Some(days)) => stable::days(&session, (tenant, &of.name, &of.version), days).await?,
        (None, None) => {
            let text = format!(
                "which rows? Give --from and --to, or --stable-days N, or set stable_days in [references.{}]",
                model.name
            );
            return Err(Usage(text).into());
        }
    };
    let selection = Selection {
        tenant: tenant.clone(),
        model: of.name,
        version: of.version,
        from,
        to,
        cohort: recipe.cohort,
    };
    selection
        .check()
        .map_err(|error| Usage(error.to_string()))?;
    let maker = Maker {
        reading: Reading::new(
            tenant,
            &judged.reference.layout,
            judged.joint.as_deref(),
            &manifest,
        )?,
        layout: &judged.reference.layout,
        binners: binners(&judged.reference.layout),
        session: &session,
        selection: &selection,
    };
    let (reference, errors) = maker.reference(recipe.season.asked()).await?;
    let calibration = maker.calibration(&reference, errors.as_ref()).await?;
    let total = reference.total()?;
    let mut notes = calibration.notes.clone();
    if reference.season == Season::None {
        notes.push("the rows span too little for a season: every hour is compared with all".into());
    }
    let built = Built {
        calibration: calibration.to_json().into_bytes(),
        reference,
    };
    let place = (tenant.as_str(), model.name.as_str(), model.version.as_str());
    let path = put_reference(&shelf(config, dir), place, &built)?;
    Ok(json!({
        "reference": built.reference.id(),
        "model": model.to_string(),
        "made_from": built.reference.made_from,
        "rows": total.rows,
        "labelled": labelled(&total, &built.reference.layout),
        "devices": calibration.devices,
        "season": built.reference.season,
        "path": path,
        "notes": notes,
    }))
}

fn labelled(total: &Profile, layout: &Layout) -> u64 {
    let error = layout
        .signal("error")
        .map(|(at, _)| total.signals[at].rows());
    error.unwrap_or_default()
}

fn binners(layout: &Layout) -> Vec<Binner> {
    let signals = layout.signals().iter();
    signals.map(|signal| Binner::new(&signal.edges)).collect()
}

/// Profiles of the rows of one day, by hour and device.
type Day = BTreeMap<(i64, u64), Profile>;

/// Counts a selection's rows.
struct Maker<'a> {
    reading: Reading,
    layout: &'a Layout,
    binners: Vec<Binner>,
    session: &'a Session,
    selection: &'a Selection,
}

impl Maker<'_> {
    /// The rows' profiles by hour of the week, merged to the season, and how often the model was wrong.
    async fn reference(
        &self,
        asked: Option<Season>,
    ) -> Result<(Reference, Option<ErrorsByConfidence>)> {
        let mut errors = ErrorsByConfidence::of(self.layout);
        let weekly = Season::HourOfWeek;
        let mut slots = vec![Profile::empty(self.layout); weekly.slots()];
        let mut span: Option<(i64, i64)> = None;
        for day in self.selection.days() {
            for ((hour_us, _), profile) in self.day(day, errors.as_mut()).await? {
                slots[weekly.slot(hour_us)].merge(&profile)?;
                let (first, last) = span.unwrap_or((hour_us, hour_us));
                span = Some((first.min(hour_us), last.max(hour_us)));
            }
        }
        let Some((first, last)) = span else {
            bail!("the lake has no rows of {}", self.selection.title());
        };
        let whole = Reference {
            made_from: format!("lake {}", self.selection.title()),
            layout: self.layout.clone(),
            season: weekly,
            slots,
        };
        let suitable = match asked {
            Some(season) => season,
            None => Season::suitable(last + HOUR_US - first, |season| whole.rows_by(season)).0,
        };
        let empty = whole
            .rows_by(suitable)
            .iter()
            .filter(|rows| **rows == 0)
            .count();
        if empty > 0 {
            bail!(
                "--season: {empty} of {} hours have no rows in {}: take a longer span or a coarser season",
                suitable.slots(),
                self.selection.title()
            );
        }
        Ok((whole.coarser(suitable)?, errors))
    }

    async fn calibration(
        &self,
        reference: &Reference,
        errors: Option<&ErrorsByConfidence>,
    ) -> Result<Calibration> {
        let mut learner = Learner::new(reference)?.foreseeing(errors);
        for day in self.selection.days() {
            for ((hour_us, device), profile) in self.day(day, None).await? {
                learner.add(hour_us, device, &profile)?;
            }
        }
        Ok(learner.finish())
    }

    async fn day(
        &self,
        day: (Timestamp, Timestamp),
        mut errors: Option<&mut ErrorsByConfidence>,
    ) -> Result<Day> {
        let mut profiles = Day::new();
        let count = |row: Row<'_>| {
            let key = (row.event_time_us.div_euclid(HOUR_US) * HOUR_US, row.device);
            if profiles.len() >= DEVICE_HOURS_MAX && !profiles.contains_key(&key) {
                bail!(
                    "{} has more than {DEVICE_HOURS_MAX} device hours a day: take a part of the estate with --cohort",
                    self.selection.title()
                );
            }
            let profile = profiles
                .entry(key)
                .or_insert_with(|| Profile::empty(self.layout));
            if let Some(errors) = &mut errors {
                errors.add(|signal| row.values[signal].flatten());
            }
            profile.rows += 1;
            profile.devices.add(row.device, 1);
            let signals = profile.signals.iter_mut().zip(self.layout.signals());
            for ((signal, layout), (binner, value)) in
                signals.zip(self.binners.iter().zip(row.values))
            {
                if let Some(value) = value {
                    signal.count(layout, binner, *value);
                }
            }
            Ok(())
        };
        self.reading
            .day(self.session, self.selection, day, count)
            .await?;
        Ok(profiles)
    }
}
