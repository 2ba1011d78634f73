//! Measures as they stand in their topic: one record is a JSON array of the measures of one model
//! version and window, in parts when they are many.

use driftline_schemas::measure::Measure;

/// Most measures of one record: at about 600 bytes each this stays well below the largest record.
pub const MEASURES_PER_RECORD_MAX: usize = 4_096;

/// The values of the records for measures, in order.
pub fn encode(measures: &[Measure]) -> Vec<Vec<u8>> {
    measures
        .chunks(MEASURES_PER_RECORD_MAX)
        // Strings and numbers always have a JSON form; what is not finite becomes null.
        .map(|part| serde_json::to_vec(part).unwrap_or_default())
        .collect()
}

/// Reads the value of one record.
///
/// # Errors
/// When it is not a JSON array of measures.
pub fn decode(bytes: &[u8]) -> Result<Vec<Measure>, serde_json::Error> {
    serde_json::from_slice(bytes)
}
