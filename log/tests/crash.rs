//! Kills a process that appends and runs a stage, at failpoints chosen by a seed, and checks what
//! the log holds when it is opened again: every acknowledged record is there once and in order, and
//! the stage has counted each record once, in its outputs and in its state.
//!
//! The process that is killed is this program itself, started again with `CRASH_FOLDER` set.
//! `CRASH_SEED=n` replays one seed. The embedded log is always tested, Kafka when
//! `DRIFTLINE_KAFKA=host:port` is set (see `tests/kafka/start`).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use driftline_log::embedded::{EmbeddedLog, EmbeddedOptions};
use driftline_log::kafka::{KafkaLog, KafkaOptions};
use driftline_log::runner::{Runner, Stage, StageError, StepInput, StepOutput};
use driftline_log::{
    Assignment, Log, LogError, Output, ReadLimits, StageSpec, StateDelta, TopicSpec, failpoint,
};
use driftline_schemas::clock::ManualClock;

const PARTITIONS: u32 = 2;
/// Records per partition when everything is done.
const RECORDS: u64 = 40;
/// Crashes of one seed before the process is left alone.
const CRASHES: usize = 4;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Appends what is missing of 0, 1, 2, … to each partition, and says what was acknowledged.
fn append(log: &dyn Log) -> Result<(), LogError> {
    let mut appender = log.appender("crash")?;
    let mut written = BTreeMap::new();
    for partition in 0..PARTITIONS {
        written.insert(
            partition,
            numbers(log, "in", partition)?
                .last()
                .map_or(0, |last| last + 1),
        );
    }
    while written.values().any(|next| *next < RECORDS) {
        for (partition, next) in &mut written {
            let upto = RECORDS.min(*next + 3);
            let batch = (*next..upto).map(|n| output("in", *partition, n)).collect();
            appender.append(batch)?;
            *next = upto;
            // A pipe keeps what was written to it when the writer dies.
            let _ = writeln!(std::io::stdout(), "{partition} {upto}");
        }
    }
    Ok(())
}

fn output(topic: &str, partition: u32, n: u64) -> Output {
    Output {
        topic: topic.into(),
        partition,
        key: Vec::new(),
        value: Some(n.to_be_bytes().to_vec()),
        timestamp_us: 1_700_000_000_000_000,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(u64::MAX, u64::from_be_bytes)
}

fn numbers(log: &dyn Log, topic: &str, partition: u32) -> Result<Vec<u64>, LogError> {
    let limits = ReadLimits {
        wait: Duration::from_secs(1),
        ..ReadLimits::default()
    };
    let (mut next, end) = log.range(topic, partition)?;
    let mut numbers = Vec::new();
    while next < end {
        let batch = log.read(topic, partition, next, limits)?;
        numbers.extend(
            batch
                .records
                .iter()
                .map(|r| r.value.as_deref().map_or(u64::MAX, number)),
        );
        next = batch.next;
    }
    Ok(numbers)
}

/// Repeats what it reads and keeps the sum.
#[derive(Default)]
struct Repeat {
    sums: BTreeMap<u32, u64>,
}

impl Stage for Repeat {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let sum = assignment
            .state
            .get(b"sum".as_slice())
            .map_or(0, |sum| number(sum));
        self.sums.insert(assignment.partition, sum);
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        self.sums.remove(&partition);
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        let mut out = StepOutput::default();
        for record in input.records {
            let n = record.value.as_deref().map_or(u64::MAX, number);
            let sum = self.sums.entry(record.partition).or_default();
            *sum += n;
            out.outputs.push(output("out", record.partition, n));
            out.state.push(StateDelta {
                partition: record.partition,
                key: b"sum".to_vec(),
                value: Some(sum.to_be_bytes().to_vec()),
            });
        }
        Ok(out)
    }
}

fn open(folder: &Path) -> Result<Arc<dyn Log>, LogError> {
    let Ok(brokers) = std::env::var("CRASH_KAFKA") else {
        return Ok(Arc::new(EmbeddedLog::open(
            folder,
            EmbeddedOptions::default(),
        )?));
    };
    let mut options = KafkaOptions::new(brokers);
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("crash");
    options.prefix = format!("{}.", name.trim_start_matches('.'));
    Ok(Arc::new(KafkaLog::open(options)?))
}

