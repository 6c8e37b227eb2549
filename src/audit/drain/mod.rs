//! The drain: the one task of a node that turns the journal into rows.
//!
//! It alone assigns `seq` and leaf hashes, and it commits rows, limits and positions together, so that every entry becomes a
//! row exactly once, whatever dies between commit and deletion. Nothing is lost while the database is away: the journal grows,
//! the drain tries again. Must not be on the path of a call.
//!
//! | file | what it is for |
//! |---|---|
//! | `segment_reader` | entries out of one file, and telling a torn tail from damage |
//! | `worker_reader` | the segments of one worker in order, intents paired with outcomes |
//! | `losses` | what cannot be read, and how many calls are missing for it |
//! | `batch` | calls that are over, as rows of a commit |
//! | `follow` | the journal of one process start, batch after batch |
//! | `recover` | the journals of process starts that have ended |

mod batch;
mod follow;
#[cfg(test)]
mod gap_tests;
mod losses;
mod recover;
#[cfg(test)]
mod room_tests;
mod segment_reader;
#[cfg(test)]
mod tests;
mod worker_reader;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::audit::journal::{Journal, JournalSource};
use crate::audit::ledger::grow::tree_of;
use crate::audit::ledger::tree::Frontier;
use crate::clock::Clock;
use crate::store::{Store, StoreError};
use follow::Follower;

pub use recover::Recovered;

/// Held by the process that drains.
const LOCK_FILE: &str = "drain.lock";
/// How long writes are gathered before they are read. Each commit writes the last pages of every index anew, so few rows per
/// commit cost several times as much as many; who wants to see rows at once asks with [`DrainHandle::flush`].
const GATHER: Duration = Duration::from_millis(if cfg!(test) { 4 } else { 100 });
/// The most rows of a commit.
const BATCH_ROWS: usize = if cfg!(test) { 16 } else { 4096 };
/// The first and the longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How often a process that waits for its predecessor looks.
const LOCK_RETRY: Duration = Duration::from_millis(250);
/// How often limits that no longer matter are deleted.
const FORGET_NANOS: u64 = 600_000_000_000;

/// What can stop a drain.
#[derive(Debug)]
pub enum DrainError {
    /// The journal's files.
    Journal(io::Error),
    /// The database.
    Store(StoreError),
}

impl fmt::Display for DrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(error) => write!(f, "journal: {error}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DrainError {}

impl From<io::Error> for DrainError {
    fn from(error: io::Error) -> Self {
        Self::Journal(error)
    }
}

impl From<StoreError> for DrainError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The running drain.
#[derive(Debug)]
pub struct Drain {
    requests: Arc<Requests>,
    /// The node's tree, once it is known.
    tree: watch::Receiver<Option<Frontier>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Requests {
    /// How often somebody asked for everything to become rows.
    wanted: AtomicU64,
    /// Which of those requests has been met.
    met: watch::Sender<u64>,
    urgent: Notify,
    stop: AtomicBool,
    /// How often it could not go on.
    failures: AtomicU64,
    /// When everything was last read, by the clock's nanoseconds, and whether it has failed since.
    caught_up: AtomicU64,
    failing: AtomicBool,
}

impl Drain {
    /// Starts draining this process's journal, on the current runtime. While a predecessor still drains, it waits.
    #[must_use]
    pub fn start(store: Store, journal: &Journal, clock: Clock) -> Self {
        let requests = Arc::new(Requests {
            wanted: AtomicU64::new(0),
            met: watch::Sender::new(0),
            urgent: Notify::new(),
            stop: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            caught_up: AtomicU64::new(clock.nanos()),
            failing: AtomicBool::new(false),
        });
        let (grown, tree) = watch::channel(None);
        let run = Run { store, source: journal.source(), clock, requests: Arc::clone(&requests), grown };
        Self { requests, tree, task: tokio::spawn(run.run()) }
    }

    /// Turns what dead predecessors left in `dir`, the journals of `node`, into rows. To be done before [`Store::limit_state`] is read: the limits of
    /// their last calls are in there. Journals of living processes are left alone.
    ///
    /// # Errors
    /// When journals cannot be read or rows cannot be written. Nothing is lost by then.
    pub async fn recover(store: &Store, node: Uuid, dir: &Path, clock: &Clock) -> Result<Recovered, DrainError> {
        std::fs::create_dir_all(dir)?;
        match try_lock(dir)? {
            Some(_lock) => recover::recover(store, node, dir, clock).await,
            None => Ok(Recovered { left_alone: 1, ..Recovered::default() }),
        }
    }

    /// Whether another process drains the journals in `dir`: a predecessor that is ending its calls.
    #[must_use]
    pub fn held_elsewhere(dir: &Path) -> bool {
        matches!(try_lock(dir), Ok(None))
    }

    /// For others who want to wait for rows.
    #[must_use]
    pub fn handle(&self) -> DrainHandle {
        DrainHandle { requests: Arc::clone(&self.requests) }
    }

    /// The node's tree as it is in the database, each time it has grown; none before the drain's first look.
    #[must_use]
    pub fn tree(&self) -> watch::Receiver<Option<Frontier>> {
        self.tree.clone()
    }

    /// As [`DrainHandle::flush`].
    pub async fn flush(&self) {
        self.handle().flush().await;
    }

    /// Ends the drain after everything is in the database. If all workers are shut down and all calls closed, the journal's
    /// directory goes too; else the next start finds it. Waits as long as the database is away: put a time limit on it, the
    /// journal keeps what is left.
    pub async fn finish(mut self) {
        self.requests.stop.store(true, Ordering::SeqCst);
        self.requests.urgent.notify_one();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the drain ended badly");
        }
    }
}

/// Lets its holder wait for rows.
#[derive(Clone, Debug)]
pub struct DrainHandle {
    requests: Arc<Requests>,
}

/// How far behind the drain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// How long it has been unable to catch up; zero while it can.
    pub behind: Duration,
    /// How often it could not go on, since the start.
    pub failures: u64,
}

