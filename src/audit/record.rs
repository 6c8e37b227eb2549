//! The facts of one call.
//!
//! A call has two halves: the [`Intent`], known before anything is forwarded, and the [`Outcome`], known when it is over.
//! Together they become one row of `proxy_calls`. Rows that are no calls are gaps, see [`super::gap`].

use std::net::IpAddr;

use uuid::Uuid;

use crate::a2a::{Binding, Operation};
use crate::clock::Timestamp;
use crate::trust::TrustLevel;

/// Bounds, in bytes, for strings that come from outside; longer ones are cut at a character boundary.
pub mod bound {
    /// `rpc_id`, `task_id`, `context_id`, `message_id`.
    pub const ID: usize = 256;
    /// `method`: a JSON-RPC method, or `METHOD /path` of a REST call.
    pub const METHOD: usize = 200;
    /// `protocol_version`, `task_state` and other short words.
    pub const WORD: usize = 64;
}

/// A copy of `text` cut to at most `max` bytes at a character boundary.
#[must_use]
pub fn bounded(text: &str, max: usize) -> Box<str> {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // PostgreSQL's text cannot hold U+0000, and the leaf hash is made of what the row holds. U+001A, "substitute", is as long.
    match text[..end].contains('\0') {
        true => text[..end].replace('\0', "\u{1A}").into(),
        false => text[..end].into(),
    }
}

/// How the caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// No credential.
    None,
    /// A gateway API key.
    ApiKey,
}

impl AuthMethod {
    /// The name used in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ApiKey => "api_key",
        }
    }
}

/// Whether the call was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It got a permit.
    Allowed,
    /// It was refused; `reason` says why.
    Refused,
}

impl Decision {
    /// The name used in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The whole answer was handed to the caller's connection.
    Completed,
    /// The agent answered with an error (5xx), handed on whole.
    AgentError,
    /// The caller left before the answer was whole.
    ClientGone,
    /// The agent could not be reached, or broke off, or answered garbage.
    AgentGone,
    /// A time limit of ours passed.
    Timeout,
    /// The gateway ended it: a crash, a drain, a block, a journal that could not be written.
    Interrupted,
    /// Never forwarded.
    Refused,
}

impl Ending {
    /// The name used in the column `outcome`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::AgentError => "agent_error",
            Self::ClientGone => "client_gone",
            Self::AgentGone => "agent_gone",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Refused => "refused",
        }
    }
}

/// What a charged call took from a limit that must survive a restart. Not part of the canonical record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// A keyed hash naming the limit; says nothing about the address behind it.
    pub key: [u8; 16],
    /// Microseconds the bucket needs to refill one unit; 0 for a bucket too fast to be worth rebuilding.
    pub refill_us: u64,
    /// Units taken from the daily quota and the bucket.
    pub units: u32,
}

/// How a call stood to the limit that refused it or, when it was let through, to the one it left least of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitLeft {
    /// The id of the rule that the limit comes from, one of a fixed set.
    pub name: &'static str,
    /// What was left of it after the call.
    pub left: u32,
}

/// What is known of a call before it is forwarded, or when it is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// The request id: a `UUIDv7`, the row's `id`, also given to caller and agent.
    pub request_id: Uuid,
    /// Arrival.
    pub called_at: Timestamp,
    /// The agent that was asked for, where it exists.
    pub target_agent_id: Option<Uuid>,
    /// The calling agent, where a credential proved one.
    pub caller_agent_id: Option<Uuid>,
    /// The API key used.
    pub credential_id: Option<Uuid>,
    /// How the caller proved who it is.
    pub auth_method: AuthMethod,
    /// What the caller was to the target.
    pub trust_level: TrustLevel,
    /// The connection in force.
    pub connection_id: Option<Uuid>,
    /// The caller's network address, exact: the journal truncates it unless the configuration asks for it in full.
    pub client_ip: Option<IpAddr>,
    /// The wire form.
    pub binding: Binding,
    /// The A2A version as the caller named it (`A2A-Version`).
    pub protocol_version: Option<Box<str>>,
    /// The method as sent: a JSON-RPC method name, or `METHOD /path` below the agent's prefix.
    pub method: Option<Box<str>>,
    /// The operation under its v1.0 name.
    pub operation: Operation,
    /// The JSON-RPC id as raw JSON text (`"a"` with quotes, `1`, `null`).
    pub rpc_id: Option<Box<str>>,
    /// The task the caller named, later the one the agent named.
    pub task_id: Option<Box<str>>,
    /// The context, likewise.
    pub context_id: Option<Box<str>>,
    /// The message id the caller gave.
    pub message_id: Option<Box<str>>,
    /// Let through or refused.
    pub decision: Decision,
    /// Why it was refused, one of a fixed set of words.
    pub reason: Option<&'static str>,
    /// The id of the rule that decided.
    pub policy_rule: Option<Box<str>>,
    /// The SHA-256 of the policy file in force, first 16 hex digits.
    pub policy_digest: Option<Box<str>>,
    /// Units charged.
    pub units: u32,
    /// The limit that decided, or was nearest to.
    pub limit: Option<LimitLeft>,
    /// The W3C trace id, 32 hex digits.
    pub trace_id: Option<Box<str>>,
    /// What a restart must remember of the limits this call was charged to.
    pub charge: Option<Charge>,
}

/// What is known of a call when it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// Why the gateway ended it, where it did.
    pub reason: Option<&'static str>,
    /// The status the caller was given; 0 where it was given none.
    pub status_code: u16,
    /// The status the agent gave.
    pub upstream_status: Option<u16>,
    /// The code of a JSON-RPC error in the answer.
    pub rpc_error_code: Option<i64>,
    /// The last task state seen in the answer, as the agent spelled it.
    pub task_state: Option<Box<str>>,
    /// Ids seen in the answer; they win over those of the request.
    pub task_id: Option<Box<str>>,
    /// As `task_id`.
    pub context_id: Option<Box<str>>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the answer's body handed to the caller.
    pub response_bytes: u64,
    /// Events of a stream handed to the caller; `None` where the answer was not a stream.
    pub stream_events: Option<u64>,
    /// Milliseconds from arrival to the agent's first byte.
    pub ttfb_ms: Option<u32>,
    /// Milliseconds from arrival to the end.
    pub latency_ms: u32,
    /// How many calls this record stands for: more than one only for refusals folded together.
    pub calls: u32,
}
