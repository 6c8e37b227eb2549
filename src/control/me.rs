//! `/api/me`: who the asker is and, towards a target, what it is, what it may call and what is left of its limits.
//!
//! Promises to charge nothing, to decide as a call would be decided, and to answer the same for a target that does not exist
//! and one that the asker may not know of.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::connections;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::identity::Caller;
use crate::limit::{Left, Subject};
use crate::registry::Actor;
use crate::trust::{self, Standing};

pub(super) async fn show(asked: Asked) -> Result<Response, Problem> {
    if let Actor::Operator { name, role } = asked.known()? {
        return Ok(Json(json!({"operator": {"name": name, "role": role.as_str()}})).into_response());
    }
    let (control, now) = (&asked.control, asked.control.registry.clock().wall());
    let key = asked.key.clone().ok_or_else(|| Problem::not_found("Agent not found"))?;
    let gone = || Problem::not_found("Agent not found");
    let row = control.store.agent(key.agent.id).await?.ok_or_else(gone)?;
    let count = control.store.connected_count(row.id).await?;
    let mut body = json!({
        "agent": view::agent(&row, &asked.who, &control.public_url, count),
        "key": control.store.key(key.id).await?.map(|row| view::key(&row, now)),
    });
    if let (Some(name), Value::Object(members)) = (asked.parameters.text(&["target"]), &mut body) {
        let target = asked.visible_agent(name).await?;
        let Value::Object(standing) = towards(&asked, &Caller::Agent(key), &target).await? else { return Err(gone()) };
        members.extend(standing);
    }
    Ok(Json(body).into_response())
}

async fn towards(asked: &Asked, caller: &Caller, row: &crate::store::rows::AgentRow) -> Result<Value, Problem> {
    let (control, now) = (&asked.control, asked.control.registry.clock().wall());
    let directory = control.directory.load();
    let target = directory.agent(row.id).ok_or_else(|| Problem::not_found("Agent not found"))?;
    let standing = trust::classify(&directory, caller, Some(target), now);
    let own = caller.agent_id().unwrap_or_default();
    let limits: Vec<Left> = match &standing {
        Standing::Blocked(_) | Standing::Unverified => Vec::new(),
        Standing::Connected(tie) => control.limits.left(&Subject::Connected(tie.towards(target.id))),
        Standing::Verified => control.limits.left(&Subject::Verified { caller: own, target: target.id }),
    };
    let agreed = match &standing {
        Standing::Connected(tie) => tie.operations_towards(target.id),
        _ => None,
    };
    let tie = control.store.connection_between(own, row.id).await?;
    Ok(json!({
        "target": {"id": row.id, "slug": row.slug, "name": row.name},
        "trust_level": standing.level().as_str(),
        "connection": match tie {
            Some(tie) => connections::shown(asked, &tie).await?,
            None => Value::Null,
        },
        // With what they bring along; null: all.
        "operations": agreed.map(|set| set.with_follow_ups().names().collect::<Vec<_>>()),
        "limits": limits,
    }))
}
