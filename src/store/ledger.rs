//! The trees of the ledger and what was signed of them.

use uuid::Uuid;

use super::columns::unsigned;
use super::sql::{Built, On, Pool, Row, Tx, query};
use super::{Store, StoreError, columns};
use crate::audit::ledger::tree::{Frontier, Hash, Subtree};
use crate::clock::Timestamp;

/// The roots of subtrees are kept for every so many levels.
pub const KEPT_LEVELS: u32 = 8;
/// Subtrees per statement.
const PER_STATEMENT: usize = 200;

/// What a tree has grown by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// How many leaves it had.
    pub before: u64,
    /// What it is now.
    pub frontier: Frontier,
    /// The full subtrees of kept levels that came about.
    pub subtrees: Vec<(Subtree, Hash)>,
}

impl Growth {
    /// Of a tree that has not grown yet.
    #[must_use]
    pub fn of(frontier: Frontier) -> Self {
        Self { before: frontier.size(), frontier, subtrees: Vec::new() }
    }

    /// Adds a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let Self { frontier, subtrees, .. } = self;
        frontier.push(leaf, |subtree, hash| {
            if subtree.level.is_multiple_of(KEPT_LEVELS) {
                subtrees.push((subtree, *hash));
            }
        });
    }
}

/// A checkpoint as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Whose.
    pub node_id: Uuid,
    /// How many leaves it speaks of.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
    /// When it was signed.
    pub signed_at: Timestamp,
    /// Whether it names the next key.
    pub announces: bool,
    /// The signed note.
    pub note: String,
}

/// A key that checkpoints were signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerKeyRow {
    /// From 1, in the order they were used.
    pub number: u64,
    /// `name+id+key`.
    pub key: String,
    /// The leaves there were when it began to sign.
    pub size: u64,
    /// When that was.
    pub added_at: Timestamp,
}

/// How far checkpoints have left for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessRow {
    /// Where they are sent.
    pub place: String,
    /// The size of the last that arrived.
    pub size: u64,
    /// When it did.
    pub sent_at: Timestamp,
}

