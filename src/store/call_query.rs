//! The call log's reading side: filters, pages, sums.

use std::sync::LazyLock;

use uuid::Uuid;

use super::calls::COLUMNS;
use super::rows::CallRow;
use super::sql::{Built, Row, query};
use super::{Store, StoreError, columns};
use crate::clock::Timestamp;

pub(super) static SELECT: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {}, erased_at FROM proxy_calls WHERE true", COLUMNS.join(", ")));

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
        let mut query = self.select("SELECT CAST(coalesce(sum(calls), 0) AS bigint) FROM proxy_calls WHERE true");
        conditions(&mut query, filter);
        let sum = query.build().number(&self.reader).await?;
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
        let mut last = None;
        while let Some(node) = self.next_node(last).await? {
            let seen = after.iter().find(|(id, _)| *id == node).map(|(_, seq)| *seq);
            // Whoever has read before misses nothing, whoever begins wants what is new.
            let begins = after.is_empty();
            let mut query = self.select(&SELECT);
            query.push(" AND node_id = ").push_bind(node).push(" AND seq > ").push_bind(seen.unwrap_or(0));
            conditions(&mut query, filter);
            query.push(if begins { " ORDER BY seq DESC LIMIT " } else { " ORDER BY seq LIMIT " }).push_bind(limit);
            let mut found: Vec<CallRow> =
                query.build().fetch_all(&self.reader).await?.iter().map(call_row).collect::<Result<_, _>>()?;
            if begins {
                found.reverse();
            }
            rows.extend(found);
            last = Some(node);
        }
        // What is cut off comes with the next page; a first page shows the newest of every node.
        if !after.is_empty() {
            rows.truncate(limit as usize);
        }
        Ok(rows)
    }

    /// The first node that has rows, or the one after `last`: one step in the index, where reading them all with DISTINCT would
    /// look at every row.
    async fn next_node(&self, last: Option<Uuid>) -> Result<Option<Uuid>, StoreError> {
        let next = match last {
            None => query("SELECT node_id FROM proxy_calls ORDER BY node_id LIMIT 1"),
            Some(last) => {
                query("SELECT node_id FROM proxy_calls WHERE node_id > $1 ORDER BY node_id LIMIT 1").bind(last)
            }
        };
        next.fetch_optional(&self.reader).await?.map(|row| columns::id(&row, "node_id")).transpose()
    }

    fn select(&self, sql: &str) -> Built {
        Built::new(self.reader.dialect(), sql)
    }

    async fn select_calls(&self, filter: &CallFilter, page: &CallPage) -> Result<Vec<CallRow>, StoreError> {
        let mut query = self.select(&SELECT);
        conditions(&mut query, filter);
        if let Some((called_at, id)) = page.after {
            query.push(" AND (called_at, id) < (").push_bind(called_at);
            query.push(", ").push_bind(id).push(")");
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

fn conditions(query: &mut Built, filter: &CallFilter) {
    if let Some(agent) = filter.agent {
        query.push(" AND (target_agent_id = ").push_bind(agent);
        query.push(" OR caller_agent_id = ").push_bind(agent).push(")");
    }
    let ids = [
        (" AND target_agent_id = ", filter.target),
        (" AND caller_agent_id = ", filter.caller),
        (" AND id = ", filter.id),
    ];
    for (sql, id) in ids {
        if let Some(id) = id {
            query.push(sql).push_bind(id);
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
            query.push(sql).push_bind(time);
        }
    }
}

/// Reads a row selected with [`SELECT`].
pub(super) fn call_row(row: &Row) -> Result<CallRow, StoreError> {
    Ok(CallRow {
        id: columns::id(row, "id")?,
        node_id: columns::id(row, "node_id")?,
        seq: columns::number(row, "seq")?,
        target_agent_id: row.get_id("target_agent_id")?,
        caller_agent_id: row.get_id("caller_agent_id")?,
        credential_id: row.get_id("credential_id")?,
        auth_method: columns::text(row, "auth_method")?,
        client_ip: columns::optional_text(row, "client_ip")?,
        personal_salt: columns::optional_array(row, "personal_salt")?,
        client_ip_commitment: columns::optional_array(row, "client_ip_commitment")?,
        trust_level: columns::text(row, "trust_level")?,
        connection_id: row.get_id("connection_id")?,
        binding: columns::text(row, "binding")?,
        protocol_version: columns::optional_text(row, "protocol_version")?,
        method: columns::optional_text(row, "method")?,
        operation: columns::text(row, "operation")?,
        rpc_id: columns::optional_text(row, "rpc_id")?,
        task_id: columns::optional_text(row, "task_id")?,
        context_id: columns::optional_text(row, "context_id")?,
        message_id: columns::optional_text(row, "message_id")?,
        decision: columns::text(row, "decision")?,
        reason: columns::optional_text(row, "reason")?,
        policy_rule: columns::optional_text(row, "policy_rule")?,
        policy_digest: columns::optional_text(row, "policy_digest")?,
        units: columns::number(row, "units")?,
        outcome: columns::text(row, "outcome")?,
        status_code: columns::number(row, "status_code")?,
        upstream_status: row.get_number("upstream_status")?,
        rpc_error_code: row.get_number("rpc_error_code")?,
        task_state: columns::optional_text(row, "task_state")?,
        request_bytes: columns::number(row, "request_bytes")?,
        response_bytes: columns::number(row, "response_bytes")?,
        stream_events: row.get_number("stream_events")?,
        ttfb_ms: row.get_number("ttfb_ms")?,
        latency_ms: columns::number(row, "latency_ms")?,
        calls: columns::number(row, "calls")?,
        trace_id: columns::optional_text(row, "trace_id")?,
        limit_name: columns::optional_text(row, "limit_name")?,
        limit_left: row.get_number("limit_left")?,
        called_at: columns::time(row, "called_at")?,
        leaf_hash: columns::array(row, "leaf_hash")?,
        erased_at: columns::optional_time(row, "erased_at")?,
    })
}

#[cfg(test)]
#[path = "call_query_tests.rs"]
mod tests;