impl DrainHandle {
    /// How far behind it is, by the clock it was started with.
    #[must_use]
    pub fn lag(&self, clock: &Clock) -> Lag {
        let since = clock.nanos().saturating_sub(self.requests.caught_up.load(Ordering::Relaxed));
        let failing = self.requests.failing.load(Ordering::Relaxed);
        Lag {
            behind: if failing { Duration::from_nanos(since) } else { Duration::ZERO },
            failures: self.requests.failures.load(Ordering::Relaxed),
        }
    }

    /// Waits until everything that was written before is in the database: as long as that takes, or until the drain ends.
    pub async fn flush(&self) {
        let mine = self.requests.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        self.requests.urgent.notify_one();
        // The sender is ours: it cannot have gone.
        let _ = self.requests.met.subscribe().wait_for(|met| *met >= mine).await;
    }
}

/// However the drain ends, nobody waits for it afterwards.
struct MetAtEnd(Arc<Requests>);

impl Drop for MetAtEnd {
    fn drop(&mut self) {
        self.0.met.send_replace(u64::MAX);
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn try_lock(dir: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

struct Run {
    store: Store,
    source: JournalSource,
    clock: Clock,
    requests: Arc<Requests>,
    grown: watch::Sender<Option<Frontier>>,
}

impl Run {
    async fn run(self) {
        let _end = MetAtEnd(Arc::clone(&self.requests));
        let Some(_lock) = self.lock().await else { return };
        let mut backoff = Backoff::new();
        let mut follower = loop {
            match self.begin().await {
                Ok(follower) => break follower,
                Err(error) => {
                    self.failed();
                    backoff.pause(&error).await;
                }
            }
        };
        let mut forget_at = self.clock.nanos().saturating_add(FORGET_NANOS);
        loop {
            let wanted = self.requests.wanted.load(Ordering::SeqCst);
            // Asked before reading: what is idle and stopped now has written everything it ever will.
            let last = self.requests.stop.load(Ordering::SeqCst);
            let idle = last && self.source.ended();
            follower = self.pass(follower, idle).await;
            self.requests.met.send_replace(wanted);
            if last {
                return;
            }
            if self.clock.nanos() >= forget_at {
                forget_at = self.clock.nanos().saturating_add(FORGET_NANOS);
                if let Err(error) = self.store.forget_limit_state(self.clock.wall()).await {
                    tracing::warn!(%error, "old limits could not be deleted");
                }
            }
            tokio::select! {
                () = self.requests.urgent.notified() => continue,
                () = self.source.readable() => {}
            }
            tokio::select! {
                () = self.requests.urgent.notified() => {}
                () = tokio::time::sleep(GATHER) => {}
            }
        }
    }

    async fn lock(&self) -> Option<File> {
        loop {
            match try_lock(self.source.root()) {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the drain's lock cannot be taken"),
            }
            if self.requests.stop.load(Ordering::SeqCst) {
                return None;
            }
            tokio::select! {
                () = self.requests.urgent.notified() => {}
                () = tokio::time::sleep(LOCK_RETRY) => {}
            }
        }
    }

    async fn begin(&self) -> Result<Follower, DrainError> {
        // The process that held the lock may have ended since this one started.
        recover::recover(&self.store, self.source.node_id(), self.source.root(), &self.clock).await?;
        let tree = tree_of(&self.store, self.source.node_id()).await?;
        Ok(Follower::living(self.source.clone(), tree))
    }

    /// Tells how far the tree has grown, where it has.
    fn tell(&self, tree: &Frontier) {
        self.grown.send_if_modified(|told| {
            let news = told.as_ref().is_none_or(|told| told.size() != tree.size());
            if news {
                *told = Some(tree.clone());
            }
            news
        });
    }

    fn failed(&self) {
        self.requests.failures.fetch_add(1, Ordering::Relaxed);
        self.requests.failing.store(true, Ordering::Relaxed);
    }

    /// Reads until there is nothing more, and commits it.
    async fn pass(&self, mut follower: Follower, finish: bool) -> Follower {
        let mut backoff = Backoff::new();
        loop {
            let step;
            (follower, step) = follow::step(follower, &self.store, finish).await;
            self.tell(follower.tree());
            match step {
                Ok(true) => backoff = Backoff::new(),
                Ok(false) => {
                    self.requests.caught_up.store(self.clock.nanos(), Ordering::Relaxed);
                    self.requests.failing.store(false, Ordering::Relaxed);
                    return follower;
                }
                Err(error) => {
                    self.failed();
                    backoff.pause(&error).await;
                }
            }
        }
    }
}

/// The pause after a failure, doubled with each.
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(BACKOFF.0)
    }

    async fn pause(&mut self, error: &DrainError) {
        tracing::error!(%error, pause = ?self.0, "the journal cannot be drained; it keeps everything");
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACKOFF.1);
    }
}
