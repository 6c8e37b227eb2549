//! The journal: local files that make a record durable before the answer ends.
//!
//! Worker-local and append-only: a worker never waits for another one, and a slow disk delays answers, not the worker. Promises:
//! what [`Written`] resolved `Ok` for is found by the drain after any crash; what it failed for is not found as done; room for
//! an outcome is taken before its call is let through. Must not know the database.
//!
//! | file | what it is for |
//! |---|---|
//! | `entry` | entries as bytes |
//! | `segment` | files, their headers, the room in them |
//! | `budget` | what all of it may take of the disk, and who is refused for it |
//! | `group` | waiting for a turn of the flusher |
//! | `fold` | refusals under a flood |
//! | `worker` | appending: open, close, refuse, rotate |
//! | `open_record` | the right to write an outcome, and what its loss means |
//! | `flush` | writing, syncing, and what happens when that fails |

mod budget;
pub(crate) mod entry;
mod flush;
mod fold;
mod group;
mod open_record;
pub(crate) mod segment;
#[cfg(test)]
pub(crate) mod tests;
mod worker;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::audit::record::Intent;
use crate::clock::{Clock, Timestamp};

use budget::Budget;
pub use budget::{JournalFull, JournalRoom, Pressure};
pub use group::{JournalDown, Written};
pub use open_record::OpenRecord;
pub use worker::{Refused, WorkerJournal};

/// The name of the file that a living process holds locked in its directory.
pub(crate) const LOCK_FILE: &str = "lock";
/// Where damaged segments are put, beside the directories of the process starts.
pub(crate) const DAMAGED_DIR: &str = "damaged";

/// What an entry must have survived before it counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// The end of the process: it has been handed to the operating system.
    #[default]
    Process,
    /// The end of the machine's power: it has been synced to the disk.
    Disk,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The directory of all instances' journals; created if missing.
    pub dir: PathBuf,
    /// When an entry counts as durable.
    pub durability: Durability,
    /// How large a segment is made.
    pub segment_bytes: u64,
    /// What the journals of all instances, and damaged files, may take of the disk together.
    pub budget: u64,
    /// Whether callers' addresses are stored in full.
    pub full_addresses: bool,
    /// The node whose rows the entries become.
    pub node_id: Uuid,
}

impl JournalConfig {
    /// The size of a segment where nothing else is configured: 16 MiB.
    pub const SEGMENT_BYTES: u64 = 16 << 20;
}

/// Whether records can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalHealth {
    /// Everything is written.
    Healthy,
    /// Some worker cannot write: it refuses calls.
    Down {
        /// Since when.
        since: Timestamp,
        /// What the operating system said, and about which file.
        why: String,
    },
}

/// What all workers of a process share.
#[derive(Debug)]
struct Common {
    config: JournalConfig,
    instance: Uuid,
    /// This process's own directory.
    dir: PathBuf,
    clock: Clock,
    budget: Budget,
    /// Tells the drain that there is something to read.
    readable: Notify,
    #[cfg(test)]
    faults: tests::Faults,
    /// Held locked as long as anything of this journal is in use.
    _lock: File,
}

impl Common {
    fn disk(&self) -> bool {
        self.config.durability == Durability::Disk
    }
}

/// The journal of this process: one directory, opened once.
#[derive(Debug)]
pub struct Journal {
    common: Arc<Common>,
    workers: Vec<Arc<WorkerJournal>>,
}

impl Journal {
    /// Makes the directory of this process start and the first segment of each worker.
    ///
    /// # Errors
    /// When directory or segments cannot be made.
    pub fn create(config: JournalConfig, workers: usize, clock: Clock) -> io::Result<Self> {
        let instance = Uuid::now_v7();
        let dir = config.dir.join(instance.to_string());
        // A directory appears under its name with its lock held, or a drain that looks at that moment takes it for a dead one.
        let unborn = config.dir.join(format!("{instance}.new"));
        std::fs::create_dir_all(&unborn)?;
        let lock = File::create_new(unborn.join(LOCK_FILE))?;
        lock.lock()?;
        std::fs::rename(&unborn, &dir)?;
        let budget = Budget::new(config.budget);
        let common = Arc::new(Common {
            config,
            instance,
            dir,
            clock,
            budget,
            readable: Notify::new(),
            #[cfg(test)]
            faults: tests::Faults::default(),
            _lock: lock,
        });
        if common.disk() {
            sync_dir(&common.config.dir)?;
        }
        let workers = (0..workers)
            .map(|worker| {
                let worker = u32::try_from(worker).map_err(io::Error::other)?;
                WorkerJournal::create(Arc::clone(&common), worker)
            })
            .collect::<io::Result<_>>()?;
        let this = Self { common, workers };
        this.survey()?;
        Ok(this)
    }

