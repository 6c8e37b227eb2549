//! Registering, changing and deleting agents.

use serde_json::{Value, json};
use uuid::Uuid;

use super::admission::{self, Admission, check_reason, check_state};
use super::agent_limits;
use super::credential::UpstreamCredential;
use super::health::INTERVALS;
use super::names::{check_dialled_url, check_slug, check_subpath, check_text, check_url, slug_from};
use super::network::NetworkRules;
use super::secret::random_secret;
use super::token::NewToken;
use super::vault::Purpose;
use super::{Actor, Registry, RegistryError};
use crate::store::StoreError;
use crate::store::rows::{
    AdminEvent, AdminState, AgentLimits, AgentRow, AgentTimeouts, HealthStatus, KeyRow, PushMode,
};

/// An agent may have had this many slugs; each stays taken.
const SLUGS_MAX: i64 = 10;
/// An hour: no time limit is longer.
const LONGEST_MS: u32 = 3_600_000;

/// What a registration or a change says. What it does not say stays as it is, or gets its default.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the members of `AgentRow`
pub struct AgentChanges {
    pub slug: Option<String>,
    pub name: Option<String>,
    pub description: Option<String>,
    pub provider: Option<Option<String>>,
    pub avatar_url: Option<Option<String>>,
    pub endpoint_url: Option<Option<String>>,
    pub card_url: Option<Option<String>>,
    pub subpaths: Option<Vec<String>>,
    pub capabilities: Option<Vec<String>>,
    pub skills: Option<Vec<Value>>,
    pub payment: Option<Option<Value>>,
    pub state: Option<AdminState>,
    pub listed: Option<bool>,
    pub auto_accept_connections: Option<bool>,
    pub push: Option<PushMode>,
    pub pass_authorization: Option<bool>,
    pub sign_large_bodies: Option<bool>,
    pub http2: Option<bool>,
    pub max_in_flight: Option<Option<u32>>,
    pub limits: Option<AgentLimits>,
    pub health_interval_s: Option<Option<u32>>,
    pub timeouts: Option<AgentTimeouts>,
    pub upstream_credential: Option<Option<UpstreamCredential>>,
    /// Why, in the words of whoever makes the change.
    pub reason: Option<String>,
}

/// A new agent, with what is shown once.
#[derive(Debug)]
pub struct Registered {
    /// Its row.
    pub agent: AgentRow,
    /// Its first API key, as kept.
    pub key: KeyRow,
    /// That key itself.
    pub api_key: NewToken,
    /// The secret its identity headers are signed with, in hex as an agent's configuration holds it. The HMAC key is
    /// these 64 characters themselves, not the bytes they stand for.
    pub signing_secret: String,
}

