//! Bounded windows of the last values, and a running mean.

use serde::{Deserialize, Serialize};

use super::bits;

/// The last `capacity` values, oldest first; the buffer is made once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "RingState", try_from = "RingState")]
pub(super) struct Ring {
    items: Box<[f64]>,
    start: usize,
    len: usize,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            items: vec![0.0; capacity].into_boxed_slice(),
            start: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.items.len()
    }

    pub(super) fn clear(&mut self) {
        self.start = 0;
        self.len = 0;
    }

    /// Appends, dropping the oldest when full.
    pub(super) fn push(&mut self, x: f64) {
        if self.is_full() {
            self.pop();
        }
        let at = (self.start + self.len) % self.items.len();
        self.items[at] = x;
        self.len += 1;
    }

    /// Removes the oldest; 0 when empty.
    pub(super) fn pop(&mut self) -> f64 {
        if self.len == 0 {
            return 0.0;
        }
        let x = self.items[self.start];
        self.start = (self.start + 1) % self.items.len();
        self.len -= 1;
        x
    }

    /// The value `i` places after the oldest; `i < len`.
    pub(super) fn get(&self, i: usize) -> f64 {
        self.items[(self.start + i) % self.items.len()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = f64> {
        (0..self.len).map(|i| self.get(i))
    }
}

#[derive(Serialize, Deserialize)]
struct RingState {
    capacity: u32,
    #[serde(with = "bits::list")]
    items: Vec<f64>,
}

impl From<Ring> for RingState {
    fn from(r: Ring) -> Self {
        Self {
            // A window's size is a parameter bounded by `WINDOW_MAX`, far below 2^32.
            capacity: r.items.len() as u32,
            items: r.iter().collect(),
        }
    }
}

/// No window parameter goes above this: it bounds a detector's memory and its changelog record.
pub(super) const WINDOW_MAX: u64 = 1 << 16;

impl TryFrom<RingState> for Ring {
    type Error = String;

    fn try_from(s: RingState) -> Result<Self, String> {
        let capacity = s.capacity as usize;
        if capacity == 0 || capacity as u64 > WINDOW_MAX || s.items.len() > capacity {
            return Err(format!(
                "a window of {} values and capacity {capacity} is not one of ours",
                s.items.len()
            ));
        }
        let mut ring = Self::new(capacity);
        s.items.into_iter().for_each(|x| ring.push(x));
        Ok(ring)
    }
}

/// The last `capacity` bits, oldest first, addressed by a position that only grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BitRingState")]
pub(super) struct BitRing {
    capacity: u64,
    words: Vec<u64>,
    /// Position of the oldest bit kept.
    first: u64,
    /// Position after the newest bit.
    end: u64,
}

#[derive(Deserialize)]
struct BitRingState {
    capacity: u64,
    words: Vec<u64>,
    first: u64,
    end: u64,
}

impl TryFrom<BitRingState> for BitRing {
    type Error = String;

    fn try_from(s: BitRingState) -> Result<Self, String> {
        let held = s.end.checked_sub(s.first);
        let fits = (1..=WINDOW_MAX).contains(&s.capacity)
            && s.words.len() as u64 == s.capacity.div_ceil(64)
            && held.is_some_and(|n| n <= s.capacity);
        if !fits {
            return Err("a window of bits does not fit its own capacity".to_owned());
        }
        Ok(Self {
            capacity: s.capacity,
            words: s.words,
            first: s.first,
            end: s.end,
        })
    }
}

impl BitRing {
    pub(super) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            words: vec![0; capacity.div_ceil(64) as usize],
            first: 0,
            end: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
        self.first = 0;
        self.end = 0;
    }

    pub(super) fn len(&self) -> u64 {
        self.end - self.first
    }

    /// Position of the oldest bit kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Position that the next bit gets.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Forgets what is older than `position`.
    pub(super) fn keep_from(&mut self, position: u64) {
        self.first = position.clamp(self.first, self.end);
    }

    /// The bit at a kept position.
    pub(super) fn get(&self, position: u64) -> bool {
        let slot = position % self.capacity;
        self.words[(slot / 64) as usize] >> (slot % 64) & 1 == 1
    }

    /// Appends; answers the bit that fell out when the window was full.
    pub(super) fn push(&mut self, bit: bool) -> Option<bool> {
        let fell = (self.len() == self.capacity).then(|| self.get(self.first));
        self.first += u64::from(fell.is_some());
        let slot = self.end % self.capacity;
        let word = &mut self.words[(slot / 64) as usize];
        *word = *word & !(1 << (slot % 64)) | u64::from(bit) << (slot % 64);
        self.end += 1;
        fell
    }
}

/// Running mean in river's order of operations: `mean += (1/n)(x - mean)`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Mean {
    /// Values seen; exact as a float up to 2^53.
    #[serde(with = "bits")]
    pub(super) n: f64,
    #[serde(with = "bits")]
    pub(super) mean: f64,
}

impl Mean {
    pub(super) fn push(&mut self, x: f64) {
        self.n += 1.0;
        self.mean += (1.0 / self.n) * (x - self.mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring holds the newest values in order, also after wrapping and through serde.
    #[test]
    fn ring_keeps_the_newest() {
        let mut r = Ring::new(3);
        for x in [1.0, 2.0, 3.0, 4.0, f64::INFINITY] {
            r.push(x);
        }
        assert_eq!(r.iter().collect::<Vec<_>>(), [3.0, 4.0, f64::INFINITY]);
        let text = serde_json::to_string(&r).unwrap();
        let mut back: Ring = serde_json::from_str(&text).unwrap();
        assert_eq!(back.iter().collect::<Vec<_>>(), [3.0, 4.0, f64::INFINITY]);
        assert_eq!(back.pop(), 3.0);
        assert_eq!(back.len(), 2);
    }

    /// Bits come back in order, the oldest falls out, and a position stays valid while kept.
    #[test]
    fn bit_ring_wraps() {
        let mut r = BitRing::new(70);
        let bit = |i: u64| i.is_multiple_of(3);
        for i in 0..200 {
            let fell = r.push(bit(i));
            assert_eq!(fell, (i >= 70).then(|| bit(i.saturating_sub(70))));
        }
        for p in r.first()..r.end() {
            assert_eq!(r.get(p), bit(p));
        }
        r.keep_from(190);
        assert_eq!(r.len(), 10);
    }

    /// A record that was damaged is refused rather than read out of bounds.
    #[test]
    fn damaged_state_is_refused() {
        assert!(serde_json::from_str::<Ring>(r#"{"capacity":1,"items":[0,0]}"#).is_err());
        assert!(serde_json::from_str::<Ring>(r#"{"capacity":0,"items":[]}"#).is_err());
        let bits = r#"{"capacity":128,"words":[0],"first":0,"end":0}"#;
        assert!(serde_json::from_str::<BitRing>(bits).is_err());
    }
}
