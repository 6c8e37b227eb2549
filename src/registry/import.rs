//! Taking over the registry of another gateway: agents, keys by their digests, connections.
//!
//! Promises: what is planned is what is done, in one transaction, all of it or nothing; rows that cannot be taken over are
//! named with the reason; what is here already stays as it is, so that a second run changes nothing. Endpoints that others
//! registered get no right to private networks by being imported.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use uuid::Uuid;

use super::agents::{self, AgentChanges};
use super::connections;
use super::names::{check_text, slug_from};
use super::{Actor, Registry, RegistryError};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::rows::{AdminEvent, AgentRow, ConnectionLimits, ConnectionRow, ConnectionStatus, KeyRow};

/// What is to be taken over; rows that could not even be read are problems. Each comes with the name it has in reports.
#[derive(Debug, Default)]
pub struct Import {
    /// Agents, with the ids they keep.
    pub agents: Vec<Result<ImportedAgent, Problem>>,
    /// Their keys.
    pub keys: Vec<Result<ImportedKey, Problem>>,
    /// Connections between them.
    pub connections: Vec<Result<ImportedConnection, Problem>>,
}

/// An agent of the other registry.
#[derive(Debug)]
pub struct ImportedAgent {
    /// In reports.
    pub row: String,
    /// Kept, so that logs and callers go on knowing it.
    pub id: Uuid,
    /// What it says of itself.
    pub changes: AgentChanges,
    /// When it was registered there.
    pub created_at: Option<Timestamp>,
}

/// An API key of the other registry: its digest, so that the key goes on working.
#[derive(Debug)]
pub struct ImportedKey {
    /// In reports.
    pub row: String,
    /// Kept where it has one.
    pub id: Option<Uuid>,
    /// Whose it is.
    pub agent_id: Uuid,
    /// SHA-256 of the whole key.
    pub digest: [u8; 32],
    /// Chosen by its owner.
    pub name: String,
    /// When it was last used there.
    pub last_used_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// A connection of the other registry, which may have two for one pair.
#[derive(Debug)]
pub struct ImportedConnection {
    /// In reports.
    pub row: String,
    /// Kept where it has one.
    pub id: Option<Uuid>,
    /// Who asked.
    pub requester_id: Uuid,
    /// Who was asked.
    pub target_id: Uuid,
    /// Where it stands.
    pub status: ImportedStatus,
    /// Shown to the one who was asked.
    pub message: Option<String>,
    /// When it was asked for.
    pub created_at: Option<Timestamp>,
    /// When it was answered.
    pub resolved_at: Option<Timestamp>,
}

/// Where a connection stands there; of two for one pair, the later one here wins, and a block is kept beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImportedStatus {
    /// The target blocked the requester.
    Blocked,
    /// Refused.
    Declined,
    /// Asked for.
    Pending,
    /// Accepted.
    Connected,
}

/// A row that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub row: String,
    /// What is wrong with it.
    pub problem: String,
}

/// How many of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// To be added.
    pub new: usize,
    /// Here already.
    pub unchanged: usize,
    /// Named among the problems.
    pub left_out: usize,
}

impl Counts {
    fn leave_out(&mut self, problem: Problem, problems: &mut Vec<Problem>) {
        self.left_out += 1;
        problems.push(problem);
    }
}

/// What an import does.
#[derive(Debug, Default)]
pub struct Plan {
    /// Agents.
    pub agents: Counts,
    /// Keys.
    pub keys: Counts,
    /// Connections, pairs with two of them counted once.
    pub connections: Counts,
    /// What is left out.
    pub problems: Vec<Problem>,
    new_agents: Vec<AgentRow>,
    new_keys: Vec<KeyRow>,
    new_connections: Vec<ConnectionRow>,
}

/// What is taken when planning begins, and by what is planned.
struct Taken {
    agents: HashSet<Uuid>,
    deleted: HashSet<Uuid>,
    slugs: HashMap<String, Uuid>,
    endpoints: HashMap<String, String>,
    keys: HashMap<[u8; 32], Uuid>,
    key_ids: HashSet<Uuid>,
    pairs: HashSet<(Uuid, Uuid)>,
    connection_ids: HashSet<Uuid>,
}

impl Registry {
    /// What importing would do. Changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but admins, and when the database cannot be read.
    pub async fn plan_import(&self, who: &Actor, import: Import) -> Result<Plan, RegistryError> {
        if !who.is_admin() {
            return Err(RegistryError::Forbidden("only an admin can import a registry".to_owned()));
        }
        let mut taken = self.taken().await?;
        let mut plan = Plan::default();
        for agent in import.agents {
            match agent {
                Ok(agent) => self.plan_agent(agent, &mut taken, &mut plan)?,
                Err(problem) => plan.agents.leave_out(problem, &mut plan.problems),
            }
        }
        for key in import.keys {
            match key {
                Ok(key) => self.plan_key(key, &mut taken, &mut plan),
                Err(problem) => plan.keys.leave_out(problem, &mut plan.problems),
            }
        }
        self.plan_connections(import.connections, &mut taken, &mut plan);
        Ok(plan)
    }