impl Registry {
    /// Registers an agent (with an endpoint) or a client (without), gives it its first key and has it probed.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`], [`RegistryError::Taken`], [`RegistryError::Forbidden`] for auditors.
    pub async fn register(&self, who: &Actor, changes: AgentChanges) -> Result<Registered, RegistryError> {
        let admission = self.admission(who)?;
        let reason = check_reason(changes.reason.as_deref())?;
        let now = self.clock.wall();
        let id = Uuid::now_v7();
        let (mut row, signing_secret) = self.fresh(id, who.is_admin())?;
        if let Admission::Pending(_) = admission {
            row.state = AdminState::Pending;
        }
        if changes.name.is_none() {
            return Err(RegistryError::invalid("name", "is missing"));
        }
        let wanted_slug = changes.slug.clone();
        self.apply(who, &mut row, changes)?;

        let api_key = NewToken::generate(&self.settings.key_prefix);
        let key = KeyRow {
            id: Uuid::now_v7(),
            agent_id: id,
            digest: api_key.digest,
            hint: Some(api_key.hint.clone()),
            name: "default".to_owned(),
            expires_at: None,
            last_used_at: None,
            created_at: now,
            replaces: None,
        };
        for nth in 1.. {
            row.slug = match &wanted_slug {
                Some(slug) => slug.clone(),
                None if nth <= 50 => slug_from(&row.name, nth),
                // Fifty of one name: a random ending finds a free one.
                None => slug_from(&row.name, u32::from(id.as_bytes()[15]) * 1_000 + nth),
            };
            let mut event = self.event(who, "agent.create", id, None, Some(snapshot(&row)));
            event.reason.clone_from(&reason);
            let added = match admission {
                Admission::Active => self.store.add_agent(&row, &key, who.is_admin(), &event).await,
                Admission::Pending(most) => self.store.add_pending_agent(&row, &key, most, &event).await,
            };
            match added {
                Err(StoreError::Full) => {
                    return Err(RegistryError::Full(
                        "too many agents are waiting for approval: try again once operators have decided about some"
                            .to_owned(),
                    ));
                }
                Err(StoreError::Conflict(what)) if what.contains("slug") && wanted_slug.is_none() && nth < 60 => {}
                other => {
                    other.map_err(|error| taken(error, &row))?;
                    break;
                }
            }
        }
        self.reload().await;
        if row.endpoint_url.is_some() && row.state == AdminState::Active {
            self.probe_wanted.notify_one();
        }
        Ok(Registered { agent: row, key, api_key, signing_secret })
    }

    /// Changes an agent: its owner (by a key of its own) or an admin.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] also for those who may not know the agent, and as for [`Registry::register`].
    pub async fn update_agent(&self, who: &Actor, id: Uuid, changes: AgentChanges) -> Result<AgentRow, RegistryError> {
        if !who.owns(id) {
            return Err(RegistryError::Forbidden("only the agent itself or an admin can change it".to_owned()));
        }
        if changes.slug.is_some() && self.store.slug_count(id).await? >= SLUGS_MAX {
            return Err(RegistryError::Taken(format!(
                "the agent has had {SLUGS_MAX} slugs, and each stays taken: keep the one it has"
            )));
        }
        let reason = check_reason(changes.reason.as_deref())?;
        let wanted = changes.clone();
        let mut to_probe = false;
        let mut attempted = None;
        let done = self
            .store
            .change_agent(id, |row| {
                let before = row.clone();
                if let Some(slug) = wanted.slug.clone() {
                    row.slug = slug;
                }
                self.apply(who, row, wanted)?;
                row.updated_at = self.clock.wall();
                let moved = before.endpoint_url != row.endpoint_url || before.card_url != row.card_url;
                let enters = before.state != row.state && row.state == AdminState::Active;
                let rescheduled = before.health_interval_s != row.health_interval_s;
                to_probe = (moved || enters || rescheduled) && row.endpoint_url.is_some();
                if enters {
                    // What is known of it is from before: it is to be looked at first.
                    (row.health, row.health_reason, row.health_checked_at) = (HealthStatus::Unknown, None, None);
                }
                attempted = Some(row.clone());
                let action = admission::action(before.state, row.state);
                let event = self.event(who, action, id, Some(snapshot(&before)), Some(snapshot(row)));
                Ok::<_, RegistryError>(AdminEvent { reason, ..event })
            })
            .await;
        let row = match done {
            Err(RegistryError::Store(StoreError::NotFound)) => return Err(RegistryError::NotFound("agent")),
            Err(RegistryError::Store(error)) => {
                return Err(attempted.map_or_else(|| RegistryError::NotFound("agent"), |row| taken(error, &row)));
            }
            other => other?,
        };
        self.reload().await;
        if to_probe {
            self.probe_wanted.notify_one();
        }
        Ok(row)
    }

