//! Sums of calls by minute and by hour, kept with the rows they sum up: a batch is summed in memory first, so that a commit writes
//! each sum once however many calls it has. Those of minutes are removed in the end, those of hours stay.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use uuid::Uuid;

use super::histogram::{self, Histogram};
use crate::audit::gap;
use crate::clock::Timestamp;
use crate::store::rows::CallRow;
use crate::store::sql::{Tx, query};
use crate::store::{Store, StoreError, columns};

/// For how long minutes can be told, in days.
pub const MINUTES_DAYS: i64 = 35;
const DAY_US: i64 = 86_400_000_000;

/// Over how long a sum goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Span {
    Minute,
    Hour,
}

impl Span {
    pub(super) fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }

    /// The beginning of the span that `at` lies in.
    pub(super) fn start(self, at: Timestamp) -> Timestamp {
        let length = self.seconds() * 1_000_000;
        Timestamp(at.0.div_euclid(length) * length)
    }
}

/// What a sum is of. The columns are never NULL: nobody is all zeros, no reason is an empty one.
const KEY: [&str; 9] = [
    "span",
    "starts_at",
    "target_agent_id",
    "caller_agent_id",
    "trust_level",
    "decision",
    "outcome",
    "reason",
    "node_id",
];
/// What is summed up beside the histogram.
pub(super) const SUMS: [&str; 3] = ["calls", "request_bytes", "response_bytes"];

/// Sums per statement, most first: few sizes, so that each is prepared once.
const STATEMENT_SUMS: [usize; 3] = [64, 8, 1];

static UPSERTS: LazyLock<[String; 3]> = LazyLock::new(|| STATEMENT_SUMS.map(upsert));

fn upsert(sums: usize) -> String {
    let added = [&SUMS[..], &histogram::COLUMNS].concat();
    let columns = [&KEY[..], &added].concat();
    let group = |n: usize| {
        let values = (1..=columns.len()).map(|at| format!("${}", n * columns.len() + at));
        format!("({})", values.collect::<Vec<_>>().join(", "))
    };
    let groups = (0..sums).map(group).collect::<Vec<_>>().join(", ");
    let adding = added.iter().map(|column| format!("{column} = call_rollups.{column} + excluded.{column}"));
    format!(
        "INSERT INTO call_rollups ({}) VALUES {groups} ON CONFLICT ({}) DO UPDATE SET {}",
        columns.join(", "),
        KEY.join(", "),
        adding.collect::<Vec<_>>().join(", ")
    )
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    span: Span,
    starts_at: Timestamp,
    target: Uuid,
    caller: Uuid,
    trust_level: &'a str,
    decision: &'a str,
    outcome: &'a str,
    reason: &'a str,
    node: Uuid,
}

#[derive(Default)]
struct Sum {
    calls: i64,
    request_bytes: i64,
    response_bytes: i64,
    latency: Histogram,
}

/// Adds `rows` to the sums.
pub(super) async fn add(tx: &mut Tx, rows: &[CallRow]) -> Result<(), StoreError> {
    let mut sums: BTreeMap<Key<'_>, Sum> = BTreeMap::new();
    // A gap stands for no call.
    for row in rows.iter().filter(|row| row.decision != gap::WORD) {
        for span in [Span::Minute, Span::Hour] {
            let sum = sums.entry(Key::of(row, span)).or_default();
            sum.calls += row.calls;
            sum.request_bytes += row.request_bytes;
            sum.response_bytes += row.response_bytes;
            sum.latency.count(row.latency_ms, row.calls);
        }
    }
    let sums: Vec<_> = sums.into_iter().collect();
    let mut left = &sums[..];
    for (size, sql) in STATEMENT_SUMS.into_iter().zip(UPSERTS.iter()) {
        while let Some((now, later)) = left.split_at_checked(size) {
            let mut upsert = query(sql);
            for (key, sum) in now {
                upsert = upsert.bind(key.span.seconds()).bind(key.starts_at).bind(key.target).bind(key.caller);
                upsert = upsert.bind(key.trust_level).bind(key.decision).bind(key.outcome).bind(key.reason);
                upsert = upsert.bind(key.node).bind(sum.calls).bind(sum.request_bytes).bind(sum.response_bytes);
                upsert = sum.latency.0.into_iter().fold(upsert, |upsert, calls| upsert.bind(calls));
            }
            upsert.execute(&mut *tx).await?;
            left = later;
        }
    }
    Ok(())
}

/// From when on minutes can be told: a whole hour.
pub(super) fn minutes_since(now: Timestamp) -> Timestamp {
    Span::Hour.start(now.plus_micros(-MINUTES_DAYS * DAY_US))
}

impl Store {
    /// Removes the sums of the oldest minute of those that cannot be told any more at `now`: few at once, since recording waits
    /// meanwhile. How many; none: there are no more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn remove_old_minute(&self, now: Timestamp) -> Result<u64, StoreError> {
        // A day later than they can be told: nodes' clocks differ, and so do questions and their answers.
        let until = minutes_since(now).plus_micros(-DAY_US);
        let oldest =
            query("SELECT starts_at FROM call_rollups WHERE span = 60 AND starts_at < $1 ORDER BY starts_at LIMIT 1");
        let Some(oldest) = oldest.bind(until).fetch_optional(&self.reader).await? else { return Ok(0) };
        query("DELETE FROM call_rollups WHERE span = 60 AND starts_at = $1")
            .bind(columns::time(&oldest, "starts_at")?)
            .execute(&self.writer)
            .await
    }
}

impl<'a> Key<'a> {
    fn of(row: &'a CallRow, span: Span) -> Self {
        Self {
            span,
            starts_at: span.start(row.called_at),
            target: row.target_agent_id.unwrap_or_default(),
            caller: row.caller_agent_id.unwrap_or_default(),
            trust_level: &row.trust_level,
            decision: &row.decision,
            outcome: &row.outcome,
            reason: row.reason.as_deref().unwrap_or_default(),
            node: row.node_id,
        }
    }
}
