//! Keeping the snapshot true: rebuilt from the database after each change, and open calls held against it.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::control::Freshness;
use crate::directory::{self, Builder, Directory, LastConfirmed};
use crate::proxy::{self, Worker};
use crate::registry::Reload;
use crate::store::Store;

/// Rebuilds the snapshot.
pub(super) struct World {
    store: Store,
    builder: ArcSwap<Builder>,
    directory: directory::Current,
    workers: Vec<Arc<Worker>>,
    clock: Clock,
    confirmed: Arc<LastConfirmed>,
    /// The database has changes that the snapshot has not.
    behind: AtomicBool,
    /// How many snapshots were built, and what the last one took.
    rebuilds: AtomicU64,
    rebuild_micros: AtomicU64,
    /// How many rebuilds were asked for so far.
    asked: AtomicU64,
    /// One rebuild at a time: a slow one must not overwrite a later one.
    built: Mutex<Built>,
}

/// What the snapshot in force was built from.
#[derive(Default)]
struct Built {
    /// How many of the rebuilds asked for it answers.
    answers: u64,
    /// By whom; with another builder nothing of it can be kept.
    builder: Option<Arc<Builder>>,
}

impl World {
    pub(super) fn new(
        store: Store,
        builder: Builder,
        directory: directory::Current,
        workers: Vec<Arc<Worker>>,
        clock: Clock,
        confirmed: Arc<LastConfirmed>,
    ) -> Self {
        let (builder, behind) = (ArcSwap::from_pointee(builder), AtomicBool::new(false));
        Self {
            store,
            builder,
            directory,
            workers,
            clock,
            confirmed,
            behind,
            rebuilds: AtomicU64::new(0),
            rebuild_micros: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            built: Mutex::default(),
        }
    }

    /// What new snapshots are built with from now on.
    pub(super) fn set_builder(&self, builder: Builder) {
        self.builder.store(Arc::new(builder));
    }