    /// Deletes an agent: its keys stop working, its connections end, its secrets are gone. The log keeps naming it.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Forbidden`] to all but its owner and admins.
    pub async fn delete_agent(&self, who: &Actor, id: Uuid, reason: Option<&str>) -> Result<(), RegistryError> {
        if !who.owns(id) {
            return Err(RegistryError::Forbidden("only the agent itself or an admin can delete it".to_owned()));
        }
        let before = self.store.agent(id).await?.ok_or(RegistryError::NotFound("agent"))?;
        let rejected = before.state == AdminState::Pending && !matches!(who, Actor::Agent(_));
        let action = if rejected { "agent.reject" } else { "agent.delete" };
        let event = self.event(who, action, id, Some(snapshot(&before)), None);
        let event = AdminEvent { reason: check_reason(reason)?, ..event };
        match self.store.delete_agent(id, self.clock.wall(), &event, |row| self.end_with_agent(who, row)).await {
            Err(StoreError::NotFound) => return Err(RegistryError::NotFound("agent")),
            other => other?,
        }
        self.reload().await;
        Ok(())
    }

    /// A row with nothing said in it yet, and its signing secret.
    pub(super) fn fresh(&self, id: Uuid, registered_by_operator: bool) -> Result<(AgentRow, String), RegistryError> {
        let now = self.clock.wall();
        let signing_secret = random_secret()?;
        let row = AgentRow {
            id,
            slug: String::new(),
            name: String::new(),
            description: String::new(),
            provider: None,
            avatar_url: None,
            endpoint_url: None,
            card_url: None,
            subpaths: Vec::new(),
            capabilities: Vec::new(),
            skills_json: "[]".to_owned(),
            payment_json: None,
            state: AdminState::Active,
            listed: true,
            auto_accept_connections: false,
            registered_by_operator,
            push: PushMode::Refuse,
            pass_authorization: false,
            sign_large_bodies: false,
            http2: false,
            max_in_flight: None,
            limits: AgentLimits::default(),
            timeouts: AgentTimeouts::default(),
            signing_secret: self.vault.seal(Purpose::SigningSecret, id, signing_secret.as_bytes())?,
            upstream_credential: None,
            card_json: None,
            card_fetched_at: None,
            held_card: None,
            health_interval_s: None,
            next_signing_secret: None,
            health: HealthStatus::Unknown,
            health_reason: None,
            health_checked_at: None,
            created_at: now,
            updated_at: now,
        };
        Ok((row, signing_secret))
    }

