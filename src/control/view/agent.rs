//! An agent as it is shown: to everybody, to itself and operators, and once with its secrets.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::agent_limits::AgentLimits;
use super::health;
use crate::clock::Timestamp;
use crate::registry::Actor;
use crate::store::rows::AgentRow;

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Agent {
    /// Never changes.
    pub(in crate::control) id: Uuid,
    /// Its name in addresses; may be changed, and the old one goes on leading here.
    slug: String,
    /// Its name for people.
    name: String,
    /// What it is good for.
    description: String,
    /// The organisation behind it.
    provider: Option<String>,
    /// A picture.
    avatar_url: Option<String>,
    // The gateway's, never the agent's own: whoever follows it is identified, limited and recorded.
    /// Where it is called: an address of the gateway; null for a client.
    url: Option<String>,
    /// The same under another path.
    relay_url: Option<String>,
    /// Whether it only calls and is never called.
    client: bool,
    /// Flags such as `streaming`.
    capabilities: Vec<String>,
    /// What it can do.
    #[schema(value_type = Vec<Object>)]
    skills: Value,
    /// The same under OpenAgora's other name.
    #[schema(value_type = Vec<Object>)]
    agent_skills: Value,
    /// As registered, not looked into.
    payment_schemes: Value,
    /// As registered, not looked into.
    payment_address: Value,
    /// `online`, `offline` or `unknown`.
    health_status: &'static str,
    /// When that was found out.
    #[schema(value_type = Option<String>, format = DateTime)]
    health_checked_at: Option<Timestamp>,
    /// Whether a request for a connection is accepted at once.
    auto_accept_connections: bool,
    /// Connections in force.
    connections_count: i64,
    /// When it was registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When its registration last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Shown to the agent itself and to operators.
    #[serde(flatten)]
    #[schema(value_type = AgentPrivate)]
    private: Option<AgentPrivate>,
}

/// What only the agent itself and operators are shown: to others these members are not there.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct AgentPrivate {
    /// Where the agent really is.
    endpoint_url: Option<String>,
    /// Where its own card is, when it is not at the usual places.
    card_url: Option<String>,
    /// When its card was last fetched.
    #[schema(value_type = Option<String>, format = DateTime)]
    card_fetched_at: Option<Timestamp>,
    /// `none`, `current`, or `held`: a changed one waits for an admin.
    #[schema(required = false)]
    card_state: &'static str,
    /// The card that waits.
    held_card: Option<Held>,
    /// `unknown`, `online`, `degraded` or `offline`.
    #[schema(required = false)]
    health: &'static str,
    /// Seconds between two probes; null: the default.
    health_interval_s: Option<u32>,
    /// Why its health is what it is.
    health_reason: Option<String>,
    /// Further paths that are public.
    #[schema(required = false)]
    subpaths: Vec<String>,
    /// `pending`, `active`, `disabled` or `deleted`.
    #[schema(required = false)]
    state: &'static str,
    /// Whether strangers find it.
    #[schema(required = false)]
    listed: bool,
    /// Whether it may be on a private network.
    #[schema(required = false)]
    registered_by_operator: bool,
    /// `refuse` or `pass`: what happens to push configurations.
    #[schema(required = false)]
    push: &'static str,
    /// Whether the caller's `X-Agent-Authorization` is passed on.
    #[schema(required = false)]
    pass_authorization: bool,
    /// Whether large bodies are signed too.
    #[schema(required = false)]
    sign_large_bodies: bool,
    /// Whether it is spoken to in HTTP/2.
    #[schema(required = false)]
    http2: bool,
    /// Calls in flight at once; null: the default.
    max_in_flight: Option<u32>,
    /// Limits for its callers; what is null is the policy's.
    #[schema(required = false)]
    limits: AgentLimits,
    /// Its own time limits.
    #[schema(required = false)]
    timeouts: Timeouts,
    /// Whether the gateway shows it a credential.
    #[schema(required = false)]
    has_upstream_credential: bool,
}

/// A card that is not served until an admin has accepted it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HeldCard)]
pub(in crate::control) struct Held {
    /// When it was first seen.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// What about it was held.
    reason: String,
}

/// What is served for an agent, and whether something waits.
pub(in crate::control) fn card_state(row: &AgentRow) -> &'static str {
    match (&row.card_json, &row.held_card) {
        (_, Some(_)) => "held",
        (Some(_), None) => "current",
        (None, None) => "none",
    }
}

/// Time limits in milliseconds; null: the default.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Timeouts {
    /// Until the connection stands.
    connect_ms: Option<u32>,
    /// Until the first byte of an answer to work.
    first_byte_ms: Option<u32>,
    /// Until the first byte of an answer to a read.
    read_first_byte_ms: Option<u32>,
    /// Between two frames of an answer.
    idle_ms: Option<u32>,
}

