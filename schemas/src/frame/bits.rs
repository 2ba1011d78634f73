//! Numbers of a fixed number of bits, one after the other, lowest bit first.

/// Bits that a number needs; 0 needs none.
pub(super) fn width_of(greatest: u64) -> u32 {
    64 - greatest.leading_zeros()
}

/// Bytes that `count` numbers take; `None` when that is more than can be addressed.
pub(super) fn packed_bytes(count: usize, width: u32) -> Option<usize> {
    Some(count.checked_mul(width as usize)?.div_ceil(8))
}

/// Appends numbers that each fit in `width` bits.
pub(super) fn pack(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let (mut held, mut bits) = (0u128, 0u32);
    for value in values {
        held |= u128::from(value) << bits;
        bits += width;
        while bits >= 8 {
            out.push(held as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(held as u8);
    }
}

/// Appends `count` numbers of `width` bits (at most 64), each through `each`. `packed` has
/// [`packed_bytes`] bytes.
#[inline]
pub(super) fn unpack<T>(
    packed: &[u8],
    count: usize,
    width: u32,
    out: &mut Vec<T>,
    each: impl Fn(u64) -> T,
) {
    let mask = if width == 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    };
    match width {
        0 => out.extend((0..count).map(|_| each(0))),
        8 => out.extend(packed.iter().map(|&byte| each(byte.into()))),
        16 => out.extend(
            packed
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&pair| each(u16::from_le_bytes(pair).into())),
        ),
        32 => out.extend(
            packed
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&four| each(u32::from_le_bytes(four).into())),
        ),
        // Seven bits of offset and 57 of a number are in eight bytes.
        1..=57 => {
            let width = width as usize;
            // Numbers whose eight bytes are there, and the few at the end that are not.
            let whole = match packed.len().checked_sub(8) {
                Some(last) => (last * 8 / width + 1).min(count),
                None => 0,
            };
            out.extend((0..whole).map(|index| {
                let bit = index * width;
                each((eight(packed, bit / 8) >> (bit % 8)) & mask)
            }));
            out.extend((whole..count).map(|index| {
                let bit = index * width;
                each((wide(packed, bit / 8) >> (bit % 8)) as u64 & mask)
            }));
        }
        _ => out.extend((0..count).map(|index| {
            let bit = index * width as usize;
            each((wide(packed, bit / 8) >> (bit % 8)) as u64 & mask)
        })),
    }
}

/// Eight bytes at an offset, zeros beyond the end.
#[inline]
fn eight(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(<[u8]>::first_chunk) {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => wide(bytes, at) as u64,
    }
}

/// Up to sixteen bytes at an offset, zeros beyond the end.
fn wide(bytes: &[u8], at: usize) -> u128 {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut chunk = [0; 16];
    let length = rest.len().min(16);
    chunk[..length].copy_from_slice(&rest[..length]);
    u128::from_le_bytes(chunk)
}

/// Whether the bits behind the last number are zero, as they are written.
pub(super) fn tail_is_clear(packed: &[u8], count: usize, width: u32) -> bool {
    let used = count * width as usize % 8;
    used == 0 || packed.last().is_none_or(|last| last >> used == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any width, any numbers: what was packed comes back, and takes the bytes that are promised.
        #[test]
        fn packing_round_trips(width in 0u32..=64, values in proptest::collection::vec(any::<u64>(), 0..200)) {
            let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
            let values: Vec<u64> = values.into_iter().map(|value| value & mask).collect();
            let mut bytes = Vec::new();
            pack(values.iter().copied(), width, &mut bytes);
            prop_assert_eq!(bytes.len(), packed_bytes(values.len(), width).unwrap());
            prop_assert!(tail_is_clear(&bytes, values.len(), width));
            let mut back = Vec::new();
            unpack(&bytes, values.len(), width, &mut back, |value| value);
            prop_assert_eq!(back, values);
        }
    }
}
