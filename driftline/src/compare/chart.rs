//! Pictures of a column: both sides as bars beside one another, as SVG.

use std::fmt::Write as _;

use driftline_drift::compare::{Categories, Column, Numbers, Sides, Values};

use super::answer::digits;

/// Bars of numbers: fewer where there are few rows, for bars of a row each show noise.
const BARS_MIN: usize = 8;
const BARS_MAX: usize = 32;
/// Distinct values up to which each has its bars.
const VALUES_MAX: usize = 24;
/// Categories shown; the rest are one more.
const CATEGORIES_MAX: usize = 20;
/// Share of the rows that may lie outside of the picture on each side, so that one garbage value does
/// not flatten it.
const OUTSIDE: f64 = 0.005;

/// A bar of each side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bar {
    /// What the bar stands for.
    pub(super) label: String,
    /// Share of each side's values.
    pub(super) share: Sides<f64>,
}

/// Bars, and what they leave out.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Bars {
    pub(super) bars: Vec<Bar>,
    /// Share of both sides' values that lie outside.
    pub(super) outside: f64,
}

/// The bars of a column; none where it has no values.
pub(super) fn bars(column: &Column) -> Bars {
    match &column.values {
        Values::Numbers(numbers) => of_numbers(numbers),
        Values::Categories(categories) => of_categories(categories),
    }
}

fn shares(counts: Sides<f64>, rows: Sides<f64>) -> Sides<f64> {
    let share = |count: f64, rows: f64| if rows > 0.0 { count / rows } else { 0.0 };
    Sides::new(
        share(counts.reference, rows.reference),
        share(counts.current, rows.current),
    )
}

fn of_categories(categories: &Categories) -> Bars {
    let (r, c) = (&categories.counts.reference, &categories.counts.current);
    let rows = Sides::new(r.iter().sum::<u64>() as f64, c.iter().sum::<u64>() as f64);
    let mut all: Vec<(Sides<f64>, &String)> = categories
        .names
        .iter()
        .enumerate()
        .map(|(at, name)| (shares(Sides::new(r[at] as f64, c[at] as f64), rows), name))
        .collect();
    all.sort_by(|a, b| (b.0.reference + b.0.current).total_cmp(&(a.0.reference + a.0.current)));
    let rest = all.split_off(all.len().min(CATEGORIES_MAX));
    let mut bars: Vec<Bar> = all
        .into_iter()
        .map(|(share, name)| Bar {
            label: name.clone(),
            share,
        })
        .collect();
    if !rest.is_empty() {
        bars.push(Bar {
            label: format!("{} others", rest.len()),
            share: Sides::new(
                rest.iter().map(|it| it.0.reference).sum(),
                rest.iter().map(|it| it.0.current).sum(),
            ),
        });
    }
    Bars { bars, outside: 0.0 }
}

fn of_numbers(numbers: &Numbers) -> Bars {
    let (r, c) = (&numbers.counts.reference, &numbers.counts.current);
    let rows = Sides::new(r.iter().sum::<u64>() as f64, c.iter().sum::<u64>() as f64);
    let filled: Vec<usize> = (0..numbers.points.len())
        .filter(|at| r[*at] + c[*at] > 0)
        .collect();
    if filled.len() <= VALUES_MAX {
        let bar = |at: &usize| Bar {
            label: digits(numbers.points[*at]),
            share: shares(Sides::new(r[*at] as f64, c[*at] as f64), rows),
        };
        return Bars {
            bars: filled.iter().map(bar).collect(),
            outside: 0.0,
        };
    }
    let (low, high) = inner(numbers, &filled);
    let fewer = rows.reference.min(rows.current);
    let many = ((1.3 * fewer.sqrt()) as usize).clamp(BARS_MIN, BARS_MAX);
    let width = (high - low) / many as f64;
    let mut counts = vec![Sides::<f64>::default(); many];
    let mut outside = 0.0;
    for at in filled {
        let place = ((numbers.points[at] - low) / width).floor();
        if !(-1e-9..=many as f64 + 1e-9).contains(&place) {
            outside += (r[at] + c[at]) as f64;
            continue;
        }
        let bar = &mut counts[(place.max(0.0) as usize).min(many - 1)];
        bar.reference += r[at] as f64;
        bar.current += c[at] as f64;
    }
    let bars = counts.into_iter().enumerate().map(|(at, counts)| {
        let from = low + width * at as f64;
        Bar {
            label: format!("{} to {}", digits(from), digits(from + width)),
            share: shares(counts, rows),
        }
    });
    Bars {
        bars: bars.collect(),
        outside: outside / (rows.reference + rows.current),
    }
}

