//! Many tests at once: the chance of any false one among them.

/// A test's fate in a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member {
    /// The level that its p-value was held against.
    pub level: f64,
    /// Whether it was at or below that level.
    pub rejected: bool,
}

/// Holm's step-down procedure ("A simple sequentially rejective multiple test procedure", Scand. J.
/// Statist. 6, 1979): whatever the dependence among the tests, the chance that any true null
/// hypothesis is rejected is at most `rate`. In the order of the p-values given.
#[must_use]
pub fn holm(p_values: &[f64], rate: f64) -> Vec<Member> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut members = vec![
        Member {
            level: rate,
            rejected: false
        };
        p_values.len()
    ];
    let (mut level, mut going) = (rate, true);
    for (before, at) in order.into_iter().enumerate() {
        if going {
            level = rate / (p_values.len() - before) as f64;
            going = p_values[at] <= level;
        }
        members[at] = Member {
            level,
            rejected: going,
        };
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holm's own shape of example: levels grow as hypotheses are rejected, and stop at the first that is
    /// not.
    #[test]
    fn steps_down_until_one_stands() {
        let members = holm(&[0.04, 0.001, 0.03, 0.012], 0.05);
        let rejected: Vec<bool> = members.iter().map(|it| it.rejected).collect();
        assert_eq!(rejected, [false, true, false, true]);
        assert_eq!(members[1].level, 0.05 / 4.0);
        assert_eq!(members[3].level, 0.05 / 3.0);
        assert_eq!(members[2].level, 0.05 / 2.0);
        assert_eq!(members[0].level, 0.05 / 2.0, "where it stopped");
        assert!(holm(&[], 0.05).is_empty());
    }
}
