//! The snapshot calls are decided from: agents, keys and connections, immutable, swapped whole when anything changes. What did
//! not change is shared with the snapshot before, so that one change among ten thousand agents costs little.
//!
//! A call loads the snapshot once and sees one state of the world from route to answer. What must outlive a snapshot (buckets,
//! counts in flight, connections to the agent) hangs in it as shared values that the next snapshot carries over.

mod build;
mod last_confirmed;
mod last_use;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{HeaderName, HeaderValue, Uri};
use url::Url;
use uuid::Uuid;

use crate::a2a::OperationSet;
use crate::clock::Timestamp;
use crate::limit::{Direction, Gate};
use crate::registry::network::NetworkRules;
use crate::store::rows::{AdminState, AgentLimits, ConnectionStatus, PushMode};
use crate::vitals::Vitals;

pub use build::{Builder, Defaults};
pub use last_confirmed::LastConfirmed;
pub use last_use::LastUse;

type Map<K, V> = HashMap<K, V, RandomState>;

/// The snapshot in force, shared by every worker.
pub type Current = Arc<ArcSwap<Directory>>;

/// One immutable state of the world.
#[derive(Default)]
pub struct Directory {
    agents: Map<Uuid, Arc<Agent>>,
    slugs: Map<Arc<str>, Arc<Agent>>,
    keys: Map<[u8; 32], Arc<Key>>,
    /// Every key by its id, with its end.
    key_ends: Map<Uuid, Option<Timestamp>>,
    /// Keys that replace another once they are used.
    successors: Vec<Arc<Key>>,
    connections: Map<(Uuid, Uuid), Arc<Connection>>,
    revision: i64,
}

impl Directory {
    /// The agent that `reference` names: an id, a slug or a former slug.
    #[must_use]
    pub fn find(&self, reference: &str) -> Option<&Arc<Agent>> {
        match self.slugs.get(reference) {
            Some(agent) => Some(agent),
            None => Uuid::try_parse(reference).ok().and_then(|id| self.agents.get(&id)),
        }
    }

    /// The agent with this id.
    #[must_use]
    pub fn agent(&self, id: Uuid) -> Option<&Arc<Agent>> {
        self.agents.get(&id)
    }

    /// The revision of the database it has all changes up to.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Every agent.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.values()
    }

    /// The key whose SHA-256 this is.
    #[must_use]
    pub fn key(&self, digest: &[u8; 32]) -> Option<&Arc<Key>> {
        self.keys.get(digest)
    }

    /// The keys whose last use the database does not know yet, and when that was.
    pub fn unkept_uses(&self) -> impl Iterator<Item = (&Arc<Key>, Timestamp)> {
        self.keys.values().filter_map(|key| Some((key, key.last_use.unkept()?)))
    }

    /// The connection between two agents, whoever asked for it.
    #[must_use]
    pub fn connection(&self, one: Uuid, other: Uuid) -> Option<&Arc<Connection>> {
        self.connections.get(&pair(one, other))
    }

    /// Whether the key with this id is good at `now`.
    #[must_use]
    pub fn key_holds(&self, id: Uuid, now: Timestamp) -> bool {
        self.key_ends.get(&id).is_some_and(|end| end.is_none_or(|end| now < end))
    }

    /// The keys that take over from another one and have been used since, and when.
    pub fn used_successors(&self) -> impl Iterator<Item = (Uuid, Timestamp)> {
        self.successors.iter().filter_map(|key| Some((key.id, key.last_use.at()?)))
    }
}

fn pair(one: Uuid, other: Uuid) -> (Uuid, Uuid) {
    if one < other { (one, other) } else { (other, one) }
}

