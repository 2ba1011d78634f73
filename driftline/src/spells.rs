//! From what was said of findings to the spells in which they held.

use std::collections::BTreeMap;

/// One statement of a finding, as its table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) key: String,
    pub(crate) state: String,
    /// The window that it is about.
    pub(crate) start_us: i64,
    pub(crate) end_us: i64,
}

/// A finding from when it opened to when it had recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spell {
    /// Start of the first window.
    pub(crate) from_us: i64,
    /// End of the last one; the largest number while it holds.
    pub(crate) to_us: i64,
    /// Late data showed that it never held.
    pub(crate) is_refuted: bool,
}

/// The spells of findings, from statements in the order of windows and revisions: of each key and window
/// the last word counts.
pub(crate) fn spells(said: &[Said]) -> Vec<Spell> {
    let mut last: BTreeMap<(&str, i64), &Said> = BTreeMap::new();
    for it in said {
        last.insert((&it.key, it.start_us), it);
    }
    let mut all = Vec::new();
    // What is open of a key, and whether all that was said of it is refuted.
    let mut open: BTreeMap<&str, Spell> = BTreeMap::new();
    for ((key, start_us), it) in last {
        let new = Spell {
            from_us: start_us,
            to_us: i64::MAX,
            is_refuted: it.state == "refuted",
        };
        match (
            it.state.as_str(),
            open.get(key).map(|spell| spell.is_refuted),
        ) {
            // A refuted one ends where it holds in truth.
            ("drifted", Some(true)) => all.extend(open.insert(key, new)),
            (_, None) if it.state != "recovered" => {
                open.insert(key, new);
            }
            ("recovered", Some(false)) => all.extend(open.remove(key).map(|spell| Spell {
                to_us: it.end_us,
                ..spell
            })),
            _ => {}
        }
    }
    all.extend(open.into_values());
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(start_us: i64, key: &str, state: &str) -> Said {
        Said {
            key: key.into(),
            state: state.into(),
            start_us,
            end_us: start_us + 1,
        }
    }

    /// From drifted to recovered, with updates between; without an end while it holds; refuted when the
    /// last word on all of its windows is that it never was.
    #[test]
    fn a_finding_holds_from_the_first_word_to_the_last() {
        let all = spells(&[
            said(1, "a", "drifted"),
            said(2, "b", "drifted"),
            said(2, "b", "refuted"),
            said(3, "a", "drifted"),
            said(3, "b", "drifted"),
            said(3, "b", "refuted"),
            said(5, "a", "recovered"),
            said(7, "c", "drifted"),
            said(8, "b", "drifted"),
            said(9, "a", "drifted"),
        ]);
        let spell = |from_us, to_us, is_refuted| Spell {
            from_us,
            to_us,
            is_refuted,
        };
        let holds = i64::MAX;
        assert_eq!(
            all,
            [
                spell(1, 6, false),
                spell(2, holds, true),
                spell(7, holds, false),
                spell(8, holds, false),
                spell(9, holds, false),
            ]
        );
        assert!(spells(&[said(1, "a", "recovered")]).is_empty());
    }
}
