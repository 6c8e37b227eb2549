//! The results as a table, one per scenario, with the spread of the rounds beside the ratio.

use std::time::Duration;

use crate::scenario::{Outcome, Round, Scenario};

/// Prints the outcomes of one scenario; costs are compared with the last of them.
pub(crate) fn print(scenario: &Scenario, outcomes: &[Outcome]) {
    let unit = scenario.unit();
    println!("\n{}", scenario.name());
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>14} {:>17} {:>9} {:>9} {:>11} {:>17}",
        "",
        format!("{unit}s/s"),
        "p50 ms",
        "p99 ms",
        format!("CPU-µs/{unit}"),
        "ratio (rounds)",
        "database",
        "RSS MiB",
        "KiB/stream",
        "rows / calls"
    );
    let Some(base) = outcomes.last() else { return };
    for outcome in outcomes {
        let rounds: Vec<&Round> = counted(outcome).collect();
        let ratios: Vec<f64> = rounds.iter().zip(counted(base)).map(|(own, base)| micros(own) / micros(base)).collect();
        println!(
            "{:<28} {:>9.0} {:>9} {:>9} {:>14.1} {:>17} {:>9.1} {:>9.1} {:>11} {:>17}",
            outcome.name,
            median(rounds.iter().map(|round| round.units as f64 / round.wall.as_secs_f64()).collect()),
            quantile(&rounds, 0.5),
            quantile(&rounds, 0.99),
            median(rounds.iter().map(|round| micros(round)).collect()),
            spread(ratios),
            median(rounds.iter().map(|round| round.database.as_secs_f64() * 1e6 / round.units as f64).collect()),
            outcome.rss as f64 / 1024.0,
            stream_kib(outcome),
            match outcome.rows {
                Some(rows) if rows == outcome.sent => format!("{rows} = {}", outcome.sent),
                Some(rows) => format!("{rows} ≠ {} !", outcome.sent),
                None => "no audit log".to_owned(),
            },
        );
    }
}

fn counted(outcome: &Outcome) -> impl Iterator<Item = &Round> {
    outcome.rounds.iter().filter(|round| round.units > 0)
}

fn micros(round: &Round) -> f64 {
    Duration::as_secs_f64(&round.cpu) * 1e6 / round.units as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median, and between what the rounds were: a difference smaller than that is none.
fn spread(ratios: Vec<f64>) -> String {
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(ratios))
}

fn quantile(rounds: &[&Round], q: f64) -> String {
    let of = |round: &&Round| {
        let at = (round.latencies.len() as f64 * q) as usize;
        round.latencies.get(at).map(|us| f64::from(*us) / 1e3)
    };
    let values: Vec<f64> = rounds.iter().filter_map(of).collect();
    if values.is_empty() { "-".to_owned() } else { format!("{:.2}", median(values)) }
}

fn stream_kib(outcome: &Outcome) -> String {
    let most = outcome.rounds.iter().filter_map(|round| round.stream_kib).reduce(f64::max);
    most.map_or_else(|| "-".to_owned(), |kib| format!("{kib:.1}"))
}
