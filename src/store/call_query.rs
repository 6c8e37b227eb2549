//! The call log's reading side: filters, pages, sums.

use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::calls::COLUMNS;
use super::rows::CallRow;
use super::{Store, StoreError};
use crate::clock::Timestamp;

/// How far the time in a request id and the arrival of its call may lie apart before a lookup by id reads the whole table.
const ID_SLACK_US: i64 = 60_000_000;

/// Which calls: those that meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Made or received by this agent.
    pub agent: Option<Uuid>,
    /// Received by this agent.
    pub target: Option<Uuid>,
    /// Made by this agent.
    pub caller: Option<Uuid>,
    /// The request id.
    pub id: Option<Uuid>,
    /// The trust level's name.
    pub trust_level: Option<String>,
    /// The outcome's name.
    pub outcome: Option<String>,
    /// `allowed` or `refused`.
    pub decision: Option<String>,
    /// The operation's v1.0 name.
    pub operation: Option<String>,
    /// Why it was refused or cut.
    pub reason: Option<String>,
    /// The status the caller was given.
    pub status: Option<u16>,
    /// Arrived then or later.
    pub since: Option<Timestamp>,
    /// Arrived before then.
    pub until: Option<Timestamp>,
    /// The task.
    pub task_id: Option<String>,
    /// The context.
    pub context_id: Option<String>,
}

/// Which part of the answer, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPage {
    /// The `called_at` and `id` of the last row of the page before; `None` for the first page.
    pub after: Option<(Timestamp, Uuid)>,
    /// How many rows, 1 to [`CallPage::LIMIT_MAX`]; other numbers are moved into that range.
    pub limit: u32,
}

impl CallPage {
    /// The most rows of a page.
    pub const LIMIT_MAX: u32 = 500;
}

impl Default for CallPage {
    fn default() -> Self {
        Self { after: None, limit: 50 }
    }
}

impl Store {
    /// A page of calls, newest first by (`called_at`, `id`).
    ///
    /// # Errors
    /// When the database cannot be read, or holds what this version cannot read.
    pub async fn calls(&self, filter: &CallFilter, page: &CallPage) -> Result<Vec<CallRow>, StoreError> {
        let near = near_id(filter);
        let rows = self.select_calls(near.as_ref().unwrap_or(filter), page).await?;
        // The two clocks may have been set apart: then the id's time says nothing.
        if rows.is_empty() && near.is_some() {
            return self.select_calls(filter, page).await;
        }
        Ok(rows)
    }

    /// How many calls the filter's rows stand for.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn calls_sum(&self, filter: &CallFilter) -> Result<u64, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT coalesce(sum(calls), 0) FROM proxy_calls WHERE 1");
        conditions(&mut query, filter);
        let sum: i64 = query.build_query_scalar().fetch_one(&self.reader).await?;
        u64::try_from(sum).map_err(|_| StoreError::Corrupt(format!("proxy_calls.calls sums to {sum}")))
    }

    /// The rows recorded after `after`, in the order they were recorded in: ascending by (`node_id`, `seq`). Without `after`, the
    /// newest `limit` of each node.
    ///
    /// # Errors
    /// When the database cannot be read, or holds what this version cannot read.
    pub async fn recorded_calls(
        &self,
        filter: &CallFilter,
        after: &[(Uuid, i64)],
        limit: u32,
    ) -> Result<Vec<CallRow>, StoreError> {
        let limit = limit.clamp(1, CallPage::LIMIT_MAX);
        let mut rows: Vec<CallRow> = Vec::new();
        let mut last = String::new();
        // One step in the index for each node: reading them all with DISTINCT looks at every row.
        while let Some(node) =
            sqlx::query_scalar::<_, Option<String>>("SELECT min(node_id) FROM proxy_calls WHERE node_id > ?")
                .bind(&last)
                .fetch_one(&self.reader)
                .await?
        {
            let seen = after.iter().find(|(id, _)| id.to_string() == node).map(|(_, seq)| *seq);
            // Whoever has read before misses nothing, whoever begins wants what is new.
            let begins = after.is_empty();
            let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
            query.push(COLUMNS.join(", ")).push(" FROM proxy_calls WHERE node_id = ").push_bind(node.clone());
            query.push(" AND seq > ").push_bind(seen.unwrap_or(0));
            conditions(&mut query, filter);
            query.push(if begins { " ORDER BY seq DESC LIMIT " } else { " ORDER BY seq LIMIT " }).push_bind(limit);
            let mut found: Vec<CallRow> =
                query.build().fetch_all(&self.reader).await?.iter().map(call_row).collect::<Result<_, _>>()?;
            if begins {
                found.reverse();
            }
            rows.extend(found);
            last = node;
        }
        // What is cut off comes with the next page; a first page shows the newest of every node.
        if !after.is_empty() {
            rows.truncate(limit as usize);
        }
        Ok(rows)
    }

    async fn select_calls(&self, filter: &CallFilter, page: &CallPage) -> Result<Vec<CallRow>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT ");
        query.push(COLUMNS.join(", ")).push(" FROM proxy_calls WHERE 1");
        conditions(&mut query, filter);
        if let Some((called_at, id)) = page.after {
            query.push(" AND (called_at, id) < (").push_bind(called_at.to_string());
            query.push(", ").push_bind(id.to_string()).push(")");
        }
        query.push(" ORDER BY called_at DESC, id DESC LIMIT ").push_bind(page.limit.clamp(1, CallPage::LIMIT_MAX));
        query.build().fetch_all(&self.reader).await?.iter().map(call_row).collect()
    }
}

