//! `calls top`: who calls whom how often, as it changes.
//!
//! Promises: leaves the terminal as it was, however it ends; without a terminal it shows one picture and is done.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::filter::{Parameters, Parties};
use super::numbers::{bar, sparkline, took};
use super::stats::{count, let_through, name};
use crate::cli::client::{Answer, query};
use crate::cli::failure::Failure;
use crate::cli::session::{Session, list};
use crate::cli::table::{Fit, Table, cut};
use crate::cli::time::{self, exact};
use crate::clock::Timestamp;
use crate::telemetry::escaped;

/// Between two pictures.
const PAUSE: Duration = Duration::from_secs(2);
const MINUTE_US: i64 = 60_000_000;
/// Minutes in the line above the table.
const LINE_MINUTES: i64 = 30;
/// Columns of a bar.
const BAR: u64 = 16;

#[derive(Debug, Args)]
pub(in crate::cli) struct Top {
    /// How many minutes the numbers are of.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1440), value_name = "N")]
    minutes: u16,
    /// Show it once and end.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    parties: Parties,
}

pub(super) async fn top(asked: Top, session: &Session) -> Result<(), Failure> {
    let parameters = asked.parties.parameters();
    if asked.once || session.json || !std::io::stdout().is_terminal() {
        let picture = look(&parameters, asked.minutes, session).await?;
        if session.raw(&picture.groups)? {
            return Ok(());
        }
        return session.print(&picture.text(session, usize::MAX));
    }
    let _screen = Screen::take();
    tokio::select! {
        ended = go_on(&parameters, asked.minutes, session) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn go_on(parameters: &Parameters, minutes: u16, session: &Session) -> Result<(), Failure> {
    loop {
        let text = match look(parameters, minutes, session).await {
            Ok(picture) => picture.text(session, session.height()),
            // A restart of the gateway, or a bad moment.
            Err(failure) if matches!(failure.code(), 1 | 6) => failure.text(),
            Err(failure) => return Err(failure),
        };
        // Over the picture before, so that nothing flickers.
        let lines: String = text.lines().map(|line| format!("{line}\u{1b}[K\r\n")).collect();
        session.print(&format!("\u{1b}[H{lines}\u{1b}[J"))?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The terminal's second screen; the first is back when it is dropped.
struct Screen;

impl Screen {
    fn take() -> Self {
        let _ = std::io::stdout().write_all(b"\x1b[?1049h\x1b[?25l");
        Self
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

/// What is shown.
struct Picture {
    at: Timestamp,
    minutes: u16,
    /// By caller and agent.
    groups: Answer,
    /// By the minute.
    line: Answer,
}

async fn look(parameters: &Parameters, minutes: u16, session: &Session) -> Result<Picture, Failure> {
    let at = time::now();
    let ask = async |back: i64, more: [(&'static str, Option<String>); 2]| {
        let mut asked = parameters.clone();
        // Whole minutes, as they are summed up: the same question for a minute is one reading of the log.
        let minute = Timestamp(at.0.div_euclid(MINUTE_US) * MINUTE_US);
        asked.push(("since", Some(minute.plus_micros(-back * MINUTE_US).to_string())));
        asked.extend(more);
        session.client.get(&query("/api/calls/stats", &asked)).await
    };
    let groups = ask(minutes.into(), [("by", Some("caller,agent".to_owned())), ("bucket", None)]).await?;
    let line = ask(LINE_MINUTES, [("by", None), ("bucket", Some("minute".to_owned()))]).await?;
    Ok(Picture { at, minutes, groups, line })
}

impl Picture {
    /// At most `height` lines of it.
    fn text(&self, session: &Session, height: usize) -> String {
        let groups = list(&self.groups.json, "groups");
        let sum = |member: &str| groups.iter().map(|group| count(group, member)).sum::<u64>();
        let (calls, refused) = (sum("calls"), sum("refused"));
        let head = format!(
            "{}  {}: {} calls a minute, {} refused, over {} min",
            exact(self.at),
            session.client.url(),
            self.rate(calls),
            self.rate(refused),
            self.minutes
        );
        let line = format!("{}  the last {LINE_MINUTES} min", sparkline(&self.by_minute()));
        let mut table = Table::new(&[
            ("CALLER", Fit::Cut),
            ("AGENT", Fit::Cut),
            ("CALLS/MIN", Fit::Whole),
            ("REFUSED/MIN", Fit::Whole),
            ("P50", Fit::Whole),
            ("P99", Fit::Whole),
            ("", Fit::Spare),
        ]);
        let most = groups.iter().map(|group| count(group, "calls")).max().unwrap_or(0);
        for group in groups.iter().take(height.saturating_sub(5)) {
            let any = let_through(group);
            let named = |side| Some(name(group, side)).filter(|name| !name.is_empty()).unwrap_or("-".to_owned());
            table.row([
                named("caller"),
                named("target"),
                self.rate(count(group, "calls")),
                self.rate(count(group, "refused")),
                took(&group["latency_ms"]["p50"], any),
                took(&group["latency_ms"]["p99"], any),
                bar(count(group, "calls"), most, BAR),
            ]);
        }
        let (head, line) = (cut(&escaped(&head), session.width), cut(&line, session.width));
        let body = if groups.is_empty() { "No calls in this time.\n".to_owned() } else { session.drawn(&table) };
        format!("{head}\n{line}\n\n{body}")
    }

    /// So many a minute; of the minute that has begun, what has passed counts.
    fn rate(&self, calls: u64) -> String {
        let begun = self.at.0.rem_euclid(MINUTE_US);
        let over = i64::from(self.minutes) * MINUTE_US + begun;
        let tenths = u128::from(calls) * 10 * MINUTE_US.unsigned_abs() as u128 / u128::from(over.unsigned_abs());
        if tenths >= 100 || tenths == 0 {
            (tenths / 10).to_string()
        } else {
            format!("{}.{}", tenths / 10, tenths % 10)
        }
    }

    /// Calls of each of the last minutes, those without any included.
    fn by_minute(&self) -> Vec<u64> {
        let groups = list(&self.line.json, "groups");
        let minute = |group: &Value| {
            let start = group["starts_at"].as_str().and_then(|text| Timestamp::parse(text).ok())?;
            Some((start.0.div_euclid(MINUTE_US), count(group, "calls")))
        };
        let counts: std::collections::BTreeMap<i64, u64> = groups.iter().filter_map(minute).collect();
        let now = self.at.0.div_euclid(MINUTE_US);
        (now - LINE_MINUTES..=now).map(|at| counts.get(&at).copied().unwrap_or(0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn picture(at: &str, minutes: u16) -> Picture {
        let minute = |at: &str, calls: u64| json!({"starts_at": at, "calls": calls});
        let counts =
            [minute("2026-01-01T00:00:00Z", 3), minute("2026-01-01T00:29:00Z", 4), minute("2026-01-01T00:30:00Z", 1)];
        let answer = |json| Answer { text: String::new(), json };
        Picture {
            at: Timestamp::parse(at).expect("a time"),
            minutes,
            groups: answer(Value::Null),
            line: answer(json!({"groups": counts})),
        }
    }

    #[test]
    fn what_has_passed_of_a_minute_counts_and_minutes_without_calls_are_shown() {
        let whole = picture("2026-01-01T00:30:00Z", 5);
        assert_eq!([0, 1, 7, 49, 50, 501].map(|calls| whole.rate(calls)), ["0", "0.2", "1.4", "9.8", "10", "100"]);
        let begun = picture("2026-01-01T00:30:30Z", 1);
        assert_eq!(begun.rate(3), "2.0");
        let counts = begun.by_minute();
        assert_eq!((counts.len(), counts[0], &counts[29..]), (31, 3, &[4, 1][..]));
        assert!(counts[1..29].iter().all(|calls| *calls == 0));
    }
}
