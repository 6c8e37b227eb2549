//! Commands of one question: `me`, `notifications`, `import`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::client::query;
use super::connections::pair;
use super::failure::Failure;
use super::session::{Session, contents, list, text};
use super::table::{Fit, Table};
use crate::telemetry::escaped;

#[derive(Debug, Subcommand)]
pub(super) enum Import {
    /// An export of OpenAgora: agents, keys by digest, connections. Shows what would happen; --apply does it.
    Openagora {
        /// The export as JSON; - reads standard input.
        file: PathBuf,
        /// Only show what would happen: the default.
        #[arg(long, conflicts_with = "apply")]
        dry_run: bool,
        /// Do it.
        #[arg(long)]
        apply: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Notifications {
    /// Those of this agent only.
    #[arg(long)]
    agent: Option<String>,
    /// Where the page before ended.
    #[arg(long, value_name = "CURSOR")]
    next: Option<String>,
}

/// Who one is, and with a target, how one stands towards it.
pub(super) async fn me(target: Option<String>, session: &Session) -> Result<(), Failure> {
    let answer = session.client.get(&query("/api/me", &[("target", target.clone())])).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let me = &answer.json;
    if let Some(name) = me["operator"]["name"].as_str() {
        if target.is_some() {
            session.note("Only an agent stands in some way towards a target: ask with its key (--url, --token-file).");
        }
        let role = text(&me["operator"]["role"]);
        return session.print(&format!("operator {} ({})\n", escaped(name), escaped(&role)));
    }
    let towards = target.as_ref().map(|target| format!(" towards {target}")).unwrap_or_default();
    let operations = match (&target, &me["operations"]) {
        (None, _) => String::new(),
        (Some(_), Value::Null) => "all".to_owned(),
        (Some(_), some) => text(some),
    };
    session.fields(
        &format!("agent {}{towards}", text(&me["agent"]["slug"])),
        &[
            ("id", text(&me["agent"]["id"])),
            ("key", text(&me["key"]["name"])),
            ("key expires", session.time(&me["key"]["expires_at"])),
            ("level", text(&me["trust_level"])),
            ("connection", text(&me["connection"]["status"])),
            ("operations", operations),
        ],
    )?;
    let limits = list(me, "limits");
    if limits.is_empty() {
        return Ok(());
    }
    let mut table =
        Table::new(&[("LIMIT", Fit::Whole), ("LEFT", Fit::Whole), ("OF", Fit::Whole), ("FULL AGAIN", Fit::Cut)]);
    for limit in limits {
        let full = match limit["reset_seconds"].as_i64() {
            Some(1..) => {
                session.time(&Value::from(session.now.plus_micros(after(&limit["reset_seconds"])).to_string()))
            }
            _ => String::new(),
        };
        table.row([text(&limit["name"]), text(&limit["remaining"]), text(&limit["limit"]), full]);
    }
    session.print("\n")?;
    session.table(&table, false, "")
}

fn after(seconds: &Value) -> i64 {
    seconds.as_i64().unwrap_or(0).saturating_mul(1_000_000)
}

/// What waits for an answer, and what is about to end.
pub(super) async fn notifications(asked: Notifications, session: &Session) -> Result<(), Failure> {
    let answer =
        session.client.get(&query("/api/notifications", &[("agent_id", asked.agent), ("next", asked.next)])).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let told = list(&answer.json, "notifications");
    if told.is_empty() {
        return session.print("Nothing waits, and nothing ends or is to be looked at within a week.\n");
    }
    for row in told {
        let (at, pair) = (session.time(&row["at"]), pair(&row["connection"]));
        let (said, next) = match row["type"].as_str() {
            Some("connection_request") => {
                (format!("{pair} asked {at}"), format!("trust-gateway connections accept {pair}   (or decline, block)"))
            }
            Some("connection_review") => {
                (format!("{pair} is to be looked at again {at}"), format!("trust-gateway connections show {pair}"))
            }
            Some("connection_end") => {
                (format!("{pair} ends {at}"), format!("trust-gateway connections limits {pair} --ends 90d"))
            }
            Some("key_expires") => (
                format!("The key {} expires {at}", text(&row["key"]["name"])),
                format!("trust-gateway keys rotate {}", text(&row["id"])),
            ),
            kind => (format!("{} {at}", kind.unwrap_or("something")), String::new()),
        };
        session
            .fields(&said, &[("message", text(&row["message"])), ("purpose", text(&row["purpose"])), ("next", next)])?;
    }
    if let Some(next) = answer.json["next"].as_str() {
        session.note(&format!("There is more: --next {next}"));
    }
    Ok(())
}

pub(super) async fn import(command: Import, session: &Session) -> Result<(), Failure> {
    let Import::Openagora { file, apply, .. } = command;
    let export = contents(&file)?;
    let endpoint = query("/api/import/openagora", &[("dry_run", Some((!apply).to_string()))]);
    let answer = session.client.send(Method::POST, &endpoint, Some(export)).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let told = &answer.json;
    let mut table =
        Table::new(&[("", Fit::Whole), ("NEW", Fit::Whole), ("HERE ALREADY", Fit::Whole), ("LEFT OUT", Fit::Whole)]);
    for kind in ["agents", "keys", "connections"] {
        let count = |name: &str| text(&told[kind][name]);
        table.row([kind.to_owned(), count("new"), count("unchanged"), count("left_out")]);
    }
    session.print(if apply { "Imported:\n" } else { "This would be imported:\n" })?;
    session.table(&table, false, "")?;
    for problem in list(told, "problems") {
        let line = format!("{}: {}", text(&problem["row"]), text(&problem["problem"]));
        session.print(&format!("WARNING: {}\n", escaped(&line)))?;
    }
    if apply {
        session.note(&text(&told["note"]));
    } else {
        session.note("Nothing was changed. --apply does it.");
    }
    Ok(())
}
