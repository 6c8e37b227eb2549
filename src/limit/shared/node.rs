//! This node among those that share limits: whether the server decides, and if not, for how many parts the node does.
//!
//! Everything here is looked at by every call and changed by few: no lock is taken to decide.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use super::changed::Changed;
use super::connection::{Failure, Server};
use super::counts::{Cause, Counted, Counts};
use super::link::Link;
use super::script::Names;
use crate::clock::Clock;
use crate::limit::bucket::Parts;

/// A node that was let down is not tempted again for so long: no call after call that waits in vain.
const REST: Duration = Duration::from_secs(1);

/// What nodes must know to share limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the server is.
    pub server: Server,
    /// What the names of all keys begin with.
    pub namespace: String,
    /// How long a call waits for the server.
    pub patience: Duration,
    /// How many links there are: one for each worker.
    pub links: usize,
}

/// This node among those that share limits.
#[derive(Debug)]
pub struct Node {
    pub(super) server: Server,
    pub(super) names: Names,
    pub(super) patience: Duration,
    pub(super) clock: Clock,
    pub(super) counts: Counts,
    changed: Arc<Changed>,
    /// What the server was told belongs to this epoch; `None` while the node decides alone.
    epoch: ArcSwapOption<String>,
    /// Grows whenever the server lets the node down: connections of before are not used any more.
    generation: watch::Sender<u64>,
    /// The generation that each link has a connection of.
    links: Box<[AtomicU64]>,
    cause: AtomicU8,
    since: Mutex<Option<Instant>>,
    /// How many nodes there are, this one included; 0: never known.
    nodes: AtomicU32,
}

impl Node {
    /// A node that has not met the server yet.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock) -> Self {
        Self {
            server: settings.server,
            // A new name for each start: what a predecessor held is given back by the time it is missed.
            names: Names::new(&settings.namespace, Uuid::new_v4().simple().to_string()),
            patience: settings.patience,
            clock,
            counts: Counts::default(),
            changed: Arc::default(),
            epoch: ArcSwapOption::empty(),
            generation: watch::Sender::new(1),
            links: (0..settings.links).map(|_| AtomicU64::new(0)).collect(),
            cause: AtomicU8::new(Cause::Starting as u8),
            since: Mutex::new(None),
            nodes: AtomicU32::new(0),
        }
    }

    /// The way to the server of the worker of this number.
    #[must_use]
    pub fn link(self: &Arc<Self>, worker: usize) -> Arc<Link> {
        Arc::new(Link::new(Arc::clone(self), worker))
    }

    /// Whether the server decides.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.epoch.load().is_some()
    }

    /// Why it does not.
    #[must_use]
    pub fn cause(&self) -> Cause {
        let cause = usize::from(self.cause.load(Ordering::Acquire));
        Cause::ALL.get(cause).copied().unwrap_or(Cause::Starting)
    }

    /// How many nodes there are as far as this one knows, itself included; 0: not known yet.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Acquire)
    }

    /// How calls were decided.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.counts.read()
    }

    /// For how many parts the node decides while it decides alone. With twice as many as there are others, these have half a
    /// burst together of what this one has used, and it has used at most a whole.
    pub(in crate::limit) fn parts(&self) -> Parts {
        match self.nodes() {
            // Not known: as if there were one other.
            0 => Parts::new(2),
            nodes => Parts::new(nodes.saturating_sub(1).saturating_mul(2)),
        }
    }

    pub(in crate::limit) fn changed(&self) -> &Arc<Changed> {
        &self.changed
    }

    pub(super) fn epoch(&self) -> Guard<Option<Arc<String>>> {
        self.epoch.load()
    }

    pub(super) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    pub(super) fn generations(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Notes that a link has a connection.
    pub(super) fn linked(&self, link: usize, generation: u64) {
        self.links[link].store(generation, Ordering::Release);
    }

    /// Whether calls can be asked for: every link has a connection, and the last disappointment is a while ago.
    pub(super) fn is_prepared(&self, generation: u64) -> bool {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.links.iter().all(|link| link.load(Ordering::Acquire) == generation)
            && since.is_none_or(|since| since.elapsed() >= REST)
    }

    /// Notes how many nodes there are.
    pub(super) fn count(&self, nodes: usize) {
        self.nodes.store(u32::try_from(nodes).unwrap_or(u32::MAX), Ordering::Release);
    }

    /// The server decides from now on, unless it has let the node down since `generation`.
    pub(super) fn rise(&self, generation: u64, epoch: &str) {
        self.epoch.store(Some(Arc::new(epoch.to_owned())));
        if self.generation() != generation {
            self.epoch.store(None);
            return;
        }
        info!(nodes = self.nodes(), "limits are shared with the other nodes");
    }

    /// The node decides alone from now on. Only the first to say so of a generation is heard.
    pub(super) fn fall(&self, generation: u64, failure: &Failure) {
        let first = self.generation.send_if_modified(|current| {
            let first = *current == generation;
            *current += u64::from(first);
            first
        });
        if !first {
            return;
        }
        let Failure { cause, why } = failure;
        let before = self.cause.swap(*cause as u8, Ordering::AcqRel);
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if self.epoch.swap(None).is_some() || before == Cause::Starting as u8 {
            let (server, cause, meaning) = (&self.server, cause.as_str(), cause.explain());
            warn!(%server, cause, why, "{meaning}: this node decides by its own counts, for its part of each limit");
        }
    }
}
