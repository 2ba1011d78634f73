//! The profiles that the present is compared with.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{Reader, put_varint};
use super::{Layout, Profile, ProfileError};
use crate::clock::{DAY_US, HOUR_US};
use crate::limits::BUNDLE_BYTES_MAX;

const MAGIC: &[u8; 4] = b"DLRF";
/// Version of the encoding that this code writes.
pub const REFERENCE_FORMAT: u8 = 1;

/// What part of the present is compared with what part of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Season {
    /// Everything with everything.
    None,
    /// An hour of the day (UTC) with the same hour.
    HourOfDay,
    /// An hour of the week (UTC, from Monday) with the same hour.
    HourOfWeek,
}

impl Season {
    /// Number of slots.
    pub const fn slots(self) -> usize {
        match self {
            Self::None => 1,
            Self::HourOfDay => 24,
            Self::HourOfWeek => 168,
        }
    }

    /// Slot of an event time.
    pub fn slot(self, event_time_us: i64) -> usize {
        // 1970-01-01 was a Thursday, the fourth day of the week.
        let (span, offset) = match self {
            Self::None => return 0,
            Self::HourOfDay => (DAY_US, 0),
            Self::HourOfWeek => (7 * DAY_US, 3 * DAY_US),
        };
        (event_time_us.saturating_add(offset).rem_euclid(span) / HOUR_US) as usize
    }
}

/// Shortest span of reference times for a season of hours of the week: each of them four times.
const WEEKLY_US: i64 = 28 * DAY_US;
/// Shortest span for a season of hours of the day: each of them seven times.
const DAILY_US: i64 = 7 * DAY_US;

impl Season {
    /// The finest season that rows over a span of time can tell: each hour of the week four times, or of
    /// the day seven times, none of them without rows. `rows` counts them by slot. With it what people
    /// should know: why a span that is long enough does not do.
    pub fn suitable(span_us: i64, rows: impl Fn(Self) -> Vec<u64>) -> (Self, Vec<String>) {
        let mut notes = Vec::new();
        for (season, least_us, name) in [
            (Self::HourOfWeek, WEEKLY_US, "week"),
            (Self::HourOfDay, DAILY_US, "day"),
        ] {
            if span_us < least_us {
                continue;
            }
            if rows(season).iter().all(|rows| *rows > 0) {
                return (season, notes);
            }
            notes.push(format!(
                "the reference's times span {} days, yet some hours have no rows: no season of the {name} is used",
                span_us / DAY_US
            ));
        }
        (Self::None, notes)
    }
}

/// A reference: one profile per slot of its season, all of one layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// What it was made from, for people (`train.csv`, `lake 2026-01-01..2026-01-28`).
    pub made_from: String,
    /// How signals are binned.
    pub layout: Layout,
    /// What the slots are.
    pub season: Season,
    /// One profile per slot.
    pub slots: Vec<Profile>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    made_from: String,
    season: Season,
    layout: Layout,
}

impl Reference {
    /// Identity: a hash of the encoded bytes. Measures carry it.
    pub fn id(&self) -> String {
        format!("{:016x}", xxh3_64(&self.encode()))
    }

    /// All slots merged.
    ///
    /// # Errors
    /// [`ProfileError::LayoutDiffers`] when the slots do not belong together.
    pub fn total(&self) -> Result<Profile, ProfileError> {
        let mut total = Profile::empty(&self.layout);
        for slot in &self.slots {
            total.merge(slot)?;
        }
        Ok(total)
    }

    /// Rows by the slots of a season no finer than this reference's.
    pub fn rows_by(&self, season: Season) -> Vec<u64> {
        let mut rows = vec![0; season.slots()];
        for (slot, profile) in self.slots.iter().enumerate() {
            rows[slot % season.slots()] += profile.rows;
        }
        rows
    }

    /// The same rows by a season no finer than this reference's: hours of the week are hours of the day
    /// seven times over.
    ///
    /// # Errors
    /// [`ProfileError::LayoutDiffers`] when the slots do not belong together.
    pub fn coarser(&self, season: Season) -> Result<Self, ProfileError> {
        let mut slots = vec![Profile::empty(&self.layout); season.slots()];
        for (slot, profile) in self.slots.iter().enumerate() {
            slots[slot % season.slots()].merge(profile)?;
        }
        Ok(Self {
            made_from: self.made_from.clone(),
            layout: self.layout.clone(),
            season,
            slots,
        })
    }

