//! The ledger for operators: how sealing goes, in status and metrics; checkpoints, and a new key to sign them with.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::metrics::{Families, label};
use super::problem::Problem;
use super::who::Asked;
use crate::audit::ledger::publish::PlaceState;
use crate::audit::ledger::seal::{NotChanged, SealState};
use crate::clock::Timestamp;
use crate::store::ledger::{CheckpointRow, LedgerKeyRow};

/// Checkpoints that have not left for that long are worth a word.
const UNWITNESSED_US: i64 = 300_000_000;

/// How the ledger of this node is.
#[derive(Clone, Debug, Default)]
pub struct LedgerTold {
    /// Rows in its tree.
    pub rows: u64,
    /// How sealing goes.
    pub seal: SealState,
    /// How far checkpoints have left, for each witness.
    pub witnesses: Vec<PlaceState>,
}

impl LedgerTold {
    /// The rows of the newest checkpoint that left, and when it did; `None`: none ever did.
    fn witnessed(&self) -> Option<(u64, Timestamp)> {
        self.witnesses.iter().filter_map(|witness| witness.sent).max_by_key(|(size, _)| *size)
    }

    /// Rows that no checkpoint that left speaks of.
    fn unwitnessed_rows(&self) -> u64 {
        self.rows.saturating_sub(self.witnessed().map_or(0, |(size, _)| size))
    }

    /// What somebody should do something about, at `now`: nothing is signed, or what is signed does not leave.
    #[must_use]
    pub fn complaint(&self, now: Timestamp) -> Option<String> {
        if let Some(trouble) = &self.seal.trouble {
            return Some(format!("checkpoints of the log are not signed: {trouble}"));
        }
        let waits = |(_, since): &(String, Timestamp)| now.0.saturating_sub(since.0) >= UNWITNESSED_US;
        let failing = self.witnesses.iter().filter(|witness| witness.failing.as_ref().is_some_and(waits));
        let failing: Vec<String> =
            failing.filter_map(|witness| Some(format!("{}: {}", witness.place, witness.failing.as_ref()?.0))).collect();
        // One witness that knows is enough: the others are told of, and are no reason to call anybody.
        if failing.is_empty() || failing.len() < self.witnesses.len() {
            return None;
        }
        let rows = self.unwitnessed_rows();
        Some(format!("{rows} rows of the log are unwitnessed: no checkpoint leaves ({})", failing.join("; ")))
    }

    pub(super) fn families(&self, families: &mut Families<'_>) -> fmt::Result {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        families.gauge("ledger_rows", "Rows this node has recorded", None, signed(self.rows))?;
        let sealed = signed(self.seal.sealed.size);
        families.gauge("ledger_sealed_rows", "Those that a signed checkpoint speaks of", None, sealed)?;
        let help = "Rows that no checkpoint speaks of that has left";
        families.gauge("ledger_unwitnessed_rows", help, None, signed(self.unwitnessed_rows()))?;
        let signing = i64::from(self.seal.trouble.is_none());
        families.gauge("ledger_signing", "1 while checkpoints are signed", None, signing)?;
        let failing = self
            .witnesses
            .iter()
            .map(|witness| (vec![label("witness", witness.place.clone())], i64::from(witness.failing.is_some())));
        families.gauges("ledger_witness_failing", "1 while checkpoints do not reach it", failing)
    }
}

/// How the ledger of this node is.
#[derive(Serialize, ToSchema)]
pub(super) struct Ledger {
    /// What checkpoints are checked with, as C2SP `signed-note` writes keys; null before the first.
    key: Option<String>,
    /// Rows this node has recorded.
    rows: u64,
    /// Those that a signed checkpoint speaks of.
    sealed_rows: u64,
    /// `witnessed`; `unwitnessed` where no checkpoint ever left this machine.
    state: &'static str,
    /// Rows past the last checkpoint that left.
    unwitnessed_rows: u64,
    /// Where checkpoints are sent.
    witnesses: Vec<Witness>,
}

/// How far checkpoints have left for one place.
#[derive(Serialize, ToSchema)]
struct Witness {
    /// Its name in the configuration.
    name: String,
    /// The rows that the last checkpoint it has speaks of.
    rows: Option<u64>,
    /// When that arrived.
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<Timestamp>,
    /// Why the next does not arrive.
    error: Option<String>,
}

pub(super) fn view(told: &LedgerTold) -> Ledger {
    Ledger {
        key: told.seal.key.as_ref().map(ToString::to_string),
        rows: told.rows,
        sealed_rows: told.seal.sealed.size,
        state: if told.witnessed().is_some() { "witnessed" } else { "unwitnessed" },
        unwitnessed_rows: told.unwitnessed_rows(),
        witnesses: told
            .witnesses
            .iter()
            .map(|witness| Witness {
                name: witness.place.clone(),
                rows: witness.sent.map(|(rows, _)| rows),
                at: witness.sent.map(|(_, at)| at),
                error: witness.failing.as_ref().map(|(why, _)| why.clone()),
            })
            .collect(),
    }
}

