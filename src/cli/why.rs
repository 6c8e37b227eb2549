//! `why`: the story of one call: who called whom, what decided, how it ended, what to do next.

use serde_json::Value;

use super::client::path;
use super::failure::Failure;
use super::names::Names;
use super::session::{Session, text};

pub(super) async fn why(id: &str, session: &Session) -> Result<(), Failure> {
    let answer = session.client.get(&path(&["calls", id])).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let (call, told) = (&answer.json["call"], &answer.json["explanation"]);
    if call["decision"] == "gap" {
        return gap(call, told, session);
    }
    let mut names = Names::default();
    let caller = match told["caller"]["slug"].as_str() {
        Some(slug) => slug.to_owned(),
        None if call["caller_agent_id"].is_null() => "Somebody without a key".to_owned(),
        None => names.of(&call["caller_agent_id"], session).await,
    };
    let target = match told["target"]["slug"].as_str() {
        Some(slug) => slug.to_owned(),
        None => names.of(&call["target_agent_id"], session).await,
    };
    let target_shown = if target == "-" { "nothing that is here" } else { &target };
    let level = text(&call["trust_level"]);
    let because = match level.as_str() {
        "connected" => "the two agents have a connection",
        "verified" => "the key is valid, but there is no connection",
        "unverified" => "no key: known by network address only",
        "blocked" => "one side blocked the other",
        _ => "",
    };
    let level = if because.is_empty() { level } else { format!("{level}: {because}") };
    let limit = match (&told["limit"]["name"], &told["limit"]["left"]) {
        (Value::Null, _) => String::new(),
        (name, Value::Null) => text(name),
        (name, left) => format!("{}, {} left after this call", text(name), text(left)),
    };
    let rule = ["rule", "policy_rule"].iter().find_map(|name| told[*name].as_str().or(call[*name].as_str()));
    let refused = call["decision"] == "refused";
    let answered = match call["upstream_status"].as_u64() {
        Some(status) => match call["task_state"].as_str() {
            Some(task) => format!("the agent answered {status}, task {task}"),
            None => format!("the agent answered {status}"),
        },
        None if refused => "the agent was not asked".to_owned(),
        None if call["outcome"].is_null() => "open still".to_owned(),
        None => "the agent did not answer".to_owned(),
    };
    let took = match call["latency_ms"].as_u64() {
        Some(ms) => format!("{ms} ms"),
        None => String::new(),
    };
    let outcome = if refused { &call["reason"] } else { &call["outcome"] };
    session.fields(
        &format!("{caller} called {target_shown}, {}", session.time(&call["called_at"])),
        &[
            ("why", text(&told["text"])),
            ("result", format!("{} {}", text(&call["status_code"]), text(outcome)).trim().to_owned()),
            ("answer", answered),
            ("took", took),
            ("operation", text(&call["operation"])),
            ("level", level),
            ("rule", rule.unwrap_or_default().to_owned()),
            ("limit", limit),
            ("id", text(&call["id"])),
        ],
    )?;
    match next_step(call, &caller, &target) {
        Some(step) => session.print(&format!("Next: {}\n", crate::telemetry::escaped(&step))),
        None => Ok(()),
    }
}

/// A row that is no call: where some are missing.
fn gap(call: &Value, told: &Value, session: &Session) -> Result<(), Failure> {
    session.fields(
        &format!("A gap in the log, found {}", session.time(&call["called_at"])),
        &[
            ("why", text(&told["text"])),
            ("where", text(&call["method"])),
            ("node", text(&call["node_id"])),
            ("id", text(&call["id"])),
        ],
    )
}

fn next_step(call: &Value, caller: &str, target: &str) -> Option<String> {
    // A limit that the agent itself brings along is changed there.
    let by_agent =
        call["policy_rule"].as_str().is_some_and(|rule| rule.starts_with("agent.") && rule != "agent.in_flight");
    Some(match call["reason"].as_str()? {
        "rate_limited" | "quota_exhausted" | "too_many_streams" | "too_many_calls" if by_agent => {
            format!("trust-gateway agents limits {target} --level {} --rate N --period 1m", text(&call["trust_level"]))
        }
        "blocked" | "revoked" => format!("trust-gateway connections show {caller}:{target}"),
        "rate_limited" | "quota_exhausted" | "too_many_streams" if call["trust_level"] == "connected" => {
            format!("trust-gateway connections limits {caller}:{target} --rate N --period 1m")
        }
        "rate_limited" | "quota_exhausted" if call["trust_level"] == "verified" => {
            format!("trust-gateway connections request {caller} {target}")
        }
        "credential_missing" | "rate_limited" | "quota_exhausted" => "trust-gateway agents register SLUG".to_owned(),
        "credential_invalid" => "trust-gateway keys create AGENT".to_owned(),
        "agent_disabled" => format!("trust-gateway agents enable {target}"),
        "connect_failed" | "upstream_timeout" | "agent_gone" => format!("trust-gateway agents probe {target}"),
        _ => return None,
    })
}
