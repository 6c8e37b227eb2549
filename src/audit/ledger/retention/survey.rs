//! What of a node's rows may go: the rows that are old enough and not held, from the first on, all of which are found to be what
//! was signed for.

use std::fmt;

use uuid::Uuid;

use crate::audit::canonical;
use crate::audit::ledger::note::{Note, VerifierKey};
use crate::audit::ledger::tree::Frontier;
use crate::clock::Timestamp;
use crate::store::calls::remove::Prefix;
use crate::store::holds::HoldRow;
use crate::store::ledger::CheckpointRow;
use crate::store::rows::CallRow;
use crate::store::{Store, StoreError};

/// Rows that are read at once.
const PAGE: u32 = if cfg!(test) { 10 } else { 1_000 };
/// Checkpoints that are read at once.
const CHECKPOINTS: u32 = if cfg!(test) { 3 } else { 1_000 };

/// Why rows are not removed though they are old enough.
#[derive(Debug)]
pub(super) enum SurveyError {
    /// They are not what was recorded: they stay, or the proof of that would go with them.
    Wrong {
        /// Whose.
        node: Uuid,
        /// The first that is wrong.
        seq: u64,
        /// What is.
        why: &'static str,
    },
    /// The database.
    Store(StoreError),
}

impl fmt::Display for SurveyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { node, seq, why } => write!(
                f,
                "row {seq} of node {node} {why}: nothing from there on is removed by age, so that it can be shown; run \
                 trust-gateway audit verify"
            ),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SurveyError {}

impl From<StoreError> for SurveyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Which rows may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    /// Whose.
    pub node: Uuid,
    /// Those that arrived before.
    pub cutoff: Timestamp,
    /// None of those that these cover.
    pub holds: &'a [HoldRow],
    /// Up to this `seq`.
    pub until: u64,
    /// At most about so many.
    pub most: u64,
}

/// Why what may go ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The next is not that old, or nothing more was asked for.
    Reached,
    /// Enough for now.
    Enough,
    /// The next is held.
    Held {
        /// By which hold.
        hold: Uuid,
        /// Which row.
        seq: u64,
        /// When its call arrived.
        called_at: Timestamp,
    },
    /// Nobody has signed for what comes next.
    Unsigned {
        /// Which row.
        seq: u64,
    },
}

/// What may go.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// It.
    pub prefix: Prefix,
    /// Why no more.
    pub stop: Stop,
}

/// Looks at the rows that are next to go, until one must stay; and beyond, until somebody has signed for what was found.
///
/// # Errors
/// When a row is not what it was recorded as, or the database cannot be read.
pub(super) async fn survey(store: &Store, question: Question<'_>) -> Result<Survey, SurveyError> {
    let node = question.node;
    let dropped = store.ledger_dropped(node).await?;
    let mut signed = Signed::of(store, node, dropped.size() + 1).await?;
    let mut walk = Walk { tree: dropped.clone(), found: dropped.clone(), end: None };
    let prefix = |tree| Prefix { node, before: dropped.size(), tree };
    loop {
        let rows = store.rows_after(node, walk.tree.size(), PAGE).await?;
        if rows.is_empty() {
            let stop = match walk.end {
                Some((end, stop)) if end == walk.found => stop,
                _ if walk.tree == walk.found => Stop::Reached,
                _ => Stop::Unsigned { seq: walk.found.size() + 1 },
            };
            return Ok(Survey { prefix: prefix(walk.found), stop });
        }
        for row in &rows {
            if walk.end.is_none()
                && let Some(stop) = must_stay(row, &question, walk.tree.size(), dropped.size())
            {
                walk.end = Some((walk.tree.clone(), stop));
            }
            if let Some((end, stop)) = &walk.end
                && *end == walk.found
            {
                return Ok(Survey { prefix: prefix(walk.found), stop: *stop });
            }
            let wrong = |why| SurveyError::Wrong { node, seq: walk.tree.size() + 1, why };
            check(row, walk.tree.size()).map_err(wrong)?;
            walk.tree.push(row.leaf_hash, |_, _| {});
            if signed.says(store, &walk.tree).await? {
                walk.found = walk.end.as_ref().map_or_else(|| walk.tree.clone(), |(end, _)| end.clone());
            }
        }
    }
}

struct Walk {
    /// Of all rows that were seen.
    tree: Frontier,
    /// Of those that may go, and are signed for.
    found: Frontier,
    /// Of all that may go, once that is known, and why there are no more.
    end: Option<(Frontier, Stop)>,
}

/// Why `row`, the next after `seen` of which `gone` are gone, is not to go.
fn must_stay(row: &CallRow, question: &Question<'_>, seen: u64, gone: u64) -> Option<Stop> {
    if seen >= question.until || row.called_at >= question.cutoff {
        return Some(Stop::Reached);
    }
    if seen - gone >= question.most {
        return Some(Stop::Enough);
    }
    let covers = |hold: &&HoldRow| hold.covers(row.caller_agent_id, row.target_agent_id, row.called_at);
    let hold = question.holds.iter().find(covers)?;
    Some(Stop::Held { hold: hold.id, seq: seen + 1, called_at: row.called_at })
}

/// Whether a row is what it was recorded as, after `before` others.
fn check(row: &CallRow, before: u64) -> Result<(), &'static str> {
    if row.seq.cast_unsigned() != before + 1 {
        return Err("is missing, or there twice");
    }
    // Of what was erased the leaf is all there is.
    if row.erased_at.is_none() && canonical::leaf_hash(row) != row.leaf_hash {
        return Err("is not what was recorded");
    }
    Ok(())
}

/// What was signed for a node's rows, in order.
struct Signed {
    node: Uuid,
    keys: Vec<VerifierKey>,
    next: std::collections::VecDeque<CheckpointRow>,
}

impl Signed {
    async fn of(store: &Store, node: Uuid, from: u64) -> Result<Self, SurveyError> {
        let keys = store.ledger_keys(node).await?;
        let keys = keys.iter().filter_map(|key| VerifierKey::parse(&key.key).ok()).collect();
        Ok(Self { node, keys, next: store.checkpoints(node, from, CHECKPOINTS).await?.into() })
    }

    /// Whether somebody signed for this tree.
    async fn says(&mut self, store: &Store, tree: &Frontier) -> Result<bool, SurveyError> {
        let Some(next) = self.next.pop_front_if(|next| next.size <= tree.size()) else { return Ok(false) };
        if self.next.is_empty() {
            self.next = store.checkpoints(self.node, next.size + 1, CHECKPOINTS).await?.into();
        }
        let note = Note::parse(&next.note).ok();
        let note = note.filter(|note| self.keys.iter().any(|key| note.verified_by(key).is_ok()));
        match note {
            Some(note) if note.unverified().size == tree.size() && note.unverified().root == tree.root() => Ok(true),
            Some(_) => Err(self.wrong(tree, "or one before is not what was signed for")),
            None => Err(self.wrong(tree, "has a checkpoint that none of the node's keys signed")),
        }
    }

    fn wrong(&self, tree: &Frontier, why: &'static str) -> SurveyError {
        SurveyError::Wrong { node: self.node, seq: tree.size(), why }
    }
}