fn run_stage(log: &Arc<dyn Log>) -> Result<(), Failure> {
    let mut runner = Runner::new(Arc::clone(log), Arc::new(ManualClock::new(0)));
    runner.options.linger = Duration::ZERO;
    runner.options.idle_tick = Duration::from_millis(5);
    let mut spec = StageSpec::new("repeat", &["in"]);
    spec.limits.max_records = 5;
    runner.run_until_idle(spec, &mut Repeat::default())?;
    Ok(())
}

/// The process that is killed.
fn child(folder: &Path) -> Result<(), Failure> {
    let log = open(folder)?;
    log.ensure_topics(&[
        TopicSpec::new("in", PARTITIONS),
        TopicSpec::new("out", PARTITIONS),
    ])?;
    let appending = {
        let log = Arc::clone(&log);
        std::thread::spawn(move || append(&*log))
    };
    while !appending.is_finished() {
        run_stage(&log)?;
    }
    appending.join().map_err(|_| "the appender panicked")??;
    run_stage(&log)
}

/// A small generator, so that a seed names its crashes for ever.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What was acknowledged: next number by partition.
type Acknowledged = BTreeMap<u32, u64>;

fn spawn(
    folder: &Path,
    kafka: Option<&str>,
    point: &str,
    acknowledged: &mut Acknowledged,
) -> Result<bool, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .env("CRASH_FOLDER", folder)
        .env(failpoint::VARIABLE, point)
        .stdout(Stdio::piped());
    if let Some(kafka) = kafka {
        command.env("CRASH_KAFKA", kafka);
    }
    let output = command.spawn()?.wait_with_output()?;
    for line in String::from_utf8(output.stdout)?.lines() {
        if let Some((partition, next)) = line.split_once(' ') {
            acknowledged.insert(partition.parse()?, next.parse()?);
        }
    }
    // Ended by itself, or by the signal of an abort; anything else is a failure.
    match output.status.code() {
        Some(0) => Ok(false),
        None => Ok(true),
        Some(code) => Err(format!("the process ended with code {code}").into()),
    }
}

fn check(folder: &Path, acknowledged: &Acknowledged, done: bool) -> Result<(), Failure> {
    let log = open(folder)?;
    if log.topics()?.is_empty() && acknowledged.is_empty() && !done {
        return Ok(());
    }
    for partition in 0..PARTITIONS {
        let read = numbers(&*log, "in", partition)?;
        let acknowledged = acknowledged.get(&partition).copied().unwrap_or(0);
        if !read.iter().copied().eq(0..read.len() as u64) {
            return Err(format!("partition {partition} holds {read:?}").into());
        }
        if (read.len() as u64) < acknowledged {
            return Err(format!("{acknowledged} acknowledged, {} there", read.len()).into());
        }
        let repeated = numbers(&*log, "out", partition)?;
        let next = log.committed("repeat", "in", partition)?;
        if !read.starts_with(&repeated) || (done && read != repeated) {
            return Err(format!("read {read:?} but repeated {repeated:?}, next {next:?}").into());
        }
        if done && read.len() as u64 != RECORDS {
            return Err(format!("done with {} records", read.len()).into());
        }
    }
    if !done {
        return Ok(());
    }
    let mut stage = Repeat::default();
    let runner = Runner::new(Arc::clone(&log), Arc::new(ManualClock::new(0)));
    let mut spec = StageSpec::new("repeat", &["in"]);
    spec.limits.max_records = 5;
    // Looks at the state through a fresh assignment; it must have nothing left to do.
    struct Look<'a>(&'a mut Repeat, BTreeMap<u32, u64>);
    impl Stage for Look<'_> {
        fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
            let partition = assignment.partition;
            self.0.assigned(assignment)?;
            self.1
                .insert(partition, self.0.sums.get(&partition).copied().unwrap_or(0));
            Ok(())
        }
        fn revoked(&mut self, partition: u32) {
            self.0.revoked(partition);
        }
        fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
            self.0.step(input)
        }
    }
    let mut look = Look(&mut stage, BTreeMap::new());
    let steps = runner.run_until_idle(spec, &mut look)?;
    let expected: u64 = (0..RECORDS).sum();
    let expected: BTreeMap<u32, u64> = (0..PARTITIONS).map(|p| (p, expected)).collect();
    if steps != 0 || look.1 != expected {
        return Err(format!("{steps} steps left, sums {:?} not {expected:?}", look.1).into());
    }
    Ok(())
}

