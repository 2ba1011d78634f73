//! Reading bytes that anybody may have written, and writing them.

use super::error::{FrameError, Part, within};

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a varint.
pub(super) fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Zigzag: small magnitudes become small numbers.
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
pub(super) fn unzigzag(coded: u64) -> i64 {
    ((coded >> 1) as i64) ^ -((coded & 1) as i64)
}

/// Appends a text of at most `max` bytes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) -> Result<(), FrameError> {
    within("bytes of a text", text.len(), max)?;
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Stands somewhere in bytes; nothing is read past their end.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    part: Part,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], part: Part) -> Self {
        Self { bytes, at: 0, part }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn damaged(&self, what: &'static str) -> FrameError {
        self.damaged_at(self.at, what)
    }

    pub(super) fn damaged_at(&self, at: usize, what: &'static str) -> FrameError {
        FrameError::damaged(self.part, at, what)
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], FrameError> {
        if n > self.remaining() {
            return Err(self.damaged("ends too early"));
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, FrameError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A varint of up to 64 bits in its shortest form.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, FrameError> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(self.damaged("a number does not fit in 64 bits"));
            }
            value |= part << shift;
            if byte < 0x80 {
                if byte == 0 && shift > 0 {
                    return Err(self.damaged("a number is not in its shortest form"));
                }
                return Ok(value);
            }
            if shift == 63 {
                return Err(self.damaged("a number does not fit in 64 bits"));
            }
            shift += 7;
        }
    }

    /// A length of at most `max` bytes that are there.
    pub(super) fn length(&mut self, max: usize) -> Result<usize, FrameError> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if length > max || length > self.remaining() {
            return Err(self.damaged("a length runs past the end or its limit"));
        }
        Ok(length)
    }

    pub(super) fn text(&mut self, max: usize) -> Result<&'a str, FrameError> {
        let length = self.length(max)?;
        let at = self.at;
        std::str::from_utf8(self.take(length)?)
            .map_err(|_| self.damaged_at(at, "a text is not UTF-8"))
    }
}