    /// Checks every changed value and puts it into `row`.
    pub(super) fn apply(&self, who: &Actor, row: &mut AgentRow, changes: AgentChanges) -> Result<(), RegistryError> {
        let optional = |member: &str, text: Option<String>, max| match text {
            Some(text) => check_text(member, &text, max, false).map(|text| Some(text).filter(|text| !text.is_empty())),
            None => Ok(None),
        };
        if let Some(slug) = &changes.slug {
            check_slug(slug)?;
        }
        if let Some(name) = changes.name {
            row.name = check_text("name", &name, 100, false)?;
            if row.name.is_empty() {
                return Err(RegistryError::invalid("name", "is empty"));
            }
        }
        if let Some(description) = changes.description {
            row.description = check_text("description", &description, 4_000, true)?;
        }
        if let Some(provider) = changes.provider {
            row.provider = optional("provider", provider, 100)?;
        }
        if let Some(avatar) = changes.avatar_url {
            row.avatar_url =
                avatar.map(|url| check_url("avatar_url", &url)).transpose()?.map(|url| url.as_str().to_owned());
        }
        if let Some(subpaths) = changes.subpaths {
            bounded_list("subpaths", subpaths.len(), 32)?;
            subpaths.iter().try_for_each(|path| check_subpath(path))?;
            row.subpaths = subpaths;
        }
        if let Some(capabilities) = changes.capabilities {
            bounded_list("capabilities", capabilities.len(), 64)?;
            let checked = capabilities.iter().map(|word| check_text("capabilities", word, 100, false));
            row.capabilities = checked.collect::<Result<_, _>>()?;
        }
        if let Some(skills) = changes.skills {
            row.skills_json = check_skills(&skills)?;
        }
        if let Some(payment) = changes.payment {
            row.payment_json = payment.map(|value| bounded_json("payment_schemes", &value, 8_192)).transpose()?;
        }
        if let Some(state) = changes.state {
            check_state(who, row.state, state)?;
            row.state = state;
        }
        if let Some(limit) = changes.max_in_flight {
            if !who.is_admin() && limit != row.max_in_flight {
                return Err(RegistryError::Forbidden("max_in_flight: only an operator can change it".to_owned()));
            }
            if limit == Some(0) {
                return Err(RegistryError::invalid("max_in_flight", "must be at least 1"));
            }
            row.max_in_flight = limit;
        }
        if let Some(limits) = changes.limits {
            agent_limits::apply(who, row, limits)?;
        }
        if let Some(seconds) = changes.health_interval_s {
            if seconds.is_some_and(|seconds| !INTERVALS.contains(&seconds)) {
                let (least, most) = INTERVALS.into_inner();
                return Err(RegistryError::invalid(
                    "health_interval_s",
                    format!("must be between {least} and {most} seconds, or null for the gateway's own interval"),
                ));
            }
            row.health_interval_s = seconds;
        }
        if let Some(timeouts) = changes.timeouts {
            let AgentTimeouts { connect_ms, first_byte_ms, read_first_byte_ms, idle_ms } = timeouts;
            if [connect_ms, first_byte_ms, read_first_byte_ms, idle_ms]
                .iter()
                .flatten()
                .any(|ms| !(1..=LONGEST_MS).contains(ms))
            {
                return Err(RegistryError::invalid(
                    "timeouts",
                    format!("must be between 1 and {LONGEST_MS} milliseconds"),
                ));
            }
            row.timeouts = timeouts;
        }
        row.listed = changes.listed.unwrap_or(row.listed);
        row.auto_accept_connections = changes.auto_accept_connections.unwrap_or(row.auto_accept_connections);
        row.push = changes.push.unwrap_or(row.push);
        row.pass_authorization = changes.pass_authorization.unwrap_or(row.pass_authorization);
        row.sign_large_bodies = changes.sign_large_bodies.unwrap_or(row.sign_large_bodies);
        row.http2 = changes.http2.unwrap_or(row.http2);
        self.apply_addresses(who, row, changes.endpoint_url, changes.card_url)?;
        if let Some(credential) = changes.upstream_credential {
            row.upstream_credential = match credential {
                Some(credential) => Some(credential.seal(&self.vault, row.id)?),
                None => None,
            };
        }
        Ok(())
    }

    fn apply_addresses(
        &self,
        who: &Actor,
        row: &mut AgentRow,
        endpoint: Option<Option<String>>,
        card: Option<Option<String>>,
    ) -> Result<(), RegistryError> {
        let allowed = self.settings.allow_networks.load().as_ref().clone();
        let rules = NetworkRules { private_allowed: who.is_admin(), allowed };
        let before = row.endpoint_url.clone();
        if let Some(endpoint) = endpoint {
            let unchanged = endpoint.is_some() && endpoint == before;
            if !unchanged {
                let url = endpoint.map(|url| check_dialled_url("url", &url, &rules)).transpose()?;
                row.endpoint_url = url.map(String::from);
            }
        }
        let moved = before != row.endpoint_url;
        if moved {
            // The right to a private network belongs to the address an operator gave, not to the agent for ever; and a
            // credential meant for the old address must not be shown to another host.
            row.registered_by_operator = who.is_admin();
            if !same_origin(before.as_deref(), row.endpoint_url.as_deref()) {
                row.upstream_credential = None;
                row.card_url = None;
            }
        }
        if let Some(card) = card.filter(|card| *card != row.card_url) {
            row.card_url = card.map(|url| check_dialled_url("card_url", &url, &rules)).transpose()?.map(String::from);
            // An owner must not make the gateway fetch from private hosts that an operator allowed for something else.
            let elsewhere =
                row.card_url.is_some() && !same_origin(row.card_url.as_deref(), row.endpoint_url.as_deref());
            if elsewhere && !who.is_admin() && row.registered_by_operator {
                return Err(RegistryError::invalid(
                    "card_url",
                    "must be on the host of the endpoint: only an operator can choose another",
                ));
            }
        }
        if row.card_url.is_some() && row.endpoint_url.is_none() {
            return Err(RegistryError::invalid("card_url", "needs an endpoint: a client has no card"));
        }
        if moved {
            (row.health, row.health_reason, row.health_checked_at) = (HealthStatus::Unknown, None, None);
            (row.card_json, row.card_fetched_at, row.held_card) = (None, None, None);
        }
        Ok(())
    }
}

