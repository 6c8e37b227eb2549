//! Keeping the snapshot true: rebuilt from the database after each change, and open calls held against it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tracing::error;

use crate::directory::{self, Builder};
use crate::proxy::{self, Live};
use crate::registry::Reload;
use crate::store::Store;

/// Rebuilds the snapshot.
pub(super) struct World {
    store: Store,
    builder: ArcSwap<Builder>,
    directory: directory::Current,
    live: Vec<Arc<Live>>,
    /// One rebuild at a time: a slow one must not overwrite a later one.
    turn: Mutex<()>,
}

impl World {
    pub(super) fn new(store: Store, builder: Builder, directory: directory::Current, live: Vec<Arc<Live>>) -> Self {
        Self { store, builder: ArcSwap::from_pointee(builder), directory, live, turn: Mutex::default() }
    }

    /// What new snapshots are built with from now on.
    pub(super) fn set_builder(&self, builder: Builder) {
        self.builder.store(Arc::new(builder));
    }

    /// Reads the database and puts a new snapshot in force; ends open calls it no longer allows.
    pub(super) async fn rebuild(&self) {
        let _turn = self.turn.lock().await;
        let rows = match self.store.directory_rows().await {
            Ok(rows) => rows,
            Err(error) => {
                error!(%error, "the directory could not be read again: calls are decided from the one before");
                return;
            }
        };
        let next = Arc::new(self.builder.load().build(rows, &self.directory.load()));
        self.directory.store(Arc::clone(&next));
        for live in &self.live {
            live.cut_where(|parties| proxy::taken_back(&next, parties));
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
