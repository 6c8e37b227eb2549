//! The call log in numbers, read from the sums that are kept beside it: whole hours from those of hours, ragged ends from those of
//! minutes. Never looks at a call.

use std::ops::Range;

use uuid::Uuid;

use super::histogram::{self, Histogram};
use super::rollups::{SUMS, Span, minutes_since};
use crate::clock::Timestamp;
use crate::store::call_query::{CallFilter, on_sums};
use crate::store::sql::{Built, Row};
use crate::store::{Store, StoreError, columns};

/// What is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Who called.
    Caller,
    /// Who was called.
    Target,
    /// What the caller was to the target.
    Level,
}

/// How time is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Not at all.
    Whole,
    /// By minutes.
    Minute,
    /// By hours.
    Hour,
    /// By UTC days.
    Day,
}

/// What is asked of the sums.
#[derive(Clone, Debug)]
pub struct StatsQuery {
    /// Which calls, by what the sums know of them: agents, level, decision, outcome and reason.
    pub filter: CallFilter,
    /// Calls that arrived in that time: see [`whole_spans`].
    pub range: Range<Timestamp>,
    /// What is told apart; reasons, outcomes and decisions always are.
    pub by: Vec<Dimension>,
    /// How time is cut up.
    pub bucket: Bucket,
}

/// Calls that have all of this in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSums {
    /// The beginning of the time bucket; that of the range, where time is not cut up.
    pub starts_at: Timestamp,
    /// Who called, where callers are told apart and there is one.
    pub caller: Option<Uuid>,
    /// Who was called, likewise.
    pub target: Option<Uuid>,
    /// The level, where levels are told apart.
    pub trust_level: Option<String>,
    /// `allowed` or `refused`.
    pub decision: String,
    /// How they ended.
    pub outcome: String,
    /// Why they were refused or cut.
    pub reason: Option<String>,
    /// How many.
    pub calls: i64,
    /// Bytes of the requests.
    pub request_bytes: i64,
    /// Bytes of the answers.
    pub response_bytes: i64,
    /// How long they took.
    pub latency: Histogram,
}

/// `range` moved outwards to what the sums can tell at `now`: whole minutes, and whole hours where those of minutes are gone.
#[must_use]
pub fn whole_spans(range: Range<Timestamp>, now: Timestamp) -> Range<Timestamp> {
    let span = |at: Timestamp| if has_minutes(at, now) { Span::Minute } else { Span::Hour };
    span(range.start).start(range.start)..up(range.end, span(range.end))
}

/// Whether the minute of `at` can be told at `now`.
#[must_use]
pub fn has_minutes(at: Timestamp, now: Timestamp) -> bool {
    at >= minutes_since(now)
}

/// The beginning of the span after `at`, or `at` where it is one.
fn up(at: Timestamp, span: Span) -> Timestamp {
    span.start(at.plus_micros(span.seconds() * 1_000_000 - 1))
}

/// Where each part of `range` is read from.
fn parts(range: &Range<Timestamp>, bucket: Bucket) -> Vec<(Span, Range<Timestamp>)> {
    let hours = up(range.start, Span::Hour)..Span::Hour.start(range.end);
    let parts = if bucket == Bucket::Minute || hours.is_empty() {
        vec![(Span::Minute, range.clone())]
    } else {
        vec![
            (Span::Minute, range.start..hours.start),
            (Span::Hour, hours.clone()),
            (Span::Minute, hours.end..range.end),
        ]
    };
    parts.into_iter().filter(|(_, part)| !part.is_empty()).collect()
}

impl Store {
    /// The sums that are asked for, in no order; the same group may come up to three times, once for each part of the range. At
    /// most `limit` of a part, and one more if there are more.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn call_stats(&self, asked: &StatsQuery, limit: u32) -> Result<Vec<CallSums>, StoreError> {
        let mut found = Vec::new();
        for (span, part) in parts(&asked.range, asked.bucket) {
            let query = self.sums_of(asked, span, &part, limit.saturating_add(1));
            for row in query.build().fetch_all(&self.reader).await? {
                found.push(call_sums(&row, asked)?);
            }
        }
        Ok(found)
    }

    fn sums_of(&self, asked: &StatsQuery, span: Span, part: &Range<Timestamp>, limit: u32) -> Built {
        let mut query = Built::new(self.reader.dialect(), "SELECT ");
        match asked.bucket {
            // What it belongs to is known without asking.
            Bucket::Whole => query.push("0"),
            Bucket::Minute => query.push("starts_at"),
            Bucket::Hour => query
                .push_either("substr(starts_at, 1, 13) || ':00:00.000000Z'", "date_trunc('hour', starts_at, 'UTC')"),
            Bucket::Day => query
                .push_either("substr(starts_at, 1, 10) || 'T00:00:00.000000Z'", "date_trunc('day', starts_at, 'UTC')"),
        };
        query.push(" AS bucket");
        for dimension in &asked.by {
            query.push(", ").push(dimension.column());
        }
        query.push(", decision, outcome, reason");
        for column in SUMS.iter().chain(&histogram::COLUMNS) {
            query.push(", CAST(sum(").push(column).push(") AS bigint) AS sum_").push(column);
        }
        query.push(" FROM call_rollups WHERE span = ").push_bind(span.seconds());
        query.push(" AND starts_at >= ").push_bind(part.start).push(" AND starts_at < ").push_bind(part.end);
        on_sums(&mut query, &asked.filter);
        query.push(" GROUP BY decision, outcome, reason");
        if asked.bucket != Bucket::Whole {
            query.push(", bucket");
        }
        for dimension in &asked.by {
            query.push(", ").push(dimension.column());
        }
        query.push(" LIMIT ").push_bind(limit);
        query
    }
}

impl Dimension {
    fn column(self) -> &'static str {
        match self {
            Self::Caller => "caller_agent_id",
            Self::Target => "target_agent_id",
            Self::Level => "trust_level",
        }
    }
}

fn call_sums(row: &Row, asked: &StatsQuery) -> Result<CallSums, StoreError> {
    let told = |dimension: Dimension| asked.by.contains(&dimension).then(|| dimension.column());
    let agent = |dimension| match told(dimension) {
        Some(column) => columns::id(row, column).map(|id| Some(id).filter(|id| !id.is_nil())),
        None => Ok(None),
    };
    let mut latency = Histogram::default();
    for (calls, column) in latency.0.iter_mut().zip(histogram::COLUMNS) {
        *calls = columns::number(row, &format!("sum_{column}"))?;
    }
    Ok(CallSums {
        starts_at: match asked.bucket {
            Bucket::Whole => asked.range.start,
            _ => columns::time(row, "bucket")?,
        },
        caller: agent(Dimension::Caller)?,
        target: agent(Dimension::Target)?,
        trust_level: told(Dimension::Level).map(|column| columns::text(row, column)).transpose()?,
        decision: columns::text(row, "decision")?,
        outcome: columns::text(row, "outcome")?,
        reason: Some(columns::text(row, "reason")?).filter(|reason| !reason.is_empty()),
        calls: columns::number(row, "sum_calls")?,
        request_bytes: columns::number(row, "sum_request_bytes")?,
        response_bytes: columns::number(row, "sum_response_bytes")?,
        latency,
    })
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
