//! What other nodes change in the database: heard of at once where the database announces it, and found by asking in any case.
//!
//! Promises that a change that any node made is in force here within a second, while the database can be reached, whatever
//! becomes of the announcements.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use super::world::World;
use crate::store::{ChangeListener, NodeRow, Store, StoreError};

/// How often the database is asked whether something changed.
const ASK: Duration = Duration::from_millis(500);
/// How often a node says that it lives.
const LIVES: Duration = Duration::from_secs(10);
/// The pause before announcements are listened for again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Keeps the snapshot in step with a database that others may change.
pub(super) struct Peers {
    pub(super) world: Arc<World>,
    pub(super) store: Store,
    pub(super) node: NodeRow,
    pub(super) listener: Option<ChangeListener>,
}

impl Peers {
    /// Goes on until it is dropped.
    pub(super) async fn run(mut self) {
        let listener = self.listener.take();
        tokio::join!(self.ask(), self.listen(listener), self.live());
    }

    async fn ask(&self) {
        let mut turn = interval(ASK);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            self.world.catch_up().await;
        }
    }

    async fn listen(&self, mut listener: Option<ChangeListener>) {
        while self.store.is_shared() {
            match listener.take() {
                Some(listening) => self.hear(listening).await,
                None => match self.store.listen(self.node.id).await {
                    Ok(again) => {
                        listener = again;
                        info!("changes that other nodes make are announced again");
                    }
                    Err(error @ StoreError::Conflict(_)) => {
                        error!(%error, "two processes number their calls alike: one data directory is a copy of the other; stop one of them");
                    }
                    Err(_) => {}
                },
            }
            if listener.is_none() {
                sleep(LISTEN_AGAIN).await;
            }
        }
    }

    async fn hear(&self, mut listener: ChangeListener) {
        // What was changed while nobody listened.
        self.world.rebuild().await;
        loop {
            match listener.changed().await {
                Ok(()) => self.world.rebuild().await,
                Err(error) => {
                    warn!(%error, "changes that other nodes make are not announced any more: they are asked for");
                    return;
                }
            }
        }
    }

    async fn live(&self) {
        let mut turn = interval(LIVES);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.store.is_shared() {
            turn.tick().await;
            let node = NodeRow { seen_at: Some(self.world.wall()), ..self.node.clone() };
            // A database that is away is told of by whoever reads it.
            let _ = self.store.keep_node(&node).await;
        }
    }
}
