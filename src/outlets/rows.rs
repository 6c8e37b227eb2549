//! An outlet: follows the log and sends its rows, batch by batch, from the position the database keeps for it.
//!
//! Promises: of each node, rows are sent in the order of `seq` and none is left out; the position moves after the destination
//! has taken them, so that whatever dies in between, they are sent again. An outlet works at most half of the time, reads over
//! connections of its own, and reads only what is committed: it is never in the way of the drain.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::pause;
use super::post::Failure;
use super::sink::{Batch, Sink};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, OutletRows};
use crate::store::rows::CallRow;
use crate::store::{Store, StoreError};

/// Makes a line of JSON of each row.
pub type Render = Arc<dyn Fn(Vec<CallRow>) -> BoxFuture<'static, Result<Vec<String>, StoreError>> + Send + Sync>;

/// How often it is looked for new rows.
const LOOK: Duration = Duration::from_secs(1);
/// The pauses after failures that may be over in a moment.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause while somebody has to do something about it.
const LASTING_PAUSE: Duration = Duration::from_secs(300);
/// How often it is measured how far behind it is, while nothing is sent.
const MEASURE: Duration = Duration::from_secs(10);
/// How long rows may wait before that is worth a word, in microseconds.
const LATE_US: i64 = 300_000_000;

/// How an outlet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutletTold {
    /// Its name.
    pub name: String,
    /// Rows that are in the log and were not taken yet, as far as is known.
    pub behind: i64,
    /// When it last had sent all there was; its start, if it never had since.
    pub caught_up_at: Timestamp,
    /// Why rows are not taken.
    pub error: Option<String>,
    /// Whether somebody has to do something about that.
    pub refused: bool,
}

impl OutletTold {
    /// What an operator should do something about.
    #[must_use]
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let Self { name, behind, error, .. } = self;
        let late = *behind > 0 && now.0.saturating_sub(self.caught_up_at.0) >= LATE_US;
        match error {
            Some(error) if self.refused => Some(format!("the outlet {name} sends no rows, {behind} wait: {error}")),
            Some(error) if late => {
                Some(format!("the outlet {name} is {behind} rows behind since {}: {error}", self.caught_up_at))
            }
            None if late => Some(format!("the outlet {name} is {behind} rows behind since {}", self.caught_up_at)),
            _ => None,
        }
    }
}

/// One outlet of this node.
pub struct Outlet {
    name: String,
    batch: u32,
    rows: OutletRows,
    /// This node.
    node: Uuid,
    store: Store,
    render: Render,
    sink: Sink,
    clock: Clock,
    told: Mutex<OutletTold>,
}

impl Outlet {
    /// The outlet in the configuration, at `node`.
    #[must_use]
    pub fn new(config: &config::Outlet, node: Uuid, store: Store, sink: Sink, render: Render, clock: Clock) -> Self {
        let told = OutletTold {
            name: config.name.clone(),
            behind: 0,
            caught_up_at: clock.wall(),
            error: None,
            refused: false,
        };
        Self {
            name: config.name.clone(),
            batch: u32::try_from(config.batch).unwrap_or(1),
            rows: config.rows,
            node,
            store,
            render,
            sink,
            clock,
            told: Mutex::new(told),
        }
    }

