//! The rows of the store as plain data, the same whichever database holds them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use super::agent_limits::{AgentLimits, LevelLimits};
use crate::a2a::OperationSet;
use crate::clock::Timestamp;

/// The admin state of an agent; one of three axes that are never mixed (the others: health, card).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminState {
    /// Asked to be registered, not yet approved: not listed, not callable.
    Pending,
    /// In service.
    Active,
    /// Taken out of service by its owner or an operator.
    Disabled,
    /// Gone; kept because the log names it.
    Deleted,
}

/// What the last probes and calls say of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HealthStatus {
    /// Never probed.
    #[default]
    Unknown,
    /// It answers.
    Online,
    /// It answers, but not always.
    Degraded,
    /// It does not answer.
    Offline,
}

/// What happens to push-notification operations and inline configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PushMode {
    /// Refused with -32003.
    #[default]
    Refuse,
    /// Passed on.
    Pass,
}

/// The time limits an agent may have of its own, in milliseconds; `None` is the configured default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AgentTimeouts {
    /// Until the connection stands.
    pub connect_ms: Option<u32>,
    /// Until the first byte of an answer to work.
    pub first_byte_ms: Option<u32>,
    /// Until the first byte of an answer to a read.
    pub read_first_byte_ms: Option<u32>,
    /// Between two frames of an answer.
    pub idle_ms: Option<u32>,
}

/// A registered agent, or a client (no endpoint).
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRow {
    /// Immutable.
    pub id: Uuid,
    /// Unique, renameable.
    pub slug: String,
    /// Shown to people.
    pub name: String,
    /// Shown to people.
    pub description: String,
    /// The organisation behind it.
    pub provider: Option<String>,
    /// Shown to people.
    pub avatar_url: Option<String>,
    /// The registered endpoint: private, shown to its owner and operators only. `None`: a client.
    pub endpoint_url: Option<String>,
    /// Where its own card is, when it is not at the usual places.
    pub card_url: Option<String>,
    /// Further paths below the endpoint that are public (`/chat`), each starting with a slash.
    pub subpaths: Vec<String>,
    /// OpenAgora's list of strings (`streaming`, ...).
    pub capabilities: Vec<String>,
    /// The skills as JSON (an array of objects with at least `name`), as registered or taken from the card.
    pub skills_json: String,
    /// OpenAgora's `payment_schemes` and `payment_address`, kept as JSON and handed back unchanged.
    pub payment_json: Option<String>,
    /// In service or not.
    pub state: AdminState,
    /// Whether it appears in lists to strangers.
    pub listed: bool,
    /// Whether a connection request is accepted at once.
    pub auto_accept_connections: bool,
    /// Whether an operator registered it, which allows an endpoint on a private network.
    pub registered_by_operator: bool,
    /// What happens to push configurations.
    pub push: PushMode,
    /// Whether the caller's `X-Agent-Authorization` is passed on as `Authorization`.
    pub pass_authorization: bool,
    /// Whether bodies over 64 KiB enter the second signature.
    pub sign_large_bodies: bool,
    /// Whether the endpoint is spoken to in HTTP/2 with prior knowledge or by ALPN.
    pub http2: bool,
    /// Calls in flight at once; `None`: the configured default.
    pub max_in_flight: Option<u32>,
    /// Limits of its own, for its callers.
    pub limits: AgentLimits,
    /// Time limits of its own.
    pub timeouts: AgentTimeouts,
    /// Encrypted: the key its identity signatures are made with.
    pub signing_secret: Vec<u8>,
    /// The signing secret that takes over, encrypted, and from when on.
    pub next_signing_secret: Option<(Vec<u8>, Timestamp)>,
    /// Encrypted: `header-name: value` that the gateway sends to the agent; `None`: nothing.
    pub upstream_credential: Option<Vec<u8>>,
    /// The agent's own card as last fetched, bytes as received.
    pub card_json: Option<Vec<u8>>,
    /// When that card was fetched.
    pub card_fetched_at: Option<Timestamp>,
    /// A changed card that is not served until an admin has accepted it.
    pub held_card: Option<HeldCard>,
    /// Seconds between two probes; `None`: the configured default.
    pub health_interval_s: Option<u32>,
    /// What probes say.
    pub health: HealthStatus,
    /// Why.
    pub health_reason: Option<String>,
    /// When that was found out.
    pub health_checked_at: Option<Timestamp>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When its registration last changed (not its health).
    pub updated_at: Timestamp,
}

