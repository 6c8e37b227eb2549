//! Checkpoints leave: each place has a task of its own that brings it the newest one, and none that names a key is left out.
//!
//! A checkpoint stands for all before it, so a place that could not be reached is not owed those in between.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::store::ledger::{CheckpointRow, WitnessRow};
use crate::store::{Store, StoreError};

/// The first and the longest pause after a failure.
const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(if cfg!(test) { 10 } else { 1_000 }), Duration::from_secs(60));
/// How long the last checkpoint may take to leave once the gateway stops.
const LAST: Duration = Duration::from_secs(3);

/// Brings a signed note to a place; what went wrong, in words.
pub type Send = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), String>> + std::marker::Send + Sync>;

/// Where checkpoints are sent.
#[derive(Clone)]
pub struct Place {
    /// A path or a URL, with nothing secret in it.
    pub name: String,
    /// How.
    pub send: Send,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.name)
    }
}

/// How far checkpoints have left for a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceState {
    /// Where.
    pub place: String,
    /// The rows of the last checkpoint that arrived, and when it did.
    pub sent: Option<(u64, Timestamp)>,
    /// Why the next could not be brought, and since when.
    pub failing: Option<(String, Timestamp)>,
}

/// How far checkpoints have left, for those who look on.
#[derive(Clone, Debug, Default)]
pub struct PublishView(Arc<Mutex<Vec<PlaceState>>>);

impl PublishView {
    /// Now, in the order of the configuration.
    #[must_use]
    pub fn now(&self) -> Vec<PlaceState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut PlaceState)) {
        if let Some(state) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(at) {
            change(state);
        }
    }
}

/// Brings the checkpoints of a node to all places.
#[derive(Debug)]
pub struct Publisher {
    /// Where they are.
    pub store: Store,
    /// Whose.
    pub node: Uuid,
    /// The time.
    pub clock: Clock,
    /// Where to.
    pub places: Vec<Place>,
}

impl Publisher {
    /// How it goes, to be looked at by others.
    #[must_use]
    pub fn view(&self) -> PublishView {
        let states =
            self.places.iter().map(|place| PlaceState { place: place.name.clone(), sent: None, failing: None });
        PublishView(Arc::new(Mutex::new(states.collect())))
    }

    /// Goes on until the sealer has ended and its last checkpoint has left, or could not.
    pub async fn run(self, sealed: watch::Receiver<u64>, view: PublishView) {
        let this = &self;
        let each = self.places.iter().enumerate().map(|(at, place)| {
            let (sealed, view) = (sealed.clone(), view.clone());
            async move { this.serve(at, place, sealed, &view).await }
        });
        futures_util::future::join_all(each).await;
    }

    async fn serve(&self, at: usize, place: &Place, mut sealed: watch::Receiver<u64>, view: &PublishView) {
        let mut had = None;
        let mut pause = BACKOFF.0;
        loop {
            sealed.borrow_and_update();
            match self.bring(at, place, &mut had, view).await {
                Ok(()) => {
                    pause = BACKOFF.0;
                    if sealed.changed().await.is_err() {
                        return;
                    }
                }
                Err(why) => {
                    self.failed(at, place, why, view);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = ended(&sealed) => break,
                    }
                    pause = (pause * 2).min(BACKOFF.1);
                }
            }
        }
        // At the end one more try: what does not leave now leaves after the next start.
        if let Ok(Err(why)) = tokio::time::timeout(LAST, self.bring(at, place, &mut had, view)).await {
            self.failed(at, place, why, view);
        }
    }

    fn failed(&self, at: usize, place: &Place, why: String, view: &PublishView) {
        let now = self.clock.wall();
        view.change(at, |state| {
            if state.failing.is_none() {
                tracing::warn!(place = %place.name, %why, "a checkpoint could not be brought; it will be tried again");
            }
            let since = state.failing.as_ref().map_or(now, |(_, since)| *since);
            state.failing = Some((why, since));
        });
    }

    /// Brings what the place has not had.
    async fn bring(&self, at: usize, place: &Place, had: &mut Option<Had>, view: &PublishView) -> Result<(), String> {
        let unreadable = |error: StoreError| format!("what was signed cannot be read: {error}");
        let had = match had {
            Some(had) => had,
            None => {
                let known = self.store.witnesses(self.node).await.map_err(unreadable)?;
                let known = known.into_iter().find(|known| known.place == place.name);
                view.change(at, |state| state.sent = known.as_ref().map(|known| (known.size, known.sent_at)));
                had.insert(Had { size: known.map_or(0, |known| known.size), note: String::new() })
            }
        };
        for CheckpointRow { size, note, .. } in
            self.store.checkpoints_to_send(self.node, had.size).await.map_err(unreadable)?
        {
            if note == had.note {
                continue;
            }
            (place.send)(note.clone()).await?;
            let now = self.clock.wall();
            *had = Had { size, note };
            view.change(at, |state| (state.sent, state.failing) = (Some((size, now)), None));
            let witness = WitnessRow { place: place.name.clone(), size, sent_at: now };
            if let Err(error) = self.store.keep_witness(self.node, &witness).await {
                tracing::warn!(%error, place = %place.name, "that a checkpoint arrived could not be noted: it may be sent again");
            }
        }
        Ok(())
    }
}

/// What a place has had last.
#[derive(Debug)]
struct Had {
    size: u64,
    note: String,
}

/// Returns when there will be no more checkpoints.
async fn ended(sealed: &watch::Receiver<u64>) {
    let mut sealed = sealed.clone();
    while sealed.changed().await.is_ok() {}
}
