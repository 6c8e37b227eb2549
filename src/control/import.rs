//! `/api/import/openagora`: reads an export of OpenAgora's tables and hands it to the registry, first as a plan.
//!
//! The export is one JSON object with the arrays `agents`, `api_keys`, `connections` and, where skills were exported apart,
//! `agent_skills`; their members are OpenAgora's columns.

use std::collections::HashMap;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::agent_form;
use super::body::Members;
use super::problem::Problem;
use super::who::Asked;
use crate::clock::Timestamp;
use crate::registry::agents::AgentChanges;
use crate::registry::import::{self, Counts, Import, ImportedAgent, ImportedConnection, ImportedKey, ImportedStatus};
use crate::registry::names::check_url;
use crate::store::rows::AdminState;

/// The largest export.
pub(super) const EXPORT_MAX: usize = 64 * 1024 * 1024;
/// Where it is sent to.
pub(super) const PATH: &str = "/api/import/openagora";

/// What an import does or did.
#[derive(Serialize, ToSchema)]
struct ImportReport {
    /// Whether nothing was changed.
    dry_run: bool,
    /// Agents.
    agents: ImportCounts,
    /// Keys.
    keys: ImportCounts,
    /// Connections.
    connections: ImportCounts,
    /// What does not come over, or not as it was, and why.
    problems: Vec<ImportProblem>,
    /// What remains to be done.
    note: &'static str,
}

/// Rows of one kind.
#[derive(Serialize, ToSchema)]
struct ImportCounts {
    /// Come over.
    new: usize,
    /// Are here already.
    unchanged: usize,
    /// Stay behind.
    left_out: usize,
}

/// A row that does not come over, or not as it was.
#[derive(Serialize, ToSchema)]
struct ImportProblem {
    /// Which, such as `agents[3] (slug)`.
    row: String,
    /// Why.
    problem: String,
}

/// An export of OpenAgora's tables.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes, nobody makes one")]
struct ImportForm {
    /// Rows of `agents`.
    agents: Option<Vec<Value>>,
    /// Rows of `agent_skills`, where they were exported apart.
    agent_skills: Option<Vec<Value>>,
    /// Rows of `api_keys`.
    api_keys: Option<Vec<Value>>,
    /// Rows of `connections`.
    connections: Option<Vec<Value>>,
}

/// Takes over an OpenAgora registry: unless `dry_run=false` is sent, only says what would happen. All or nothing, and
/// a second time changes nothing.
#[utoipa::path(post, path = "/api/import/openagora", operation_id = "import_openagora", tag = "import",
    params(("dry_run" = Option<bool>, Query, description = "true unless said")), request_body = ImportForm,
    responses((status = 200, description = "What happens or happened", body = ImportReport),
        (status = 409, description = "Something was changed meanwhile: try again")))]
pub(super) async fn openagora(asked: Asked) -> Result<Response, Problem> {
    let wanted = |text: &str| match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    let dry_run = asked.parameters.word("dry_run", "true or false", wanted)?.unwrap_or(true);
    let import = read(&asked.members()?, &asked.control.public_url)?;
    let plan = asked.control.registry.plan_import(&asked.who, import).await?;
    if !dry_run {
        asked.control.registry.apply_import(&asked.who, &plan).await?;
    }
    let counts =
        |counts: Counts| ImportCounts { new: counts.new, unchanged: counts.unchanged, left_out: counts.left_out };
    let problems = plan.problems.iter().map(|row| ImportProblem { row: row.row.clone(), problem: row.problem.clone() });
    Ok(Json(ImportReport {
        dry_run,
        agents: counts(plan.agents),
        keys: counts(plan.keys),
        connections: counts(plan.connections),
        problems: problems.collect(),
        note: "Keys go on working. Signing secrets are new: an agent gets its own with POST /api/agents/{id}/signing-secret.",
    })
    .into_response())
}

fn read(export: &Members, public_url: &str) -> Result<Import, Problem> {
    let list = |name: &str| match export.get(name) {
        None | Some(Value::Null) => Ok(&[][..]),
        Some(Value::Array(rows)) => Ok(rows.as_slice()),
        Some(_) => Err(Problem::invalid(name, "must be a list of rows")),
    };
    let (agents, keys, connections) = (list("agents")?, list("api_keys")?, list("connections")?);
    let mut skills: HashMap<&str, Vec<Value>> = HashMap::new();
    for skill in list("agent_skills")? {
        if let Some(agent) = skill["agent_id"].as_str() {
            skills.entry(agent).or_default().push(skill.clone());
        }
    }
    if agents.is_empty() && keys.is_empty() && connections.is_empty() {
        return Err(Problem::bad_request(
            "there is nothing in it: send an object with agents, api_keys and connections",
        ));
    }
    let mut import = Import::default();
    for (at, row) in agents.iter().enumerate() {
        let name = row["slug"].as_str().or(row["name"].as_str()).unwrap_or("?");
        let row_name = format!("agents[{at}] ({name})");
        let apart = row["id"].as_str().and_then(|id| skills.remove(id));
        import.agents.push(agent(row, apart, row_name.clone(), public_url).map_err(problem_of(row_name)));
    }
    for (at, row) in keys.iter().enumerate() {
        let row_name = format!("api_keys[{at}]");
        import.keys.push(key(row, row_name.clone()).map_err(problem_of(row_name)));
    }
    for (at, row) in connections.iter().enumerate() {
        let row_name = format!("connections[{at}]");
        import.connections.push(connection(row, row_name.clone()).map_err(problem_of(row_name)));
    }
    Ok(import)
}