/// What people know an agent by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentName {
    /// The agent.
    pub id: Uuid,
    /// Of a deleted one: the last it had, which another may have by now.
    pub slug: String,
    /// For people.
    pub name: String,
}

/// A card that an agent showed and that differs from the one served in a way an admin has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCard {
    /// Bytes as received.
    pub json: Vec<u8>,
    /// When it was first seen.
    pub at: Timestamp,
    /// What about it was held.
    pub reason: String,
}

/// An API key of an agent. The key itself is not stored.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRow {
    /// Names the key in rows and the API.
    pub id: Uuid,
    /// Whose it is.
    pub agent_id: Uuid,
    /// SHA-256 of the whole key string.
    pub digest: [u8; 32],
    /// The key's beginning (prefix and public id), enough to recognise it by; imported keys have none.
    pub hint: Option<String>,
    /// Chosen by its owner.
    pub name: String,
    /// Refused from then on.
    pub expires_at: Option<Timestamp>,
    /// Written lazily, outside the call.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The key it takes over from; nothing once that has been settled.
    pub replaces: Option<Replaces>,
}

/// A key that ends once its successor has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// The key that ends.
    pub key: Uuid,
    /// How long it lives on after the first use of the other, in milliseconds.
    pub grace_ms: u64,
}

/// Where a connection stands; the block marks stand beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionStatus {
    /// Asked for.
    Pending,
    /// Accepted.
    Connected,
    /// Refused by the target.
    Declined,
    /// Accepted, but at rest.
    Paused,
    /// Over.
    Ended,
}

/// Limits a connection may have of its own; `None` is the agent's or the tier's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionLimits {
    /// Calls per `period_ms`.
    pub rate: Option<u32>,
    /// The period of `rate`, in milliseconds.
    pub period_ms: Option<u64>,
    /// Calls at once.
    pub burst: Option<u32>,
    /// Units per UTC day.
    pub daily: Option<u32>,
    /// Streams open at once.
    pub streams: Option<u32>,
}

/// The agreement between two agents.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionRow {
    /// Names it in rows and the API.
    pub id: Uuid,
    /// Who asked.
    pub requester_id: Uuid,
    /// Who was asked.
    pub target_id: Uuid,
    /// Where it stands.
    pub status: ConnectionStatus,
    /// The requester has blocked the target.
    pub blocked_by_requester: bool,
    /// The target has blocked the requester.
    pub blocked_by_target: bool,
    /// The marks were set by an operator: neither side can take its own away.
    pub block_locked: bool,
    /// At most 150 characters.
    pub message: Option<String>,
    /// What it is for, as the requester said.
    pub purpose: Option<String>,
    /// What the requester may call at the target; `None`: everything.
    pub operations: Option<OperationSet>,
    /// An operator named the operations: they outlive the agreement, and only an operator widens them.
    pub operations_fixed: bool,
    /// Limits of its own.
    pub limits: ConnectionLimits,
    /// Not in force from then on.
    pub ends_at: Option<Timestamp>,
    /// Somebody should look at it then; nothing stops.
    pub review_at: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was accepted or declined.
    pub resolved_at: Option<Timestamp>,
}

/// What an operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorRole {
    /// Everything.
    Admin,
    /// Reads everything, changes nothing.
    Auditor,
}

/// Somebody with a token for the operator listener. The token itself is not stored.
#[derive(Clone, Debug, PartialEq)]
pub struct OperatorRow {
    /// Names it in the API.
    pub id: Uuid,
    /// Unique; names it in the log of changes.
    pub name: String,
    /// What it may do.
    pub role: OperatorRole,
    /// SHA-256 of the whole token.
    pub digest: [u8; 32],
    /// The token's beginning, enough to recognise it by.
    pub hint: Option<String>,
    /// Refused from then on.
    pub expires_at: Option<Timestamp>,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// One change of the registry: who did what to whom. Written in the transaction of the change itself.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminEvent {
    /// Names it.
    pub id: Uuid,
    /// When.
    pub at: Timestamp,
    /// `operator:NAME`, `agent:ID`, `anonymous` or `gateway`.
    pub actor: String,
    /// `agent.create`, `connection.block`, ...
    pub action: String,
    /// The id of what was changed.
    pub subject: String,
    /// What it was, as JSON with secrets masked.
    pub before: Option<String>,
    /// What it became, likewise.
    pub after: Option<String>,
    /// Why, as whoever made the change said.
    pub reason: Option<String>,
}

