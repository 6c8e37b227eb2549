//! `calls stats`: the call log in numbers, as a table.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::filter::{Parties, Range};
use super::numbers::{bar, bytes, counted, took};
use crate::cli::client::query;
use crate::cli::failure::Failure;
use crate::cli::session::{Session, list, text};
use crate::cli::table::{Fit, Table};

/// Columns of a bar.
const BAR: u64 = 10;

#[derive(Debug, Args)]
pub(in crate::cli) struct Stats {
    /// What is told apart: any of caller, agent (the one called) and level, with commas; none: nothing.
    #[arg(long, default_value = "caller,agent", value_name = "WHAT")]
    by: String,
    /// How time is cut up.
    #[arg(long, value_enum, default_value_t = Bucket::None)]
    bucket: Bucket,
    #[command(flatten)]
    parties: Parties,
    #[command(flatten)]
    range: Range,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bucket {
    None,
    Minute,
    Hour,
    Day,
}

impl Bucket {
    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

pub(super) async fn stats(asked: Stats, session: &Session) -> Result<(), Failure> {
    let mut parameters = asked.parties.parameters();
    parameters.extend(asked.range.parameters(session.now));
    parameters.push(("by", Some(asked.by).filter(|by| by != "none")));
    parameters.push(("bucket", Some(asked.bucket.word().to_owned())));
    let answer = session.client.get(&query("/api/calls/stats", &parameters)).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let groups = list(&answer.json, "groups");
    let mut table = Table::new(&[
        ("WHEN", Fit::Whole),
        ("CALLER", Fit::Cut),
        ("AGENT", Fit::Cut),
        ("LEVEL", Fit::Spare),
        ("CALLS", Fit::Whole),
        ("", Fit::Spare),
        ("REFUSED", Fit::Whole),
        ("P50", Fit::Whole),
        ("P99", Fit::Whole),
        ("WHY REFUSED", Fit::Spare),
        ("IN", Fit::Spare),
        ("OUT", Fit::Spare),
    ]);
    let most = groups.iter().map(|group| count(group, "calls")).max().unwrap_or(0);
    for group in groups {
        let any = let_through(group);
        table.row([
            match asked.bucket {
                Bucket::None => String::new(),
                _ => bucket_start(group),
            },
            name(group, "caller"),
            name(group, "target"),
            text(&group["trust_level"]),
            text(&group["calls"]),
            bar(count(group, "calls"), most, BAR),
            text(&group["refused"]),
            took(&group["latency_ms"]["p50"], any),
            took(&group["latency_ms"]["p99"], any),
            counted(&group["refusals"]),
            bytes(count(group, "request_bytes")),
            bytes(count(group, "response_bytes")),
        ]);
    }
    session.table(&table, groups.is_empty(), "No calls in this time.")?;
    let (since, until) = (session.time(&answer.json["since"]), session.time(&answer.json["until"]));
    let calls: u64 = groups.iter().map(|group| count(group, "calls")).sum();
    session.note(&format!("{calls} calls from {since} until {until}."));
    if answer.json["truncated"] == true {
        session.note("The groups with the fewest calls were left out: name an agent, or tell less apart.");
    }
    Ok(())
}

pub(super) fn count(group: &Value, member: &str) -> u64 {
    group[member].as_u64().unwrap_or(0)
}

/// Whether any call of the group was let through.
pub(super) fn let_through(group: &Value) -> bool {
    count(group, "calls") > count(group, "refused")
}

/// The agent's slug, or its id where it has no name any more; `-`: nobody known. Empty where agents are not told apart.
pub(super) fn name(group: &Value, side: &str) -> String {
    match (group[side]["slug"].as_str(), group[format!("{side}_agent_id")].as_str()) {
        (Some(slug), _) => slug.to_owned(),
        (None, Some(id)) => id.to_owned(),
        (None, None) => String::new(),
    }
}

/// Day, hour and minute, as the API has them: buckets are of UTC.
fn bucket_start(group: &Value) -> String {
    text(&group["starts_at"]).chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}