fn problem_of(row: String) -> impl FnOnce(String) -> import::Problem {
    |problem| import::Problem { row, problem }
}

fn agent(
    row: &Value,
    skills_apart: Option<Vec<Value>>,
    name: String,
    public_url: &str,
) -> Result<ImportedAgent, String> {
    let id = id(row, "id")?.ok_or("id: is missing")?;
    let mut said = row.as_object().cloned().unwrap_or_default();
    // What OpenAgora never checked and nothing depends on must not keep an agent out.
    drop_bad_link(&mut said, "avatar_url");
    for member in ["skills", "agent_skills"] {
        if said.get(member).is_some_and(Value::is_null) {
            said.remove(member);
        }
    }
    if let Some(skills) = skills_apart {
        said.entry("skills").or_insert(Value::from(skills));
    }
    let created_at = time(row, "created_at")?;
    let changes =
        agent_form::read(&Members::of(said), None, public_url).map_err(|problem| problem.detail().to_owned())?;
    // Its state is decided here.
    let changes = AgentChanges {
        state: None::<AdminState>,
        max_in_flight: None,
        limits: None,
        upstream_credential: None,
        ..changes
    };
    Ok(ImportedAgent { row: name, id, changes, created_at })
}

fn drop_bad_link(said: &mut Map<String, Value>, member: &str) {
    let bad = said.get(member).is_some_and(|value| value.as_str().is_none_or(|url| check_url(member, url).is_err()));
    if bad {
        said.remove(member);
    }
}

fn key(row: &Value, name: String) -> Result<ImportedKey, String> {
    let hash = row["key_hash"].as_str().ok_or("key_hash: is missing")?;
    let digest = digest(hash).ok_or("key_hash: must be a SHA-256 in 64 hexadecimal digits")?;
    Ok(ImportedKey {
        row: name,
        id: id(row, "id")?,
        agent_id: id(row, "agent_id")?.ok_or("agent_id: is missing")?,
        digest,
        name: row["name"].as_str().unwrap_or("default").to_owned(),
        last_used_at: time(row, "last_used_at")?,
        created_at: time(row, "created_at")?,
    })
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

fn connection(row: &Value, name: String) -> Result<ImportedConnection, String> {
    let status = match row["status"].as_str() {
        Some("pending") => ImportedStatus::Pending,
        Some("connected") => ImportedStatus::Connected,
        Some("declined") => ImportedStatus::Declined,
        Some("blocked") => ImportedStatus::Blocked,
        _ => return Err("status: must be pending, connected, declined or blocked".to_owned()),
    };
    Ok(ImportedConnection {
        row: name,
        id: id(row, "id")?,
        requester_id: id(row, "requester_id")?.ok_or("requester_id: is missing")?,
        target_id: id(row, "target_id")?.ok_or("target_id: is missing")?,
        status,
        message: row["message"].as_str().map(str::to_owned),
        created_at: time(row, "created_at")?,
        resolved_at: time(row, "resolved_at")?,
    })
}

fn id(row: &Value, member: &str) -> Result<Option<Uuid>, String> {
    match &row[member] {
        Value::Null => Ok(None),
        Value::String(text) => Uuid::parse_str(text).map(Some).map_err(|_| format!("{member}: is not a UUID")),
        _ => Err(format!("{member}: is not a UUID")),
    }
}

/// A time as PostgreSQL writes it in JSON, or in CSV: with a space, and an offset of hours alone.
fn time(row: &Value, member: &str) -> Result<Option<Timestamp>, String> {
    let wrong = || format!("{member}: must be a time such as 2026-12-31T23:59:59Z");
    let text = match &row[member] {
        Value::Null => return Ok(None),
        Value::String(text) if text.is_empty() => return Ok(None),
        Value::String(text) => text.replacen(' ', "T", 1),
        _ => return Err(wrong()),
    };
    let text = match text.len().checked_sub(3).and_then(|at| text.split_at_checked(at)) {
        Some((_, offset)) if offset.starts_with(['+', '-']) => format!("{text}:00"),
        _ => text,
    };
    Timestamp::parse(&text).map(Some).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_read_as_postgresql_writes_them() {
        let wanted = Timestamp::parse("2026-04-01T12:00:00.5Z").ok();
        for text in [
            "2026-04-01T12:00:00.5+00:00",
            "2026-04-01 12:00:00.5+00",
            "2026-04-01T12:00:00.5Z",
            "2026-04-01 14:00:00.5+02",
        ] {
            assert_eq!(time(&json!({"at": text}), "at"), Ok(wanted), "{text}");
        }
        assert_eq!(time(&json!({"at": ""}), "at"), Ok(None));
        assert_eq!(time(&json!({}), "at"), Ok(None));
        for bad in [json!("yesterday"), json!(7), json!("é+0"), json!("+00")] {
            assert!(time(&json!({"at": bad}), "at").is_err(), "{bad}");
        }
    }
}
