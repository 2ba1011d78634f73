//! The bytes of profiles, as they travel and rest.
//!
//! All numbers are LEB128 varints unless said otherwise; signed ones are zigzag-coded first.
//!
//! ```text
//! profile   := version:u8 (1) layout:u64-le rows devices signals
//! devices   := truncated:u8 n { hash:u64-le rows }*n              hashes rise
//! signals   := n { signal }*n
//! signal    := 0 bins                                              no rows at all
//!            | 1 bins:n { count }*n nulls non_finite unseen out_of_range
//!              extremes:u8 (0 none, 1 both) [ min max ] sum sum_squares
//! ```
//!
//! The encoding is canonical: equal profiles have equal bytes, which is how the merge law is tested.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::Xxh3;

use super::{DeviceSample, Profile, ProfileError, SignalLayout, SignalProfile};
use crate::bundle::FeatureType;
use crate::limits::{CATEGORIES_MAX, PROFILE_DEVICES_MAX, SIGNALS_MAX};

/// Version of the encoding that this code writes.
pub const PROFILE_FORMAT: u8 = 1;

/// Hash over everything that decides how values are counted.
pub(super) fn layout_digest(signals: &[SignalLayout]) -> u64 {
    let mut hash = Xxh3::new();
    let mut text = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    for layout in signals {
        text(&layout.signal.name);
        match &layout.signal.kind {
            FeatureType::Numeric {
                resolution, range, ..
            } => {
                text("numeric");
                text(&format!("{:016x}", resolution.to_bits()));
                let [low, high] = range.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
                text(&format!("{:016x} {:016x}", low.to_bits(), high.to_bits()));
            }
            FeatureType::Categorical { categories } => {
                text("categorical");
                categories.iter().for_each(|category| text(category));
            }
        }
        let edges: Vec<String> = layout.edges.iter().map(i32::to_string).collect();
        text(&edges.join(" "));
    }
    hash.digest()
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a zigzag varint.
pub fn put_signed(out: &mut Vec<u8>, value: i128) {
    put_varint(out, ((value << 1) ^ (value >> 127)) as u128);
}

/// Reads what [`put_varint`] and its like wrote, refusing what runs out or over.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Stands at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error at this place.
    pub fn error(&self, problem: &'static str) -> ProfileError {
        ProfileError::Bytes {
            at: self.at,
            problem,
        }
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`ProfileError::Bytes`] when there are fewer.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], ProfileError> {
        if n > self.remaining() {
            return Err(self.error("ends too early"));
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`ProfileError::Bytes`] at the end.
    pub fn byte(&mut self) -> Result<u8, ProfileError> {
        self.take(1).map(|taken| taken[0])
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`ProfileError::Bytes`] when there are fewer.
    pub fn u64_le(&mut self) -> Result<u64, ProfileError> {
        let taken = self.take(8)?;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(taken);
        Ok(u64::from_le_bytes(bytes))
    }

    /// A varint of up to 128 bits in its shortest form.
    ///
    /// # Errors
    /// [`ProfileError::Bytes`] when it does not end or does not fit.
    pub fn varint(&mut self) -> Result<u128, ProfileError> {
        let mut value = 0u128;
        let mut shift = 0u32;
        loop {
            let byte = self.byte()?;
            let part = u128::from(byte & 0x7f);
            if shift > 126 || (shift == 126 && part > 3) {
                return Err(self.error("number does not fit"));
            }
            value |= part << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(self.error("number is not in its shortest form"));
                }
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A varint that must fit in 64 bits.
    ///
    /// # Errors
    /// As [`Self::varint`].
    pub fn u64(&mut self) -> Result<u64, ProfileError> {
        u64::try_from(self.varint()?).map_err(|_| self.error("number does not fit"))
    }

    /// A count of things, each at least one byte long, and at most `max`.
    ///
    /// # Errors
    /// As [`Self::varint`], and when there are more than fit.
    pub fn count(&mut self, max: usize) -> Result<usize, ProfileError> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > max || count > self.remaining() {
            return Err(self.error("more entries are claimed than can be there"));
        }
        Ok(count)
    }

    /// A number of rows: at most 2^48, so that merging as many parts as there can be does not run
    /// over.
    fn rows(&mut self) -> Result<u64, ProfileError> {
        match self.u64()? {
            rows if rows <= u64::from(u32::MAX) << 16 => Ok(rows),
            _ => Err(self.error("a count is larger than any span of time can have")),
        }
    }

    /// A zigzag varint.
    ///
    /// # Errors
    /// As [`Self::varint`].
    pub fn signed(&mut self) -> Result<i128, ProfileError> {
        let coded = self.varint()?;
        Ok(((coded >> 1) as i128) ^ -((coded & 1) as i128))
    }
}