/// An agent that has just been registered, with secrets that are shown this once.
#[derive(Serialize, ToSchema)]
pub(in crate::control) struct NewAgent {
    /// The agent.
    #[serde(flatten)]
    pub(in crate::control) agent: Agent,
    /// Its first key.
    pub(in crate::control) api_key: String,
    /// Names that key.
    pub(in crate::control) api_key_id: Uuid,
    /// What the gateway's identity headers are signed with.
    pub(in crate::control) signing_secret: String,
    /// What to do now.
    pub(in crate::control) warning: &'static str,
}

/// An agent as `/api/agents/find` shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct FoundAgent {
    /// Never changes.
    id: Uuid,
    /// Its name for people.
    name: String,
    /// Its name in addresses.
    slug: String,
    /// What it is good for.
    description: String,
    /// The organisation behind it.
    provider: Option<String>,
    /// Where it is called.
    url: String,
    /// The same under another path.
    relay_url: String,
    /// `online`, `offline` or `unknown`.
    health: &'static str,
    /// The same.
    health_status: &'static str,
    /// Always 0: nobody votes here.
    upvotes: u32,
    /// Connections in force.
    connections: i64,
    /// What it can do.
    #[schema(value_type = Vec<Object>)]
    skills: Value,
}

fn skills(row: &AgentRow) -> Value {
    serde_json::from_str(&row.skills_json).unwrap_or_else(|_| Value::Array(Vec::new()))
}

pub(in crate::control) fn payment(row: &AgentRow, member: &str) -> Value {
    let parsed: Value =
        row.payment_json.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    parsed.get(member).cloned().unwrap_or_default()
}

/// An agent as `who` may see it.
pub(in crate::control) fn agent(row: &AgentRow, who: &Actor, public_url: &str, connections: i64) -> Agent {
    let callable = row.endpoint_url.is_some();
    Agent {
        id: row.id,
        slug: row.slug.clone(),
        name: row.name.clone(),
        description: row.description.clone(),
        provider: row.provider.clone(),
        avatar_url: row.avatar_url.clone(),
        url: callable.then(|| format!("{public_url}/api/proxy/{}", row.slug)),
        relay_url: callable.then(|| format!("{public_url}/relay/{}", row.slug)),
        client: !callable,
        capabilities: row.capabilities.clone(),
        skills: skills(row),
        agent_skills: skills(row),
        payment_schemes: payment(row, "payment_schemes"),
        payment_address: payment(row, "payment_address"),
        health_status: health(row.health),
        health_checked_at: row.health_checked_at,
        auto_accept_connections: row.auto_accept_connections,
        connections_count: connections,
        created_at: row.created_at,
        updated_at: row.updated_at,
        private: (who.is_operator() || who.owns(row.id)).then(|| private(row)),
    }
}

fn private(row: &AgentRow) -> AgentPrivate {
    AgentPrivate {
        endpoint_url: row.endpoint_url.clone(),
        card_url: row.card_url.clone(),
        card_fetched_at: row.card_fetched_at,
        card_state: card_state(row),
        held_card: row.held_card.as_ref().map(|held| Held { at: held.at, reason: held.reason.clone() }),
        health: row.health.as_str(),
        health_interval_s: row.health_interval_s,
        health_reason: row.health_reason.clone(),
        subpaths: row.subpaths.clone(),
        state: row.state.as_str(),
        listed: row.listed,
        registered_by_operator: row.registered_by_operator,
        push: row.push.as_str(),
        pass_authorization: row.pass_authorization,
        sign_large_bodies: row.sign_large_bodies,
        http2: row.http2,
        max_in_flight: row.max_in_flight,
        limits: (&row.limits).into(),
        timeouts: Timeouts {
            connect_ms: row.timeouts.connect_ms,
            first_byte_ms: row.timeouts.first_byte_ms,
            read_first_byte_ms: row.timeouts.read_first_byte_ms,
            idle_ms: row.timeouts.idle_ms,
        },
        has_upstream_credential: row.upstream_credential.is_some(),
    }
}

/// An agent as `/api/agents/find` shows it.
pub(in crate::control) fn found_agent(row: &AgentRow, public_url: &str, connections: i64) -> FoundAgent {
    FoundAgent {
        id: row.id,
        name: row.name.clone(),
        slug: row.slug.clone(),
        description: row.description.clone(),
        provider: row.provider.clone(),
        url: format!("{public_url}/api/proxy/{}", row.slug),
        relay_url: format!("{public_url}/relay/{}", row.slug),
        health: health(row.health),
        health_status: health(row.health),
        upvotes: 0,
        connections,
        skills: skills(row),
    }
}
