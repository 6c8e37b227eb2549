//! `status`: how the gateway is, what wants attention first.

use serde_json::Value;

use super::failure::Failure;
use super::session::{Session, list, text};
use crate::telemetry::escaped;

pub(super) async fn show(session: &Session) -> Result<(), Failure> {
    let answer = session.client.get("/api/status").await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let told = &answer.json;
    let (agents, connections) = (&told["agents"], &told["connections"]);
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let (states, health) = (counted(&agents["by_state"]), counted(&agents["by_health"]));
    let megabytes = count(&told["database_bytes"]).div_ceil(1 << 20);
    let (streams, open) = (count(&told["calls"]["open_streaming"]), count(&told["calls"]["open"]));
    let blocked = match count(&connections["blocked"]) {
        0 => String::new(),
        n => format!("; {n} blocked"),
    };
    let checks = told["checks"].as_object().into_iter().flatten();
    let checks: Vec<String> = checks.map(|(name, value)| format!("{name} {}", text(value))).collect();
    let agents_told = if health.is_empty() { states } else { format!("{states}; health: {health}") };
    let listeners = told["listeners"].as_object().into_iter().flatten();
    let listeners: Vec<String> = listeners.map(|(name, value)| format!("{name} {}", text(value))).collect();
    session.fields(
        &format!("{} is up, version {}", session.client.url(), text(&told["version"])),
        &[
            ("started", session.time(&told["started_at"])),
            ("checks", format!("{}; the database is {megabytes} MiB", checks.join(", "))),
            ("agents", or_none(agents_told)),
            ("connections", or_none(counted(&connections["by_status"])) + &blocked),
            ("open calls", if streams > 0 { format!("{open}, {streams} of them streams") } else { open.to_string() }),
            ("audit log", ledger(&told["ledger"])),
            ("nodes", list(told, "nodes").len().to_string()),
            ("callers use", text(&told["public_url"])),
            ("listeners", listeners.join(", ")),
            ("registration", text(&told["registration"])),
            ("policy", text(&told["policy_digest"])),
        ],
    )?;
    let warnings = list(told, "warnings");
    for warning in warnings {
        session.print(&format!("WARNING: {}\n", escaped(&text(warning))))?;
    }
    let next = [
        (count(&agents["by_state"]["pending"]), "agents list --state pending"),
        (count(&agents["by_health"]["offline"]), "agents list --status offline"),
        (count(&connections["pending"]), "connections pending"),
    ];
    for (_, command) in next.iter().filter(|(n, _)| *n > 0) {
        session.print(&format!("Next: trust-gateway {command}\n"))?;
    }
    Ok(())
}

/// `1 200 rows, 1 180 of them signed for; unwitnessed: ...`
fn ledger(told: &Value) -> String {
    let (rows, sealed) = (text(&told["rows"]), text(&told["sealed_rows"]));
    let witnessed = match (text(&told["state"]).as_str(), told["unwitnessed_rows"].as_u64()) {
        ("witnessed", Some(0)) => "all of them witnessed".to_owned(),
        ("witnessed", n) => format!("{} not yet witnessed", n.unwrap_or(0)),
        _ => "unwitnessed: no checkpoint has ever left this machine".to_owned(),
    };
    format!("{rows} rows, {sealed} of them signed for; {witnessed}")
}

/// `2 active, 1 pending`
fn counted(groups: &Value) -> String {
    let groups = groups.as_object().into_iter().flatten().filter(|(_, n)| **n != 0);
    groups.map(|(name, n)| format!("{} {name}", text(n))).collect::<Vec<_>>().join(", ")
}

fn or_none(told: String) -> String {
    if told.is_empty() { "none".to_owned() } else { told }
}
