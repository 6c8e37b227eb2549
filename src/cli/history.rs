//! What was changed, when, by whom and why: the history of one agent or connection, and `events`, that of everything.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::agent_limits;
use super::client::{path, query};
use super::failure::Failure;
use super::limits::limits_told;
use super::names::Names;
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
    table(&answer.json, true, session).await
}

pub(super) async fn show(noun: &str, asked: Asked, session: &Session) -> Result<(), Failure> {
    let parameters = [("limit", Some(asked.limit.to_string()))];
    let answer = session.client.get(&query(&path(&[noun, &asked.name, "history"]), &parameters)).await?;
    if session.raw(&answer)? { Ok(()) } else { table(&answer.json, false, session).await }
}

async fn table(answer: &Value, with_subject: bool, session: &Session) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("WHEN", Fit::Whole),
        ("WHO", Fit::Cut),
        ("WHAT", Fit::Whole),
        ("TO", Fit::Spare),
        ("CHANGED", Fit::Cut),
        ("WHY", Fit::Spare),
    ]);
    let rows = list(answer, "events");
    let mut names = Names::default();
    for row in rows {
        let actor = match row["actor"].as_str().and_then(|actor| actor.strip_prefix("agent:")) {
            Some(id) => format!("agent:{}", names.of(&Value::from(id), session).await),
            None => text(&row["actor"]),
        };
        table.row([
            session.time(&row["at"]),
            actor,
            text(&row["action"]),
            if with_subject { subject(row, &mut names, session).await } else { String::new() },
            changed(&row["before"], &row["after"], session),
            text(&row["reason"]),
        ]);
    }
    session.table(&table, rows.is_empty(), "Nothing was changed, as far as you may see.")?;
    if let Some(next) = answer["next"].as_str() {
        session.note(&format!("There is more: --next {next}, or a higher --limit."));
    }
    Ok(())
}

/// What was changed, by the name that commands take; the id where there is no name.
async fn subject(row: &Value, names: &mut Names, session: &Session) -> String {
    let of = |name: &str| [&row["after"][name], &row["before"][name]].into_iter().find(|value| !value.is_null());
    let kind = row["action"].as_str().and_then(|action| action.split('.').next()).unwrap_or_default();
    match (kind, of("name"), of("agent_id"), of("requester_id").zip(of("target_id"))) {
        ("operator", Some(name), ..) => text(name),
        ("key", Some(name), Some(agent), _) => format!("{}/{}", names.of(agent, session).await, text(name)),
        ("connection", .., Some((requester, target))) => {
            format!("{}:{}", names.of(requester, session).await, names.of(target, session).await)
        }
        ("agent", ..) => match of("slug") {
            Some(slug) => text(slug),
            None => names.of(&row["subject"], session).await,
        },
        _ => text(&row["subject"]),
    }
}

/// The members that differ, with their new values; those that change with everything are left out.
fn changed(before: &Value, after: &Value, session: &Session) -> String {
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else { return String::new() };
    let differing = new.iter().filter(|(name, value)| name.as_str() != "updated_at" && old.get(*name) != Some(*value));
    let shown = |(name, value): (&String, &Value)| match value {
        Value::Null => format!("{name}=none"),
        value if name == "limits" && value["costs"].is_object() => format!("limits: {}", agent_limits::told(value)),
        value if name == "limits" => format!("limits: {}", limits_told(value)),
        value if name.ends_with("_at") => format!("{name}={}", session.time(value)),
        value => format!("{name}={}", text(value)),
    };
    differing.map(shown).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::profile::Access;
    use super::super::session::Common;
    use super::*;

    #[test]
    fn a_change_is_told_by_what_differs() {
        let access = Access { url: Some("http://127.0.0.1:1".to_owned()), ..Access::default() };
        let session = Session::open(&Common { access, utc: true, ..Common::default() }).expect("nothing is asked yet");
        let limits = |rate: Option<u32>| json!({"rate": rate, "period_ms": 60000, "burst": null});
        let before = json!({"status": "pending", "message": "hi", "updated_at": 1, "limits": limits(None)});
        let after = json!({"status": "connected", "message": "hi", "updated_at": 2, "limits": limits(Some(2)),
            "ends_at": "2026-12-31T00:00:00.5Z"});
        let told = changed(&before, &after, &session);
        assert_eq!(told, "ends_at=2026-12-31T00:00:00Z; limits: 2 calls each 1min; status=connected");
        assert_eq!(changed(&Value::Null, &after, &session), "");
    }
}
