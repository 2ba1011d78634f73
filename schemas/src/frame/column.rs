//! The codings of one column of numbers: the cheapest is found by trying them all.

use super::bits::{pack, packed_bytes, tail_is_clear, unpack, width_of};
use super::cursor::{Cursor, put_varint, unzigzag, varint_bytes, zigzag};
use super::error::FrameError;

/// How the values of a column are written; see the format in [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Coding {
    Missing = 0,
    Constant = 1,
    Packed = 2,
    Delta = 3,
    DeltaDelta = 4,
    Varint = 5,
    DeltaVarint = 6,
    Texts = 7,
    Ids = 8,
}

impl Coding {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [
            Self::Missing,
            Self::Constant,
            Self::Packed,
            Self::Delta,
            Self::DeltaDelta,
            Self::Varint,
            Self::DeltaVarint,
            Self::Texts,
            Self::Ids,
        ]
        .into_iter()
        .find(|coding| *coding as u8 == code)
    }
}

/// Integers whose arithmetic wraps.
pub(super) trait Int: Copy + Ord + Default {
    const BITS: u32;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn to_i64(self) -> i64;
    /// The lowest bits.
    fn cut(value: i64) -> Self;
    /// `self - least`, which must not be negative.
    fn above(self, least: Self) -> u64;
}

impl Int for i32 {
    const BITS: u32 = 32;
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn minus(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }
    fn to_i64(self) -> i64 {
        self.into()
    }
    fn cut(value: i64) -> Self {
        value as i32
    }
    fn above(self, least: Self) -> u64 {
        u64::from(self.wrapping_sub(least) as u32)
    }
}

impl Int for i64 {
    const BITS: u32 = 64;
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn minus(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }
    fn to_i64(self) -> i64 {
        self
    }
    fn cut(value: i64) -> Self {
        value
    }
    fn above(self, least: Self) -> u64 {
        self.wrapping_sub(least) as u64
    }
}

fn differences<T: Int>(values: &[T]) -> Vec<T> {
    values
        .windows(2)
        .map(|pair| pair[1].minus(pair[0]))
        .collect()
}

fn signed_bytes<T: Int>(value: T) -> usize {
    varint_bytes(zigzag(value.to_i64()))
}

fn put_signed<T: Int>(out: &mut Vec<u8>, value: T) {
    put_varint(out, zigzag(value.to_i64()));
}

/// Least value, and bits of what the others are above it.
fn frame_of<T: Int>(values: &[T]) -> (T, u32) {
    match (values.iter().min(), values.iter().max()) {
        (Some(&least), Some(&most)) => (least, width_of(most.above(least))),
        _ => (T::default(), 0),
    }
}

/// What the first number of a column counts from: `values` are as they are, written numbers are
/// beyond `origin`.
fn from_origin<T: Int>(value: T, origin: T) -> T {
    value.minus(origin)
}