impl Store {
    /// How far the tree of a node has grown; empty before its first leaf.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ledger_head(&self, node: Uuid) -> Result<Frontier, StoreError> {
        head(&self.recorder, node).await
    }

    /// The nodes that have a tree.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ledger_nodes(&self) -> Result<Vec<Uuid>, StoreError> {
        let rows = query("SELECT node_id FROM ledger_heads ORDER BY node_id").fetch_all(&self.reader).await?;
        rows.iter().map(|row| columns::id(row, "node_id")).collect()
    }

    /// The tree of a node as those who ask see it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ledger_tree(&self, node: Uuid) -> Result<Frontier, StoreError> {
        head(&self.reader, node).await
    }

    /// The beginning of a node's tree whose rows retention has removed; empty where it has not.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ledger_dropped(&self, node: Uuid) -> Result<Frontier, StoreError> {
        dropped(&self.reader, node).await
    }

    /// Lets a tree grow by rows that are there already.
    ///
    /// # Errors
    /// When the database cannot be written, or the tree is not what it was before.
    pub async fn grow_ledger(&self, node: Uuid, growth: &Growth) -> Result<(), StoreError> {
        let mut tx = self.recording_of(node).await?;
        grow(&mut tx, node, growth).await?;
        tx.commit().await
    }

    /// The leaf hashes of rows `after + 1` on, as far as there are rows, at most `limit`, each with its `seq`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn leaf_hashes(&self, node: Uuid, after: u64, limit: u32) -> Result<Vec<(u64, Hash)>, StoreError> {
        let rows =
            query("SELECT seq, leaf_hash FROM proxy_calls WHERE node_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
                .bind(node)
                .bind(after.cast_signed())
                .bind(limit)
                .fetch_all(&self.reader)
                .await?;
        rows.iter().map(|row| Ok((unsigned(row, "seq")?, columns::array(row, "leaf_hash")?))).collect()
    }

    /// The kept roots of full subtrees of `level` from `position` on, at most `limit`, each with its position.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn subtree_hashes(
        &self,
        node: Uuid,
        level: u32,
        position: u64,
        limit: u32,
    ) -> Result<Vec<(u64, Hash)>, StoreError> {
        let rows = query(
            "SELECT position, hash FROM ledger_subtrees \
             WHERE node_id = $1 AND level = $2 AND position >= $3 ORDER BY position LIMIT $4",
        )
        .bind(node)
        .bind(level)
        .bind(position.cast_signed())
        .bind(limit)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(|row| Ok((unsigned(row, "position")?, columns::array(row, "hash")?))).collect()
    }

    /// Keeps a checkpoint; once this returns, it and every row it speaks of survive a power cut.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn keep_checkpoint(&self, checkpoint: &CheckpointRow) -> Result<(), StoreError> {
        self.durably(keep(&self.recorder, checkpoint)).await
    }

    /// Keeps a checkpoint that names the next key, and enters that: both or none, or the former key would go on signing.
    ///
    /// # Errors
    /// When the database cannot be written. If even that is unknown, [`Store::ledger_keys`] tells.
    pub async fn keep_announcement(&self, checkpoint: &CheckpointRow, key: &LedgerKeyRow) -> Result<(), StoreError> {
        let announced = async {
            let mut tx = self.recording_of(checkpoint.node_id).await?;
            keep(&mut tx, checkpoint).await?;
            enter(&mut tx, checkpoint.node_id, key).await?;
            tx.commit().await
        };
        self.durably(Box::pin(announced)).await
    }

    /// The checkpoints of a node from `size` on, smallest first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn checkpoints(&self, node: Uuid, size: u64, limit: u32) -> Result<Vec<CheckpointRow>, StoreError> {
        let rows = query("SELECT * FROM ledger_checkpoints WHERE node_id = $1 AND size >= $2 ORDER BY size LIMIT $3")
            .bind(node)
            .bind(size.cast_signed())
            .bind(limit)
            .fetch_all(&self.reader)
            .await?;
        rows.iter().map(checkpoint_row).collect()
    }

    /// The checkpoints of a node that name the next key, smallest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn announcements(&self, node: Uuid) -> Result<Vec<CheckpointRow>, StoreError> {
        let rows = query("SELECT * FROM ledger_checkpoints WHERE node_id = $1 AND announces ORDER BY size").bind(node);
        rows.fetch_all(&self.reader).await?.iter().map(checkpoint_row).collect()
    }

    /// The last checkpoint of a node.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_checkpoint(&self, node: Uuid) -> Result<Option<CheckpointRow>, StoreError> {
        let last = query("SELECT * FROM ledger_checkpoints WHERE node_id = $1 ORDER BY size DESC LIMIT 1").bind(node);
        last.fetch_optional(&self.reader).await?.as_ref().map(checkpoint_row).transpose()
    }

    /// What has to leave for a place that has `size`: checkpoints that name keys, the one of that size again if it does, and
    /// the last.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn checkpoints_to_send(&self, node: Uuid, size: u64) -> Result<Vec<CheckpointRow>, StoreError> {
        let rows = query(
            "SELECT * FROM ledger_checkpoints WHERE node_id = $1 AND size >= $2 AND (announces OR size > $2 AND size = \
             (SELECT max(size) FROM ledger_checkpoints WHERE node_id = $1)) ORDER BY size LIMIT 100",
        )
        .bind(node)
        .bind(size.cast_signed())
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(checkpoint_row).collect()
    }

    /// Deletes checkpoints from before `then` but those that name keys and the last of every hour.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn thin_checkpoints(&self, node: Uuid, then: Timestamp) -> Result<u64, StoreError> {
        super::sql::either(
            "DELETE FROM ledger_checkpoints WHERE node_id = $1 AND signed_at < $2 AND NOT announces AND size NOT IN \
             (SELECT max(size) FROM ledger_checkpoints WHERE node_id = $1 GROUP BY substr(signed_at, 1, 13))",
            "DELETE FROM ledger_checkpoints WHERE node_id = $1 AND signed_at < $2 AND NOT announces AND size NOT IN \
             (SELECT max(size) FROM ledger_checkpoints WHERE node_id = $1 GROUP BY date_trunc('hour', signed_at))",
        )
        .bind(node)
        .bind(then)
        .execute(&self.writer)
        .await
    }

    /// The keys of a node, in the order they were used.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ledger_keys(&self, node: Uuid) -> Result<Vec<LedgerKeyRow>, StoreError> {
        let rows = query("SELECT * FROM ledger_keys WHERE node_id = $1 ORDER BY number").bind(node);
        rows.fetch_all(&self.reader)
            .await?
            .iter()
            .map(|row| {
                Ok(LedgerKeyRow {
                    number: unsigned(row, "number")?,
                    key: columns::text(row, "key")?,
                    size: unsigned(row, "size")?,
                    added_at: columns::time(row, "added_at")?,
                })
            })
            .collect()
    }

    /// Enters the next key of a node; one with that number that is there already stays.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn keep_ledger_key(&self, node: Uuid, key: &LedgerKeyRow) -> Result<(), StoreError> {
        enter(&self.recorder, node, key).await
    }

    /// How far the checkpoints of a node have left.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn witnesses(&self, node: Uuid) -> Result<Vec<WitnessRow>, StoreError> {
        let rows =
            query("SELECT place, size, sent_at FROM ledger_witnesses WHERE node_id = $1 ORDER BY place").bind(node);
        rows.fetch_all(&self.reader)
            .await?
            .iter()
            .map(|row| {
                Ok(WitnessRow {
                    place: columns::text(row, "place")?,
                    size: unsigned(row, "size")?,
                    sent_at: columns::time(row, "sent_at")?,
                })
            })
            .collect()
    }

    /// Notes that a checkpoint has arrived somewhere.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn keep_witness(&self, node: Uuid, witness: &WitnessRow) -> Result<(), StoreError> {
        query(
            "INSERT INTO ledger_witnesses (node_id, place, size, sent_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (node_id, place) DO UPDATE SET size = excluded.size, sent_at = excluded.sent_at",
        )
        .bind(node)
        .bind(&witness.place)
        .bind(witness.size.cast_signed())
        .bind(witness.sent_at)
        .execute(&self.recorder)
        .await
        .map(drop)
    }
}

