//! Roots and proofs out of what is stored: leaf hashes, kept roots of full subtrees, and what stands for rows that are gone.

use std::fmt;
use std::ops::Range;

use uuid::Uuid;

use super::proof::{consistency_ranges, inclusion_ranges, ranges_after};
use super::tree::{Frontier, Hash, Subtree, fold, parts};
use crate::store::ledger::KEPT_LEVELS;
use crate::store::{Store, StoreError};

/// Why something of a tree cannot be told.
#[derive(Debug)]
pub enum ReadError {
    /// The tree is not that large.
    OutOfRange {
        /// What was asked for.
        asked: u64,
        /// How many leaves it has.
        size: u64,
    },
    /// Leaves that are needed are gone: retention removed the first so many rows.
    Dropped(u64),
    /// A row or a kept root that must be there is missing; holds the first leaf it is needed for, by its `seq`.
    Missing(u64),
    /// The database.
    Store(StoreError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { asked, size } => write!(f, "the tree has {size} leaves, and {asked} were asked for"),
            Self::Dropped(rows) => {
                write!(f, "retention has removed the first {rows} rows: nothing inside them can be proved from here")
            }
            Self::Missing(seq) => write!(f, "what is stored is not whole from row {seq} on: run audit verify"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The stored tree of one node, as it was when this was made.
#[derive(Debug)]
pub struct TreeReader<'a> {
    store: &'a Store,
    node: Uuid,
    tree: Frontier,
    dropped: Frontier,
}

impl<'a> TreeReader<'a> {
    /// Of `node`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open(store: &'a Store, node: Uuid) -> Result<Self, StoreError> {
        let tree = store.ledger_tree(node).await?;
        let dropped = store.ledger_dropped(node).await?;
        Ok(Self { store, node, tree, dropped })
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Frontier {
        &self.tree
    }

    /// Its beginning whose rows are gone.
    #[must_use]
    pub fn dropped(&self) -> &Frontier {
        &self.dropped
    }

    /// What is kept of the tree of the first `size` leaves.
    ///
    /// # Errors
    /// When there are not that many, or what is stored does not tell.
    pub async fn frontier(&self, size: u64) -> Result<Frontier, ReadError> {
        if size == self.tree.size() {
            return Ok(self.tree.clone());
        }
        self.within(size)?;
        let mut roots = Vec::new();
        for part in parts(0, size) {
            roots.push(self.subtree(part).await?);
        }
        Frontier::of(size, roots).ok_or(ReadError::Missing(1))
    }

    /// The proof that leaf `index`, from 0, is in the tree of the first `size` leaves.
    ///
    /// # Errors
    /// When it is not, or what is stored does not tell.
    pub async fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        self.within(size)?;
        let ranges = inclusion_ranges(index, size).ok_or(ReadError::OutOfRange { asked: index + 1, size })?;
        self.roots(ranges).await
    }

    /// The proof that the tree of the first `old` leaves is the beginning of that of the first `new`.
    ///
    /// # Errors
    /// When there are not that many, or what is stored does not tell.
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, ReadError> {
        self.within(new)?;
        let ranges = consistency_ranges(old, new).ok_or(ReadError::OutOfRange { asked: old, size: new })?;
        self.roots(ranges).await
    }

    /// The roots to the right of the first `size` leaves in the tree of the first `all`, left to right.
    ///
    /// # Errors
    /// When there are not that many, or what is stored does not tell.
    pub async fn after(&self, size: u64, all: u64) -> Result<Vec<Hash>, ReadError> {
        self.within(all)?;
        if size > all {
            return Err(ReadError::OutOfRange { asked: size, size: all });
        }
        self.roots(ranges_after(size, all)).await
    }

    fn within(&self, size: u64) -> Result<(), ReadError> {
        let all = self.tree.size();
        if size > all { Err(ReadError::OutOfRange { asked: size, size: all }) } else { Ok(()) }
    }

    async fn roots(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Hash>, ReadError> {
        let mut roots = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut hashes = Vec::new();
            for part in parts(range.start, range.end) {
                hashes.push(self.subtree(part).await?);
            }
            roots.push(fold(&hashes).ok_or(ReadError::Missing(range.start + 1))?);
        }
        Ok(roots)
    }

    /// The root of a full subtree.
    async fn subtree(&self, subtree: Subtree) -> Result<Hash, ReadError> {
        // What straddles the end of what is gone is made of its halves, each of which may lie to one side.
        let mut pending = vec![subtree];
        let mut ready: Vec<(u32, Hash)> = Vec::new();
        while let Some(next) = pending.pop() {
            let whole = match (next.first() < self.dropped.size(), next.end() > self.dropped.size(), next.halves()) {
                (false, ..) => self.stored(next).await?,
                (true, false, _) => self.gone(next)?,
                (true, true, Some([left, right])) => {
                    pending.extend([right, left]);
                    continue;
                }
                (true, true, None) => return Err(ReadError::Missing(next.first() + 1)),
            };
            let (mut level, mut hash) = (next.level, whole);
            while let Some((left, root)) = ready.last().filter(|(left, _)| *left == level) {
                hash = super::tree::node_hash(root, &hash);
                level = left + 1;
                ready.pop();
            }
            ready.push((level, hash));
        }
        ready.first().map(|(_, hash)| *hash).ok_or(ReadError::Missing(subtree.first() + 1))
    }

    /// A subtree whose rows are gone, if what is left of them says it.
    fn gone(&self, subtree: Subtree) -> Result<Hash, ReadError> {
        let at = self.dropped.subtrees().iter().position(|part| *part == subtree);
        let root = at.and_then(|at| self.dropped.roots().get(at));
        root.copied().ok_or(ReadError::Dropped(self.dropped.size()))
    }

    /// A subtree of what is there: from the roots kept at the next level below it, or its leaves.
    async fn stored(&self, subtree: Subtree) -> Result<Hash, ReadError> {
        let below = subtree.level / KEPT_LEVELS * KEPT_LEVELS;
        let (first, count) = (subtree.position << (subtree.level - below), 1_u32 << (subtree.level - below));
        let found = match below {
            0 => {
                let leaves = self.store.leaf_hashes(self.node, first, count).await?;
                leaves.into_iter().map(|(seq, hash)| (seq - 1, hash)).collect()
            }
            level => self.store.subtree_hashes(self.node, level, first, count).await?,
        };
        let mut tree = Frontier::default();
        for (position, hash) in found {
            if position != first + tree.size() {
                break;
            }
            tree.push(hash, |_, _| {});
        }
        match tree.size() == u64::from(count) {
            true => Ok(tree.root()),
            false => Err(ReadError::Missing(((first + tree.size()) << below) + 1)),
        }
    }
}
