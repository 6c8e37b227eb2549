//! What the API shows of a row, and to whom.

use serde_json::{Value, json};

use crate::audit::record::Intent;
use crate::registry::Actor;
use crate::store::rows::{AdminEvent, AgentRow, CallRow, ConnectionRow, HealthStatus, KeyRow, OperatorRow};

/// Health as people are shown it: an agent that answers now and then is online.
pub(super) fn health(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Degraded => HealthStatus::Online.as_str(),
        other => other.as_str(),
    }
}

fn skills(row: &AgentRow) -> Value {
    serde_json::from_str(&row.skills_json).unwrap_or_else(|_| json!([]))
}

fn payment(row: &AgentRow, member: &str) -> Value {
    let parsed: Value =
        row.payment_json.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    parsed.get(member).cloned().unwrap_or_default()
}

/// An agent as `who` may see it.
pub(super) fn agent(row: &AgentRow, who: &Actor, public_url: &str, connections: i64) -> Value {
    let callable = row.endpoint_url.is_some();
    let mut shown = json!({
        "id": row.id,
        "slug": row.slug,
        "name": row.name,
        "description": row.description,
        "provider": row.provider,
        "avatar_url": row.avatar_url,
        // The gateway's, never the agent's own: whoever follows it is identified, limited and recorded.
        "url": callable.then(|| format!("{public_url}/api/proxy/{}", row.slug)),
        "relay_url": callable.then(|| format!("{public_url}/relay/{}", row.slug)),
        "client": !callable,
        "capabilities": row.capabilities,
        "skills": skills(row),
        "agent_skills": skills(row),
        "payment_schemes": payment(row, "payment_schemes"),
        "payment_address": payment(row, "payment_address"),
        "health_status": health(row.health),
        "health_checked_at": row.health_checked_at,
        "auto_accept_connections": row.auto_accept_connections,
        "connections_count": connections,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    });
    if who.is_operator() || who.owns(row.id) {
        let private = json!({
            "endpoint_url": row.endpoint_url,
            "card_url": row.card_url,
            "card_fetched_at": row.card_fetched_at,
            "health_reason": row.health_reason,
            "subpaths": row.subpaths,
            "state": row.state.as_str(),
            "listed": row.listed,
            "registered_by_operator": row.registered_by_operator,
            "push": row.push.as_str(),
            "pass_authorization": row.pass_authorization,
            "sign_large_bodies": row.sign_large_bodies,
            "http2": row.http2,
            "max_in_flight": row.max_in_flight,
            "timeouts": {
                "connect_ms": row.timeouts.connect_ms, "first_byte_ms": row.timeouts.first_byte_ms,
                "read_first_byte_ms": row.timeouts.read_first_byte_ms, "idle_ms": row.timeouts.idle_ms,
            },
            "has_upstream_credential": row.upstream_credential.is_some(),
        });
        if let (Value::Object(shown), Value::Object(private)) = (&mut shown, private) {
            shown.extend(private);
        }
    }
    shown
}

/// An agent as `/api/agents/find` shows it.
pub(super) fn found_agent(row: &AgentRow, public_url: &str, connections: i64) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "slug": row.slug,
        "description": row.description,
        "provider": row.provider,
        "url": format!("{public_url}/api/proxy/{}", row.slug),
        "relay_url": format!("{public_url}/relay/{}", row.slug),
        "health": health(row.health),
        "health_status": health(row.health),
        "upvotes": 0,
        "connections": connections,
        "skills": skills(row),
    })
}

/// A key; never the key itself.
pub(super) fn key(row: &KeyRow) -> Value {
    json!({
        "id": row.id, "agent_id": row.agent_id, "name": row.name, "hint": row.hint, "expires_at": row.expires_at,
        "last_used_at": row.last_used_at, "created_at": row.created_at,
    })
}

/// An operator; never its token.
pub(super) fn operator(row: &OperatorRow) -> Value {
    json!({
        "id": row.id, "name": row.name, "role": row.role.as_str(), "hint": row.hint, "expires_at": row.expires_at,
        "last_used_at": row.last_used_at, "created_at": row.created_at,
    })
}

/// One change, with what it was and became as the objects they were.
pub(super) fn event(event: &AdminEvent) -> Value {
    let object = |text: &Option<String>| text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    json!({
        "id": event.id, "at": event.at, "actor": event.actor, "action": event.action, "subject": event.subject,
        "before": object(&event.before), "after": object(&event.after), "reason": event.reason,
    })
}