/// One seed: crashes at points it chooses, then a run to the end. Returns the number of crashes.
fn seed(seed: u64, points: &[(&str, u64)], kafka: Option<&str>) -> Result<usize, Failure> {
    let folder = tempfile::Builder::new().prefix("crash").tempdir()?;
    let mut random = Seeded(seed);
    let mut acknowledged = Acknowledged::new();
    let mut crashes = 0;
    for _ in 0..CRASHES {
        let (name, most) = points[random.below(points.len() as u64) as usize];
        let point = format!("{name}:{}", 1 + random.below(most));
        let crashed = spawn(folder.path(), kafka, &point, &mut acknowledged)
            .map_err(|error| format!("{point}: {error}"))?;
        crashes += usize::from(crashed);
        // On Kafka, reading while a killed transaction is open would only show less.
        if kafka.is_none() {
            check(folder.path(), &acknowledged, !crashed)
                .map_err(|error| format!("after {point}: {error}"))?;
        }
    }
    spawn(folder.path(), kafka, "", &mut acknowledged)?;
    if let Some(kafka) = kafka {
        return check_apart(folder.path(), kafka).map(|()| crashes);
    }
    check(folder.path(), &acknowledged, true)?;
    Ok(crashes)
}

/// Checks a finished log on Kafka, in a process with `CRASH_KAFKA` set.
fn check_apart(folder: &Path, kafka: &str) -> Result<(), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .env("CRASH_FOLDER", folder)
        .env("CRASH_KAFKA", kafka)
        .env("CRASH_CHECK", "1");
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the check failed".into())
    }
}

fn seeds(count: u64) -> Vec<u64> {
    let one = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    one.map_or_else(|| (0..count).collect(), |seed| vec![seed])
}

fn parent() -> Result<(), Failure> {
    let embedded = [
        ("embedded.write.after", 400),
        ("embedded.sync.before", 40),
        ("embedded.sync.after", 40),
        ("embedded.commit.before", 40),
        ("embedded.commit.after", 40),
        ("runner.commit.before", 15),
        ("runner.commit.after", 15),
    ];
    let mut crashes = 0;
    for number in seeds(24) {
        crashes += seed(number, &embedded, None).map_err(|e| format!("seed {number}: {e}"))?;
    }
    // A run in which nothing crashed would prove nothing.
    if crashes == 0 {
        return Err("no failpoint was reached".into());
    }
    eprintln!("crash embedded ... ok, {crashes} crashes");
    let Ok(kafka) = std::env::var("DRIFTLINE_KAFKA") else {
        eprintln!("SKIPPED crash kafka: set DRIFTLINE_KAFKA=host:port, see tests/kafka/start");
        return Ok(());
    };
    let points = [
        ("kafka.step.sent", 8),
        ("kafka.commit.before", 8),
        ("kafka.commit.after", 8),
        ("runner.commit.before", 8),
        ("runner.commit.after", 8),
    ];
    let mut crashes = 0;
    for number in seeds(3) {
        crashes +=
            seed(number, &points, Some(&kafka)).map_err(|e| format!("seed {number}: {e}"))?;
    }
    if crashes == 0 {
        return Err("no failpoint was reached".into());
    }
    eprintln!("crash kafka ... ok, {crashes} crashes");
    Ok(())
}

fn main() -> ExitCode {
    let result = match std::env::var_os("CRASH_FOLDER") {
        None => parent(),
        Some(folder) if std::env::var_os("CRASH_CHECK").is_some() => {
            check(Path::new(&folder), &Acknowledged::new(), true)
        }
        Some(folder) => child(Path::new(&folder)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::FAILURE
        }
    }
}
