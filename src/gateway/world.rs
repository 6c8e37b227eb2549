//! Keeping the snapshot true: rebuilt from the database after each change, and open calls held against it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tracing::error;

use crate::directory::{self, Builder};
use crate::proxy::{self, Worker};
use crate::registry::Reload;
use crate::store::Store;

/// The pause before the database is read again after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Rebuilds the snapshot.
pub(super) struct World {
    store: Store,
    builder: ArcSwap<Builder>,
    directory: directory::Current,
    workers: Vec<Arc<Worker>>,
    /// One rebuild at a time: a slow one must not overwrite a later one.
    turn: Mutex<()>,
}

impl World {
    pub(super) fn new(
        store: Store,
        builder: Builder,
        directory: directory::Current,
        workers: Vec<Arc<Worker>>,
    ) -> Self {
        Self { store, builder: ArcSwap::from_pointee(builder), directory, workers, turn: Mutex::default() }
    }

    /// What new snapshots are built with from now on.
    pub(super) fn set_builder(&self, builder: Builder) {
        self.builder.store(Arc::new(builder));
    }

    /// Reads the database and puts a new snapshot in force; ends open calls it no longer allows. If the database cannot be read
    /// now, it is tried again until it can: a block that is stored must come into force.
    pub(super) async fn rebuild(self: &Arc<Self>) {
        if self.try_rebuild().await {
            return;
        }
        let world = Arc::clone(self);
        tokio::spawn(async move {
            let mut rebuilt = false;
            while !rebuilt {
                tokio::time::sleep(RETRY).await;
                rebuilt = world.try_rebuild().await;
            }
        });
    }

    async fn try_rebuild(&self) -> bool {
        let _turn = self.turn.lock().await;
        let rows = match self.store.directory_rows().await {
            Ok(rows) => rows,
            Err(error) => {
                error!(%error, "the directory could not be read again: calls are decided from the one before");
                return false;
            }
        };
        let next = Arc::new(self.builder.load().build(rows, &self.directory.load()));
        self.directory.store(Arc::clone(&next));
        for worker in &self.workers {
            worker.live().cut_where(|parties| proxy::taken_back(&next, parties));
            worker.forget(&next);
        }
        true
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
