//! A call as it is shown: over, or open.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{NamedAgent, Names};
use crate::audit::record::Intent;
use crate::clock::Timestamp;
use crate::registry::Actor;
use crate::store::rows::CallRow;

/// A call that is over: a row of the call log.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Call {
    /// The request id.
    id: Uuid,
    /// Who was called.
    target_agent_id: Option<Uuid>,
    /// Who called; null: nobody known.
    caller_agent_id: Option<Uuid>,
    /// Who was called, by its names; null: nobody known.
    target: Option<NamedAgent>,
    /// Who called, by its names; null: nobody known.
    caller: Option<NamedAgent>,
    /// What the caller was to the target.
    trust_level: String,
    /// The status of the answer.
    status_code: i64,
    /// From arrival to the end of the answer.
    latency_ms: i64,
    /// When it arrived.
    #[schema(value_type = String, format = DateTime)]
    called_at: Timestamp,
    /// The node that served it.
    node_id: Uuid,
    /// Without gaps per node.
    seq: i64,
    /// The key used; shown to the caller and to operators.
    credential_id: Option<Uuid>,
    /// How the caller proved who it is.
    auth_method: String,
    /// Where from; shown to the caller and to operators.
    client_ip: Option<String>,
    /// The connection in force.
    connection_id: Option<Uuid>,
    /// The wire form.
    binding: String,
    /// `A2A-Version` as sent.
    protocol_version: Option<String>,
    /// The method as sent; of a gap, where it is.
    method: Option<String>,
    /// The A2A operation under its name of version 1.0; `Gap`: no call, but a place where some are missing.
    operation: String,
    /// The JSON-RPC id.
    rpc_id: Option<String>,
    /// The task.
    task_id: Option<String>,
    /// The context.
    context_id: Option<String>,
    /// The message.
    message_id: Option<String>,
    /// Whether it was let through: `allowed` or `refused`; `gap`: no call.
    decision: String,
    /// Why not, or why it ended as it did; of a gap, its cause.
    reason: Option<String>,
    /// The rule that decided.
    policy_rule: Option<String>,
    /// The policy that was in force.
    policy_digest: Option<String>,
    /// The limit that decided, or was nearest to.
    limit_name: Option<String>,
    /// What was left of it after the call.
    limit_left: Option<i64>,
    /// What it cost.
    units: i64,
    /// How it ended; `gap`: no call.
    outcome: String,
    /// The agent's status.
    upstream_status: Option<i64>,
    /// The error code in the agent's answer.
    rpc_error_code: Option<i64>,
    /// The last task state in the answer.
    task_state: Option<String>,
    /// The length of the request's body.
    request_bytes: i64,
    /// The length of the answer's body.
    response_bytes: i64,
    /// Events of a stream.
    stream_events: Option<i64>,
    /// Until the first byte of the answer.
    ttfb_ms: Option<i64>,
    /// How many calls this row stands for: more than one only for refusals under a flood. Of a gap: how many are known to be
    /// missing, 0 where that is not known.
    calls: i64,
    /// The W3C trace.
    trace_id: Option<String>,
    /// The row's leaf in the log's Merkle tree.
    leaf_hash: String,
}

/// A call that is open.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct ActiveCall {
    /// The request id.
    id: Uuid,
    /// When it arrived.
    #[schema(value_type = String, format = DateTime)]
    called_at: Timestamp,
    /// Who is called.
    target_agent_id: Option<Uuid>,
    /// Who calls.
    caller_agent_id: Option<Uuid>,
    /// Who is called, by its names; null: nobody known.
    target: Option<NamedAgent>,
    /// Who calls, by its names; null: nobody known.
    caller: Option<NamedAgent>,
    /// What the caller is to the target.
    #[schema(value_type = String)]
    trust_level: crate::trust::TrustLevel,
    /// The key used; shown to the caller and to operators.
    credential_id: Option<Uuid>,
    /// How the caller proved who it is.
    auth_method: &'static str,
    /// The connection in force.
    connection_id: Option<Uuid>,
    /// The wire form.
    binding: &'static str,
    /// `A2A-Version` as sent.
    protocol_version: Option<String>,
    /// The method as sent.
    method: Option<String>,
    /// The A2A operation.
    operation: &'static str,
    /// The JSON-RPC id.
    rpc_id: Option<String>,
    /// The task.
    task_id: Option<String>,
    /// The context.
    context_id: Option<String>,
    /// The message.
    message_id: Option<String>,
    /// The rule that decided.
    policy_rule: Option<String>,
    /// The limit that was nearest.
    limit_name: Option<&'static str>,
    /// What was left of it after the call.
    limit_left: Option<u32>,
    /// What it costs.
    units: u32,
    /// The W3C trace.
    trace_id: Option<String>,
}