/// Everything calls are decided from, read in one transaction.
#[derive(Clone, Debug, Default)]
pub struct DirectoryRows {
    /// Grows with every change; what is here has all up to it.
    pub revision: i64,
    /// All but deleted ones.
    pub agents: Vec<AgentRow>,
    /// Former slugs, each with the agent it leads to.
    pub slug_aliases: Vec<(String, Uuid)>,
    /// All keys of those agents.
    pub keys: Vec<KeyRow>,
    /// All connections between them.
    pub connections: Vec<ConnectionRow>,
}

/// What changed since a revision, read in one transaction.
#[derive(Clone, Debug, Default)]
pub struct DirectoryChanges {
    /// Agents that were changed, or whose slugs or keys were; those that are not among the rows are gone.
    pub agents: Vec<Uuid>,
    /// Connections that were changed, likewise.
    pub connections: Vec<Uuid>,
    /// What they are now: agents with all their slugs and keys.
    pub rows: DirectoryRows,
}

/// One row of `proxy_calls`, as the drain writes it and queries read it.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRow {
    /// The request id.
    pub id: Uuid,
    /// The node that served it.
    pub node_id: Uuid,
    /// Gapless per node, from 1.
    pub seq: i64,
    /// See `audit::record::Intent` for this and what follows.
    pub target_agent_id: Option<Uuid>,
    /// The calling agent.
    pub caller_agent_id: Option<Uuid>,
    /// The API key used.
    pub credential_id: Option<Uuid>,
    /// How the caller proved who it is.
    pub auth_method: String,
    /// The address as it may be stored: truncated unless the configuration asks for it in full.
    pub client_ip: Option<String>,
    /// The salt of the personal fields' commitments.
    pub personal_salt: Option<[u8; 16]>,
    /// The commitment to `client_ip`, kept once value and salt are erased.
    pub client_ip_commitment: Option<[u8; 32]>,
    /// What the caller was to the target.
    pub trust_level: String,
    /// The connection in force.
    pub connection_id: Option<Uuid>,
    /// The wire form.
    pub binding: String,
    /// `A2A-Version`.
    pub protocol_version: Option<String>,
    /// As sent.
    pub method: Option<String>,
    /// v1.0 name.
    pub operation: String,
    /// Raw JSON text.
    pub rpc_id: Option<String>,
    /// The task.
    pub task_id: Option<String>,
    /// The context.
    pub context_id: Option<String>,
    /// The message.
    pub message_id: Option<String>,
    /// `allowed` or `refused`; `gap`: no call, see `audit::gap`.
    pub decision: String,
    /// Why it was refused or cut.
    pub reason: Option<String>,
    /// The rule that decided.
    pub policy_rule: Option<String>,
    /// The policy in force.
    pub policy_digest: Option<String>,
    /// Units charged.
    pub units: i64,
    /// How it ended.
    pub outcome: String,
    /// The caller's status, 0 for none.
    pub status_code: i64,
    /// The agent's status.
    pub upstream_status: Option<i64>,
    /// The code of a JSON-RPC error.
    pub rpc_error_code: Option<i64>,
    /// The last task state.
    pub task_state: Option<String>,
    /// Bytes of the request.
    pub request_bytes: i64,
    /// Bytes of the answer.
    pub response_bytes: i64,
    /// Events of a stream.
    pub stream_events: Option<i64>,
    /// Milliseconds to the agent's first byte.
    pub ttfb_ms: Option<i64>,
    /// Milliseconds from arrival to the end.
    pub latency_ms: i64,
    /// How many calls the row stands for.
    pub calls: i64,
    /// W3C trace id.
    pub trace_id: Option<String>,
    /// The rule of the limit that decided, or was nearest to.
    pub limit_name: Option<String>,
    /// What was left of it after the call.
    pub limit_left: Option<i64>,
    /// Arrival.
    pub called_at: Timestamp,
    /// RFC 6962 leaf hash of the canonical record.
    pub leaf_hash: [u8; 32],
    /// When what came from outside was erased, after which only `leaf_hash` speaks for it.
    pub erased_at: Option<Timestamp>,
}

/// Text for an address that may be stored: /24 and /48 unless `full`.
#[must_use]
pub fn storable_address(address: IpAddr, full: bool) -> String {
    let address = address.to_canonical();
    if full {
        return address.to_string();
    }
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}