impl Profile {
    /// Appends the bytes.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        out.push(PROFILE_FORMAT);
        out.extend_from_slice(&self.layout.to_le_bytes());
        put_varint(out, self.rows.into());
        out.push(u8::from(self.devices.is_truncated()));
        let devices = self.devices.iter();
        put_varint(out, devices.len() as u128);
        for (hash, rows) in devices {
            out.extend_from_slice(&hash.to_le_bytes());
            put_varint(out, rows.into());
        }
        put_varint(out, self.signals.len() as u128);
        for signal in &self.signals {
            encode_signal(signal, out);
        }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_to(&mut out);
        out
    }

    /// Reads one profile. Whether it fits a layout is for [`Profile::fits`] to say.
    ///
    /// # Errors
    /// [`ProfileError::Bytes`] names the offset.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, ProfileError> {
        if reader.byte()? != PROFILE_FORMAT {
            return Err(reader.error("unknown version of the profile encoding"));
        }
        let layout = reader.u64_le()?;
        let rows = reader.rows()?;
        let truncated = reader.byte()? != 0;
        let mut devices = BTreeMap::new();
        for _ in 0..reader.count(PROFILE_DEVICES_MAX)? {
            let hash = reader.u64_le()?;
            if devices
                .last_key_value()
                .is_some_and(|(&last, _)| last >= hash)
            {
                return Err(reader.error("device hashes must rise"));
            }
            devices.insert(hash, reader.rows()?);
        }
        let signals = (0..reader.count(SIGNALS_MAX)?)
            .map(|_| decode_signal(reader))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            layout,
            rows,
            devices: DeviceSample::from_parts(devices, truncated),
            signals,
        })
    }
}

fn encode_signal(signal: &SignalProfile, out: &mut Vec<u8>) {
    if signal.rows() == 0 {
        out.push(0);
        put_varint(out, signal.bins.len() as u128);
        return;
    }
    out.push(1);
    put_varint(out, signal.bins.len() as u128);
    for &count in &signal.bins {
        put_varint(out, count.into());
    }
    for count in [
        signal.nulls,
        signal.non_finite,
        signal.unseen,
        signal.out_of_range,
    ] {
        put_varint(out, count.into());
    }
    match (signal.min, signal.max) {
        (Some(min), Some(max)) => {
            out.push(1);
            put_signed(out, min.into());
            put_signed(out, max.into());
        }
        _ => out.push(0),
    }
    put_signed(out, signal.sum);
    put_varint(out, signal.sum_squares);
}

fn decode_signal(reader: &mut Reader<'_>) -> Result<SignalProfile, ProfileError> {
    let kind = reader.byte()?;
    let bins = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if bins > CATEGORIES_MAX {
        return Err(reader.error("more bins than a signal can have"));
    }
    let mut signal = SignalProfile::empty(bins);
    match kind {
        0 => return Ok(signal),
        1 => {}
        _ => return Err(reader.error("unknown kind of signal")),
    }
    for bin in &mut signal.bins {
        *bin = reader.rows()?;
    }
    signal.nulls = reader.rows()?;
    signal.non_finite = reader.rows()?;
    signal.unseen = reader.rows()?;
    signal.out_of_range = reader.rows()?;
    match reader.byte()? {
        0 => {}
        1 => {
            let mut extreme = || -> Result<Option<i32>, ProfileError> {
                let value = reader.signed()?;
                let value =
                    i32::try_from(value).map_err(|_| reader.error("extreme does not fit"))?;
                Ok(Some(value))
            };
            signal.min = extreme()?;
            signal.max = extreme()?;
            if signal.min > signal.max {
                return Err(reader.error("the least value is above the greatest"));
            }
        }
        _ => return Err(reader.error("unknown kind of extremes")),
    }
    // What the counts allow: |x| ≤ 2^31, so sums are bounded by the rows.
    let rows = u128::from(signal.binned());
    signal.sum = reader.signed()?;
    signal.sum_squares = reader.varint()?;
    if signal.sum.unsigned_abs() > rows << 31 || signal.sum_squares > rows << 62 {
        return Err(reader.error("a sum is larger than its rows allow"));
    }
    Ok(signal)
}
