//! `audit erase`, `audit hold`, `audit retention`: what is taken out of the log, and what must stay.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::client::path;
use super::super::failure::Failure;
use super::super::names::Names;
use super::super::session::{Session, list, text};
use super::super::table::{Fit, Table};
use super::super::time::{When, when};

/// How often an erasure is asked how far it has come.
const ASK: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Keeping {
    /// Erase the network addresses in the rows of one caller; every row can still be proved.
    Erase {
        /// The calling agent; one that was deleted by its id.
        #[arg(long, value_name = "AGENT")]
        caller: String,
        /// Why; kept in the history.
        #[arg(long)]
        reason: String,
    },
    /// Legal holds: what is neither removed nor erased, however old.
    #[command(subcommand)]
    Hold(Hold),
    /// How long what is kept, and what keeps old rows from going.
    Retention,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Hold {
    /// Place a hold.
    Add(Add),
    /// List holds, released ones among them.
    List,
    /// Release a hold.
    Release {
        /// Its id.
        id: String,
        /// Why; kept in the history.
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    /// Hold the calls that this agent made or received; one that was deleted by its id.
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    agent: Option<String>,
    /// Hold everybody's calls.
    #[arg(long)]
    all: bool,
    /// Calls that arrived then or later: 90d (ago), 2026-12-31 or RFC 3339; without it, from the first on.
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Calls that arrived before; without it, all that will come, too.
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// Why; kept in the history.
    #[arg(long)]
    reason: String,
}

pub(super) async fn run(command: Keeping, session: &Session) -> Result<(), Failure> {
    match command {
        Keeping::Erase { caller, reason } => erase(&caller, &reason, session).await,
        Keeping::Hold(Hold::Add(add)) => place(add, session).await,
        Keeping::Hold(Hold::List) => holds(session).await,
        Keeping::Hold(Hold::Release { id, reason }) => {
            session.confirm(&format!(
                "What the hold {id} covers will be removed and erased as soon as it is old enough."
            ))?;
            let answer =
                session.client.delete(&path(&["audit", "holds", &id]), Some(&json!({"reason": reason}))).await?;
            session.done(&answer, &format!("{id} is released."))
        }
        Keeping::Retention => retention(session).await,
    }
}

async fn erase(caller: &str, reason: &str, session: &Session) -> Result<(), Failure> {
    session.confirm(&format!("The network addresses in the rows of {caller} will be erased for good."))?;
    let begun = session.client.post("/api/audit/erase", &json!({"caller": caller, "reason": reason})).await?;
    let progress = std::io::stderr().is_terminal();
    let ended = loop {
        let answer = session.client.get("/api/audit/erase").await?;
        let now = &answer.json["erasure"];
        if now["began_at"] != begun.json["began_at"] {
            return Err(Failure::Running(
                "the gateway was started anew before the erasure had ended: run this again, it goes on".to_owned(),
            ));
        }
        if progress {
            let (seen, rows) = (text(&now["rows_seen"]), text(&now["rows"]));
            let _ = write!(std::io::stderr().lock(), "\r{seen} of {rows} rows looked through");
        }
        if !now["ended_at"].is_null() {
            break answer;
        }
        tokio::time::sleep(ASK).await;
    };
    if progress {
        let _ = writeln!(std::io::stderr().lock());
    }
    let now = &ended.json["erasure"];
    if let Some(trouble) = now["trouble"].as_str() {
        return Err(Failure::Running(format!("it ended before it was done ({trouble}): run this again, it goes on")));
    }
    let held = match now["rows_held"].as_u64() {
        Some(0) | None => String::new(),
        Some(n) => format!(" {n} rows keep them, because a hold covers them: audit hold list."),
    };
    let erased = text(&now["rows_erased"]);
    session.done(
        &ended,
        &format!("Addresses were erased in {erased} rows of {caller}, as the log was when this began.{held}"),
    )
}

async fn place(add: Add, session: &Session) -> Result<(), Failure> {
    let body = json!({
        "agent": add.agent, "all": add.all, "reason": add.reason,
        "since": add.since.map(|when| when.before(session.now)),
        "until": add.until.map(|when| when.before(session.now)),
    });
    let answer = session.client.post("/api/audit/holds", &body).await?;
    session.done(&answer, &format!("Held: {}", text(&answer.json["id"])))
}

async fn holds(session: &Session) -> Result<(), Failure> {
    let answer = session.client.get("/api/audit/holds").await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("ID", Fit::Whole),
        ("CALLS OF", Fit::Cut),
        ("SINCE", Fit::Whole),
        ("UNTIL", Fit::Whole),
        ("PLACED", Fit::Cut),
        ("RELEASED", Fit::Cut),
        ("WHY", Fit::Spare),
    ]);
    let (rows, mut names) = (list(&answer.json, "holds"), Names::default());
    let or = |value: &Value, otherwise: &str| if value.is_null() { otherwise.to_owned() } else { session.time(value) };
    for row in rows {
        let of = if row["agent_id"].is_null() { "all".to_owned() } else { names.of(&row["agent_id"], session).await };
        table.row([
            text(&row["id"]),
            of,
            or(&row["since"], "ever"),
            or(&row["until"], "ever"),
            session.time(&row["placed_at"]),
            or(&row["released_at"], "no"),
            text(&row["reason"]),
        ]);
    }
    session.table(&table, rows.is_empty(), "Nothing is held.")
}

async fn retention(session: &Session) -> Result<(), Failure> {
    let answer = session.client.get("/api/audit/retention").await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let told = &answer.json;
    let kept = |member: &str| match told[member].as_u64() {
        None => "for ever".to_owned(),
        Some(seconds) => format!("{} days", seconds / 86_400),
    };
    let looked = if told["looked_at"].is_null() { "not yet".to_owned() } else { session.time(&told["looked_at"]) };
    session.fields(
        &format!("{} rows, the first {}", text(&told["rows"]), session.time(&told["oldest_call_at"])),
        &[
            ("rows are kept", kept("keep_seconds")),
            ("addresses", kept("keep_addresses_seconds")),
            ("refused calls", kept("keep_refused_seconds")),
            ("removed by age", text(&told["rows_removed"])),
            ("looked at", looked),
        ],
    )?;
    for up in list(told, "held_up") {
        let (node, seq) = (text(&up["node_id"]), text(&up["seq"]));
        let why = match (up["hold_id"].as_str(), up["overdue_seconds"].as_u64()) {
            (Some(hold), overdue) => format!("held by {hold}, {} days past their time", overdue.unwrap_or(0) / 86_400),
            (None, _) => "no checkpoint speaks of them".to_owned(),
        };
        session.print(&format!("Rows of node {node} stay from {seq} on: {why}\n"))?;
    }
    for trouble in list(told, "trouble") {
        session.print(&format!("WARNING: {}\n", crate::telemetry::escaped(&text(trouble))))?;
    }
    Ok(())
}
