//! How long something took, as lines of a table.

use std::time::{Duration, Instant};

use crate::Fallible;

/// What it gives, and how long that took.
pub(crate) fn timed<T>(what: impl FnOnce() -> Fallible<T>) -> Fallible<(Duration, T)> {
    let begun = Instant::now();
    let made = what()?;
    Ok((begun.elapsed(), made))
}

/// The time that this share of all took at most.
pub(crate) fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = ((sorted.len() as f64 - 1.0) * share).round();
    sorted.get(at as usize).copied().unwrap_or_default()
}

/// One line of the table: what, median and 99th percentile, and what else there is to say.
pub(crate) fn line(what: &str, times: &[Duration], note: &str) {
    let ms = |share| quantile(times, share).as_secs_f64() * 1e3;
    if times.len() == 1 {
        println!("{what:<36} {:>9.1} ms {:>16}  {note}", ms(0.5), "");
    } else {
        println!("{what:<36} {:>9.2} ms  p99 {:>8.2} ms  {note}", ms(0.5), ms(0.99));
    }
}
