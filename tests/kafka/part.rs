//! CPU time, for the benchmarks that `tests/kafka/speed.py` runs: a rate says little on a machine that others
//! use, what was computed for it says more.

/// Of this process, ended threads included, seconds.
#[allow(dead_code, reason = "not every benchmark asks for all")]
pub(crate) fn process_s() -> f64 {
    seconds("/proc/self/stat")
}

/// Of this thread, seconds.
#[allow(dead_code, reason = "not every benchmark asks for all")]
pub(crate) fn thread_s() -> f64 {
    seconds("/proc/thread-self/stat")
}

/// User and system time in hundredths of a second are the twelfth and thirteenth words after the name, which is
/// in brackets. Zero where there is no such file.
fn seconds(path: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let words = text.rsplit(')').next().unwrap_or_default();
    let times = words.split_whitespace().skip(11).take(2);
    times.filter_map(|it| it.parse::<f64>().ok()).sum::<f64>() / 100.0
}