/// The status as OpenAgora knows it: a block mark on either side covers the rest.
pub(super) fn connection_status(row: &ConnectionRow) -> &'static str {
    if row.blocked_by_requester || row.blocked_by_target { "blocked" } else { row.status.as_str() }
}

/// A connection with what strangers may know of its two agents.
pub(super) fn connection(row: &ConnectionRow, requester: Option<&AgentRow>, target: Option<&AgentRow>) -> Value {
    let side = |id: uuid::Uuid, agent: Option<&AgentRow>| {
        json!({
            "id": id, "name": agent.map(|agent| &agent.name), "slug": agent.map(|agent| &agent.slug),
            "avatar_url": agent.and_then(|agent| agent.avatar_url.as_ref()),
        })
    };
    json!({
        "id": row.id,
        "requester_id": row.requester_id,
        "target_id": row.target_id,
        "requester": side(row.requester_id, requester),
        "target": side(row.target_id, target),
        "status": connection_status(row),
        "agreement": row.status.as_str(),
        "blocked_by_requester": row.blocked_by_requester,
        "blocked_by_target": row.blocked_by_target,
        "blocked_by_operator": row.block_locked,
        "message": row.message,
        "limits": {
            "rate": row.limits.rate, "period_ms": row.limits.period_ms, "burst": row.limits.burst,
            "daily": row.limits.daily, "streams": row.limits.streams,
        },
        "ends_at": row.ends_at,
        "created_at": row.created_at,
        "resolved_at": row.resolved_at,
    })
}

/// Whether `who` may know by which key and from which address a call of `caller` came.
fn knows_origin(who: &Actor, caller: Option<uuid::Uuid>) -> bool {
    who.is_operator() || matches!((who, caller), (Actor::Agent(own), Some(caller)) if *own == caller)
}

/// A call that is over.
pub(super) fn call(row: &CallRow, who: &Actor) -> Value {
    let origin = knows_origin(who, row.caller_agent_id);
    json!({
        "id": row.id,
        "target_agent_id": row.target_agent_id,
        "caller_agent_id": row.caller_agent_id,
        "trust_level": row.trust_level,
        "status_code": row.status_code,
        "latency_ms": row.latency_ms,
        "called_at": row.called_at,
        "node_id": row.node_id,
        "seq": row.seq,
        "credential_id": row.credential_id.filter(|_| origin),
        "auth_method": row.auth_method,
        "client_ip": row.client_ip.as_ref().filter(|_| origin),
        "connection_id": row.connection_id,
        "binding": row.binding,
        "protocol_version": row.protocol_version,
        "method": row.method,
        "operation": row.operation,
        "rpc_id": row.rpc_id,
        "task_id": row.task_id,
        "context_id": row.context_id,
        "message_id": row.message_id,
        "decision": row.decision,
        "reason": row.reason,
        "policy_rule": row.policy_rule,
        "policy_digest": row.policy_digest,
        "units": row.units,
        "outcome": row.outcome,
        "upstream_status": row.upstream_status,
        "rpc_error_code": row.rpc_error_code,
        "task_state": row.task_state,
        "request_bytes": row.request_bytes,
        "response_bytes": row.response_bytes,
        "stream_events": row.stream_events,
        "ttfb_ms": row.ttfb_ms,
        "calls": row.calls,
        "trace_id": row.trace_id,
        "leaf_hash": row.leaf_hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    })
}

/// A call that is open.
pub(super) fn active_call(call: &Intent, who: &Actor) -> Value {
    let origin = knows_origin(who, call.caller_agent_id);
    json!({
        "id": call.request_id,
        "called_at": call.called_at,
        "target_agent_id": call.target_agent_id,
        "caller_agent_id": call.caller_agent_id,
        "trust_level": call.trust_level,
        "credential_id": call.credential_id.filter(|_| origin),
        "auth_method": call.auth_method.as_str(),
        "connection_id": call.connection_id,
        "binding": call.binding.as_str(),
        "protocol_version": call.protocol_version,
        "method": call.method,
        "operation": call.operation.as_str(),
        "rpc_id": call.rpc_id,
        "task_id": call.task_id,
        "context_id": call.context_id,
        "message_id": call.message_id,
        "policy_rule": call.policy_rule,
        "units": call.units,
        "trace_id": call.trace_id,
    })
}
