//! Floats that come back from JSON bit by bit: as the integer of their bits. For `#[serde(with)]` on
//! state that a fold goes on from, where a last digit would show after a restart.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes the bits.
///
/// # Errors
/// The serialiser's.
pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_bits().serialize(serializer)
}

/// Reads the bits.
///
/// # Errors
/// The deserialiser's.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    u64::deserialize(deserializer).map(f64::from_bits)
}
