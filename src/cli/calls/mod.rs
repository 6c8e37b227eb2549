//! `calls`: the call log, as a list, in numbers, as what is open now, and as it grows.

mod filter;
mod numbers;
mod stats;
mod tail;
mod top;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{path, query};
use super::failure::Failure;
use super::names::Names;
use super::session::{Session, list, text};
use super::table::{Fit, Table};
use super::why::why;
use filter::Filter;

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
    /// End a call that is open: its agent's answer is cut off.
    End {
        #[command(flatten)]
        id: Id,
        /// Why; kept in the history.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// How many calls, how many refused and why, how long they took.
    #[command(
        after_help = "trust-gateway calls stats --since 7d --bucket day --by none\ntrust-gateway calls stats --target weather --by caller,level"
    )]
    Stats(stats::Stats),
    /// Who calls whom how often, as it changes; until Ctrl-C.
    Top(top::Top),
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

pub(super) async fn run(command: Calls, session: &Session) -> Result<(), Failure> {
    match command {
        Calls::List { filter, limit, next } => {
            let mut parameters = filter.bounded(session);
            parameters.extend([("limit", Some(limit.to_string())), ("next", next)]);
            let empty =
                "No calls that match. Callers reach an agent at its `call it at`: `trust-gateway agents show AGENT`.";
            show_list(&query("/api/calls", &parameters), empty, session).await
        }
        Calls::Active(filter) => {
            let endpoint = query("/api/calls/active", &filter.parameters(session.now));
            show_list(&endpoint, "No call is open now.", session).await
        }
        Calls::Show(Id { id }) => why(&id, session).await,
        Calls::End { id, reason } => end(&id.id, reason, session).await,
        Calls::Stats(asked) => stats::stats(asked, session).await,
        Calls::Top(asked) => top::top(asked, session).await,
        Calls::Tail { filter, follow, lines } => {
            tail::tail(filter.parameters(session.now), follow, lines, session).await
        }
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

/// Ends a call that is open, after a yes.
async fn end(id: &str, reason: Option<String>, session: &Session) -> Result<(), Failure> {
    session.confirm(&format!("The call {id} will be cut; its agent may go on with the work."))?;
    let answer = session.client.post(&path(&["calls", "active", id, "end"]), &json!({"reason": reason})).await?;
    session.done(&answer, &format!("Ended the call {id}."))
}
