//! The first days in the field on which nothing was found.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use driftline_queries::Session;
use driftline_schemas::clock::DAY_US;
use jiff::Timestamp;

use crate::lake::{ask, quoted};
use crate::spells::{Said, Spell, spells};

/// The first `days` days (UTC) in a row on which a model version was judged and nothing crossed, and on
/// which no finding of it held.
///
/// # Errors
/// When there are no such days yet, with how many there are at most.
pub(super) async fn days(
    session: &Session,
    (tenant, model, version): (&str, &str, &str),
    days: u32,
) -> Result<(Timestamp, Timestamp)> {
    let of = format!(
        "tenant = {} AND model = {} AND version = {}",
        quoted(tenant),
        quoted(model),
        quoted(version)
    );
    let statement = format!(
        "SELECT CAST(window_start AS BIGINT) / {DAY_US}, max(CAST(crossed AS INT)),
             max(CAST(window_end AS BIGINT))
         FROM final_measures WHERE method = 'shift' AND {of} GROUP BY 1 ORDER BY 1"
    );
    let judged = ask(session, &statement, 0).await?;
    let statement = format!(
        "SELECT finding_key, finding_state, CAST(window_start AS BIGINT) AS start_us,
             CAST(window_end AS BIGINT)
         FROM findings WHERE {of} ORDER BY start_us, revision"
    );
    let said = ask(session, &statement, 2).await?.into_iter();
    let said: Vec<Said> = said.filter_map(statement_of).collect();
    let calm = calm_days(&judged, &spells(&said));
    match first_run(&calm, days) {
        Ok(first) => {
            let time = |day: i64| Timestamp::from_microsecond(day * DAY_US);
            Ok((time(first)?, time(first + i64::from(days))?))
        }
        Err(most) => bail!(
            "{model}@{version} has no {days} days in a row that were judged and on which nothing was found: at most {most}; ask for fewer, or give --from and --to"
        ),
    }
}

/// First day of the first run of so many calm days, or the longest run there is.
fn first_run(calm: &BTreeMap<i64, bool>, days: u32) -> Result<i64, u32> {
    let (mut longest, mut run, mut before) = (0, 0, None);
    for (&day, &is_calm) in calm {
        run = match (is_calm, before == Some(day - 1)) {
            (false, _) => 0,
            (true, true) => run + 1,
            (true, false) => 1,
        };
        before = Some(day);
        longest = longest.max(run);
        if run == days {
            return Ok(day + 1 - i64::from(days));
        }
    }
    Err(longest)
}

fn statement_of((texts, numbers): (Vec<String>, Vec<i64>)) -> Option<Said> {
    let [key, state] = texts.try_into().ok()?;
    let [start_us, end_us] = numbers[..] else {
        return None;
    };
    Some(Said {
        key,
        state,
        start_us,
        end_us,
    })
}

/// Whether nothing crossed and no finding held, by judged day (its number, whether anything crossed, end
/// of its last window). The newest day is left out while it is not over.
fn calm_days(judged: &[(Vec<String>, Vec<i64>)], spells: &[Spell]) -> BTreeMap<i64, bool> {
    let days = judged.iter().filter_map(|(_, numbers)| match numbers[..] {
        [day, crossed, end_us] => Some((day, crossed, end_us)),
        _ => None,
    });
    let newest = days.clone().next_back();
    let is_over = |day: i64| {
        newest.is_some_and(|(last, _, end_us)| day < last || end_us >= (day + 1) * DAY_US)
    };
    let held = |day: i64| {
        let overlaps = |it: &Spell| it.from_us < (day + 1) * DAY_US && it.to_us > day * DAY_US;
        spells.iter().any(|it| !it.is_refuted && overlaps(it))
    };
    days.filter(|(day, ..)| is_over(*day))
        .map(|(day, crossed, _)| (day, crossed == 0 && !held(day)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first run that is long enough; a gap and a bad day break it, and the longest is told.
    #[test]
    fn runs_of_calm_days() {
        let calm = |days: &[(i64, bool)]| days.iter().copied().collect::<BTreeMap<_, _>>();
        let days = calm(&[
            (1, true),
            (2, true),
            (4, true),
            (5, false),
            (6, true),
            (7, true),
            (8, true),
        ]);
        assert_eq!(first_run(&days, 3), Ok(6));
        assert_eq!(first_run(&days, 2), Ok(1));
        assert_eq!(first_run(&days, 4), Err(3));
    }

    /// A crossing and a finding that holds make a day restless, a refuted one does not; the newest day
    /// counts once it is over.
    #[test]
    fn days_on_which_nothing_was_found() {
        let day = |day: i64, crossed: i64, hours: i64| {
            (
                Vec::new(),
                vec![day, crossed, day * DAY_US + hours * DAY_US / 24],
            )
        };
        let spell = |from: f64, to: f64, is_refuted| Spell {
            from_us: (from * DAY_US as f64) as i64,
            to_us: (to * DAY_US as f64) as i64,
            is_refuted,
        };
        let judged = [
            day(1, 0, 24),
            day(2, 1, 24),
            day(3, 0, 24),
            day(4, 0, 20),
            day(5, 0, 18),
        ];
        let calm = calm_days(&judged, &[spell(2.5, 3.2, false), spell(1.0, 9.0, true)]);
        assert_eq!(
            calm,
            BTreeMap::from([(1, true), (2, false), (3, false), (4, true)])
        );
        let whole = [day(5, 0, 24)];
        assert_eq!(calm_days(&whole, &[]), BTreeMap::from([(5, true)]));
    }
}
