//! `calls`: the call log, as a list, as what is open now, and as it grows.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::client::query;
use super::failure::Failure;
use super::names::Names;
use super::session::{Session, list, text};
use super::table::{Fit, Table, cut};
use super::time::{When, when};
use super::why::why;
use crate::telemetry::escaped;

/// Between two looks of `tail --follow`.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Calls {
    /// List calls, newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many at most.
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: u32,
        /// Where the page before ended.
        #[arg(long, value_name = "CURSOR")]
        next: Option<String>,
    },
    /// Tell the story of one call.
    Show(Id),
    /// List the calls that are open now.
    Active(Filter),
    /// The newest calls, newest last; with --follow also those to come. --json prints one call a line.
    Tail {
        #[command(flatten)]
        filter: Filter,
        /// Go on until Ctrl-C.
        #[arg(long, short)]
        follow: bool,
        /// How many to begin with.
        #[arg(long, short = 'n', default_value_t = 10, value_name = "N")]
        lines: u32,
    },
}

#[derive(Debug, Args)]
pub(super) struct Id {
    /// The call's id: the request id that its answer carried.
    #[arg(value_name = "REQUEST_ID")]
    pub(super) id: String,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filter {
    /// Made or received by this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Made by this agent.
    #[arg(long)]
    caller: Option<String>,
    /// Received by this agent.
    #[arg(long)]
    target: Option<String>,
    /// connected, verified, unverified or blocked.
    #[arg(long)]
    level: Option<String>,
    /// Such as SendMessage.
    #[arg(long)]
    operation: Option<String>,
    /// The HTTP status.
    #[arg(long)]
    status: Option<u16>,
    /// allowed or refused; gap for places where calls are missing.
    #[arg(long)]
    decision: Option<String>,
    /// Such as rate_limited.
    #[arg(long)]
    reason: Option<String>,
    /// Such as completed or agent_error.
    #[arg(long)]
    outcome: Option<String>,
    /// Of this task.
    #[arg(long)]
    task: Option<String>,
    /// From when on: 10m, 2h, 2026-12-31 or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Until when.
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
}

impl Filter {
    fn parameters(self, session: &Session) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("agent", self.agent),
            ("caller", self.caller),
            ("target", self.target),
            ("trust_level", self.level),
            ("operation", self.operation),
            ("status", self.status.map(|status| status.to_string())),
            ("decision", self.decision),
            ("reason", self.reason),
            ("outcome", self.outcome),
            ("task_id", self.task),
            ("since", self.since.map(|when| when.before(session.now))),
            ("until", self.until.map(|when| when.before(session.now))),
        ]
    }
}

pub(super) async fn run(command: Calls, session: &Session) -> Result<(), Failure> {
    match command {
        Calls::List { filter, limit, next } => {
            let mut parameters = filter.parameters(session);
            parameters.extend([("limit", Some(limit.to_string())), ("next", next)]);
            let empty =
                "No calls that match. Callers reach an agent at its `call it at`: `trust-gateway agents show AGENT`.";
            show_list(&query("/api/calls", &parameters), empty, session).await
        }
        Calls::Active(filter) => {
            let endpoint = query("/api/calls/active", &filter.parameters(session));
            show_list(&endpoint, "No call is open now.", session).await
        }
        Calls::Show(Id { id }) => why(&id, session).await,
        Calls::Tail { filter, follow, lines } => tail(filter.parameters(session), follow, lines, session).await,
    }
}

fn result(row: &Value) -> String {
    if row["decision"] == "gap" {
        return format!("{} calls missing: {}", text(&row["calls"]), text(&row["reason"]));
    }
    let word = row["reason"].as_str().or(row["outcome"].as_str()).unwrap_or_default();
    format!("{} {word}", text(&row["status_code"])).trim().to_owned()
}

async fn show_list(endpoint: &str, empty: &str, session: &Session) -> Result<(), Failure> {
    let answer = session.client.get(endpoint).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let rows = list(&answer.json, "calls");
    let mut table = Table::new(&[
        ("ID", Fit::Whole),
        ("WHEN", Fit::Whole),
        ("CALLER", Fit::Cut),
        ("TARGET", Fit::Cut),
        ("RESULT", Fit::Cut),
        ("OPERATION", Fit::Spare),
        ("LEVEL", Fit::Spare),
        ("MS", Fit::Spare),
    ]);
    let mut names = Names::default();
    for row in rows {
        let caller = names.of(&row["caller_agent_id"], session).await;
        let target = names.of(&row["target_agent_id"], session).await;
        table.row([
            text(&row["id"]),
            session.time(&row["called_at"]),
            caller,
            target,
            result(row),
            text(&row["operation"]),
            text(&row["trust_level"]),
            text(&row["latency_ms"]),
        ]);
    }
    session.table(&table, rows.is_empty(), empty)?;
    if let Some(next) = answer.json["next"].as_str() {
        session.note(&format!("There is more: --next {next}"));
    }
    Ok(())
}

async fn tail(
    parameters: Vec<(&'static str, Option<String>)>,
    follow: bool,
    lines: u32,
    session: &Session,
) -> Result<(), Failure> {
    let following = async {
        let mut names = Names::default();
        let (mut next, mut lost): (Option<String>, bool) = (None, false);
        loop {
            let mut asked = parameters.clone();
            let limit = if next.is_some() { 200 } else { lines.clamp(1, 200) };
            asked.extend([
                ("order", Some("recorded".to_owned())),
                ("limit", Some(limit.to_string())),
                ("next", next.clone()),
            ]);
            match session.client.get(&query("/api/calls", &asked)).await {
                Ok(answer) => {
                    lost = false;
                    let rows = list(&answer.json, "calls");
                    for row in rows {
                        print_line(row, &mut names, session).await?;
                    }
                    let more = rows.len() >= limit as usize && next.is_some();
                    match answer.json["next"].as_str() {
                        Some(cursor) => next = Some(cursor.to_owned()),
                        None if follow => {
                            return Err(Failure::Running("this gateway is too old to be followed".to_owned()));
                        }
                        None => {}
                    }
                    if !follow {
                        if rows.is_empty() {
                            session.note("No calls that match yet; --follow waits for them.");
                        }
                        return Ok(());
                    }
                    if more {
                        continue;
                    }
                }
                // A restart of the gateway, or a bad moment: the cursor still holds.
                Err(failure) if follow && next.is_some() && matches!(failure.code(), 1 | 6) => {
                    if !lost {
                        session.note("The gateway does not answer; trying again every second.");
                    }
                    lost = true;
                }
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        ended = following => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn print_line(row: &Value, names: &mut Names, session: &Session) -> Result<(), Failure> {
    if session.json {
        return session.print(&format!("{row}\n"));
    }
    let time: String = text(&row["called_at"]).chars().skip(11).take(8).collect();
    let (caller, target) = (&row["caller_agent_id"], &row["target_agent_id"]);
    let (caller, target) = (names.of(caller, session).await, names.of(target, session).await);
    // The pair as commands take it; then as much as there is room for.
    let mut what = format!("{time} {caller}:{target} {}", result(row));
    let room = session.width.saturating_sub(38).max(24);
    for more in [format!(" {}ms", text(&row["latency_ms"])), format!(" {}", text(&row["operation"]))] {
        if what.width() + more.width() <= room {
            what.push_str(&more);
        }
    }
    session.print(&format!("{}  {}\n", escaped(&text(&row["id"])), cut(&escaped(&what), room)))
}