/// Whether `who` may know by which key and from which address a call of `caller` came.
fn knows_origin(who: &Actor, caller: Option<Uuid>) -> bool {
    who.is_operator() || matches!((who, caller), (Actor::Agent(own), Some(caller)) if *own == caller)
}

/// Whether `who` may know which agent a call was for: who called one that it may not know of is told no more than it was then.
pub(in crate::control) fn knows_target(who: &Actor, target: Uuid, reason: Option<&str>) -> bool {
    who.is_operator() || *who == Actor::Agent(target) || reason != Some("agent_not_found")
}

fn named(names: &Names, agent: Option<Uuid>) -> Option<NamedAgent> {
    agent.and_then(|agent| names.get(&agent)).cloned()
}

/// A call that is over.
pub(in crate::control) fn call(row: &CallRow, who: &Actor, names: &Names) -> Call {
    let origin = knows_origin(who, row.caller_agent_id);
    let target = row.target_agent_id.filter(|target| knows_target(who, *target, row.reason.as_deref()));
    Call {
        id: row.id,
        target_agent_id: target,
        caller_agent_id: row.caller_agent_id,
        target: named(names, target),
        caller: named(names, row.caller_agent_id),
        trust_level: row.trust_level.clone(),
        status_code: row.status_code,
        latency_ms: row.latency_ms,
        called_at: row.called_at,
        node_id: row.node_id,
        seq: row.seq,
        credential_id: row.credential_id.filter(|_| origin),
        auth_method: row.auth_method.clone(),
        client_ip: row.client_ip.clone().filter(|_| origin),
        connection_id: row.connection_id,
        binding: row.binding.clone(),
        protocol_version: row.protocol_version.clone(),
        method: row.method.clone(),
        operation: row.operation.clone(),
        rpc_id: row.rpc_id.clone(),
        task_id: row.task_id.clone(),
        context_id: row.context_id.clone(),
        message_id: row.message_id.clone(),
        decision: row.decision.clone(),
        reason: row.reason.clone(),
        policy_rule: row.policy_rule.clone(),
        policy_digest: row.policy_digest.clone(),
        limit_name: row.limit_name.clone(),
        limit_left: row.limit_left,
        units: row.units,
        outcome: row.outcome.clone(),
        upstream_status: row.upstream_status,
        rpc_error_code: row.rpc_error_code,
        task_state: row.task_state.clone(),
        request_bytes: row.request_bytes,
        response_bytes: row.response_bytes,
        stream_events: row.stream_events,
        ttfb_ms: row.ttfb_ms,
        calls: row.calls,
        trace_id: row.trace_id.clone(),
        leaf_hash: row.leaf_hash.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// A call that is open.
pub(in crate::control) fn active_call(call: &Intent, who: &Actor, names: &Names) -> ActiveCall {
    let origin = knows_origin(who, call.caller_agent_id);
    let target = call.target_agent_id.filter(|target| knows_target(who, *target, call.reason));
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    ActiveCall {
        id: call.request_id,
        called_at: call.called_at,
        target_agent_id: target,
        caller_agent_id: call.caller_agent_id,
        target: named(names, target),
        caller: named(names, call.caller_agent_id),
        trust_level: call.trust_level,
        credential_id: call.credential_id.filter(|_| origin),
        auth_method: call.auth_method.as_str(),
        connection_id: call.connection_id,
        binding: call.binding.as_str(),
        protocol_version: text(&call.protocol_version),
        method: text(&call.method),
        operation: call.operation.as_str(),
        rpc_id: text(&call.rpc_id),
        task_id: text(&call.task_id),
        context_id: text(&call.context_id),
        message_id: text(&call.message_id),
        policy_rule: text(&call.policy_rule),
        limit_name: call.limit.map(|limit| limit.name),
        limit_left: call.limit.map(|limit| limit.left),
        units: call.units,
        trace_id: text(&call.trace_id),
    }
}
