//! What the profile stage appends: partial profiles, and how far time has come.

use super::codec::{Reader, put_varint};
use super::{CellProfile, Profile, ProfileError, ProfileKey};
use crate::limits::RECORD_BYTES_MAX;

/// Version of the encoding that this code writes.
pub const PROFILE_BATCH_FORMAT: u8 = 1;
const MAGIC: &[u8; 4] = b"DLPB";
/// Most cells of one record; a step with more of them appends several records.
pub const PROFILE_BATCH_CELLS_MAX: usize = 65_536;

/// One record of the profiles topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileBatch {
    /// Input partition that this comes from.
    pub input_partition: u32,
    /// Event time that this input partition has come to, microseconds: all that the gateway
    /// received before then is in this record or an earlier one. It says when to judge, never what
    /// counts.
    pub watermark_us: i64,
    /// Partial profiles; a key may occur in any number of records, which merge.
    pub cells: Vec<CellProfile>,
}

impl ProfileBatch {
    /// The bytes: `"DLPB" format:u8 partition watermark n { key-length { JSON key } profile }*n`,
    /// numbers as varints.
    pub fn encode(&self) -> Vec<u8> {
        let mut cells = Vec::new();
        let mut profile = Vec::new();
        for cell in &self.cells {
            profile.clear();
            cell.profile.encode_to(&mut profile);
            encode_cell(&mut cells, &cell.key, &profile);
        }
        Self::encode_parts(
            self.input_partition,
            self.watermark_us,
            self.cells.len(),
            &cells,
        )
    }

    /// As [`Self::encode`], from `count` cells that [`encode_cell`] put one after the other.
    pub fn encode_parts(
        input_partition: u32,
        watermark_us: i64,
        count: usize,
        cells: &[u8],
    ) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(PROFILE_BATCH_FORMAT);
        put_varint(&mut out, input_partition.into());
        super::codec::put_signed(&mut out, watermark_us.into());
        put_varint(&mut out, count as u128);
        out.extend_from_slice(cells);
        out
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`ProfileError::Bytes`] names the offset.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProfileError> {
        let mut reader = Reader::new(bytes);
        if reader.take(4)? != MAGIC || reader.byte()? != PROFILE_BATCH_FORMAT {
            return Err(reader.error("not a profile batch of a version that is known"));
        }
        let input_partition =
            u32::try_from(reader.varint()?).map_err(|_| reader.error("partition does not fit"))?;
        let watermark_us =
            i64::try_from(reader.signed()?).map_err(|_| reader.error("watermark does not fit"))?;
        let cells = (0..reader.count(PROFILE_BATCH_CELLS_MAX)?)
            .map(|_| {
                let length = reader.count(RECORD_BYTES_MAX)?;
                let key: ProfileKey = serde_json::from_slice(reader.take(length)?)
                    .map_err(|_| reader.error("the key is not the JSON that it should be"))?;
                let profile = Profile::decode(&mut reader)?;
                Ok(CellProfile { key, profile })
            })
            .collect::<Result<_, ProfileError>>()?;
        Ok(Self {
            input_partition,
            watermark_us,
            cells,
        })
    }
}

/// Appends one cell of a batch; `profile` is an encoded [`Profile`], as aggregations give it.
pub fn encode_cell(out: &mut Vec<u8>, key: &ProfileKey, profile: &[u8]) {
    // Strings and numbers always have a JSON form.
    let key = serde_json::to_vec(key).unwrap_or_default();
    put_varint(out, key.len() as u128);
    out.extend_from_slice(&key);
    out.extend_from_slice(profile);
}