/// There is no index on ids, but a UUIDv7 tells when it was made: the same filter, narrowed to that time.
fn near_id(filter: &CallFilter) -> Option<CallFilter> {
    let (seconds, nanos) = filter.id?.get_timestamp()?.to_unix();
    let made = Timestamp(i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))?);
    let (from, to) = (made.plus_micros(-ID_SLACK_US), made.plus_micros(ID_SLACK_US));
    Some(CallFilter {
        since: Some(filter.since.map_or(from, |since| since.max(from))),
        until: Some(filter.until.map_or(to, |until| until.min(to))),
        ..filter.clone()
    })
}

fn conditions(query: &mut QueryBuilder<Sqlite>, filter: &CallFilter) {
    if let Some(agent) = filter.agent {
        query.push(" AND (target_agent_id = ").push_bind(agent.to_string());
        query.push(" OR caller_agent_id = ").push_bind(agent.to_string()).push(")");
    }
    let ids = [
        (" AND target_agent_id = ", filter.target),
        (" AND caller_agent_id = ", filter.caller),
        (" AND id = ", filter.id),
    ];
    for (sql, id) in ids {
        if let Some(id) = id {
            query.push(sql).push_bind(id.to_string());
        }
    }
    let texts = [
        (" AND trust_level = ", &filter.trust_level),
        (" AND outcome = ", &filter.outcome),
        (" AND decision = ", &filter.decision),
        (" AND operation = ", &filter.operation),
        (" AND reason = ", &filter.reason),
        (" AND task_id = ", &filter.task_id),
        (" AND context_id = ", &filter.context_id),
    ];
    for (sql, text) in texts {
        if let Some(text) = text {
            query.push(sql).push_bind(text.as_str());
        }
    }
    if let Some(status) = filter.status {
        query.push(" AND status_code = ").push_bind(i64::from(status));
    }
    for (sql, time) in [(" AND called_at >= ", filter.since), (" AND called_at < ", filter.until)] {
        if let Some(time) = time {
            query.push(sql).push_bind(time.to_string());
        }
    }
}

