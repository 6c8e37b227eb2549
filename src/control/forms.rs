//! What may be sent, for the OpenAPI document. Read member by member (`body`, `agent_form`), so that a complaint can name
//! the member and an agent card of any version passes for a registration: these types only describe it.

#![expect(dead_code, reason = "they describe, nobody makes one")]

use serde_json::Value;
use utoipa::ToSchema;

/// A registration or a change of an agent: these members, or a bare agent card of A2A 0.3 or 1.0. All may be left out in a
/// change; members not named here are ignored.
#[derive(ToSchema)]
pub(super) struct AgentForm {
    /// Its name for people.
    name: Option<String>,
    /// Its name in addresses; made from the name where it is not sent.
    slug: Option<String>,
    /// What it is good for.
    description: Option<String>,
    /// The organisation behind it, or a card's `{"organization": ...}`.
    provider: Option<Value>,
    /// A picture.
    avatar_url: Option<String>,
    /// Where the agent is; left out: a client, which only calls.
    url: Option<String>,
    /// The same, and stronger where both are sent.
    endpoint_url: Option<String>,
    /// Where its own card is, when it is not at the usual places.
    card_url: Option<String>,
    /// Further paths that are public, such as `/chat`.
    subpaths: Option<Vec<String>>,
    /// A list of words, or a card's object of flags.
    capabilities: Option<Value>,
    /// Objects with at least a name, or names.
    skills: Option<Vec<Value>>,
    /// `pending`, `active` or `disabled`; operators only.
    state: Option<String>,
    /// Whether strangers find it.
    listed: Option<bool>,
    /// Whether a request for a connection is accepted at once.
    auto_accept_connections: Option<bool>,
    /// `refuse` or `pass`.
    push: Option<String>,
    /// Whether the caller's `X-Agent-Authorization` is passed on.
    pass_authorization: Option<bool>,
    /// Whether large bodies are signed too.
    sign_large_bodies: Option<bool>,
    /// Whether it is spoken to in HTTP/2.
    http2: Option<bool>,
    /// Calls in flight at once; null: the default.
    max_in_flight: Option<u32>,
    /// Limits for its callers, by operators: `costs` (units by operation, such as `{"SendMessage": 5}`), and `connected`,
    /// `verified` and `unverified`, each with `rate`, `period` or `period_ms`, `burst`, `daily`, `streams`, `in_flight`. Of these
    /// four, those not sent stay; null: the policy's.
    #[schema(value_type = Option<Object>)]
    limits: Option<Value>,
    /// Seconds between two probes, from 10 to a week; null: the gateway's own interval.
    #[schema(minimum = 10, maximum = 604_800)]
    health_interval_s: Option<u32>,
    /// `connect_ms`, `first_byte_ms`, `read_first_byte_ms`, `idle_ms`.
    #[schema(value_type = Option<Object>)]
    timeouts: Option<Value>,
    /// `{"header": ..., "value": ...}`, `{"bearer": ...}`, or null to take it away. Never shown again.
    #[schema(value_type = Option<Object>)]
    upstream_credential: Option<Value>,
}

/// A new key.
#[derive(ToSchema)]
pub(super) struct KeyForm {
    /// Whose: id or slug; left out: the agent's that asks.
    agent_id: Option<String>,
    /// To recognise it by.
    name: Option<String>,
    /// Refused from then on.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// The SHA-256 of a key that exists elsewhere, in hexadecimal digits: it is taken over instead of one being made (admins).
    sha256: Option<String>,
}

