//! From rows to a snapshot, carrying over what must outlive the one before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{HeaderName, HeaderValue, Uri};
use tracing::warn;
use url::Url;
use uuid::Uuid;

use super::{Agent, Connection, Directory, Endpoint, Key, LastUse, Map, ServedCard, Timeouts, pair};
use crate::a2a::card::{self, CardFacts};
use crate::limit::{Gate, Limits};
use crate::registry::credential::UpstreamCredential;
use crate::registry::network::{AllowedNetworks, NetworkRules};
use crate::registry::vault::{Purpose, Vault};
use crate::store::rows::{
    AdminState, AgentRow, AgentTimeouts, ConnectionRow, DirectoryChanges, DirectoryRows, KeyRow, PushMode,
};
use crate::vitals::{BreakerSettings, Vitals};

/// What agents get that have no setting of their own.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// How the gateway is reached from outside, without a trailing slash.
    pub public_url: String,
    /// Networks that self-registered agents may be on besides the public internet.
    pub allow_networks: AllowedNetworks,
    /// Time until a connection stands.
    pub connect_timeout: Duration,
    /// The rest of the time limits.
    pub timeouts: Timeouts,
    /// Calls in flight to one agent.
    pub max_in_flight: u32,
    /// When calls to an agent that does not answer are refused.
    pub breaker: BreakerSettings,
    /// Whether callers without a credential are admitted anywhere: cards say so.
    pub anonymous_allowed: bool,
}

/// Turns rows into snapshots.
pub struct Builder {
    /// Opens the secrets in the rows.
    pub vault: Arc<Vault>,
    /// Makes the buckets.
    pub limits: Arc<Limits>,
    /// What agents get that have no setting of their own.
    pub defaults: Defaults,
}

impl Builder {
    /// The snapshot of `rows`. An agent whose secrets cannot be opened is left out and reported: it could not be called safely.
    #[must_use]
    pub fn build(&self, rows: DirectoryRows, previous: &Directory) -> Directory {
        let mut next = Directory::default();
        self.add(&mut next, &rows, previous);
        next
    }

    /// The snapshot after `previous`: what changed is built anew, everything else is the same.
    #[must_use]
    pub fn update(&self, changes: &DirectoryChanges, previous: &Directory) -> Directory {
        let agents: HashSet<Uuid, RandomState> = changes.agents.iter().copied().collect();
        let connections: HashSet<Uuid, RandomState> = changes.connections.iter().copied().collect();
        let kept = |agent: &Agent| !agents.contains(&agent.id);
        let mut next = Directory {
            agents: copied(&previous.agents, |agent| kept(agent)),
            slugs: copied(&previous.slugs, |agent| kept(agent)),
            keys: copied(&previous.keys, |key| kept(&key.agent)),
            connections: copied(&previous.connections, |connection| !connections.contains(&connection.id)),
            ..Directory::default()
        };
        self.add(&mut next, &changes.rows, previous);
        // A connection outlives the agents it is between only until they are gone.
        if changes.rows.agents.len() < changes.agents.len() {
            let alive = &next.agents;
            next.connections.retain(|(one, other), _| alive.contains_key(one) && alive.contains_key(other));
        }
        next
    }

    fn add(&self, next: &mut Directory, rows: &DirectoryRows, previous: &Directory) {
        for row in &rows.agents {
            match self.agent(row, previous) {
                Ok(agent) => {
                    let agent = Arc::new(agent);
                    next.slugs.insert(Arc::clone(&agent.slug), Arc::clone(&agent));
                    next.agents.insert(agent.id, agent);
                }
                Err(reason) => warn!(agent = %row.id, reason, "agent left out of service"),
            }
        }
        for (slug, id) in &rows.slug_aliases {
            if let Some(agent) = next.agents.get(id) {
                next.slugs.entry(slug.as_str().into()).or_insert_with(|| Arc::clone(agent));
            }
        }
        // Before anybody is decided about from the new snapshot.
        let own = |agent: &Arc<Agent>| agent.limits.as_ref().map(|limits| (agent.id, Arc::clone(limits)));
        self.limits.set_agents(next.agents.values().filter_map(own).collect());
        next.keys.extend(rows.keys.iter().filter_map(|row| key(row, &next.agents, previous)));
        next.key_ends = next.keys.values().map(|key| (key.id, key.expires_at)).collect();
        next.successors = next.keys.values().filter(|key| key.replaces_another).cloned().collect();
        for row in &rows.connections {
            next.connections.insert(pair(row.requester_id, row.target_id), self.connection(row, previous));
        }
        next.revision = rows.revision;
    }