/// The range that all but [`OUTSIDE`] of either side's values lie in, on each end.
fn inner(numbers: &Numbers, filled: &[usize]) -> (f64, f64) {
    let end = |counts: &Vec<u64>, order: &[usize]| {
        let most = counts.iter().sum::<u64>() as f64 * OUTSIDE;
        let mut passed = 0.0;
        let found = order.iter().find(|at| {
            passed += counts[**at] as f64;
            passed > most
        });
        found.map(|at| numbers.points[*at])
    };
    let backwards: Vec<usize> = filled.iter().rev().copied().collect();
    let sides = numbers.counts.as_ref();
    let lows = sides.map(|counts| end(counts, filled));
    let highs = sides.map(|counts| end(counts, &backwards));
    let of = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| match (a, b) {
        (Some(a), Some(b)) => pick(a, b),
        (a, b) => a.or(b).unwrap_or(0.0),
    };
    let low = of(lows.reference, lows.current, f64::min);
    let high = of(highs.reference, highs.current, f64::max);
    match high > low {
        true => (low, high),
        false => (low - 0.5, low + 0.5),
    }
}

/// Draws bars `width` by `height`; titles appear where the pointer rests when `titled`.
pub(super) fn svg(bars: &Bars, width: f64, height: f64, titled: bool) -> String {
    let top = bars
        .bars
        .iter()
        .map(|bar| bar.share.reference.max(bar.share.current));
    let top = top.fold(0.0, f64::max).max(1e-12);
    let slot = width / bars.bars.len().max(1) as f64;
    let thick = slot * 0.42;
    let mut out = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" preserveAspectRatio=\"none\" aria-label=\"shares of reference and current\">"
    );
    let (mut reference, mut current) = (String::new(), String::new());
    for (at, bar) in bars.bars.iter().enumerate() {
        let left = slot * at as f64 + slot * 0.08;
        for (path, share, left) in [
            (&mut reference, bar.share.reference, left),
            (&mut current, bar.share.current, left + thick),
        ] {
            let tall = share / top * (height - 1.0);
            if tall > 0.0 {
                // Writing to a String cannot fail.
                let _ = write!(path, "M{left:.1} {height}v-{tall:.1}h{thick:.1}V{height}z");
            }
        }
    }
    let _ = write!(
        out,
        "<path class=\"r\" d=\"{reference}\"/><path class=\"c\" d=\"{current}\"/>"
    );
    for (at, bar) in bars.bars.iter().enumerate().filter(|_| titled) {
        let _ = write!(
            out,
            "<rect class=\"hit\" x=\"{:.1}\" width=\"{slot:.1}\" height=\"{height}\"><title>{}\nreference {:.2} %\ncurrent {:.2} %</title></rect>",
            slot * at as f64,
            escape(&bar.label),
            100.0 * bar.share.reference,
            100.0 * bar.share.current
        );
    }
    out.push_str("</svg>");
    out
}

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One garbage value leaves the picture of the others alone, and is said to be outside.
    #[test]
    fn garbage_lies_outside() {
        let mut values: Vec<f64> = (0..1000).map(f64::from).collect();
        let clean = Numbers::of_values(values.clone(), values.clone()).unwrap();
        // In place of the largest, so that the ends of the others stay.
        values[999] = 1e12;
        let dirty = Numbers::of_values(values.clone(), values).unwrap();
        let (clean, dirty) = (of_numbers(&clean), of_numbers(&dirty));
        assert_eq!(clean.bars[5].label, dirty.bars[5].label);
        assert!(
            dirty.outside > 0.0 && dirty.outside < 0.02,
            "{}",
            dirty.outside
        );
        let sum: f64 = clean.bars.iter().map(|bar| bar.share.current).sum();
        assert!((sum + clean.outside - 1.0).abs() < 1e-9);
    }

    /// Many categories end in one bar for the rest; names cannot break out of the page.
    #[test]
    fn names_are_text() {
        let categories = Categories {
            names: (0..40).map(|i| format!("<b>{i}")).collect(),
            counts: Sides::new(vec![1; 40], vec![2; 40]),
            codes: None,
        };
        let bars = of_categories(&categories);
        assert_eq!(bars.bars.len(), 21);
        assert_eq!(bars.bars[20].label, "20 others");
        assert!(!svg(&bars, 100.0, 20.0, true).contains("<b>"));
    }
}