/// Writes values (at least one) in the cheapest coding, which is returned.
pub(super) fn encode<T: Int>(values: &[T], origin: T, out: &mut Vec<u8>) -> Coding {
    let first = from_origin(values[0], origin);
    if values.iter().all(|value| *value == values[0]) {
        put_signed(out, first);
        return Coding::Constant;
    }
    let count = values.len();
    let packed_size = |count: usize, width| packed_bytes(count, width).unwrap_or(usize::MAX);
    let (least, width) = frame_of(values);
    let base = from_origin(least, origin);
    let deltas = differences(values);
    let (least_delta, delta_width) = frame_of(&deltas);
    let curves = differences(&deltas);
    let (least_curve, curve_width) = frame_of(&curves);
    let deltas_size: usize = deltas.iter().map(|delta| signed_bytes(*delta)).sum();
    let sizes = [
        (
            Coding::Packed,
            signed_bytes(base) + 1 + packed_size(count, width),
        ),
        (
            Coding::Delta,
            signed_bytes(first)
                + signed_bytes(least_delta)
                + 1
                + packed_size(count - 1, delta_width),
        ),
        (
            Coding::DeltaDelta,
            // Only from the third value on is there a change of the change.
            if count < 3 {
                usize::MAX
            } else {
                signed_bytes(first)
                    + signed_bytes(deltas[0])
                    + signed_bytes(least_curve)
                    + 1
                    + packed_size(count - 2, curve_width)
            },
        ),
        (
            Coding::Varint,
            values
                .iter()
                .map(|value| signed_bytes(from_origin(*value, origin)))
                .sum(),
        ),
        (Coding::DeltaVarint, signed_bytes(first) + deltas_size),
    ];
    let coding = sizes
        .into_iter()
        .min_by_key(|(_, size)| *size)
        .map_or(Coding::Varint, |(coding, _)| coding);
    let packed = |values: &[T], least: T, width: u32, out: &mut Vec<u8>| {
        out.push(width as u8);
        pack(values.iter().map(|value| value.above(least)), width, out);
    };
    match coding {
        Coding::Packed => {
            put_signed(out, base);
            packed(values, least, width, out);
        }
        Coding::Delta => {
            put_signed(out, first);
            put_signed(out, least_delta);
            packed(&deltas, least_delta, delta_width, out);
        }
        Coding::DeltaDelta => {
            put_signed(out, first);
            put_signed(out, deltas[0]);
            put_signed(out, least_curve);
            packed(&curves, least_curve, curve_width, out);
        }
        Coding::DeltaVarint => {
            put_signed(out, first);
            deltas.iter().for_each(|delta| put_signed(out, *delta));
        }
        _ => values
            .iter()
            .for_each(|value| put_signed(out, from_origin(*value, origin))),
    }
    coding
}

fn read_signed<T: Int>(cursor: &mut Cursor<'_>) -> Result<T, FrameError> {
    let value = unzigzag(cursor.varint()?);
    if T::BITS == 32 && i32::try_from(value).is_err() {
        return Err(cursor.damaged("a number does not fit its column"));
    }
    Ok(T::cut(value))
}

fn read_packed<T: Int>(
    cursor: &mut Cursor<'_>,
    least: T,
    count: usize,
    out: &mut Vec<T>,
) -> Result<(), FrameError> {
    let width = u32::from(cursor.byte()?);
    if width > T::BITS {
        return Err(cursor.damaged("a number's bits do not fit its column"));
    }
    let bytes = packed_bytes(count, width).unwrap_or(usize::MAX);
    let packed = cursor.take(bytes)?;
    if !tail_is_clear(packed, count, width) {
        return Err(cursor.damaged("bits behind the last number"));
    }
    unpack(packed, count, width, out, |value| {
        least.plus(T::cut(value as i64))
    });
    Ok(())
}

/// Reads `count` (at least one) values; the caller has bounded `count`.
pub(super) fn decode<T: Int>(
    cursor: &mut Cursor<'_>,
    coding: Coding,
    count: usize,
    origin: T,
) -> Result<Vec<T>, FrameError> {
    let mut out = Vec::with_capacity(count);
    let first = |cursor: &mut Cursor<'_>| -> Result<T, FrameError> {
        Ok(origin.plus(read_signed(cursor)?))
    };
    match coding {
        Coding::Constant => out.resize(count, first(cursor)?),
        Coding::Packed => {
            let least = first(cursor)?;
            read_packed(cursor, least, count, &mut out)?;
        }
        Coding::Delta => {
            out.push(first(cursor)?);
            let least = read_signed(cursor)?;
            read_packed(cursor, least, count - 1, &mut out)?;
            sum_up(&mut out);
        }
        Coding::DeltaDelta if count >= 2 => {
            out.push(first(cursor)?);
            let second: T = read_signed(cursor)?;
            out.push(second);
            let least = read_signed(cursor)?;
            read_packed(cursor, least, count - 2, &mut out)?;
            sum_up(&mut out[1..]);
            sum_up(&mut out);
        }
        Coding::Varint => {
            for _ in 0..count {
                out.push(first(cursor)?);
            }
        }
        Coding::DeltaVarint => {
            let mut value = first(cursor)?;
            out.push(value);
            for _ in 1..count {
                value = value.plus(read_signed(cursor)?);
                out.push(value);
            }
        }
        _ => return Err(cursor.damaged("a coding that its column cannot have")),
    }
    Ok(out)
}

fn sum_up<T: Int>(values: &mut [T]) {
    let mut sum = T::default();
    for value in values {
        sum = sum.plus(*value);
        *value = sum;
    }
}