/// A request for a connection.
#[derive(ToSchema)]
pub(super) struct ConnectionForm {
    /// Who is asked: id or slug.
    target_agent_id: Option<String>,
    /// The same under OpenAgora's other name.
    target_id: Option<String>,
    /// Who asks; left out: the agent that sends this.
    requester_id: Option<String>,
    /// For the target to read, at most 150 characters.
    message: Option<String>,
    /// `connected` (operators) or `blocked`.
    status: Option<String>,
    /// Limits of its own: `rate`, `period` or `period_ms`, `burst`, `daily`, `streams`.
    #[schema(value_type = Option<Object>)]
    limits: Option<Value>,
    /// Not in force from then on.
    #[schema(format = DateTime)]
    ends_at: Option<String>,
    /// What it is for, at most 500 characters.
    purpose: Option<String>,
    /// What the requester may call at the target, by names of A2A 1.0; null: everything.
    operations: Option<Vec<String>>,
    /// Somebody should look at it then; nothing stops.
    #[schema(format = DateTime)]
    review_at: Option<String>,
    /// Why; kept in the history.
    reason: Option<String>,
}

/// A change of a connection.
#[derive(ToSchema)]
pub(super) struct ConnectionChange {
    /// `accept`, `decline`, `block`, `unblock`, `pause`, `resume` or `end`.
    action: Option<String>,
    /// The same under OpenAgora's other name.
    status: Option<String>,
    /// For which side an operator acts.
    agent_id: Option<String>,
    /// Limits of its own: `rate`, `period` or `period_ms`, `burst`, `daily`, `streams`.
    #[schema(value_type = Option<Object>)]
    limits: Option<Value>,
    /// Not in force from then on.
    #[schema(format = DateTime)]
    ends_at: Option<String>,
    /// What it is for, at most 500 characters.
    purpose: Option<String>,
    /// What the requester may call at the target, by names of A2A 1.0; null: everything.
    operations: Option<Vec<String>>,
    /// Somebody should look at it then; nothing stops.
    #[schema(format = DateTime)]
    review_at: Option<String>,
    /// Why; kept in the history.
    reason: Option<String>,
}

/// A new operator.
#[derive(ToSchema)]
pub(super) struct OperatorForm {
    /// Unique; names it in the log of changes.
    name: String,
    /// `admin` or `auditor`.
    role: String,
    /// The token is refused from then on.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Whose addresses are erased, and why.
#[derive(ToSchema)]
pub(super) struct ErasureForm {
    /// The caller: id or slug; one that was deleted by its id.
    caller: String,
    /// Why; kept in the history.
    reason: String,
}

/// What is to be held, and why.
#[derive(ToSchema)]
pub(super) struct HoldForm {
    /// The calls it made or received: id or slug; one that was deleted by its id.
    agent: Option<String>,
    /// In place of an agent: everybody's calls.
    all: Option<bool>,
    /// Calls that arrived then or later; left out: from the first on.
    #[schema(format = DateTime)]
    since: Option<String>,
    /// Calls that arrived before; left out: all that will come, too.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// Why; kept in the history.
    reason: String,
}

/// Why a hold is released. May be left out.
#[derive(ToSchema)]
pub(super) struct ReleaseForm {
    /// Kept in the history.
    reason: Option<String>,
}

/// How a key is replaced. All of it may be left out.
#[derive(ToSchema)]
pub(super) struct RotationForm {
    /// The new key's name; left out: the old one's.
    name: Option<String>,
    /// The new key is refused from then on; left out: it lives as long as the old one would have been given.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// How long the old key goes on after the first use of the new one: `"1h"` unless said.
    grace: Option<String>,
}

/// A decision on a card that waits. All of it may be left out.
#[derive(ToSchema)]
pub(super) struct CardChoice {
    /// The `hash` of the card that was looked at: when another is held by now, nothing is decided.
    hash: Option<String>,
    /// Why; kept in the history.
    reason: Option<String>,
}

/// Why a call is ended. It may be left out.
#[derive(ToSchema)]
pub(super) struct EndForm {
    /// Kept in the history.
    reason: Option<String>,
}

/// How a signing secret is replaced. All of it may be left out.
#[derive(ToSchema)]
pub(super) struct SecretChange {
    /// The new secret signs after so long: `"0s"` unless said, at most 30 days.
    activate_after: Option<String>,
}
