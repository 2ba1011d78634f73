//! Who sent a frame, in what state and when.

use std::sync::Arc;

use super::FrameLimits;
use super::cursor::{Cursor, put_text, put_varint, unzigzag, zigzag};
use super::error::FrameError;
use crate::source::{Link, Origin, Role};

/// When a frame was sent, by the device's own clock; it says as well what the times in the rows
/// count from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sent {
    /// Not said; times in the rows are since the Unix epoch.
    #[default]
    Unsaid,
    /// Microseconds since the Unix epoch; so are times in the rows.
    At(i64),
    /// Microseconds since the device booted, for devices without a clock; so are times in the rows,
    /// and the gateway's clock says what they mean.
    SinceBoot(i64),
}

/// What a time is counted in, on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeUnit {
    Micros = 0,
    Millis = 1,
    Seconds = 2,
}

impl TimeUnit {
    pub(super) const fn micros(self) -> i64 {
        match self {
            Self::Micros => 1,
            Self::Millis => 1_000,
            Self::Seconds => 1_000_000,
        }
    }

    /// The largest unit in which all times are whole.
    pub(super) fn of(times: impl Iterator<Item = i64>) -> Self {
        let mut unit = Self::Seconds;
        for time in times {
            while time % unit.micros() != 0 {
                unit = match unit {
                    Self::Seconds => Self::Millis,
                    Self::Millis | Self::Micros => Self::Micros,
                };
            }
        }
        unit
    }

    fn from_bits(bits: u64) -> Option<Self> {
        [Self::Micros, Self::Millis, Self::Seconds]
            .into_iter()
            .find(|unit| *unit as u64 == bits & 3)
    }
}

impl Sent {
    /// The time, microseconds, whatever it counts from.
    pub fn micros(self) -> Option<i64> {
        match self {
            Self::Unsaid => None,
            Self::At(time) | Self::SinceBoot(time) => Some(time),
        }
    }

    /// The device's clock, for [`crate::source::FrameHead::sent_at_us`].
    pub fn at_us(self) -> Option<i64> {
        match self {
            Self::At(time) => Some(time),
            Self::Unsaid | Self::SinceBoot(_) => None,
        }
    }

    /// What the first number of a time column counts from.
    pub(super) fn origin(self, unit: TimeUnit) -> i64 {
        self.micros().unwrap_or(0).div_euclid(unit.micros())
    }
}

/// Attributes of [`Origin`] as the device says them; what is `None` comes from the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Name of the device, where the sender's token does not say it.
    pub device: Option<Arc<str>>,
    /// Name of the model.
    pub model: Option<Arc<str>>,
    /// Version of the model.
    pub version: Option<Arc<str>>,
    /// Variant of the version.
    pub variant: Option<Arc<str>>,
    /// Hardware generation.
    pub hardware: Option<Arc<str>>,
    /// Firmware version.
    pub firmware: Option<Arc<str>>,
    /// Region.
    pub region: Option<Arc<str>>,
    /// Site within the region.
    pub site: Option<Arc<str>>,
    /// Kind of link.
    pub link: Option<Link>,
    /// Device or probe.
    pub role: Option<Role>,
    /// How often the device means to report, seconds.
    pub cadence_s: Option<u32>,
}

/// Overrides that are texts, and all of them.
const TEXTS: usize = 8;
const ATTRIBUTES: usize = 11;

impl Overrides {
    /// What has to be said of an origin to somebody who knows another:
    /// `Overrides::between(a, b).apply(b)` is `a` for one device.
    pub fn between(mine: &Origin, known: &Origin) -> Self {
        let text = |mine: &Arc<str>, known: &Arc<str>| (mine != known).then(|| Arc::clone(mine));
        Self {
            device: text(&mine.device, &known.device),
            model: text(&mine.model, &known.model),
            version: text(&mine.version, &known.version),
            variant: text(&mine.variant, &known.variant),
            hardware: text(&mine.hardware, &known.hardware),
            firmware: text(&mine.firmware, &known.firmware),
            region: text(&mine.region, &known.region),
            site: text(&mine.site, &known.site),
            link: (mine.link != known.link).then_some(mine.link),
            role: (mine.role != known.role).then_some(mine.role),
            cadence_s: (mine.cadence_s != known.cadence_s).then_some(mine.cadence_s),
        }
    }

    /// The origin with what the frame says in place of what the registry says. Tenant and device
    /// stay the registry's: whether [`Self::device`] may be believed is for the gateway to decide.
    pub fn apply(&self, declared: &Origin) -> Origin {
        let text = |mine: &Option<Arc<str>>, theirs: &Arc<str>| {
            Arc::clone(mine.as_ref().unwrap_or(theirs))
        };
        Origin {
            tenant: Arc::clone(&declared.tenant),
            device: Arc::clone(&declared.device),
            role: self.role.unwrap_or(declared.role),
            model: text(&self.model, &declared.model),
            version: text(&self.version, &declared.version),
            variant: text(&self.variant, &declared.variant),
            hardware: text(&self.hardware, &declared.hardware),
            firmware: text(&self.firmware, &declared.firmware),
            region: text(&self.region, &declared.region),
            site: text(&self.site, &declared.site),
            link: self.link.unwrap_or(declared.link),
            cadence_s: self.cadence_s.unwrap_or(declared.cadence_s),
        }
    }

