//! The journals of process starts that have ended: what is not a row yet becomes one, then the directory goes.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::DrainError;
use super::batch::Gathering;
use super::follow::{Follower, list, step};
use super::segment_reader::SegmentReader;
use crate::audit::gap::{Cause, Gap};
use crate::audit::journal::segment::file_name;
use crate::audit::journal::{DAMAGED_DIR, LOCK_FILE};
use crate::audit::ledger::grow::tree_of;
use crate::clock::Clock;
use crate::store::calls::JournalPosition;
use crate::store::{Store, StoreError};

/// What was found at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Journals of dead processes that are now rows altogether.
    pub journals: usize,
    /// Rows made from them.
    pub rows: u64,
    /// Journals of living processes or nodes, or one if another process drains: their last calls, and what these took from the
    /// limits, may not be in the database yet.
    pub left_alone: usize,
}

/// Recovers every journal in `root` whose process has ended; `root` is that of `node`. The caller holds the drain's lock.
pub(super) async fn recover(store: &Store, node: Uuid, root: &Path, clock: &Clock) -> Result<Recovered, DrainError> {
    let mut recovered = Recovered::default();
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(root)? {
        let name = file?.file_name();
        // The canonical form only: what is named otherwise is not ours.
        if let Some(id) = name.to_str().and_then(|name| Uuid::try_parse(name).ok().filter(|id| id.to_string() == name))
        {
            found.insert(id);
        }
    }
    for instance in &found {
        let dir = root.join(instance.to_string());
        match lock(&dir)? {
            Some(_lock) => match recover_one(store, node, *instance, &dir, clock).await? {
                Some(rows) => {
                    recovered.rows += rows;
                    recovered.journals += 1;
                }
                None => recovered.left_alone += 1,
            },
            None => recovered.left_alone += 1,
        }
    }
    // A process may have died between removing a directory and forgetting it. What other nodes have is theirs.
    for instance in store.journals_of(node).await? {
        if !found.contains(&instance) {
            store.forget_journal(instance).await?;
        }
    }
    Ok(recovered)
}

/// How many rows one of them became; `None`: it is a copy, and the node whose it is lives.
async fn recover_one(
    store: &Store,
    node: Uuid,
    instance: Uuid,
    dir: &Path,
    clock: &Clock,
) -> Result<Option<u64>, DrainError> {
    let finished = store.finished_journals().await?.contains(&instance);
    let owner = if finished { Owner::None } else { owner_of(dir)? };
    let node_id = match owner {
        Owner::Node(node_id) => node_id,
        Owner::None => {
            // All of it is in the database, or there is nothing in it.
            std::fs::remove_dir_all(dir)?;
            store.forget_journal(instance).await?;
            return Ok(Some(0));
        }
        Owner::Unreadable => {
            let rows = tell_unreadable(store, node, instance, clock).await?;
            let aside = dir.with_file_name(DAMAGED_DIR);
            std::fs::create_dir_all(&aside)?;
            std::fs::rename(dir, aside.join(instance.to_string()))?;
            tracing::error!(%instance, "no segment of this journal can be read: calls may be missing; it is kept aside");
            return Ok(Some(rows));
        }
    };
    // Held meanwhile: only one may number the rows of a node. `node` itself is held by whoever starts as it.
    let held = if node_id == node { Ok(None) } else { store.listen(node_id).await };
    let _held = match held {
        Err(StoreError::Conflict(_)) => {
            tracing::warn!(%instance, node = %node_id, "this journal came with a copy: the node whose it is serves, and records it");
            return Ok(None);
        }
        held => held?,
    };
    let tree = tree_of(store, node_id).await?;
    let before = tree.size();
    let positions = store.journal_positions().await?;
    let mut follower = Follower::dead(instance, dir, node_id, tree, &positions, clock)?;
    loop {
        let result;
        (follower, result) = step(follower, store, true).await;
        match result {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) if follower.is_too_large() => follower.divide(store).await?,
            Err(error) => return Err(error),
        }
    }
    let rows = follower.tree().size() - before;
    tracing::info!(%instance, rows, "the journal of a process that ended is in the database");
    Ok(Some(rows))
}

/// Adds the gap that a journal of which nothing can be read leaves, to the log of `node`; says how many rows that is.
async fn tell_unreadable(store: &Store, node: Uuid, instance: Uuid, clock: &Clock) -> Result<u64, DrainError> {
    // It has no worker of this number: that this is in the database says that the gap is.
    let told = JournalPosition { instance, worker: u32::MAX >> 1, segment: 0, offset: 0 };
    if store.journal_positions().await?.contains(&told) {
        return Ok(0);
    }
    let mut gathering = Gathering::new(node, tree_of(store, node).await?, true, clock);
    let place = format!("the journal {instance}: how many calls are missing is not known");
    gathering.gap(&Gap { cause: Cause::JournalUnreadable, place, calls: None });
    gathering.batch.positions = vec![told];
    gathering.seal();
    store.commit_drained(&gathering.batch).await?;
    Ok(1)
}

/// Locks the directory of a process start; `None` if the process lives.
fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whose segments a directory holds.
enum Owner {
    Node(Uuid),
    /// None was ever written.
    None,
    /// Something was written, but no header can be read.
    Unreadable,
}

fn owner_of(dir: &Path) -> io::Result<Owner> {
    let mut owner = Owner::None;
    for (worker, segments) in list(dir)? {
        for listed in segments {
            let mut reader = SegmentReader::open(&dir.join(file_name(worker, listed.number)))?;
            match reader.header(listed.extent)? {
                Some(header) => return Ok(Owner::Node(header.node_id)),
                None if reader.is_written() => owner = Owner::Unreadable,
                None => {}
            }
        }
    }
    Ok(owner)
}