    /// Reads what changed in the database and puts a new snapshot in force; ends open calls it no longer allows. Those that
    /// ask while one is being built share the next: a thousand changes at once are a few snapshots.
    pub(super) async fn rebuild(&self) {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut built = self.built.lock().await;
        if built.answers >= mine {
            return;
        }
        // Whoever has asked by now wrote its change before: what is read below has it.
        let all = self.asked.load(Ordering::SeqCst);
        let builder = self.builder.load_full();
        let same_builder = built.builder.as_ref().is_some_and(|last| Arc::ptr_eq(last, &builder));
        let (begun, asked_at) = (std::time::Instant::now(), self.clock.nanos());
        let next = match self.next(&builder, same_builder).await {
            Ok(next) => Arc::new(next),
            Err(error) => return self.fell_behind(&error),
        };
        self.behind.store(false, Ordering::Relaxed);
        self.directory.store(Arc::clone(&next));
        self.confirmed.confirm(asked_at);
        self.cut();
        *built = Built { answers: all, builder: Some(builder) };
        self.rebuilds.fetch_add(1, Ordering::Relaxed);
        self.rebuild_micros.store(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How the snapshot in force came about.
    pub(super) fn freshness(&self) -> Freshness {
        Freshness {
            behind: self.behind.load(Ordering::Relaxed),
            unconfirmed: self.confirmed.age(),
            max_stale: self.confirmed.max_stale(),
            rebuilds: self.rebuilds.load(Ordering::Relaxed),
            last_rebuild: std::time::Duration::from_micros(self.rebuild_micros.load(Ordering::Relaxed)),
        }
    }

    async fn next(
        &self,
        builder: &Arc<Builder>,
        same_builder: bool,
    ) -> Result<Directory, Box<dyn Error + Send + Sync>> {
        let (previous, builder) = (self.directory.load_full(), Arc::clone(builder));
        let changes = match same_builder {
            true => self.store.directory_changes(previous.revision()).await?,
            false => None,
        };
        let building = match changes {
            Some(changes) => tokio::task::spawn_blocking(move || builder.update(&changes, &previous)),
            None => {
                let rows = self.store.directory_rows().await?;
                // A large registry takes a while: not on a thread that answers.
                tokio::task::spawn_blocking(move || builder.build(rows, &previous))
            }
        };
        Ok(building.await?)
    }

    /// Ends open calls that the snapshot in force does not allow, or no longer: keys and connections run out by themselves.
    pub(super) fn cut(&self) {
        let (directory, now) = (self.directory.load_full(), self.clock.wall());
        for worker in &self.workers {
            worker.live().cut_where(|parties| proxy::taken_back(&directory, parties, now));
        }
    }

    /// The keys that take over from another and have been used since, and when.
    pub(super) fn used_successors(&self) -> Vec<(Uuid, Timestamp)> {
        self.directory.load().used_successors().collect()
    }

    /// Holds the snapshot against the database, and rebuilds it if that has changed or could not be read before: a key that was
    /// taken back must not go on opening doors.
    pub(super) async fn catch_up(&self) {
        let (asked_at, was_behind) = (self.clock.nanos(), self.behind.load(Ordering::Relaxed));
        match self.store.newest_revision().await {
            Ok(newest) if newest == self.directory.load().revision() && !was_behind => {
                self.confirmed.confirm(asked_at);
                return;
            }
            Ok(_) => self.rebuild().await,
            Err(error) => self.fell_behind(&error),
        }
        if was_behind && !self.behind.load(Ordering::Relaxed) {
            info!("the directory is up to date again");
        }
    }

    fn fell_behind(&self, error: &dyn std::fmt::Display) {
        if !self.behind.swap(true, Ordering::Relaxed) {
            error!(%error, "the directory could not be read again: calls are decided from the one before until it can");
        }
    }

    /// The time.
    pub(super) fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Tells the database when keys were last used.
    pub(super) async fn keep_uses(&self) {
        let directory = self.directory.load_full();
        let unkept: Vec<_> = directory.unkept_uses().collect();
        if unkept.is_empty() {
            return;
        }
        let used: Vec<_> = unkept.iter().map(|(key, at)| (key.id, *at)).collect();
        match self.store.touch_keys(&used).await {
            Ok(()) => unkept.iter().for_each(|(key, at)| key.last_use.keep(*at)),
            Err(error) => warn!(%error, "when keys were last used could not be written; it will be tried again"),
        }
    }

    /// Lets go of connections to agents that no longer exist.
    pub(super) fn forget_pools(&self) {
        let directory = self.directory.load_full();
        for worker in &self.workers {
            worker.forget(&directory);
        }
    }

    /// The rebuild as the registry asks for it.
    pub(super) fn reload(self: &Arc<Self>) -> Reload {
        let world = Arc::clone(self);
        Arc::new(move || {
            let world = Arc::clone(&world);
            let rebuilt: BoxFuture<'static, ()> = Box::pin(async move { world.rebuild().await });
            rebuilt
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::directory::{Defaults, Timeouts};
    use crate::limit::Limits;
    use crate::policy::Policy;
    use crate::registry::network::AllowedNetworks;
    use crate::registry::testing::{Bench, admin};

    fn builder(bench: &Bench) -> Builder {
        let second = Duration::from_secs(1);
        Builder {
            vault: Arc::clone(&bench.vault),
            limits: Arc::new(Limits::new(bench.clock.clone(), Arc::new(Policy::default()), [0; 32], Vec::new())),
            defaults: Defaults {
                public_url: "https://gw.example".to_owned(),
                allow_networks: AllowedNetworks::default(),
                connect_timeout: second,
                timeouts: Timeouts { first_byte: second, read_first_byte: second, idle: second },
                max_in_flight: 1,
                breaker: crate::vitals::BreakerSettings::default(),
                anonymous_allowed: true,
            },
        }
    }

    fn confirmed(bench: &Bench) -> Arc<LastConfirmed> {
        Arc::new(LastConfirmed::now(bench.clock.clone(), Duration::from_secs(60)))
    }

    #[tokio::test]
    async fn changes_made_while_a_snapshot_is_built_share_the_next() {
        let bench = Bench::new().await;
        let directory: directory::Current = Arc::default();
        let world = Arc::new(World::new(
            bench.store.clone(),
            builder(&bench),
            Arc::clone(&directory),
            Vec::new(),
            bench.clock.clone(),
            confirmed(&bench),
        ));
        let held = world.built.lock().await;
        let asking: Vec<_> = (0..100)
            .map(|_| {
                let world = Arc::clone(&world);
                // What is in force when a wish is answered.
                tokio::spawn(async move {
                    world.rebuild().await;
                    Arc::as_ptr(&world.directory.load_full()) as usize
                })
            })
            .collect();
        while world.asked.load(Ordering::SeqCst) < 100 {
            tokio::task::yield_now().await;
        }
        drop(held);
        let before = Arc::as_ptr(&directory.load_full()) as usize;
        let mut seen = std::collections::HashSet::new();
        for wish in asking {
            seen.insert(wish.await.expect("answered"));
        }
        assert!(seen.len() == 1 && !seen.contains(&before), "{} snapshots", seen.len());
    }

    #[tokio::test]
    async fn what_could_not_be_read_or_written_is_tried_again() {
        let bench = Bench::new().await;
        let (builder, clock) = (builder(&bench), bench.clock.clone());
        let world = World::new(bench.store.clone(), builder, Arc::default(), Vec::new(), clock, confirmed(&bench));
        let changes = crate::registry::agents::AgentChanges { name: Some("one".to_owned()), ..Default::default() };
        let made = bench.registry.register(&admin(), changes).await.expect("registered");
        let hide = async |from: &str, to: &str| {
            bench.database.by_hand(&format!("ALTER TABLE {from} RENAME TO {to}")).await;
        };

        hide("api_keys", "hidden").await;
        world.rebuild().await;
        world.catch_up().await;
        assert!(!world.directory.load().key_holds(made.key.id, Timestamp(0)));
        hide("hidden", "api_keys").await;
        world.catch_up().await;
        let key = world.directory.load().key(&made.key.digest).map(Arc::clone).expect("caught up");

        key.last_use.note(Timestamp(7_000_000));
        hide("api_keys", "hidden").await;
        world.keep_uses().await;
        assert_eq!(key.last_use.unkept(), Some(Timestamp(7_000_000)));
        hide("hidden", "api_keys").await;
        world.keep_uses().await;
        assert_eq!(key.last_use.unkept(), None);
        let row = bench.store.key(made.key.id).await.expect("reads").expect("there");
        assert_eq!(row.last_used_at, Some(Timestamp(7_000_000)));
    }
}