    /// Whether the registry's attributes stand as they are.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn texts(&self) -> [&Option<Arc<str>>; TEXTS] {
        [
            &self.device,
            &self.model,
            &self.version,
            &self.variant,
            &self.hardware,
            &self.firmware,
            &self.region,
            &self.site,
        ]
    }

    fn bitmap(&self) -> u64 {
        let mut bitmap = 0;
        for (bit, text) in self.texts().into_iter().enumerate() {
            bitmap |= u64::from(text.is_some()) << bit;
        }
        bitmap
            | u64::from(self.link.is_some()) << 8
            | u64::from(self.role.is_some()) << 9
            | u64::from(self.cadence_s.is_some()) << 10
    }

    fn encode(&self, limits: &FrameLimits, out: &mut Vec<u8>) -> Result<(), FrameError> {
        for text in self.texts().into_iter().flatten() {
            put_text(out, text, limits.text_bytes)?;
        }
        // Both lists have all of them, so the position is always found.
        if let Some(link) = self.link {
            out.push(Link::ALL.iter().position(|it| *it == link).unwrap_or(0) as u8);
        }
        if let Some(role) = self.role {
            out.push(Role::ALL.iter().position(|it| *it == role).unwrap_or(0) as u8);
        }
        if let Some(cadence) = self.cadence_s {
            put_varint(out, cadence.into());
        }
        Ok(())
    }

    fn decode(
        bitmap: u64,
        cursor: &mut Cursor<'_>,
        limits: &FrameLimits,
    ) -> Result<Self, FrameError> {
        let has = |bit: usize| bitmap & (1 << bit) != 0;
        let mut texts: [Option<Arc<str>>; TEXTS] = Default::default();
        for (bit, text) in texts.iter_mut().enumerate() {
            if has(bit) {
                *text = Some(cursor.text(limits.text_bytes)?.into());
            }
        }
        let [
            device,
            model,
            version,
            variant,
            hardware,
            firmware,
            region,
            site,
        ] = texts;
        let mut choice = |bit, count: usize| -> Result<Option<usize>, FrameError> {
            if !has(bit) {
                return Ok(None);
            }
            match usize::from(cursor.byte()?) {
                code if code < count => Ok(Some(code)),
                _ => Err(cursor.damaged("unknown link or role")),
            }
        };
        let link = choice(8, Link::ALL.len())?.map(|code| Link::ALL[code]);
        let role = choice(9, Role::ALL.len())?.map(|code| Role::ALL[code]);
        let cadence_s = match has(10) {
            true => Some(
                u32::try_from(cursor.varint()?)
                    .map_err(|_| cursor.damaged("a cadence does not fit in 32 bits"))?,
            ),
            false => None,
        };
        Ok(Self {
            device,
            model,
            version,
            variant,
            hardware,
            firmware,
            region,
            site,
            link,
            role,
            cadence_s,
        })
    }
}

/// What is said once for all that a frame carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Drawn at random at each boot of the device.
    pub boot: u64,
    /// Counts frames of one boot and kind of the device from 0.
    pub sequence: u64,
    /// When it was sent.
    pub sent: Sent,
    /// What the registry does not know, or knows otherwise.
    pub overrides: Overrides,
}

impl Envelope {
    pub(super) fn encode(
        &self,
        unit: TimeUnit,
        limits: &FrameLimits,
        out: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        out.extend_from_slice(&self.boot.to_le_bytes());
        put_varint(out, self.sequence);
        let kind = match self.sent {
            Sent::Unsaid => 0,
            Sent::At(_) => 1,
            Sent::SinceBoot(_) => 2,
        };
        let sent_unit = match self.sent.micros() {
            Some(time) => TimeUnit::of(std::iter::once(time)),
            None => TimeUnit::Micros,
        };
        let bitmap = self.overrides.bitmap();
        put_varint(
            out,
            kind | (sent_unit as u64) << 2 | (unit as u64) << 4 | bitmap << 6,
        );
        if let Some(time) = self.sent.micros() {
            put_varint(out, zigzag(time / sent_unit.micros()));
        }
        self.overrides.encode(limits, out)
    }

    /// The envelope, and the unit of the columns' times.
    pub(super) fn decode(
        cursor: &mut Cursor<'_>,
        limits: &FrameLimits,
    ) -> Result<(Self, TimeUnit), FrameError> {
        let boot = cursor.u64()?;
        let sequence = cursor.varint()?;
        let flags = cursor.varint()?;
        let bitmap = flags >> 6;
        let units = TimeUnit::from_bits(flags >> 2).zip(TimeUnit::from_bits(flags >> 4));
        let Some((sent_unit, unit)) = units.filter(|_| bitmap < 1 << ATTRIBUTES) else {
            return Err(cursor.damaged("unknown flags"));
        };
        let mut time = || -> Result<i64, FrameError> {
            unzigzag(cursor.varint()?)
                .checked_mul(sent_unit.micros())
                .ok_or_else(|| cursor.damaged("a time does not fit in 64 bits"))
        };
        let sent = match flags & 3 {
            0 => Sent::Unsaid,
            1 => Sent::At(time()?),
            2 => Sent::SinceBoot(time()?),
            _ => return Err(cursor.damaged("unknown flags")),
        };
        let overrides = Overrides::decode(bitmap, cursor, limits)?;
        let envelope = Self {
            boot,
            sequence,
            sent,
            overrides,
        };
        Ok((envelope, unit))
    }
}
