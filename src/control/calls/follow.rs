//! The one look at the log that all live streams share: while anybody listens, what became rows since the last look is read once
//! and handed to all.
//!
//! Promises: recording never waits for a listener, nor one listener for another; who falls behind is told, and reads for itself
//! what it missed; the number of listeners is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use super::record::RecordCursor;
use crate::control::view::Names;
use crate::registry::Actor;
use crate::store::call_query::CallFilter;
use crate::store::rows::CallRow;
use crate::store::{Store, StoreError};

/// Between two looks.
const TICK: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 250 });
/// Rows read at once.
const PAGE: u32 = 500;
/// Pages of one look: under a load beyond that the streams fall behind rather than the log.
const PAGES: usize = 2;
/// How many pages a listener may be behind before it has to read for itself.
const BEHIND_MAX: usize = 16;
/// Listeners at once, those of agents among them, so that these leave some to operators, and those of one asker.
const LISTENERS_MAX: u32 = 64;
const LISTENERS_AGENTS: u32 = 48;
const LISTENERS_EACH: u32 = 8;

/// Rows that are new, and the names in them.
#[derive(Debug)]
pub(super) struct News {
    pub(super) rows: Vec<CallRow>,
    pub(super) names: Names,
}

/// What all live streams share.
pub struct Follow {
    news: broadcast::Sender<Arc<News>>,
    /// Whether somebody looks.
    looking: tokio::sync::Mutex<bool>,
    /// Who listens, how often.
    listeners: Mutex<HashMap<String, u32>>,
    /// The gateway stops.
    stopping: watch::Receiver<bool>,
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow").finish_non_exhaustive()
    }
}

/// Why one more may not listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The asker has as many streams as it may.
    Asker,
    /// There are as many as there may be.
    All,
}

/// A listener's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    follow: Arc<Follow>,
    asker: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut listeners = self.follow.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = listeners.get_mut(&self.asker) {
            *count -= 1;
            if *count == 0 {
                listeners.remove(&self.asker);
            }
        }
    }
}

impl Follow {
    /// Streams that end once `stopping` is true.
    #[must_use]
    pub fn until(stopping: watch::Receiver<bool>) -> Self {
        Self {
            news: broadcast::Sender::new(BEHIND_MAX),
            looking: tokio::sync::Mutex::new(false),
            listeners: Mutex::default(),
            stopping,
        }
    }

    /// Resolves when the gateway stops.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    /// A place for one more stream of `who`.
    pub(super) fn place(self: &Arc<Self>, who: &Actor) -> Result<Place, Full> {
        let (asker, most) = (who.word(), if who.is_operator() { LISTENERS_MAX } else { LISTENERS_AGENTS });
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.get(&asker).is_some_and(|own| *own >= LISTENERS_EACH) {
            return Err(Full::Asker);
        }
        if listeners.values().sum::<u32>() >= most {
            return Err(Full::All);
        }
        *listeners.entry(asker.clone()).or_default() += 1;
        Ok(Place { follow: Arc::clone(self), asker })
    }

    /// Everything that becomes a row from now on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn listen(self: &Arc<Self>, store: &Store) -> Result<broadcast::Receiver<Arc<News>>, StoreError> {
        let mut looking = self.looking.lock().await;
        let news = self.news.subscribe();
        if !*looking {
            // Read before anybody goes on: what is not news is in the log by then.
            let seen = RecordCursor(store.record_ends().await?);
            tokio::spawn(Arc::clone(self).look(store.clone(), seen));
            *looking = true;
        }
        Ok(news)
    }

    async fn look(self: Arc<Self>, store: Store, mut seen: RecordCursor) {
        loop {
            tokio::time::sleep(TICK).await;
            let mut looking = self.looking.lock().await;
            if self.news.receiver_count() == 0 {
                *looking = false;
                return;
            }
            drop(looking);
            for _ in 0..PAGES {
                match news(&store, &mut seen).await {
                    Ok((news, more)) => {
                        if !news.rows.is_empty() {
                            // Whoever left in between needs no news.
                            let _ = self.news.send(Arc::new(news));
                        }
                        if !more {
                            break;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the log cannot be followed at the moment");
                        break;
                    }
                }
            }
        }
    }
}

/// The next page after `seen`, which moves on past it, and whether there is another.
async fn news(store: &Store, seen: &mut RecordCursor) -> Result<(News, bool), StoreError> {
    let record = store.recorded_calls(&CallFilter::default(), seen.after(), PAGE).await?;
    let names = super::names_in(store, &record.rows).await?;
    *seen = RecordCursor(record.reached);
    Ok((News { rows: record.rows, names }, record.more))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::store::rows::OperatorRole;

    #[test]
    fn agents_leave_places_to_operators_and_all_give_theirs_back() {
        let follow = Arc::new(Follow::until(watch::Sender::new(false).subscribe()));
        let places: Vec<_> = (0..9)
            .flat_map(|agent| (0..LISTENERS_EACH).map(move |_| Actor::Agent(Uuid::from_u128(agent))))
            .map_while(|agent| follow.place(&agent).ok())
            .collect();
        assert_eq!(places.len(), LISTENERS_AGENTS as usize);
        let operator = |n: u32| Actor::Operator { name: format!("operator {n}"), role: OperatorRole::Auditor };
        let kept: Vec<_> = (0..9)
            .flat_map(|n| (0..LISTENERS_EACH).map(move |_| operator(n)))
            .map_while(|operator| follow.place(&operator).ok())
            .collect();
        assert_eq!(places.len() + kept.len(), LISTENERS_MAX as usize);
        assert_eq!(follow.place(&operator(9)).expect_err("no place"), Full::All);
        drop((places, kept));
        assert!(follow.listeners.lock().expect("lock").is_empty());
        assert!(follow.place(&Actor::Agent(Uuid::nil())).is_ok());
    }
}
