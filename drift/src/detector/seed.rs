//! SEED: ADWIN's test on blocks of equal size, with neighbours that look alike merged.
//!
//! Huang, Koh, Dobbie and Pears, "Detecting volatility shift in data streams", ICDM 2014. Values
//! fill blocks of `block_size`; each full block is tried as a boundary with ADWIN's bound, newest
//! first, and at the first that differs everything older goes. Every `compress_term` blocks,
//! neighbours whose means differ by less than i · `epsilon_prime` · `alpha` (i counts back from the
//! newest) become one.
//!
//! MOA adds the value to the sum before it takes its deviation from "the mean before"; driftline
//! does not, which changes the variance by O(mean²/n).

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

/// Blocks kept at most. Reached only by streams so rough that nothing merges: then the two oldest
/// become one, which bounds memory (24 KiB) and the work of a search.
const BLOCKS_MAX: usize = 1024;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::number(
        "delta",
        0.05,
        Domain::Open(0.0, 1.0),
        "confidence of a split: smaller means fewer alarms",
    ),
    Parameter::count("block_size", 32, 2, 1 << 20, "values in a block"),
    Parameter::number(
        "epsilon_prime",
        0.01,
        Domain::Closed(0.0, f64::MAX),
        "difference of means of neighbours that are alike",
    ),
    Parameter::number(
        "alpha",
        0.8,
        Domain::Closed(0.0, f64::MAX),
        "growth of that difference with age",
    ),
    Parameter::count(
        "compress_term",
        75,
        1,
        BLOCKS_MAX as u64,
        "new blocks between two rounds of merging",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Block {
    n: u64,
    #[serde(with = "bits")]
    total: f64,
    #[serde(with = "bits")]
    deviation: f64,
}

impl Block {
    fn mean(&self) -> f64 {
        self.total / self.n as f64
    }

    fn absorb(&mut self, other: &Self) {
        self.n += other.n;
        self.total += other.total;
        self.deviation += other.deviation;
    }
}

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Seed {
    #[serde(with = "bits")]
    delta: f64,
    block_size: u64,
    #[serde(with = "bits")]
    epsilon_step: f64,
    compress_term: u64,
    moa: bool,
    /// Oldest first; the last may be filling.
    blocks: Vec<Block>,
    since_compress: u64,
    seen: u64,
    width: u64,
    #[serde(with = "bits")]
    total: f64,
    #[serde(with = "bits")]
    deviation: f64,
}

impl Seed {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        let mut d = Self {
            delta: p.number("delta"),
            block_size: p.count("block_size"),
            epsilon_step: p.number("epsilon_prime") * p.number("alpha"),
            compress_term: p.count("compress_term"),
            moa: p.moa(),
            blocks: Vec::new(),
            since_compress: 0,
            seen: 0,
            width: 0,
            total: 0.0,
            deviation: 0.0,
        };
        d.reset();
        Ok(d)
    }

    fn compress(&mut self) {
        let mut epsilon = 0.0;
        let last = self.blocks.len() - 1;
        for i in (1..=last).rev() {
            epsilon += self.epsilon_step;
            let (newer, older) = (self.blocks[i], self.blocks[i - 1]);
            if (older.mean() - newer.mean()).abs() < epsilon {
                self.blocks[i - 1].absorb(&newer);
                self.blocks.remove(i);
            }
        }
    }

    fn open_block(&mut self) {
        if self.blocks.len() > 1 && self.since_compress > self.compress_term {
            self.since_compress = 0;
            self.compress();
        }
        if self.blocks.len() == BLOCKS_MAX {
            let second = self.blocks.remove(1);
            self.blocks[0].absorb(&second);
        }
        self.blocks.push(Block::default());
        self.since_compress += 1;
    }

    fn insert(&mut self, x: f64) {
        if self.blocks.last().is_none_or(|b| b.n == self.block_size) {
            self.open_block();
        }
        let before = self.total;
        self.total += x;
        self.width += 1;
        let mut deviation = 0.0;
        if self.width >= 2 {
            let n = (self.width - 1) as f64;
            let off = x - if self.moa { self.total } else { before } / n;
            deviation = n * off * off / self.width as f64;
            self.deviation += deviation;
        }
        let last = self.blocks.len() - 1;
        let block = &mut self.blocks[last];
        block.n += 1;
        block.total += x;
        block.deviation += deviation;
    }

    /// The newest boundary at which the two sides differ, as the index of the block after it.
    fn split(&self) -> Option<usize> {
        let n = self.width as f64;
        let d = (2.0 * n.ln() / self.delta).ln();
        let variance = self.deviation / n;
        let (mut n0, mut u0) = (n, self.total);
        let (mut n1, mut u1) = (0.0, 0.0);
        for (i, block) in self.blocks.iter().enumerate().skip(1).rev() {
            n0 -= block.n as f64;
            n1 += block.n as f64;
            u0 -= block.total;
            u1 += block.total;
            let m = 1.0 / n0 + 1.0 / n1;
            let epsilon = (2.0 * m * variance * d).sqrt() + 2.0 / 3.0 * d * m;
            if (u1 / n1 - u0 / n0).abs() > epsilon {
                return Some(i);
            }
        }
        None
    }
}

impl Detector for Seed {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.insert(x);
        self.seen += 1;
        if !self.seen.is_multiple_of(self.block_size) || self.blocks.len() < 2 {
            return Verdict::Stable;
        }
        let Some(at) = self.split() else {
            return Verdict::Stable;
        };
        for block in self.blocks.drain(..at).rev() {
            self.width -= block.n;
            self.total -= block.total;
            self.deviation -= block.deviation;
        }
        Verdict::Drift
    }

    fn reset(&mut self) {
        self.blocks.clear();
        self.blocks.push(Block::default());
        self.since_compress = 0;
        self.seen = 0;
        self.width = 0;
        self.total = 0.0;
        self.deviation = 0.0;
    }
}
