//! Removing rows by age: whole days where the database keeps each in a table of its own, else a few rows at a time.

use std::collections::HashSet;
use std::time::Duration;

use uuid::Uuid;

use super::survey::{Question, Stop, Survey, SurveyError, survey};
use super::{HeldBy, HeldUp, Retention, paced};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::calls::remove::Prefix;
use crate::store::holds::HoldRow;

/// Rows that are removed in one transaction. Recording waits that long on SQLite.
const BATCH: u32 = if cfg!(test) { 7 } else { 250 };
/// Rows that are looked at before the first of them go.
const STAGE: u64 = if cfg!(test) { 40 } else { 100_000 };
/// How often a day is tried whose rows somebody reads, and the pause in between.
const TRIES: (u32, Duration) = (20, Duration::from_millis(if cfg!(test) { 10 } else { 1_000 }));

impl Retention {
    /// Removes what arrived before `cutoff`.
    pub(super) async fn remove_old(&self, cutoff: Timestamp) -> Result<(), SurveyError> {
        let mut held_up = Vec::new();
        let done = self.remove_each(cutoff, &mut held_up).await;
        self.view.change(|state| state.held_up = held_up);
        done
    }

    async fn remove_each(&self, cutoff: Timestamp, held_up: &mut Vec<HeldUp>) -> Result<(), SurveyError> {
        if self.store.is_shared() {
            return self.remove_days(cutoff, held_up).await;
        }
        for node in self.store.ledger_nodes().await? {
            loop {
                let holds = self.store.holds_in_force().await?;
                let question = Question { node, cutoff, holds: &holds, until: u64::MAX, most: STAGE };
                let Survey { prefix, stop } = survey(&self.store, question).await?;
                self.remove(&prefix).await?;
                if stop != Stop::Enough {
                    held_up.extend(told(node, stop));
                    break;
                }
            }
        }
        while paced(self.store.give_back()).await? {}
        Ok(())
    }

    /// Removes the days that are over for so long, as far as all of their rows may go; of other days, the rows of nodes that are
    /// not held up.
    async fn remove_days(&self, cutoff: Timestamp, held_up: &mut Vec<HeldUp>) -> Result<(), SurveyError> {
        let mut stuck: HashSet<Uuid> = HashSet::new();
        for day in self.store.days().await? {
            let over = Timestamp::parse(&format!("{day}T00:00:00Z")).map_or(i64::MAX, |day| day.0 + DAY_US);
            let last = self.store.last_of_day(&day).await?;
            if over > cutoff.0 || last.is_some_and(|last| last >= cutoff) {
                break;
            }
            let holds = self.store.holds_in_force().await?;
            let (mut prefixes, mut whole) = (Vec::new(), true);
            for (node, until) in self.store.ends_of_day(&day).await? {
                if stuck.contains(&node) {
                    whole = false;
                    continue;
                }
                let question = Question { node, cutoff, holds: &holds, until, most: u64::MAX };
                let Survey { prefix, stop } = survey(&self.store, question).await?;
                if prefix.tree.size() < until {
                    whole = false;
                    stuck.insert(node);
                    held_up.extend(told(node, stop));
                }
                prefixes.push(prefix);
            }
            // There may be others: of a node without a tree, or of one whose numbers do not follow the days, since a clock was
            // set back.
            let known: u64 = prefixes.iter().map(|prefix| prefix.tree.size() - prefix.before).sum();
            if whole && self.store.rows_of_day(&day).await? == known {
                self.drop_day(&day, &prefixes, &holds, now(self)).await?;
            } else {
                for prefix in &prefixes {
                    self.remove(prefix).await?;
                }
            }
        }
        Ok(())
    }

    async fn drop_day(
        &self,
        day: &str,
        prefixes: &[Prefix],
        holds: &[HoldRow],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES.0 {
            if Box::pin(self.store.drop_day(day, prefixes, holds, now)).await? {
                let rows: u64 = prefixes.iter().map(|prefix| prefix.tree.size() - prefix.before).sum();
                tracing::info!(day, rows, "rows were removed by age");
                self.view.change(|state| state.removed += rows);
                return Ok(());
            }
            tokio::time::sleep(TRIES.1).await;
        }
        Err(StoreError::Changed(format!("the rows of {day} are being read all the time: they are removed later")))
    }

    async fn remove(&self, prefix: &Prefix) -> Result<(), StoreError> {
        let mut rows = 0;
        loop {
            match paced(Box::pin(self.store.remove_next(prefix, BATCH, now(self)))).await? {
                0 => break,
                removed => rows += removed,
            }
        }
        if rows > 0 {
            tracing::info!(node = %prefix.node, rows, up_to = prefix.tree.size(), "rows were removed by age");
            self.view.change(|state| state.removed += rows);
        }
        Ok(())
    }
}

const DAY_US: i64 = 86_400_000_000;

fn now(retention: &Retention) -> Timestamp {
    retention.clock.wall()
}

fn told(node: Uuid, stop: Stop) -> Option<HeldUp> {
    let (seq, by) = match stop {
        Stop::Held { hold, seq, called_at } => (seq, HeldBy::Hold { hold, called_at }),
        Stop::Unsigned { seq } => (seq, HeldBy::Unsigned),
        Stop::Reached | Stop::Enough => return None,
    };
    Some(HeldUp { node, seq, by })
}