    /// The journal of worker `i`.
    ///
    /// # Panics
    /// When there are not that many workers.
    #[must_use]
    pub fn worker(&self, i: usize) -> Arc<WorkerJournal> {
        Arc::clone(&self.workers[i])
    }

    /// The calls that are open now, in no particular order.
    #[must_use]
    pub fn active(&self) -> Vec<Intent> {
        self.workers.iter().flat_map(|worker| worker.active()).collect()
    }

    /// Whether records can be written; of several failures, the one that has lasted longest. A worker that is down tries
    /// again first: while this says so, whoever balances load sends no call that would make it try.
    #[must_use]
    pub fn health(&self) -> JournalHealth {
        for worker in &self.workers {
            worker.mend();
        }
        let down = self.workers.iter().filter_map(|worker| worker.down()).min_by_key(|(since, _)| *since);
        down.map_or(JournalHealth::Healthy, |(since, why)| JournalHealth::Down { since, why })
    }

    /// How much room there is for more.
    #[must_use]
    pub fn room(&self) -> JournalRoom {
        self.common.budget.room()
    }

    /// Looks what others have in the directory of all instances. To be called now and then: dead journals become rows, and
    /// damaged files are taken away by people.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn survey(&self) -> io::Result<()> {
        let (mut others, mut aside) = (0, 0);
        for found in std::fs::read_dir(&self.common.config.dir)? {
            let path = found?.path();
            if path.ends_with(DAMAGED_DIR) {
                aside += bytes_below(&path)?;
            } else if path != self.common.dir {
                others += bytes_below(&path)?;
            }
        }
        self.common.budget.found(others, aside);
        Ok(())
    }

    /// The id of this process start, the name of its directory.
    #[must_use]
    pub fn instance(&self) -> Uuid {
        self.common.instance
    }

    #[cfg(test)]
    pub(crate) fn faults(&self) -> &tests::Faults {
        &self.common.faults
    }

    /// What the drain of this process follows.
    pub(crate) fn source(&self) -> JournalSource {
        JournalSource { common: Arc::clone(&self.common), workers: self.workers.clone() }
    }
}

/// The reading side of a living journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalSource {
    common: Arc<Common>,
    workers: Vec<Arc<WorkerJournal>>,
}

/// How far a segment can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEnd {
    pub(crate) number: u64,
    /// Everything before this offset is durable and stays.
    pub(crate) end: u64,
    /// What its file takes of the disk.
    pub(crate) room: u64,
}

impl JournalSource {
    pub(crate) fn instance(&self) -> Uuid {
        self.common.instance
    }

    pub(crate) fn node_id(&self) -> Uuid {
        self.common.config.node_id
    }

    pub(crate) fn disk(&self) -> bool {
        self.common.disk()
    }

    /// This process's own directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.common.dir
    }

    /// The directory of all instances.
    pub(crate) fn root(&self) -> &Path {
        &self.common.config.dir
    }

    /// Whether nothing will be written any more: every worker is shut down and every call closed.
    pub(crate) fn ended(&self) -> bool {
        self.workers.iter().all(|worker| worker.ended())
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.common.clock
    }

    /// Resolves when something was written since the last time.
    pub(crate) async fn readable(&self) {
        self.common.readable.notified().await;
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = u32> + '_ {
        self.workers.iter().map(|worker| worker.number())
    }

    /// The segments of a worker that still exist, oldest first.
    pub(crate) fn segments(&self, worker: u32) -> Vec<SegmentEnd> {
        self.workers.get(worker as usize).map(|worker| worker.segments()).unwrap_or_default()
    }

    /// Has a worker write elsewhere from now on, if it is this segment that it writes.
    pub(crate) fn leave(&self, worker: u32, number: u64) {
        if let Some(worker) = self.workers.get(worker as usize) {
            worker.leave(number);
        }
    }

    /// Says that a segment's file is gone.
    pub(crate) fn forget(&self, worker: u32, number: u64) {
        if let Some(worker) = self.workers.get(worker as usize) {
            worker.forget(number);
        }
    }
}

/// What a file, or everything below a directory, takes. What goes away meanwhile takes nothing.
fn bytes_below(path: &Path) -> io::Result<u64> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let measured = || -> io::Result<u64> {
        let found = std::fs::symlink_metadata(path)?;
        if !found.is_dir() {
            return Ok(found.len());
        }
        std::fs::read_dir(path)?.map(|file| bytes_below(&file?.path())).sum()
    };
    measured().or_else(|error| if gone(&error) { Ok(0) } else { Err(error) })
}

/// Makes the names in a directory survive a power loss.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
