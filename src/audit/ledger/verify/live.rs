//! The logs in a database, checked while it is written to.
//!
//! Rows are read in statements of their own, so that no moment of the database is kept alive; the next rows are on their way
//! while these are hashed.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use uuid::Uuid;

use super::check::{BLOCK, Check};
use super::report::{Kind, LogReport};
use super::row::Leaf;
use super::trust::{Collected, claims, is_of};
use crate::audit::ledger::note::{Note, VerifierKey};
use crate::audit::ledger::tree::{Frontier, Hash};
use crate::store::calls::ScannedRow;
use crate::store::ledger::KEPT_LEVELS;
use crate::store::{Store, StoreError};

/// Rows per statement.
const CHUNK: u32 = if cfg!(test) { 300 } else { 8_192 };
/// Checkpoints per statement.
const CHECKPOINTS: u32 = if cfg!(test) { 2 } else { 10_000 };
/// Chunks that are hashed at a time, one more being read.
const AT_ONCE: usize = 2;

/// What those who check bring along.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Keys that they trust. Without any, the first that the database names for each log.
    pub keys: Vec<VerifierKey>,
    /// Checkpoints that were collected elsewhere.
    pub checkpoints: Vec<Collected>,
    /// The one node they ask for.
    pub node: Option<Uuid>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whose log.
    pub node: Uuid,
    /// Rows that were read,
    pub rows: u64,
    /// of so many.
    pub of: u64,
}

/// What was found in a database.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Whether nothing was found.
    pub whole: bool,
    /// Each log.
    pub logs: Vec<LogReport>,
    /// Logs that keys or checkpoints speak of, and that are not there at all.
    pub absent: Vec<String>,
    /// Names of nodes that are none: their rows belong to no log.
    pub strange: Vec<String>,
}

/// Checks every log in the database, or that of the node that is asked for.
///
/// # Errors
/// When the database cannot be read.
pub async fn verify_database(
    store: &Store,
    given: &Given,
    mut progress: impl FnMut(Progress),
) -> Result<Verified, StoreError> {
    let (mut logs, mut strange) = (Vec::new(), Vec::new());
    for name in store.nodes_in_ledger().await? {
        match Uuid::try_parse(&name) {
            Ok(node) if node.to_string() != name => strange.push(name),
            Ok(node) if given.node.is_none_or(|asked| asked == node) => {
                let log = Log::open(store, node, given).await?;
                logs.push(log.verify(&mut progress).await?);
            }
            Ok(_) => {}
            Err(_) => strange.push(name),
        }
    }
    let named = given.checkpoints.iter().map(|one| one.note.unverified().origin.as_str());
    let named = named.chain(given.keys.iter().map(VerifierKey::name));
    let mut absent: Vec<String> = match given.node {
        Some(node) if logs.is_empty() => vec![node.to_string()],
        Some(_) => Vec::new(),
        None => named.filter(|name| !logs.iter().any(|log| is_of(name, log.node_id))).map(str::to_owned).collect(),
    };
    absent.sort();
    absent.dedup();
    let whole = absent.is_empty() && strange.is_empty() && logs.iter().all(LogReport::is_whole);
    Ok(Verified { whole, logs, absent, strange })
}

/// One log and what belongs to it.
struct Log<'a> {
    store: &'a Store,
    node: Uuid,
    /// The key that counts, and whether it was given.
    key: Option<(VerifierKey, bool)>,
    checkpoints: Vec<Collected>,
    unreadable: Vec<(u64, String)>,
}

impl<'a> Log<'a> {
    async fn open(store: &'a Store, node: Uuid, given: &Given) -> Result<Self, StoreError> {
        let (mut checkpoints, mut unreadable) = (Vec::new(), Vec::new());
        let mut size = 0;
        loop {
            let rows = store.checkpoints(node, size, CHECKPOINTS).await?;
            let Some(last) = rows.last() else { break };
            size = last.size + 1;
            for row in rows {
                match Note::parse(&row.note) {
                    Ok(note) => checkpoints.push(Collected { note, from: "the database".to_owned() }),
                    Err(error) => unreadable.push((row.size, error.to_string())),
                }
            }
        }
        let keys = store.ledger_keys(node).await?;
        let keys = keys.iter().filter_map(|row| VerifierKey::parse(&row.key).ok());
        let mut of_this = keys.filter(|key| is_of(key.name(), node));
        let key = match given.keys.is_empty() {
            true => of_this.next().map(|key| (key, false)),
            false => given.keys.iter().find(|key| is_of(key.name(), node)).map(|key| (key.clone(), true)),
        };
        let elsewhere = given.checkpoints.iter().filter(|one| is_of(&one.note.unverified().origin, node));
        checkpoints.extend(elsewhere.cloned());
        Ok(Self { store, node, key, checkpoints, unreadable })
    }