    /// Sends rows as long as it is not dropped.
    pub async fn run(&self) {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let pause = match self.turn().await {
                Ok(true) => {
                    failures = 0;
                    begun.elapsed().min(LOOK)
                }
                Ok(false) => {
                    failures = 0;
                    LOOK
                }
                Err(Failure { lasting: true, .. }) => LASTING_PAUSE,
                Err(Failure { retry_after, .. }) => {
                    failures += 1;
                    let wait = retry_after.unwrap_or_default().min(LASTING_PAUSE);
                    pause::after(failures, FIRST_PAUSE, LONGEST_PAUSE).max(wait)
                }
            };
            self.rest(pause).await;
        }
    }

    /// Waits; how far it is behind is told meanwhile.
    async fn rest(&self, mut pause: Duration) {
        while pause > MEASURE {
            tokio::time::sleep(MEASURE).await;
            pause -= MEASURE;
            if let Ok(behind) = self.behind().await {
                self.locked().behind = behind;
            }
        }
        tokio::time::sleep(pause).await;
    }

    /// How it is.
    #[must_use]
    pub fn told(&self) -> OutletTold {
        self.locked().clone()
    }

    fn locked(&self) -> MutexGuard<'_, OutletTold> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends at most a batch of each node; whether there may be more at once.
    pub(super) async fn turn(&self) -> Result<bool, Failure> {
        let sent = self.send_all().await;
        let behind = match &sent {
            Ok(false) => Some(0),
            _ => self.behind().await.ok(),
        };
        let now = self.clock.wall();
        let mut told = self.locked();
        told.behind = behind.unwrap_or(told.behind);
        let before = told.error.take();
        match &sent {
            Ok(more) => {
                if !more {
                    told.caught_up_at = now;
                }
                told.refused = false;
                if before.is_some() {
                    info!(outlet = self.name, "rows are taken again");
                }
            }
            Err(failure) => {
                if before.as_ref() != Some(&failure.text) {
                    match failure.lasting {
                        true => error!(
                            outlet = self.name,
                            why = failure.text,
                            "rows are not taken until that is changed; they wait"
                        ),
                        false => warn!(outlet = self.name, why = failure.text, "rows are not taken; they wait"),
                    }
                }
                told.refused = failure.lasting;
                told.error = Some(failure.text.clone());
            }
        }
        sent
    }

    async fn send_all(&self) -> Result<bool, Failure> {
        let mut more = false;
        for node in self.store.followed_nodes(self.node).await.map_err(unread)? {
            more |= self.send(node).await?;
        }
        Ok(more)
    }

    /// Sends the next batch of a node; whether it was a full one.
    async fn send(&self, node: Uuid) -> Result<bool, Failure> {
        let position = self.store.outlet_position(&self.name, node).await.map_err(unread)?;
        let rows = self.store.rows_after(node, position.cast_unsigned(), self.batch).await.map_err(unread)?;
        let (Some(first), Some(last)) = (rows.first().map(|row| row.seq), rows.last().map(|row| row.seq)) else {
            return Ok(false);
        };
        if first != position + 1 {
            let (from, to) = (position + 1, first - 1);
            warn!(outlet = self.name, %node, from, to, "rows had left the log before they were sent");
        }
        let full = rows.len() >= self.batch as usize;
        let wanted: Vec<CallRow> = rows.into_iter().filter(|row| self.wants(row)).collect();
        if !wanted.is_empty() {
            let lines = (self.render)(wanted).await.map_err(unread)?;
            let lines = lines.into_iter().fold(String::new(), |all, line| all + &line + "\n");
            self.sink.take(Batch { node, seqs: (first, last), lines }).await?;
        }
        let moved = self.store.move_outlet(&self.name, node, last, self.clock.wall()).await;
        moved.map_err(|error| Failure::passing(format!("how far it is cannot be written: {error}")))?;
        Ok(full)
    }

    fn wants(&self, row: &CallRow) -> bool {
        match self.rows {
            OutletRows::All => true,
            OutletRows::Allowed => row.decision == "allowed",
            OutletRows::Refused => row.decision == "refused",
        }
    }

    async fn behind(&self) -> Result<i64, StoreError> {
        let mut behind = 0;
        for node in self.store.followed_nodes(self.node).await? {
            let (newest, position) =
                (self.store.newest_seq(node).await?, self.store.outlet_position(&self.name, node).await?);
            behind += (newest - position).max(0);
        }
        Ok(behind)
    }
}

fn unread(error: StoreError) -> Failure {
    Failure::passing(format!("the log cannot be read: {error}"))
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