    /// What a window is compared with: the slots of the hours that it spans, merged.
    ///
    /// # Errors
    /// [`ProfileError::LayoutDiffers`] when the slots do not belong together.
    pub fn for_window(&self, start_us: i64, end_us: i64) -> Result<Profile, ProfileError> {
        let hours = ((end_us - start_us + HOUR_US - 1) / HOUR_US).max(1);
        if self.season == Season::None || hours as usize >= self.season.slots() {
            return self.total();
        }
        let mut merged = Profile::empty(&self.layout);
        for hour in 0..hours {
            merged.merge(&self.slots[self.season.slot(start_us + hour * HOUR_US)])?;
        }
        Ok(merged)
    }

    /// The bytes of [`crate::bundle::REFERENCE_FILE`]:
    /// `"DLRF" format:u8 length { JSON head } n { profile }*n`, numbers as varints.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            made_from: self.made_from.clone(),
            season: self.season,
            layout: self.layout.clone(),
        };
        // Strings, numbers and lists of them always have a JSON form.
        let head = serde_json::to_vec(&head).unwrap_or_default();
        let mut out = MAGIC.to_vec();
        out.push(REFERENCE_FORMAT);
        put_varint(&mut out, head.len() as u128);
        out.extend_from_slice(&head);
        put_varint(&mut out, self.slots.len() as u128);
        for slot in &self.slots {
            slot.encode_to(&mut out);
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`ProfileError::Bytes`] names the offset.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProfileError> {
        let mut reader = Reader::new(bytes);
        if reader.take(4)? != MAGIC || reader.byte()? != REFERENCE_FORMAT {
            return Err(
                reader.error("not a reference of a version that is known: pack the bundle again")
            );
        }
        let length = reader.count(BUNDLE_BYTES_MAX)?;
        let head: Head = serde_json::from_slice(reader.take(length)?)
            .map_err(|_| reader.error("the head is not the JSON that it should be"))?;
        // The digest is taken again, so that a head that was changed cannot claim old profiles.
        let layout = Layout::new(head.layout.signals)?;
        if reader.count(head.season.slots())? != head.season.slots() {
            return Err(reader.error("number of slots is not the season's"));
        }
        let slots = (0..head.season.slots())
            .map(|_| Profile::decode(&mut reader))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(slot) = slots.iter().find(|slot| !slot.fits(&layout)) {
            return Err(ProfileError::LayoutDiffers {
                left: layout.digest(),
                right: slot.layout,
            });
        }
        Ok(Self {
            made_from: head.made_from,
            layout,
            season: head.season,
            slots,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A season needs its span, and rows in every hour; hours of the week merge to hours of the day.
    #[test]
    fn seasons_that_rows_can_tell() {
        let full = |season: Season| vec![1; season.slots()];
        let of = |days: i64| Season::suitable(days * DAY_US, full).0;
        assert_eq!(
            [of(6), of(7), of(28)],
            [Season::None, Season::HourOfDay, Season::HourOfWeek]
        );
        let nightless = |season: Season| {
            let mut rows = full(season);
            rows[3] = 0;
            rows
        };
        let (season, notes) = Season::suitable(30 * DAY_US, nightless);
        assert_eq!((season, notes.len()), (Season::None, 2));

        let layout = Layout::new(Vec::new()).unwrap();
        let mut slots = vec![Profile::empty(&layout); 168];
        for (slot, profile) in slots.iter_mut().enumerate() {
            profile.rows = u64::from(slot % 24 == 5);
        }
        let weekly = Reference {
            made_from: String::new(),
            layout,
            season: Season::HourOfWeek,
            slots,
        };
        let daily = weekly.coarser(Season::HourOfDay).unwrap();
        let rows: Vec<u64> = daily.slots.iter().map(|slot| slot.rows).collect();
        assert_eq!(rows, weekly.rows_by(Season::HourOfDay));
        assert_eq!((rows[5], rows.iter().sum::<u64>()), (7, 7));
    }

    #[test]
    fn hours_of_the_week_start_on_monday() {
        // 2024-01-01 00:00 UTC was a Monday.
        let monday_us = 1_704_067_200 * 1_000_000;
        assert_eq!(Season::HourOfWeek.slot(monday_us), 0);
        assert_eq!(Season::HourOfWeek.slot(monday_us - 1), 167);
        assert_eq!(Season::HourOfDay.slot(monday_us + 25 * HOUR_US), 1);
    }
}
