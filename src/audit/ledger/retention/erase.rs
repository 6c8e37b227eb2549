//! Taking values out of rows: by age, and on request those of one caller.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use uuid::Uuid;

use super::{Retention, paced};
use crate::clock::{Clock, Timestamp};
use crate::store::calls::erase::{Erased, Erasure, Span};
use crate::store::rows::AdminEvent;
use crate::store::{Store, StoreError};

/// Rows that are looked through at once.
const SPAN: u64 = if cfg!(test) { 20 } else { 5_000 };
/// Rows that are changed in one transaction. Recording waits that long on SQLite.
const BATCH: usize = if cfg!(test) { 7 } else { 250 };

impl Retention {
    /// Erases `what`, known as `class`, of calls that arrived before `cutoff`. A row stands for all before it: one that is younger
    /// keeps those behind it, too.
    pub(super) async fn erase_old(&self, what: Erasure, class: &str, cutoff: Timestamp) -> Result<Erased, StoreError> {
        let mut all = Erased::default();
        for node in self.store.ledger_nodes().await? {
            let released = self.store.holds().await?.iter().filter(|hold| hold.released_at.is_some()).count() as u64;
            let size = self.store.ledger_tree(node).await?.size();
            let dropped = self.store.ledger_dropped(node).await?.size();
            let mut after = self.store.erased_up_to(node, class).await?.max(dropped);
            while after < size {
                let mut span = Span { node, after, until: size.min(after + SPAN) };
                let young = self.store.first_since(span, cutoff).await?;
                span.until = young.map_or(span.until, |seq| seq - 1);
                all.add(erase_span(&self.store, &self.clock, span, what).await?);
                if span.until > after {
                    self.store.keep_erased_up_to(node, class, span.until, released).await?;
                }
                after = span.until;
                if young.is_some() {
                    break;
                }
            }
        }
        Ok(all)
    }
}

async fn erase_span(store: &Store, clock: &Clock, span: Span, what: Erasure) -> Result<Erased, StoreError> {
    let mut all = Erased::default();
    for rows in store.erasable(span, what).await?.chunks(BATCH) {
        all.add(paced(Box::pin(store.erase(span.node, rows, what, clock.wall()))).await?);
    }
    Ok(all)
}

/// The erasure of one caller's addresses, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerErasure {
    /// The caller.
    pub agent: Uuid,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Rows to look through, whoever made the calls.
    pub rows: u64,
    /// Rows that were looked through.
    pub seen: u64,
    /// What became of the caller's.
    pub done: Erased,
    /// Why it ended before it was done: begun again it goes on.
    pub trouble: Option<String>,
}

/// Erases callers' addresses, one caller at a time.
#[derive(Clone, Debug)]
pub struct Eraser {
    store: Store,
    clock: Clock,
    current: Arc<Mutex<Option<CallerErasure>>>,
}

impl Eraser {
    /// Erases in this database.
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock, current: Arc::default() }
    }

    /// The one under way, or the last.
    #[must_use]
    pub fn now(&self) -> Option<CallerErasure> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<CallerErasure>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut CallerErasure)) {
        if let Some(current) = self.lock().as_mut() {
            change(current);
        }
    }

    /// Begins to erase the addresses of `agent` from all rows there are now. `begun` is the event that says so; how it ended is one,
    /// too. `None`: another is under way.
    ///
    /// # Errors
    /// When the event cannot be recorded: then nothing is erased.
    pub async fn begin(&self, agent: Uuid, begun: AdminEvent) -> Result<Option<CallerErasure>, StoreError> {
        let erasure = {
            let mut current = self.lock();
            if current.as_ref().is_some_and(|current| current.ended_at.is_none()) {
                return Ok(None);
            }
            let began_at = self.clock.wall();
            let done = Erased::default();
            current
                .insert(CallerErasure { agent, began_at, ended_at: None, rows: 0, seen: 0, done, trouble: None })
                .clone()
        };
        // Whoever asked may go away at any moment: then it begins, or ends, all the same.
        let (tell, told) = tokio::sync::oneshot::channel();
        let this = self.clone();
        tokio::spawn(async move {
            let recorded = this.store.add_event(&begun).await;
            let begins = recorded.is_ok();
            if !begins {
                *this.lock() = None;
            }
            let _ = tell.send(recorded);
            if begins {
                this.run(agent, begun).await;
            }
        });
        let ended = || StoreError::Conflict("the gateway is about to end: begin it again".to_owned());
        told.await.unwrap_or_else(|_| Err(ended())).map(|()| Some(erasure))
    }

    async fn run(&self, agent: Uuid, begun: AdminEvent) {
        let ended = self.erase_all(agent).await;
        let trouble = ended.err().map(|error| error.to_string());
        let done = self.now().map(|current| current.done).unwrap_or_default();
        let after = json!({"rows_erased": done.erased, "rows_held": done.held, "trouble": trouble});
        let event = AdminEvent {
            id: Uuid::now_v7(),
            at: self.clock.wall(),
            action: "audit.erased".to_owned(),
            after: Some(after.to_string()),
            ..begun
        };
        let recorded = self.store.add_event(&event).await.err().map(|error| error.to_string());
        if let Some(error) = trouble.as_ref().or(recorded.as_ref()) {
            tracing::error!(%error, %agent, "the addresses of a caller could not be erased to the end");
        }
        self.change(|current| {
            current.ended_at = Some(event.at);
            current.trouble = trouble.or(recorded);
        });
    }

    async fn erase_all(&self, agent: Uuid) -> Result<(), StoreError> {
        let mut nodes = Vec::new();
        for node in self.store.ledger_nodes().await? {
            let size = self.store.ledger_tree(node).await?.size();
            nodes.push((node, self.store.ledger_dropped(node).await?.size(), size));
        }
        self.change(|current| current.rows = nodes.iter().map(|(_, dropped, size)| size - dropped).sum());
        for (node, mut after, size) in nodes {
            while after < size {
                let span = Span { node, after, until: size.min(after + SPAN) };
                let done = erase_span(&self.store, &self.clock, span, Erasure::AddressesOf(agent)).await?;
                self.change(|current| {
                    current.seen += span.until - span.after;
                    current.done.add(done);
                });
                after = span.until;
            }
        }
        Ok(())
    }
}
