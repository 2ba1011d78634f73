//! Floating numbers written as their 64 bits.
//!
//! A restored detector must go on bit for bit, in any format: decimal text may lose the last bit
//! and JSON has no infinity, so a number travels as the integer that holds its bits.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes the bits of `x`.
pub fn serialize<S: Serializer>(x: &f64, s: S) -> Result<S::Ok, S::Error> {
    x.to_bits().serialize(s)
}

/// Reads what [`serialize`] wrote.
pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    u64::deserialize(d).map(f64::from_bits)
}

/// The same for a list of numbers.
pub mod list {
    use super::{Deserialize, Deserializer, Serializer};

    /// Writes the bits of each number.
    pub fn serialize<S: Serializer>(xs: &[f64], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(xs.iter().map(|x| x.to_bits()))
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
        let raw = Vec::<u64>::deserialize(d)?;
        Ok(raw.into_iter().map(f64::from_bits).collect())
    }
}