async fn keep<'a>(on: impl Into<On<'a>>, checkpoint: &CheckpointRow) -> Result<(), StoreError> {
    // The same tree signed again has a second signature, or the same one.
    query(
        "INSERT INTO ledger_checkpoints (node_id, size, root, signed_at, announces, note) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (node_id, size) DO UPDATE SET \
         root = excluded.root, signed_at = excluded.signed_at, announces = excluded.announces, note = excluded.note",
    )
    .bind(checkpoint.node_id)
    .bind(checkpoint.size.cast_signed())
    .bind(&checkpoint.root)
    .bind(checkpoint.signed_at)
    .bind(checkpoint.announces)
    .bind(&checkpoint.note)
    .execute(on)
    .await
    .map(drop)
}

async fn enter<'a>(on: impl Into<On<'a>>, node: Uuid, key: &LedgerKeyRow) -> Result<(), StoreError> {
    query(
        "INSERT INTO ledger_keys (node_id, number, key, size, added_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
    )
    .bind(node)
    .bind(key.number.cast_signed())
    .bind(&key.key)
    .bind(key.size.cast_signed())
    .bind(key.added_at)
    .execute(on)
    .await
    .map(drop)
}

async fn head(pool: &Pool, node: Uuid) -> Result<Frontier, StoreError> {
    let head = query("SELECT size, frontier FROM ledger_heads WHERE node_id = $1").bind(node);
    head.fetch_optional(pool).await?.map_or_else(|| Ok(Frontier::default()), |row| frontier(&row))
}

