//! How often `compare` cries wolf: comparisons in which nothing has changed, on many kinds of column, and
//! the share of them in which any column at all is called drifted. The promise is 1 in 100.
//!
//! ```text
//! cargo run -p driftline-drift --example compare_null [-- COMPARISONS [ROWS…]]
//! ```
//!
//! Both sides are drawn from the same law with a fixed seed per cell. Wilson's interval stands beside each
//! share; a cell fails, and with it the example, when the whole interval lies above 1 %.

use std::process::ExitCode;

use driftline_drift::compare::{
    Binned, Categories, Column, Cuts, Definitions, Numbers, Plan, Reservoir, Running, Sides,
    Values, judge,
};
use driftline_drift::performance::wilson;
use driftline_drift::random::Random;

/// A kind of column: what one row of it is, `None` being a missing value.
type Draw = fn(&mut Random) -> Option<f64>;

/// Name, draw, whether the numbers are codes of categories.
const FAMILIES: [(&str, Draw, bool); 9] = [
    ("normal", |r| Some(r.normal()), false),
    (
        "heavy tails (Cauchy)",
        |r| Some(r.normal() / r.normal()),
        false,
    ),
    (
        "skewed (log-normal)",
        |r| Some((2.0 * r.normal()).exp()),
        false,
    ),
    (
        "rounded to 0.5",
        |r| Some((r.normal() * 2.0).round() / 2.0),
        false,
    ),
    (
        "mostly zero (95 %)",
        |r| Some(if r.uniform() < 0.95 { 0.0 } else { r.normal() }),
        false,
    ),
    (
        "two values, 2 % ones",
        |r| Some(f64::from(u8::from(r.uniform() < 0.02))),
        false,
    ),
    (
        "20 % missing",
        |r| (r.uniform() > 0.2).then(|| r.normal()),
        false,
    ),
    ("5 categories", |r| Some((r.uniform() * 5.0).floor()), true),
    (
        "categories by Zipf's law",
        |r| Some((1.0 / r.uniform()).floor().min(500.0)),
        true,
    ),
];

/// Values that the command line keeps of a column and side; with more it counts in bins, and so does
/// this.
const SAMPLE_VALUES: usize = 10_000;

fn numbers(values: Sides<Vec<f64>>) -> Values {
    if values.reference.len().max(values.current.len()) > SAMPLE_VALUES {
        let samples = values.as_ref().map(|values| {
            let mut sample = Reservoir::new(SAMPLE_VALUES);
            sample.extend(values);
            sample
        });
        let cuts = Cuts::new(Sides::new(
            samples.reference.values(),
            samples.current.values(),
        ));
        let binned = values.as_ref().map(|values| {
            let mut binned = Binned::new(&cuts);
            binned.extend(&cuts, values);
            binned
        });
        let moments = values.as_ref().map(|values| {
            let mut running = Running::default();
            running.extend(values);
            running.moments()
        });
        return Values::Numbers(Numbers::of_bins(&cuts, binned.as_ref(), moments));
    }
    // Drawn finite, so none is refused.
    match Numbers::of_values(values.reference, values.current) {
        Ok(numbers) => Values::Numbers(numbers),
        Err(_) => Values::Categories(Categories::default()),
    }
}

fn column(draw: Draw, is_category: bool, rows: Sides<usize>, random: &mut Random) -> Column {
    let drawn = rows.map(|rows| (0..rows).map(|_| draw(random)).collect::<Vec<_>>());
    let values = drawn
        .as_ref()
        .map(|it| it.iter().flatten().copied().collect::<Vec<f64>>());
    let missing = drawn
        .as_ref()
        .map(|it| it.iter().filter(|x| x.is_none()).count() as u64);
    let values = if is_category {
        let count = |values: &Vec<f64>| {
            let mut counts = vec![0_u64; 501];
            values.iter().for_each(|code| counts[*code as usize] += 1);
            counts
        };
        Values::Categories(Categories {
            names: (0..=500).map(|i| i.to_string()).collect(),
            counts: values.as_ref().map(count),
            codes: None,
        })
    } else {
        numbers(values)
    };
    Column {
        name: "x".to_owned(),
        rows: rows.map(|rows| rows as u64),
        missing,
        not_finite: Sides::default(),
        values,
    }
}

/// Comparisons, of so many, in which anything is called drifted.
fn alarms(
    families: &[usize],
    columns: usize,
    rows: Sides<usize>,
    comparisons: u64,
    rate: f64,
) -> u64 {
    let plan = Plan {
        methods: Vec::new(),
        definitions: Definitions::Native,
        false_alarm_rate: rate,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let work = |thread: u64| {
        let mut random = Random::new(
            thread << 40 ^ (rows.current as u64) << 20 ^ (columns * 31 + families[0]) as u64,
        );
        let mut alarms = 0;
        for _ in (thread..comparisons).step_by(threads as usize) {
            let table: Vec<Column> = (0..columns)
                .map(|at| {
                    let (_, draw, is_category) = FAMILIES[families[at % families.len()]];
                    column(draw, is_category, rows, &mut random)
                })
                .collect();
            let answers = judge(&table.iter().collect::<Vec<_>>(), &plan);
            let any = answers.is_ok_and(|answers| answers.iter().flatten().any(|m| m.drifted));
            alarms += u64::from(any);
        }
        alarms
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(0))
            .sum()
    })
}

fn row(
    name: &str,
    families: &[usize],
    columns: usize,
    rows: Sides<usize>,
    comparisons: u64,
) -> bool {
    let found = alarms(families, columns, rows, comparisons, 0.01);
    let share = found as f64 / comparisons as f64;
    let bounds = wilson(found, comparisons, 0.95, 1.0);
    let (low, high) = bounds.map_or((0.0, 1.0), |it| (it.low, it.high));
    let holds = low <= 0.01;
    println!(
        "| {name} | {columns} | {} : {} | {comparisons} | {:.2} % | {:.2} to {:.2} % | {} |",
        rows.reference,
        rows.current,
        100.0 * share,
        100.0 * low,
        100.0 * high,
        if holds { "holds" } else { "TOO MANY" }
    );
    holds
}

fn main() -> ExitCode {
    let arguments: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|it| it.parse().ok())
        .collect();
    let comparisons = arguments.first().copied().unwrap_or(2_000);
    let mut sizes: Vec<usize> = arguments.iter().skip(1).map(|it| *it as usize).collect();
    if sizes.is_empty() {
        sizes = vec![50, 200, 1_000];
    }
    println!(
        "| columns of | columns | rows | comparisons | any called drifted | 95 % interval | 1 in 100 |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut all = true;
    let everything: Vec<usize> = (0..FAMILIES.len()).collect();
    for rows in sizes {
        let equal = Sides::new(rows, rows);
        for (at, (name, _, _)) in FAMILIES.iter().enumerate() {
            for columns in [1, 10] {
                all &= row(name, &[at], columns, equal, comparisons);
            }
        }
        all &= row("all of these", &everything, 100, equal, comparisons);
        // A small present against a large reference is what skews a null most.
        all &= row(
            "all of these",
            &everything,
            100,
            Sides::new(20 * rows, rows),
            comparisons / 4,
        );
    }
    ExitCode::from(u8::from(!all))
}
