//! Who looked at the call log: operators do not read it unseen.
//!
//! Promises: no reading without its event, but for pages and repetitions of one query within a minute, which are one reading.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::problem::Problem;
use super::who::Asked;
use crate::clock::Timestamp;

/// How long a query and its further pages are one reading.
const ONE_READING_US: i64 = 60_000_000;
/// More queries than that are not remembered: each is an event then.
const REMEMBERED_MAX: usize = 10_000;

/// The readings of the last minute: who asked for what, and when.
#[derive(Debug, Default)]
pub struct Readings(Mutex<HashMap<(String, String), Timestamp>>);

impl Readings {
    /// Whether it is recorded already.
    fn is_recorded(&self, actor: &str, query: &str, now: Timestamp) -> bool {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(&(actor.to_owned(), query.to_owned())).is_some_and(|at| !is_over(*at, now))
    }

    /// Remembers one that was recorded. Only then: of two at once, the second must not be shown what nobody wrote down.
    fn remember(&self, actor: String, query: String, now: Timestamp) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, at| !is_over(*at, now));
        if recent.len() < REMEMBERED_MAX {
            recent.insert((actor, query), now);
        }
    }
}

fn is_over(at: Timestamp, now: Timestamp) -> bool {
    now.0.saturating_sub(at.0) >= ONE_READING_US
}

/// Records that the asker, if it is an operator, is shown `rows` rows of the log.
///
/// # Errors
/// When it cannot be recorded: then nothing is shown.
pub(super) async fn record(asked: &Asked, rows: usize) -> Result<(), Problem> {
    record_as(asked, asked.parameters.without(&["next", "limit"]), rows).await
}

/// As [`record`], for what the query's parameters do not say.
///
/// # Errors
/// As [`record`].
pub(super) async fn record_as(asked: &Asked, query: String, rows: usize) -> Result<(), Problem> {
    if !asked.who.is_operator() {
        return Ok(());
    }
    let (actor, now) = (asked.who.word(), asked.control.registry.clock().wall());
    if asked.control.readings.is_recorded(&actor, &query, now) {
        return Ok(());
    }
    let what = json!({"query": query, "rows": rows});
    asked.control.registry.record_reading(&asked.who, "calls.read", what).await?;
    asked.control.readings.remember(actor, query, now);
    Ok(())
}
