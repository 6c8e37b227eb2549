//! `/api/me`: who the asker is and, towards a target, what it is, what it may call and what is left of its limits.
//!
//! Promises to charge nothing, to decide as a call would be decided, and to answer the same for a target that does not exist
//! and one that the asker may not know of.

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::connections;
use super::problem::Problem;
use super::view;
use super::who::Asked;
use crate::identity::Caller;
use crate::limit::{Left, Subject};
use crate::registry::Actor;
use crate::store::rows::AgentRow;
use crate::trust::{self, Standing};

/// Who asks.
#[derive(Default, Serialize, ToSchema)]
struct Me {
    /// The agent whose key was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<view::Agent>,
    /// That key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<view::Key>,
    /// The operator whose token was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<WhichOperator>,
    #[serde(flatten)]
    #[schema(value_type = Towards)]
    towards: Option<Towards>,
}

/// An operator by its name.
#[derive(Serialize, ToSchema)]
struct WhichOperator {
    /// Names it.
    name: String,
    /// `admin` or `auditor`.
    role: &'static str,
}

/// What the asker is to the target that was named; without one these members are not there.
#[derive(Serialize, ToSchema)]
struct Towards {
    /// Which.
    #[schema(required = false)]
    target: Named,
    /// `blocked`, `verified` or `connected`.
    #[schema(required = false)]
    trust_level: &'static str,
    /// The connection between the two, whatever became of it.
    connection: Option<view::Connection>,
    /// What may be called, with what that brings along; null: everything.
    operations: Option<Vec<&'static str>>,
    /// What is left of each limit; asking costs nothing.
    #[schema(value_type = Vec<Object>, required = false)]
    limits: Vec<Left>,
}

/// An agent by its names.
#[derive(Serialize, ToSchema)]
#[schema(as = TargetName)]
struct Named {
    /// Names it.
    id: Uuid,
    /// Names it, too.
    slug: String,
    /// For people.
    name: String,
}

/// Who asks; with `target`, also what it is to that agent, what it may call there and what is left of its limits.
#[utoipa::path(get, path = "/api/me", operation_id = "me", tag = "agents",
    params(("target" = Option<String>, Query, description = "Id or slug")),
    responses((status = 200, description = "Who it is", body = Me),
        (status = 404, description = "There is no such target")))]
pub(super) async fn show(asked: Asked) -> Result<Response, Problem> {
    if let Actor::Operator { name, role } = asked.known()? {
        let operator = Some(WhichOperator { name: name.clone(), role: role.as_str() });
        return Ok(Json(Me { operator, ..Me::default() }).into_response());
    }
    let (control, now) = (&asked.control, asked.control.registry.clock().wall());
    let key = asked.key.clone().ok_or_else(|| Problem::not_found("Agent not found"))?;
    let gone = || Problem::not_found("Agent not found");
    let row = control.store.agent(key.agent.id).await?.ok_or_else(gone)?;
    let count = control.store.connected_count(row.id).await?;
    let mut me = Me {
        agent: Some(view::agent(&row, &asked.who, &control.public_url, count)),
        key: control.store.key(key.id).await?.map(|row| view::key(&row, now)),
        ..Me::default()
    };
    if let Some(name) = asked.parameters.text(&["target"]) {
        let target = asked.visible_agent(name).await?;
        me.towards = Some(towards(&asked, &Caller::Agent(key), &target).await?);
    }
    Ok(Json(me).into_response())
}

async fn towards(asked: &Asked, caller: &Caller, row: &AgentRow) -> Result<Towards, Problem> {
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
    Ok(Towards {
        target: Named { id: row.id, slug: row.slug.clone(), name: row.name.clone() },
        trust_level: standing.level().as_str(),
        connection: match tie {
            Some(tie) => Some(connections::shown(asked, &tie).await?),
            None => None,
        },
        operations: agreed.map(|set| set.with_follow_ups().names().collect()),
        limits,
    })
}