    /// Does what was planned, in one transaction.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] when the registry was changed in between; nothing is done then.
    pub async fn apply_import(&self, who: &Actor, plan: &Plan) -> Result<(), RegistryError> {
        let event = |action: &str, subject: Uuid, after| AdminEvent {
            reason: Some("imported".to_owned()),
            ..self.event(who, action, subject, None, Some(after))
        };
        let mut events = Vec::with_capacity(plan.new_agents.len() + plan.new_keys.len() + plan.new_connections.len());
        events.extend(plan.new_agents.iter().map(|row| event("agent.create", row.id, agents::snapshot(row))));
        events.extend(plan.new_keys.iter().map(|row| {
            event(
                "key.create",
                row.id,
                json!({"agent_id": row.agent_id, "name": row.name, "expires_at": row.expires_at}),
            )
        }));
        let snapshot = |row: &ConnectionRow| event("connection.import", row.id, connections::snapshot(row));
        events.extend(plan.new_connections.iter().map(snapshot));
        let done = self.store.import(&plan.new_agents, &plan.new_keys, &plan.new_connections, &events).await;
        match done {
            Err(StoreError::Conflict(what)) => {
                return Err(RegistryError::Taken(format!(
                    "the registry was changed while it was being imported to ({what}): nothing was imported, run it again"
                )));
            }
            other => other?,
        }
        self.reload().await;
        self.probe_wanted.notify_one();
        Ok(())
    }

    async fn taken(&self) -> Result<Taken, RegistryError> {
        let rows = self.store.directory_rows().await?;
        let names = self.store.names_taken().await?;
        let plain = |url: &String| url.trim_end_matches('/').to_owned();
        Ok(Taken {
            agents: rows.agents.iter().map(|row| row.id).collect(),
            deleted: names.deleted.into_iter().collect(),
            slugs: names.slugs.into_iter().collect(),
            endpoints: rows
                .agents
                .iter()
                .filter_map(|row| Some((row.endpoint_url.as_ref().map(plain)?, row.slug.clone())))
                .collect(),
            keys: rows.keys.iter().map(|row| (row.digest, row.agent_id)).collect(),
            key_ids: rows.keys.iter().map(|row| row.id).collect(),
            pairs: names.pairs.into_iter().map(|(one, other)| pair(one, other)).collect(),
            connection_ids: names.connection_ids.into_iter().collect(),
        })
    }

    fn plan_agent(&self, agent: ImportedAgent, taken: &mut Taken, plan: &mut Plan) -> Result<(), RegistryError> {
        if taken.agents.contains(&agent.id) {
            plan.agents.unchanged += 1;
            return Ok(());
        }
        let mut leave_out =
            |problem: String| plan.agents.leave_out(Problem { row: agent.row.clone(), problem }, &mut plan.problems);
        if taken.deleted.contains(&agent.id) {
            leave_out("an agent with this id was deleted here, and ids are not given out twice".to_owned());
            return Ok(());
        }
        let (mut row, _) = self.fresh(agent.id, false)?;
        let wanted = agent.changes.slug.clone();
        // As nobody in particular: what was registered elsewhere gets no rights here that its owner could not have.
        if let Err(error) = self.apply(&Actor::Anonymous, &mut row, agent.changes) {
            leave_out(error.to_string());
            return Ok(());
        }
        if row.name.is_empty() {
            leave_out("name: is missing".to_owned());
            return Ok(());
        }
        row.slug = match wanted {
            Some(slug) => slug,
            None => (1..)
                .map(|nth| slug_from(&row.name, nth))
                .find(|slug| !taken.slugs.contains_key(slug))
                .unwrap_or_default(),
        };
        if let Some(holder) = taken.slugs.get(&row.slug) {
            leave_out(format!("slug: {:?} is taken by the agent {holder}", row.slug));
            return Ok(());
        }
        let endpoint = row.endpoint_url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        if let Some(holder) = endpoint.as_ref().and_then(|endpoint| taken.endpoints.get(endpoint)) {
            leave_out(format!("url: is registered for {holder:?} already"));
            return Ok(());
        }
        row.registered_by_operator = false;
        row.created_at = agent.created_at.unwrap_or(row.created_at);
        taken.agents.insert(row.id);
        taken.slugs.insert(row.slug.clone(), row.id);
        taken.endpoints.extend(endpoint.map(|endpoint| (endpoint, row.slug.clone())));
        plan.agents.new += 1;
        plan.new_agents.push(row);
        Ok(())
    }

