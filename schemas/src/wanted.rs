//! Looking for many identities among many more.
//!
//! Labels come days after their inferences, tens of thousands at a time, and are looked for among
//! millions of rows of the lake, where identities are text. This is the loop over those rows.

use arrow::array::{Array, BooleanArray, BooleanBufferBuilder, StringArray};

/// Bits of the filter that most rows fail at: 2 MiB, which fits in a cache.
const FILTER_BITS: usize = 24;

/// A set of identities of inferences ([`crate::source::inference_id`]).
#[derive(Debug, Clone)]
pub struct WantedIds {
    /// Rising, each once.
    ids: Vec<u128>,
    filter: Vec<u64>,
}

impl WantedIds {
    /// The set of some identities.
    pub fn new(ids: impl IntoIterator<Item = u128>) -> Self {
        let mut ids: Vec<u128> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let mut filter = vec![0u64; (1 << FILTER_BITS) / 64];
        for id in &ids {
            let at = low_bits(*id);
            filter[at / 64] |= 1 << (at % 64);
        }
        Self { ids, filter }
    }

    /// The identities, rising.
    pub fn ids(&self) -> &[u128] {
        &self.ids
    }

    /// Whether an identity is in the set.
    pub fn contains(&self, id: u128) -> bool {
        let at = low_bits(id);
        self.filter[at / 64] & (1 << (at % 64)) != 0 && self.ids.binary_search(&id).is_ok()
    }

    /// Whether any identity of the set lies between two, both included.
    pub fn any_between(&self, low: u128, high: u128) -> bool {
        let at = self.ids.partition_point(|id| *id < low);
        self.ids.get(at).is_some_and(|id| *id <= high)
    }

    /// Which rows of a column of identities, as text, are in the set. Rows that are no identity are
    /// not.
    pub fn mask(&self, texts: &StringArray) -> BooleanArray {
        let mut mask = BooleanBufferBuilder::new(texts.len());
        for row in 0..texts.len() {
            let id = texts.is_valid(row).then(|| parse_id(texts.value(row)));
            mask.append(id.flatten().is_some_and(|id| self.contains(id)));
        }
        BooleanArray::new(mask.finish(), None)
    }
}

fn low_bits(id: u128) -> usize {
    (id as usize) & ((1 << FILTER_BITS) - 1)
}

/// Reads the text form of an identity, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in lower or upper
/// case; `None` for anything else.
pub fn parse_id(text: &str) -> Option<u128> {
    let bytes: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut id = 0u128;
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return None,
        };
        id = (id << 4) | u128::from(digit);
    }
    Some(id)
}

/// The least (`low`) or greatest identity whose text begins like this: statistics of files cut long
/// texts. `None` when no identity begins so.
pub fn parse_bound(text: &str, low: bool) -> Option<u128> {
    const FORM: &[u8; 36] = b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    let text = text.as_bytes();
    let fill = if low { b'0' } else { b'f' };
    let whole: Vec<u8> = FORM
        .iter()
        .enumerate()
        .map(|(at, form)| match (text.get(at), form) {
            (Some(byte), _) => *byte,
            (None, b'-') => b'-',
            (None, _) => fill,
        })
        .collect();
    parse_id(std::str::from_utf8(&whole).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::inference_id_text;
    use proptest::prelude::*;

    proptest! {
        /// Text and number say the same, and the mask picks what a plain search picks.
        #[test]
        fn the_mask_is_what_a_search_finds(
            wanted in prop::collection::vec(any::<u128>(), 0..50),
            others in prop::collection::vec(any::<u128>(), 0..50),
        ) {
            let set = WantedIds::new(wanted.iter().copied());
            let all: Vec<u128> = wanted.iter().chain(&others).copied().collect();
            let mut texts: Vec<Option<String>> =
                all.iter().map(|id| Some(inference_id_text(*id))).collect();
            texts.push(None);
            texts.push(Some("no identity".into()));
            let mask = set.mask(&StringArray::from(texts));
            for (row, id) in all.iter().enumerate() {
                prop_assert_eq!(parse_id(&inference_id_text(*id)), Some(*id));
                prop_assert_eq!(mask.value(row), wanted.contains(id));
            }
            prop_assert_eq!(mask.true_count(), all.iter().filter(|id| wanted.contains(id)).count());
        }

        /// Bounds that were cut anywhere still enclose the identity.
        #[test]
        fn cut_bounds_enclose(id in any::<u128>(), cut in 0usize..=36) {
            let text = &inference_id_text(id)[..cut];
            let (low, high) = (parse_bound(text, true).unwrap(), parse_bound(text, false).unwrap());
            prop_assert!(low <= id && id <= high);
            prop_assert!(WantedIds::new([id]).any_between(low, high));
        }
    }

    #[test]
    fn ranges_include_their_ends() {
        let set = WantedIds::new([5, 9]);
        assert!(set.any_between(9, 12) && set.any_between(1, 5) && set.any_between(5, 5));
        assert!(!set.any_between(6, 8) && !set.any_between(10, 99));
        assert!(set.contains(5) && !set.contains(6));
        assert_eq!(parse_bound("zz", true), None);
    }
}