fn same_origin(one: Option<&str>, other: Option<&str>) -> bool {
    let origin = |text: Option<&str>| text.and_then(|text| url::Url::parse(text).ok()).map(|url| url.origin());
    matches!((origin(one), origin(other)), (Some(one), Some(other)) if one == other)
}

fn bounded_list(member: &str, length: usize, most: usize) -> Result<(), RegistryError> {
    if length > most {
        return Err(RegistryError::invalid(member, format!("has more than {most} entries")));
    }
    Ok(())
}

fn bounded_json(member: &str, value: &Value, most: usize) -> Result<String, RegistryError> {
    let text = value.to_string();
    if text.len() > most {
        return Err(RegistryError::invalid(member, format!("is longer than {most} bytes as JSON")));
    }
    Ok(text)
}

fn check_skills(skills: &[Value]) -> Result<String, RegistryError> {
    bounded_list("skills", skills.len(), 200)?;
    for (at, skill) in skills.iter().enumerate() {
        let member = format!("skills[{at}].name");
        let name = skill["name"].as_str().or_else(|| skill["id"].as_str());
        let name =
            name.ok_or_else(|| RegistryError::invalid(&*member, "is missing: a skill is an object with a name"))?;
        check_text(&member, name, 200, false)?;
    }
    bounded_json("skills", &Value::from(skills.to_vec()), 65_536)
}

fn taken(error: StoreError, row: &AgentRow) -> RegistryError {
    match error {
        StoreError::Conflict(what) if what.contains("slug") => {
            RegistryError::Taken(format!("slug {:?} is taken: choose another one", row.slug))
        }
        StoreError::Conflict(what) if what.contains("endpoint") => {
            RegistryError::Taken("url is registered for another agent already".to_owned())
        }
        other => RegistryError::Store(other),
    }
}

/// The row as the log of changes keeps it: no secret in it.
pub(super) fn snapshot(row: &AgentRow) -> Value {
    json!({
        "slug": row.slug, "name": row.name, "description": row.description, "provider": row.provider,
        "avatar_url": row.avatar_url, "endpoint_url": row.endpoint_url, "card_url": row.card_url,
        "subpaths": row.subpaths, "capabilities": row.capabilities,
        "skills": serde_json::from_str::<Value>(&row.skills_json).unwrap_or_default(),
        "payment": row.payment_json, "state": row.state.as_str(), "listed": row.listed,
        "auto_accept_connections": row.auto_accept_connections, "registered_by_operator": row.registered_by_operator,
        "push": row.push.as_str(), "pass_authorization": row.pass_authorization,
        "sign_large_bodies": row.sign_large_bodies, "http2": row.http2, "max_in_flight": row.max_in_flight,
        "limits": row.limits,
        "timeouts": {
            "connect_ms": row.timeouts.connect_ms, "first_byte_ms": row.timeouts.first_byte_ms,
            "read_first_byte_ms": row.timeouts.read_first_byte_ms, "idle_ms": row.timeouts.idle_ms,
        },
        "health_interval_s": row.health_interval_s,
        "upstream_credential": row.upstream_credential.as_ref().map(|_| "***"), "signing_secret": "***",
    })
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