    fn plan_key(&self, key: ImportedKey, taken: &mut Taken, plan: &mut Plan) {
        let problem = match taken.keys.get(&key.digest) {
            Some(owner) if *owner == key.agent_id => {
                plan.keys.unchanged += 1;
                return;
            }
            Some(owner) => Some(format!("key_hash: is a key of the agent {owner}")),
            None if !taken.agents.contains(&key.agent_id) => {
                Some(format!("agent_id: the agent {} is neither here nor imported", key.agent_id))
            }
            None => key.id.filter(|id| taken.key_ids.contains(id)).map(|_| "id: another key has it".to_owned()),
        };
        let name = check_text("name", &key.name, 100, false).unwrap_or_else(|_| "imported".to_owned());
        if let Some(problem) = problem {
            plan.keys.leave_out(Problem { row: key.row, problem }, &mut plan.problems);
            return;
        }
        let now = self.clock.wall();
        let row = KeyRow {
            id: key.id.unwrap_or_else(Uuid::now_v7),
            agent_id: key.agent_id,
            digest: key.digest,
            hint: None,
            name,
            expires_at: None,
            last_used_at: key.last_used_at,
            created_at: key.created_at.unwrap_or(now),
            replaces: None,
        };
        taken.keys.insert(row.digest, row.agent_id);
        taken.key_ids.insert(row.id);
        plan.keys.new += 1;
        plan.new_keys.push(row);
    }

    fn plan_connections(
        &self,
        connections: Vec<Result<ImportedConnection, Problem>>,
        taken: &mut Taken,
        plan: &mut Plan,
    ) {
        // In the order they came, so that a report reads like the export.
        let mut order = Vec::new();
        let mut pairs: HashMap<(Uuid, Uuid), Vec<ImportedConnection>> = HashMap::new();
        for connection in connections {
            let connection = match connection {
                Ok(connection) => connection,
                Err(problem) => {
                    plan.connections.leave_out(problem, &mut plan.problems);
                    continue;
                }
            };
            let problem = if connection.requester_id == connection.target_id {
                Some("an agent has no connection with itself".to_owned())
            } else {
                [connection.requester_id, connection.target_id]
                    .into_iter()
                    .find(|id| !taken.agents.contains(id))
                    .map(|id| format!("the agent {id} is neither here nor imported"))
            };
            if let Some(problem) = problem {
                plan.connections.leave_out(Problem { row: connection.row, problem }, &mut plan.problems);
                continue;
            }
            let pair = pair(connection.requester_id, connection.target_id);
            let rows = pairs.entry(pair).or_default();
            if rows.is_empty() {
                order.push(pair);
            }
            rows.push(connection);
        }
        for pair in order {
            if taken.pairs.contains(&pair) {
                plan.connections.unchanged += 1;
                continue;
            }
            let Some(rows) = pairs.remove(&pair) else { continue };
            let Some(row) = self.merged(&rows, taken) else { continue };
            taken.connection_ids.insert(row.id);
            plan.connections.new += 1;
            plan.new_connections.push(row);
        }
    }

    /// One connection of all that a pair had. A block outlives whatever else was agreed.
    fn merged(&self, rows: &[ImportedConnection], taken: &Taken) -> Option<ConnectionRow> {
        let best = rows.iter().max_by_key(|row| row.status)?;
        let blockers: Vec<Uuid> =
            rows.iter().filter(|row| row.status == ImportedStatus::Blocked).map(|row| row.target_id).collect();
        let message = best.message.as_deref().and_then(|text| check_text("message", text, 150, true).ok());
        Some(ConnectionRow {
            id: best.id.filter(|id| !taken.connection_ids.contains(id)).unwrap_or_else(Uuid::now_v7),
            requester_id: best.requester_id,
            target_id: best.target_id,
            status: match best.status {
                ImportedStatus::Connected => ConnectionStatus::Connected,
                ImportedStatus::Pending if blockers.is_empty() => ConnectionStatus::Pending,
                // To block is also to answer.
                ImportedStatus::Pending | ImportedStatus::Declined | ImportedStatus::Blocked => {
                    ConnectionStatus::Declined
                }
            },
            blocked_by_requester: blockers.contains(&best.requester_id),
            blocked_by_target: blockers.contains(&best.target_id),
            block_locked: false,
            message: message.filter(|text| !text.is_empty()),
            limits: ConnectionLimits::default(),
            ends_at: None,
            review_at: None,
            purpose: None,
            operations: None,
            operations_fixed: false,
            created_at: best.created_at.unwrap_or_else(|| self.clock.wall()),
            resolved_at: best.resolved_at,
        })
    }
}

fn pair(one: Uuid, other: Uuid) -> (Uuid, Uuid) {
    if one < other { (one, other) } else { (other, one) }
}
