//! What was changed, when, by whom and why: the history of one agent or connection, and `events`, that of everything.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{path, query};
use super::failure::Failure;
use super::session::{Session, list, text};
use super::table::{Fit, Table};
use super::time::{When, when};

#[derive(Debug, Args)]
pub(super) struct Asked {
    /// Whose history: an agent's slug or id, a connection's id or REQUESTER:TARGET.
    pub(super) name: String,
    /// How many changes at most.
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(super) limit: u32,
}

#[derive(Debug, Subcommand)]
pub(super) enum Events {
    /// List changes, newest first.
    List(Filter),
}

#[derive(Debug, Args)]
pub(super) struct Filter {
    /// By whom.
    #[arg(long)]
    actor: Option<String>,
    /// What was done, such as agent.update.
    #[arg(long)]
    action: Option<String>,
    /// To what: an id or a name.
    #[arg(long)]
    subject: Option<String>,
    /// From when on: 10m, 2h, 2026-12-31 or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Until when.
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
    /// How many at most.
    #[arg(long, default_value_t = 50, value_name = "N")]
    limit: u32,
    /// Where the page before ended.
    #[arg(long, value_name = "CURSOR")]
    next: Option<String>,
}

pub(super) async fn run(command: Events, session: &Session) -> Result<(), Failure> {
    let Events::List(filter) = command;
    let parameters = [
        ("actor", filter.actor),
        ("action", filter.action),
        ("subject", filter.subject),
        ("since", filter.since.map(|when| when.before(session.now))),
        ("until", filter.until.map(|when| when.before(session.now))),
        ("limit", Some(filter.limit.to_string())),
        ("next", filter.next),
    ];
    let answer = session.client.get(&query("/api/events", &parameters)).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    table(&answer.json, true, session)
}

pub(super) async fn show(noun: &str, asked: Asked, session: &Session) -> Result<(), Failure> {
    let parameters = [("limit", Some(asked.limit.to_string()))];
    let answer = session.client.get(&query(&path(&[noun, &asked.name, "history"]), &parameters)).await?;
    if session.raw(&answer)? { Ok(()) } else { table(&answer.json, false, session) }
}

fn table(answer: &Value, with_subject: bool, session: &Session) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("WHEN", Fit::Whole),
        ("WHO", Fit::Cut),
        ("WHAT", Fit::Cut),
        ("TO", Fit::Spare),
        ("CHANGED", Fit::Cut),
        ("WHY", Fit::Cut),
    ]);
    let rows = list(answer, "events");
    for row in rows {
        table.row([
            session.time(&row["at"]),
            text(&row["actor"]),
            text(&row["action"]),
            if with_subject { text(&row["subject"]) } else { String::new() },
            changed(&row["before"], &row["after"]),
            text(&row["reason"]),
        ]);
    }
    session.table(&table, rows.is_empty(), "Nothing was changed, as far as you may see.")?;
    if let Some(next) = answer["next"].as_str() {
        session.note(&format!("There is more: --next {next}, or a higher --limit."));
    }
    Ok(())
}

/// The members that differ, with their new values; those that change with everything are left out.
fn changed(before: &Value, after: &Value) -> String {
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else { return String::new() };
    let differing = new.iter().filter(|(name, value)| name.as_str() != "updated_at" && old.get(*name) != Some(*value));
    differing.map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_by_what_differs() {
        let before = json!({"status": "pending", "message": "hi", "updated_at": 1});
        let after = json!({"status": "connected", "message": "hi", "updated_at": 2});
        assert_eq!(changed(&before, &after), "status=connected");
        assert_eq!(changed(&Value::Null, &after), "");
    }
}