    fn agent(&self, row: &AgentRow, previous: &Directory) -> Result<Agent, String> {
        let before = previous.agents.get(&row.id);
        let secret = self
            .vault
            .open_secret(Purpose::SigningSecret, row.id, &row.signing_secret)
            .map_err(|error| format!("its signing secret cannot be opened: {error}"))?;
        let upstream_credential = match UpstreamCredential::open(&self.vault, row) {
            Err(error) => return Err(format!("its upstream credential cannot be opened: {error}")),
            Ok(None) => None,
            Ok(Some(credential)) => Some(credential_header(&credential).ok_or("its upstream credential is no header")?),
        };
        let endpoint = row.endpoint_url.as_deref().map(|url| self.endpoint(row, url)).transpose()?;
        let endpoint = endpoint.map(|new| match before.and_then(|agent| agent.endpoint.as_ref()) {
            Some(old) if **old == new => Arc::clone(old),
            _ => Arc::new(new),
        });
        // What calls showed of it holds for the endpoint they went to.
        let same_place = |old: &&Arc<Agent>| {
            old.endpoint.as_ref().map(|old| &old.url) == endpoint.as_ref().map(|new| &new.url)
                && old.vitals.breaker.settings() == self.defaults.breaker
        };
        let vitals = match before.filter(same_place) {
            Some(old) => Arc::clone(&old.vitals),
            None => Arc::new(Vitals::new(self.defaults.breaker, crc32fast::hash(row.id.as_bytes()))),
        };
        let card = endpoint.as_ref().map(|endpoint| {
            let (new, warnings) = self.card(row, endpoint);
            match before.and_then(|agent| agent.card.as_ref()) {
                Some(old) if old.etag == new.etag => Arc::clone(old),
                _ => {
                    // Told when the card is new, not each time the world is looked at.
                    for warning in &warnings {
                        warn!(agent = %row.id, warning, "its own card");
                    }
                    Arc::new(new)
                }
            }
        });
        Ok(Agent {
            id: row.id,
            slug: row.slug.as_str().into(),
            name: header_text(&row.name),
            id_value: header_text(&row.id.to_string()),
            state: row.state,
            listed: row.listed && row.state != AdminState::Pending,
            endpoint,
            subpaths: row.subpaths.iter().map(|path| path.as_str().into()).collect(),
            push: row.push,
            pass_authorization: row.pass_authorization,
            sign_large_bodies: row.sign_large_bodies,
            signing_key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            upstream_credential,
            card,
            gate: gate(row.max_in_flight.unwrap_or(self.defaults.max_in_flight), before),
            limits: (!row.limits.is_empty()).then(|| Arc::new(row.limits.clone())),
            vitals,
            timeouts: timeouts(&row.timeouts, self.defaults.timeouts),
        })
    }

    fn endpoint(&self, row: &AgentRow, url: &str) -> Result<Endpoint, String> {
        let url = Url::parse(url).map_err(|error| format!("its endpoint is not a URL: {error}"))?;
        let uri: Uri = url.as_str().parse().map_err(|error| format!("its endpoint is not a URL: {error}"))?;
        let mut base = url.clone();
        base.set_query(None);
        Ok(Endpoint {
            uri,
            base: base.as_str().trim_end_matches('/').into(),
            url,
            http2: row.http2,
            network: NetworkRules {
                private_allowed: row.registered_by_operator,
                allowed: self.defaults.allow_networks.load().as_ref().clone(),
            },
            connect_timeout: millis(row.timeouts.connect_ms, self.defaults.connect_timeout),
        })
    }