/// A checkpoint: what a node's log was at one moment, signed.
#[derive(Serialize, ToSchema)]
struct Checkpoint {
    /// Whose log.
    node_id: Uuid,
    /// How many rows it speaks of.
    size: u64,
    /// The root of their Merkle tree, hexadecimal.
    root: String,
    /// When it was signed.
    #[schema(value_type = String, format = DateTime)]
    signed_at: Timestamp,
    /// The key that signed it, as the database has it: get it from somewhere else to check with.
    key: Option<String>,
    /// The signed note (C2SP `tlog-checkpoint`).
    note: String,
}

/// Checkpoints.
#[derive(Serialize, ToSchema)]
struct CheckpointList {
    /// Smallest first.
    checkpoints: Vec<Checkpoint>,
}

impl Asked {
    async fn with_keys(&self, rows: Vec<CheckpointRow>) -> Result<Response, Problem> {
        let mut checkpoints = Vec::with_capacity(rows.len());
        let mut keys: HashMap<Uuid, Vec<LedgerKeyRow>> = HashMap::new();
        for row in rows {
            let keys = match keys.entry(row.node_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(self.control.store.ledger_keys(row.node_id).await?),
            };
            let CheckpointRow { node_id, size, root, signed_at, note, .. } = row;
            let key = keys.iter().rfind(|key| key.size < size || key.number == 1).map(|key| key.key.clone());
            let root = root.iter().map(|byte| format!("{byte:02x}")).collect();
            checkpoints.push(Checkpoint { node_id, size, root, signed_at, key, note });
        }
        Ok(Json(CheckpointList { checkpoints }).into_response())
    }
}

/// The newest checkpoint of every node.
#[utoipa::path(get, path = "/api/audit/checkpoint", operation_id = "newest_checkpoints", tag = "audit",
    responses((status = 200, description = "One for each node that has signed any", body = CheckpointList)))]
pub(super) async fn newest(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let mut rows = Vec::new();
    for node in asked.control.store.ledger_nodes().await? {
        rows.extend(asked.control.store.last_checkpoint(node).await?);
    }
    asked.with_keys(rows).await
}

/// The checkpoints of one node.
#[utoipa::path(get, path = "/api/audit/checkpoints", operation_id = "list_checkpoints", tag = "audit",
    params(("node" = Option<Uuid>, Query, description = "Whose; without it, those of the node that answers"),
        ("from" = Option<u64>, Query, description = "Of at least so many rows"),
        ("limit" = Option<u32>, Query, description = "At most so many, up to 200", minimum = 1)),
    responses((status = 200, description = "Smallest first", body = CheckpointList)))]
pub(super) async fn list(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let parameters = &asked.parameters;
    let node = parameters.id("node")?.unwrap_or(asked.control.about.node_id);
    let from = parameters.word("from", "a number of rows", |text| text.parse::<u64>().ok())?.unwrap_or(0);
    let limit = parameters.count("limit", 50, 200)?;
    let rows = asked.control.store.checkpoints(node, from.min(i64::MAX.cast_unsigned()), limit).await?;
    asked.with_keys(rows).await
}

/// A key that signs from now on.
#[derive(Serialize, ToSchema)]
struct NewKey {
    /// As C2SP `signed-note` writes keys.
    key: String,
}

/// Makes a new key for this node's checkpoints; the one before names it in a checkpoint that both sign.
#[utoipa::path(post, path = "/api/audit/rotate-key", operation_id = "rotate_ledger_key", tag = "audit",
    responses((status = 200, description = "It signs from now on", body = NewKey),
        (status = 403, description = "Admins alone may do this"),
        (status = 409, description = "A key took over, and nothing was recorded since"),
        (status = 503, description = "Nothing can be signed now")))]
pub(super) async fn rotate_key(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    if !asked.who.is_admin() {
        return Err(Problem::forbidden("this takes an operator with the role admin"));
    }
    let node = asked.control.about.node_id;
    let key = (asked.control.new_ledger_key)().await.map_err(|error| match error {
        NotChanged::Refused(why) => Problem::new(409, why),
        NotChanged::Failed(why) => Problem::unavailable(why),
    })?;
    let what = json!({"node": node, "key": key});
    asked.control.registry.record_reading(&asked.who, "audit.rotate_key", what).await?;
    Ok(Json(NewKey { key }).into_response())
}