/// A registered agent as calls need it.
pub struct Agent {
    /// Immutable id.
    pub id: Uuid,
    /// The slug in use now.
    pub slug: Arc<str>,
    /// The name as a header value (percent-encoded where it is not printable ASCII).
    pub name: HeaderValue,
    /// The id as a header value.
    pub id_value: HeaderValue,
    /// In service or not.
    pub state: AdminState,
    /// Whether strangers may know that it exists.
    pub listed: bool,
    /// Where its calls go; `None` for a client.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Further public paths below the endpoint.
    pub subpaths: Box<[Box<str>]>,
    /// What happens to push configurations.
    pub push: PushMode,
    /// Whether the caller's own credential for the agent is passed on.
    pub pass_authorization: bool,
    /// Whether large bodies enter the second signature.
    pub sign_large_bodies: bool,
    /// The key of its identity signatures.
    pub signing_key: hmac::Key,
    /// What the gateway shows the agent to be let in.
    pub upstream_credential: Option<(HeaderName, HeaderValue)>,
    /// The card served for it.
    pub card: Option<Arc<ServedCard>>,
    /// Calls in flight to it.
    pub gate: Arc<Gate>,
    /// Limits of its own, where it has any.
    pub limits: Option<Arc<AgentLimits>>,
    /// How it is doing, and whether its breaker lets calls through.
    pub vitals: Arc<Vitals>,
    /// Its time limits.
    pub timeouts: Timeouts,
}

/// Where an agent is and how it is spoken to. Carried from snapshot to snapshot while unchanged, so that workers keep their
/// connections to it.
#[derive(Debug, PartialEq)]
pub struct Endpoint {
    /// The registered URL: what a JSON-RPC call is sent to, with nothing added.
    pub uri: Uri,
    /// The same without a trailing slash and query: what sub-paths are added to.
    pub base: Box<str>,
    /// The parsed form.
    pub url: Url,
    /// HTTP/2 instead of HTTP/1.1.
    pub http2: bool,
    /// Which addresses may be dialled for it.
    pub network: NetworkRules,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
}

/// The time limits of calls to one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the first byte of the answer to work.
    pub first_byte: Duration,
    /// Until the first byte of the answer to a read.
    pub read_first_byte: Duration,
    /// Between two frames of an answer.
    pub idle: Duration,
}

/// A card ready to be served.
#[derive(Debug, PartialEq, Eq)]
pub struct ServedCard {
    /// JSON.
    pub json: Bytes,
    /// A strong entity tag with its quotes.
    pub etag: HeaderValue,
    /// When this content was first served.
    pub last_modified: Timestamp,
}

/// An API key.
pub struct Key {
    /// Names it in rows.
    pub id: Uuid,
    /// Whose it is.
    pub agent: Arc<Agent>,
    /// Refused from then on.
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    pub last_use: Arc<LastUse>,
    /// Whether another key ends once this one is used.
    pub replaces_another: bool,
}

/// The agreement between two agents.
pub struct Connection {
    /// Names it in rows.
    pub id: Uuid,
    /// Who asked.
    pub requester: Uuid,
    /// Who was asked.
    pub target: Uuid,
    /// Where it stands.
    pub status: ConnectionStatus,
    /// Either side has blocked the other.
    pub blocked: bool,
    /// Not in force from then on.
    pub ends_at: Option<Timestamp>,
    /// What the requester may call at the target; `None`: everything.
    pub operations: Option<OperationSet>,
    /// Limits towards the target.
    pub towards_target: Arc<Direction>,
    /// Limits towards the requester.
    pub towards_requester: Arc<Direction>,
}

impl Connection {
    /// Whether it makes its two sides connected at `now`.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> bool {
        self.status == ConnectionStatus::Connected && !self.blocked && self.ends_at.is_none_or(|end| now < end)
    }

    /// The operations that calls to `agent`, one of its two sides, are held to; `None`: all are allowed. What was asked for
    /// and agreed to is what the requester may do: calls the other way are not bound by it.
    #[must_use]
    pub fn operations_towards(&self, agent: Uuid) -> Option<OperationSet> {
        self.operations.filter(|_| agent == self.target)
    }

    /// The limits of calls to `agent`, one of its two sides.
    #[must_use]
    pub fn towards(&self, agent: Uuid) -> &Arc<Direction> {
        if agent == self.target { &self.towards_target } else { &self.towards_requester }
    }
}