/// Writes what a tree has grown by. Rows and tree are written together, or rows would be missing from it for ever.
pub(super) async fn grow(tx: &mut Tx, node: Uuid, growth: &Growth) -> Result<(), StoreError> {
    let Growth { before, frontier, subtrees } = growth;
    if frontier.size() == *before {
        return Ok(());
    }
    let roots = frontier.roots().concat();
    let grown = match before {
        0 => query("INSERT INTO ledger_heads (size, frontier, node_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"),
        _ => query("UPDATE ledger_heads SET size = $1, frontier = $2 WHERE node_id = $3 AND size = $4"),
    };
    let mut grown = grown.bind(frontier.size().cast_signed()).bind(roots).bind(node);
    if *before > 0 {
        grown = grown.bind(before.cast_signed());
    }
    if grown.execute(&mut *tx).await? != 1 {
        return Err(StoreError::Conflict(format!(
            "ledger_heads: the tree of node {node} has no longer {before} leaves"
        )));
    }
    for subtrees in subtrees.chunks(PER_STATEMENT) {
        let mut insert =
            Built::new(tx.dialect(), "INSERT INTO ledger_subtrees (node_id, level, position, hash) VALUES ");
        for (n, (subtree, hash)) in subtrees.iter().enumerate() {
            insert.push(if n > 0 { ", (" } else { "(" }).push_bind(node).push(", ").push_bind(subtree.level);
            insert.push(", ").push_bind(subtree.position.cast_signed()).push(", ").push_bind(hash).push(")");
        }
        insert.build().execute(&mut *tx).await?;
    }
    Ok(())
}

/// The beginning of a node's tree whose rows are gone.
pub(super) async fn dropped<'a>(on: impl Into<On<'a>>, node: Uuid) -> Result<Frontier, StoreError> {
    let dropped = query("SELECT size, frontier FROM ledger_dropped WHERE node_id = $1").bind(node);
    match dropped.fetch_optional(on).await? {
        Some(row) => frontier(&row),
        None => Ok(Frontier::default()),
    }
}

/// Lets `frontier` stand for the rows before it, which go in the same transaction, and with them what was kept of the tree and
/// said of it in between.
pub(super) async fn drop_up_to(tx: &mut Tx, node: Uuid, frontier: &Frontier, now: Timestamp) -> Result<(), StoreError> {
    let size = frontier.size();
    query(
        "INSERT INTO ledger_dropped (node_id, size, frontier, dropped_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (node_id) DO UPDATE SET size = excluded.size, frontier = excluded.frontier, dropped_at = excluded.dropped_at",
    )
    .bind(node)
    .bind(size.cast_signed())
    .bind(frontier.roots().concat())
    .bind(now)
    .execute(&mut *tx)
    .await?;
    // Those that begin before its end are not asked for any more.
    for level in (KEPT_LEVELS..u64::BITS).step_by(KEPT_LEVELS as usize).take_while(|level| size >> level > 0) {
        query("DELETE FROM ledger_subtrees WHERE node_id = $1 AND level = $2 AND position < $3")
            .bind(node)
            .bind(level)
            .bind(size.div_ceil(1 << level).cast_signed())
            .execute(&mut *tx)
            .await?;
    }
    query("DELETE FROM ledger_checkpoints WHERE node_id = $1 AND size < $2 AND NOT announces")
        .bind(node)
        .bind(size.cast_signed())
        .execute(&mut *tx)
        .await
        .map(drop)
}

fn frontier(row: &Row) -> Result<Frontier, StoreError> {
    let (size, bytes) = (unsigned(row, "size")?, columns::bytes(row, "frontier")?);
    let (roots, rest) = bytes.as_chunks::<32>();
    let corrupt = || StoreError::Corrupt(format!("ledger_heads: {} bytes for {size} leaves", bytes.len()));
    if rest.is_empty() { Frontier::of(size, roots.to_vec()).ok_or_else(corrupt) } else { Err(corrupt()) }
}

fn checkpoint_row(row: &Row) -> Result<CheckpointRow, StoreError> {
    Ok(CheckpointRow {
        node_id: columns::id(row, "node_id")?,
        size: unsigned(row, "size")?,
        root: columns::array(row, "root")?,
        signed_at: columns::time(row, "signed_at")?,
        announces: columns::flag(row, "announces")?,
        note: columns::text(row, "note")?,
    })
}