    /// The card to be served, and what of the agent's own could not be kept.
    fn card(&self, row: &AgentRow, endpoint: &Endpoint) -> (ServedCard, Vec<String>) {
        let facts = CardFacts {
            base_url: format!("{}/api/proxy/{}/", self.defaults.public_url, row.slug),
            name: row.name.clone(),
            description: row.description.clone(),
            provider: row.provider.clone(),
            skills_json: row.skills_json.clone(),
            endpoint: Some(endpoint.url.clone()),
            streaming: row.capabilities.iter().any(|name| name == "streaming"),
            push_pass: row.push == PushMode::Pass,
            extended_card: false,
            anonymous_allowed: self.defaults.anonymous_allowed,
        };
        let built = card::build(row.card_json.as_deref(), &facts);
        let served = ServedCard {
            json: Bytes::from(built.json),
            etag: HeaderValue::try_from(built.etag).unwrap_or(HeaderValue::from_static("\"0\"")),
            last_modified: row.card_fetched_at.unwrap_or(row.updated_at).max(row.updated_at),
        };
        (served, built.warnings)
    }

    fn connection(&self, row: &ConnectionRow, previous: &Directory) -> Arc<Connection> {
        let before = previous.connection(row.requester_id, row.target_id).filter(|old| old.id == row.id);
        let direction = |towards: Uuid| {
            let carried = before.map(|old| old.towards(towards));
            self.limits.direction(row.id, towards, &row.limits, carried)
        };
        Arc::new(Connection {
            id: row.id,
            requester: row.requester_id,
            target: row.target_id,
            status: row.status,
            blocked: row.blocked_by_requester || row.blocked_by_target,
            ends_at: row.ends_at,
            operations: row.operations,
            towards_target: direction(row.target_id),
            towards_requester: direction(row.requester_id),
        })
    }
}

/// A copy with those that `keep` wants, in room for more.
fn copied<K, V>(map: &Map<K, Arc<V>>, keep: impl Fn(&V) -> bool) -> Map<K, Arc<V>>
where
    K: Clone + Eq + std::hash::Hash,
{
    let mut copy = Map::with_capacity_and_hasher(map.len() + 1, RandomState::default());
    copy.extend(map.iter().filter(|(_, value)| keep(value)).map(|(key, value)| (key.clone(), Arc::clone(value))));
    copy
}

fn key(row: &KeyRow, agents: &Map<Uuid, Arc<Agent>>, previous: &Directory) -> Option<([u8; 32], Arc<Key>)> {
    let agent = Arc::clone(agents.get(&row.agent_id)?);
    let last_use = match previous.keys.get(&row.digest) {
        Some(before) => Arc::clone(&before.last_use),
        None => Arc::new(LastUse::kept_at(row.last_used_at)),
    };
    let replaces_another = row.replaces.is_some();
    Some((row.digest, Arc::new(Key { id: row.id, agent, expires_at: row.expires_at, last_use, replaces_another })))
}

/// The gate before an agent; one that was there goes on counting.
fn gate(most: u32, before: Option<&Arc<Agent>>) -> Arc<Gate> {
    let Some(agent) = before else { return Arc::new(Gate::new(most)) };
    agent.gate.set_most(most);
    Arc::clone(&agent.gate)
}

fn timeouts(own: &AgentTimeouts, defaults: Timeouts) -> Timeouts {
    Timeouts {
        first_byte: millis(own.first_byte_ms, defaults.first_byte),
        read_first_byte: millis(own.read_first_byte_ms, defaults.read_first_byte),
        idle: millis(own.idle_ms, defaults.idle),
    }
}

fn millis(own: Option<u32>, default: Duration) -> Duration {
    own.map_or(default, |ms| Duration::from_millis(u64::from(ms)))
}

/// What is shown to the agent, kept out of logs.
fn credential_header(credential: &UpstreamCredential) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::try_from(&credential.value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::try_from(&credential.header).ok()?, value))
}

/// Text as a header value: what is not printable ASCII, and `%` itself, is percent-encoded as UTF-8, so that no name can break
/// a call.
fn header_text(text: &str) -> HeaderValue {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f..=0xff => {
                use std::fmt::Write as _;
                let _ = write!(out, "%{byte:02X}");
            }
            _ => out.push(char::from(byte)),
        }
    }
    HeaderValue::try_from(out).expect("only printable ASCII is left")
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod update_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_header_values_whatever_they_hold() {
        assert_eq!(header_text("Plain name"), "Plain name");
        assert_eq!(header_text("Zoë\r\n100%"), "Zo%C3%AB%0D%0A100%25");
    }
}