/// Reads a row selected with [`COLUMNS`].
pub(super) fn call_row(row: &SqliteRow) -> Result<CallRow, StoreError> {
    let called_at: String = row.try_get("called_at")?;
    Ok(CallRow {
        id: uuid(row, "id")?.ok_or_else(|| StoreError::Corrupt("proxy_calls.id is null".to_owned()))?,
        node_id: uuid(row, "node_id")?.ok_or_else(|| StoreError::Corrupt("proxy_calls.node_id is null".to_owned()))?,
        seq: row.try_get("seq")?,
        target_agent_id: uuid(row, "target_agent_id")?,
        caller_agent_id: uuid(row, "caller_agent_id")?,
        credential_id: uuid(row, "credential_id")?,
        auth_method: row.try_get("auth_method")?,
        client_ip: row.try_get("client_ip")?,
        personal_salt: optional_bytes(row, "personal_salt")?,
        client_ip_commitment: optional_bytes(row, "client_ip_commitment")?,
        trust_level: row.try_get("trust_level")?,
        connection_id: uuid(row, "connection_id")?,
        binding: row.try_get("binding")?,
        protocol_version: row.try_get("protocol_version")?,
        method: row.try_get("method")?,
        operation: row.try_get("operation")?,
        rpc_id: row.try_get("rpc_id")?,
        task_id: row.try_get("task_id")?,
        context_id: row.try_get("context_id")?,
        message_id: row.try_get("message_id")?,
        decision: row.try_get("decision")?,
        reason: row.try_get("reason")?,
        policy_rule: row.try_get("policy_rule")?,
        policy_digest: row.try_get("policy_digest")?,
        units: row.try_get("units")?,
        outcome: row.try_get("outcome")?,
        status_code: row.try_get("status_code")?,
        upstream_status: row.try_get("upstream_status")?,
        rpc_error_code: row.try_get("rpc_error_code")?,
        task_state: row.try_get("task_state")?,
        request_bytes: row.try_get("request_bytes")?,
        response_bytes: row.try_get("response_bytes")?,
        stream_events: row.try_get("stream_events")?,
        ttfb_ms: row.try_get("ttfb_ms")?,
        latency_ms: row.try_get("latency_ms")?,
        calls: row.try_get("calls")?,
        trace_id: row.try_get("trace_id")?,
        limit_name: row.try_get("limit_name")?,
        limit_left: row.try_get("limit_left")?,
        called_at: Timestamp::parse(&called_at)
            .map_err(|_| StoreError::Corrupt(format!("proxy_calls.called_at = {called_at}")))?,
        leaf_hash: bytes(row, "leaf_hash")?,
    })
}

fn uuid(row: &SqliteRow, column: &str) -> Result<Option<Uuid>, StoreError> {
    let text: Option<&str> = row.try_get(column)?;
    let parse = |text: &str| text.parse().map_err(|_| StoreError::Corrupt(format!("proxy_calls.{column} = {text}")));
    text.map(parse).transpose()
}

pub(super) fn bytes<const N: usize, I>(row: &SqliteRow, column: I) -> Result<[u8; N], StoreError>
where
    I: sqlx::ColumnIndex<SqliteRow> + std::fmt::Display + Copy,
{
    optional_bytes(row, column)?.ok_or_else(|| StoreError::Corrupt(format!("column {column} is null")))
}