    async fn verify(&self, progress: &mut impl FnMut(Progress)) -> Result<LogReport, StoreError> {
        loop {
            let before = self.store.ledger_dropped(self.node).await?;
            let report = self.verify_from(&before, progress).await?;
            // Retention may have removed rows while they were read: that is no hole.
            if report.is_whole() || self.store.ledger_dropped(self.node).await? == before {
                return Ok(report);
            }
        }
    }

    async fn verify_from(
        &self,
        dropped: &Frontier,
        progress: &mut impl FnMut(Progress),
    ) -> Result<LogReport, StoreError> {
        let (store, node) = (self.store, self.node);
        let mut report = LogReport::new(node);
        let claims = match &self.key {
            Some((key, given)) => {
                report.key_unproven = !given;
                claims(key, &self.checkpoints, &mut report)
            }
            None => {
                let what = format!("there is no key for this log: the name of one ends in /{node}");
                report.integrity.add(Kind::Unsigned, 1, 1, what);
                Vec::new()
            }
        };
        for (size, why) in &self.unreadable {
            let what = format!("the checkpoint of {size} rows in the database: {why}");
            report.integrity.add(Kind::Untrusted, *size, *size, what);
        }
        // Rows that are recorded from now on are not looked at.
        let head = store.ledger_tree(node).await?;
        let signed = claims.last().map_or(0, |claim| claim.size);
        let end = head.size().max(signed);
        let mut check = Check::new(report, dropped, end, claims);
        let mut chunks = stream::try_unfold(i64::MIN, |after| async move {
            let chunk = Chunk::read(store, node, after, end).await?;
            Ok::<_, StoreError>(chunk.map(|chunk| {
                let last = chunk.last();
                (chunk, last)
            }))
        })
        .map_ok(Chunk::hash)
        .try_buffered(AT_ONCE)
        .boxed();
        let mut read = 0;
        while let Some((leaves, kept)) = chunks.try_next().await? {
            for (position, root) in kept {
                check.kept(position, root);
            }
            for leaf in &leaves {
                check.row(leaf);
            }
            read += leaves.len() as u64;
            progress(Progress { node, rows: read, of: end.saturating_sub(dropped.size()) });
        }
        drop(chunks);
        if let Some((first, rows)) = store.rows_past_tree(node, end).await? {
            let what = format!("{rows} rows from {first} on are not in the tree: no gateway recorded them so");
            check.report().integrity.add(Kind::Inserted, first, first + rows - 1, what);
        }
        Ok(check.finish(Some(&head), None))
    }
}

/// Some rows, and the kept roots of the blocks they are in.
struct Chunk {
    rows: Vec<ScannedRow>,
    kept: Vec<(u64, Hash)>,
}

impl Chunk {
    /// The rows behind `after`, none of them behind `end`; `None` without any.
    async fn read(store: &Store, node: Uuid, after: i64, end: u64) -> Result<Option<Self>, StoreError> {
        let mut rows = store.scan_calls(node, after, CHUNK).await?;
        // Rows with the same number are looked at together: the next are those behind it.
        if rows.len() == CHUNK as usize
            && let Some(last) = rows.last().map(|row| row.seq)
            && let whole @ 1.. = rows.partition_point(|row| row.seq < last)
        {
            rows.truncate(whole);
        }
        rows.retain(|row| row.seq <= end.cast_signed());
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(None) };
        let block = |seq: i64| u64::try_from(seq - 1).unwrap_or(0) / BLOCK;
        let (first, count) = (block(first.seq), block(last.seq) - block(first.seq) + 1);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let kept = store.subtree_hashes(node, KEPT_LEVELS, first, count).await?;
        Ok(Some(Self { rows, kept }))
    }

    fn last(&self) -> i64 {
        self.rows.last().map_or(i64::MAX, |row| row.seq)
    }

    async fn hash(self) -> Result<(Vec<Leaf>, Vec<(u64, Hash)>), StoreError> {
        let Self { rows, kept } = self;
        let hashing = tokio::task::spawn_blocking(|| rows.into_iter().map(Leaf::from).collect());
        match hashing.await {
            Ok(leaves) => Ok((leaves, kept)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