fn optional_bytes<const N: usize, I>(row: &SqliteRow, column: I) -> Result<Option<[u8; N]>, StoreError>
where
    I: sqlx::ColumnIndex<SqliteRow> + std::fmt::Display + Copy,
{
    let bytes: Option<&[u8]> = row.try_get(column)?;
    let parse =
        |bytes: &[u8]| bytes.try_into().map_err(|_| StoreError::Corrupt(format!("column {column} is not {N} bytes")));
    bytes.map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::journal::entry::Draft;
    use crate::audit::record::Charge;
    use crate::store::calls::{ChargeTaken, DrainBatch, JournalPosition};

    const NODE: Uuid = Uuid::from_u128(5);

    async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open_sqlite(&dir.path().join("t.db")).await.expect("a store");
        (dir, store)
    }

    /// Rows 1 to `n`, two of them in every microsecond, each different from the others in whatever can be filtered.
    fn rows(n: i64) -> Vec<CallRow> {
        let row = |seq: i64| {
            let one_of = |names: [&str; 3]| names[usize::try_from(seq % 3).expect("small")].to_owned();
            CallRow {
                id: Uuid::from_u128(u128::try_from(seq).expect("positive")),
                seq,
                called_at: Timestamp(1_700_000_000_000_000 + seq / 2),
                target_agent_id: Some(Uuid::from_u128(u128::try_from(seq % 3).expect("small"))),
                caller_agent_id: Some(Uuid::from_u128(u128::try_from(seq % 5).expect("small"))),
                trust_level: one_of(["verified", "connected", "unverified"]),
                outcome: one_of(["completed", "refused", "timeout"]),
                decision: one_of(["allowed", "refused", "allowed"]),
                operation: one_of(["GetTask", "SendMessage", "Unknown"]),
                reason: (seq % 3 == 1).then(|| "loop".to_owned()),
                status_code: 200 + seq % 3,
                task_id: Some(format!("task {seq}")),
                context_id: Some(format!("context {}", seq % 3)),
                personal_salt: Some([3; 16]),
                client_ip: Some("192.0.2.0/24".to_owned()),
                upstream_status: Some(502),
                leaf_hash: [8; 32],
                calls: seq,
                ..Draft::new(NODE).row
            }
        };
        (1..=n).map(row).collect()
    }

    async fn filled(n: i64) -> (tempfile::TempDir, Store, Vec<CallRow>) {
        let (dir, store) = store().await;
        let batch = DrainBatch { rows: rows(n), ..DrainBatch::default() };
        store.commit_drained(&batch).await.expect("commit");
        (dir, store, batch.rows)
    }

    #[tokio::test]
    async fn pages_go_through_all_rows_newest_first_without_a_gap() {
        let (_dir, store, rows) = filled(601).await;
        assert_eq!(store.last_seq(NODE).await.expect("seq"), 601);
        let mut page = CallPage { limit: 100, ..CallPage::default() };
        let mut seen = Vec::new();
        while let rows = store.calls(&CallFilter::default(), &page).await.expect("rows")
            && let Some(last) = rows.last()
        {
            page.after = Some((last.called_at, last.id));
            seen.extend(rows);
        }
        seen.reverse();
        assert_eq!(seen, rows);
    }

    #[tokio::test]
    async fn whoever_follows_the_record_sees_every_row_once_in_its_order() {
        let (_dir, store) = store().await;
        let mut all = rows(7);
        for row in &mut all[5..] {
            row.node_id = Uuid::from_u128(9);
        }
        store.commit_drained(&DrainBatch { rows: all.clone(), ..DrainBatch::default() }).await.expect("commit");
        let none = CallFilter::default();
        let first = store.recorded_calls(&none, &[], 2).await.expect("rows");
        assert_eq!(first.iter().map(|row| row.seq).collect::<Vec<_>>(), [4, 5, 6, 7], "the newest of each node");
        let (mut after, mut seen) = (vec![(NODE, 1), (Uuid::from_u128(9), 0)], Vec::new());
        while let rows = store.recorded_calls(&none, &after, 2).await.expect("rows")
            && !rows.is_empty()
        {
            for row in rows {
                after.retain(|(node, _)| *node != row.node_id);
                after.push((row.node_id, row.seq));
                seen.push(row.seq);
            }
        }
        assert_eq!(seen, [2, 3, 4, 5, 6, 7]);
    }

    #[tokio::test]
    async fn every_condition_selects_what_it_names() {
        let (_dir, store, rows) = filled(60).await;
        let text = |text: &str| Some(text.to_owned());
        let one = Uuid::from_u128(1);
        let none = CallFilter::default;
        type Matches = fn(&CallRow) -> bool;
        let cases: [(CallFilter, Matches); 14] = [
            (CallFilter { agent: Some(one), ..none() }, |row| {
                [row.target_agent_id, row.caller_agent_id].contains(&Some(Uuid::from_u128(1)))
            }),
            (CallFilter { target: Some(one), ..none() }, |row| row.target_agent_id == Some(Uuid::from_u128(1))),
            (CallFilter { caller: Some(one), ..none() }, |row| row.caller_agent_id == Some(Uuid::from_u128(1))),
            (CallFilter { id: Some(one), ..none() }, |row| row.id == Uuid::from_u128(1)),
            (CallFilter { trust_level: text("connected"), ..none() }, |row| row.trust_level == "connected"),
            (CallFilter { outcome: text("timeout"), ..none() }, |row| row.outcome == "timeout"),
            (CallFilter { decision: text("allowed"), ..none() }, |row| row.decision == "allowed"),
            (CallFilter { operation: text("Unknown"), ..none() }, |row| row.operation == "Unknown"),
            (CallFilter { reason: text("loop"), ..none() }, |row| row.reason.as_deref() == Some("loop")),
            (CallFilter { status: Some(201), ..none() }, |row| row.status_code == 201),
            (CallFilter { since: Some(rows[20].called_at), ..none() }, |row| row.called_at.0 >= 1_700_000_000_000_010),
            (CallFilter { until: Some(rows[20].called_at), ..none() }, |row| row.called_at.0 < 1_700_000_000_000_010),
            (CallFilter { task_id: text("task 7"), ..none() }, |row| row.seq == 7),
            (CallFilter { context_id: text("context 2"), ..none() }, |row| row.seq % 3 == 2),
        ];
        let page = CallPage { limit: 500, ..CallPage::default() };
        for (filter, matches) in cases {
            let expected: Vec<i64> = rows.iter().filter(|row| matches(row)).map(|row| row.seq).rev().collect();
            let found = store.calls(&filter, &page).await.expect("rows");
            let mut found: Vec<i64> = found.iter().map(|row| row.seq).collect();
            found.sort_unstable_by(|a, b| b.cmp(a));
            assert!(!expected.is_empty() && expected.len() < 60, "{filter:?}");
            assert_eq!(found, expected, "{filter:?}");
            let sum = store.calls_sum(&filter).await.expect("sum");
            assert_eq!(i64::try_from(sum), Ok(expected.iter().sum()), "{filter:?}");
        }
    }

    #[tokio::test]
    async fn a_request_id_is_found_whatever_the_time_in_it() {
        let (_dir, store) = store().await;
        let mut rows = rows(2);
        rows[0].id = Uuid::now_v7();
        rows[1].id = Uuid::now_v7();
        let now = jiff::Timestamp::now().as_microsecond();
        rows[1].called_at = Timestamp(now);
        store.commit_drained(&DrainBatch { rows: rows.clone(), ..DrainBatch::default() }).await.expect("commit");
        for row in rows {
            let filter = CallFilter { id: Some(row.id), ..CallFilter::default() };
            assert_eq!(store.calls(&filter, &CallPage::default()).await.expect("rows"), [row]);
        }
    }

    #[tokio::test]
    async fn a_batch_is_committed_altogether_or_not_at_all() {
        let (_dir, store, rows) = filled(3).await;
        let position = JournalPosition { instance: NODE, worker: 1, segment: 2, offset: 3 };
        let again = DrainBatch { rows, positions: vec![position], ..DrainBatch::default() };
        assert!(store.commit_drained(&again).await.is_err(), "a seq is taken once");
        assert_eq!(store.journal_positions().await.expect("positions"), []);
        let fresh = DrainBatch { rows: Vec::new(), finished: Some(NODE), synced: true, ..again };
        store.commit_drained(&fresh).await.expect("commit");
        assert_eq!(store.journal_positions().await.expect("positions"), [position]);
        assert_eq!(store.finished_journals().await.expect("finished"), [NODE]);
        store.forget_journal(NODE).await.expect("forget");
        assert_eq!(store.journal_positions().await.expect("positions"), []);
        assert!(store.finished_journals().await.expect("finished").is_empty());
    }

    #[tokio::test]
    async fn limits_add_up_over_batches_and_old_ones_go() {
        let (_dir, store) = store().await;
        let at = |seconds: i64| Timestamp(1_700_000_000_000_000 + seconds * 1_000_000);
        let taken = |key: u8, seconds: i64, units: u32| ChargeTaken {
            charge: Charge { key: [key; 16], refill_us: 60_000_000, units },
            called_at: at(seconds),
        };
        // 1 700 000 000 is 22:13:20 UTC: a day ends 6 400 s later.
        for charges in [
            vec![taken(1, 0, 1), taken(1, 1, 2), taken(2, 0, 1)],
            vec![taken(1, 2, 1)],
            vec![taken(1, 6_400, 5), taken(1, 6_399, 1)],
        ] {
            store.commit_drained(&DrainBatch { charges, ..DrainBatch::default() }).await.expect("commit");
        }
        let find =
            |rows: Vec<crate::store::calls::LimitStateRow>, key: u8| rows.into_iter().find(|r| r.key == [key; 16]);
        let rows = store.limit_state(at(6_400)).await.expect("limits");
        let one = find(rows.clone(), 1).expect("the first limit");
        assert_eq!((one.used, one.tat_us), (5, at(6_400 + 360).0));
        assert_eq!(find(rows, 2), None, "yesterday's, and its bucket is full again");
        assert_eq!(store.forget_limit_state(at(6_400)).await.expect("forget"), 1);
        assert!(find(store.limit_state(at(0)).await.expect("limits"), 1).is_some());
    }

    #[tokio::test]
    async fn a_node_keeps_its_id_over_restarts() {
        let (dir, store) = store().await;
        let id = store.node_id().await.expect("an id");
        store.close().await;
        let again = Store::open_sqlite(&dir.path().join("t.db")).await.expect("a store");
        assert_eq!(again.node_id().await.expect("an id"), id);
    }
}
