//! The call log's reading side: filters, pages, sums.

use std::ops::Range;
use std::sync::LazyLock;

use uuid::Uuid;

use super::calls::{COLUMNS, last_seq_in};
use super::rows::CallRow;
use super::sql::{Built, Row, query};
use super::{Store, StoreError, columns};
use crate::clock::Timestamp;

pub(super) static SELECT: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {}, erased_at FROM proxy_calls WHERE true", COLUMNS.join(", ")));

/// How far the time in a request id and the arrival of its call may lie apart before a lookup by id reads the whole table.
const ID_SLACK_US: i64 = 60_000_000;

/// How many rows of each node one look at the record goes over: whoever follows the log for something rare does not have all of
/// it read at once.
const LOOKED_AT: i64 = 100_000;

/// Part of the record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// Those rows that were asked for.
    pub rows: Vec<CallRow>,
    /// How far each node was looked through.
    pub reached: Vec<(Uuid, i64)>,
    /// Whether some have more behind that.
    pub more: bool,
}

/// Which calls: those that meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Made or received by this agent.
    pub agent: Option<Uuid>,
    /// Made by one of these two and received by the other.
    pub pair: Option<[Uuid; 2]>,
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
    /// The W3C trace.
    pub trace_id: Option<String>,
    /// Does not find out more than this agent may know: whom it called without being allowed to know of it.
    pub known_to: Option<Uuid>,
}

impl CallFilter {
    /// Filters of one caller or one target each that together select what this one does.
    fn sides(&self) -> Vec<Self> {
        let pairs = match self.pair {
            Some([one, other]) => vec![(Some(one), Some(other)), (Some(other), Some(one))],
            None => vec![(None, None)],
        };
        let agents = match self.agent {
            Some(agent) => vec![(Some(agent), None), (None, Some(agent))],
            None => vec![(None, None)],
        };
        let whole = Self { pair: None, agent: None, ..self.clone() };
        let of_pair = pairs.into_iter().filter_map(|(caller, target)| whole.narrowed(caller, target));
        let mut sides: Vec<Self> = of_pair
            .flat_map(|side| agents.iter().filter_map(move |(caller, target)| side.narrowed(*caller, *target)))
            .collect();
        sides.dedup();
        sides
    }

    /// The same of this caller and this target only; `None`: it is of others.
    fn narrowed(&self, caller: Option<Uuid>, target: Option<Uuid>) -> Option<Self> {
        let fits = |own: Option<Uuid>, other: Option<Uuid>| own.is_none() || other.is_none() || own == other;
        (fits(self.caller, caller) && fits(self.target, target)).then(|| Self {
            caller: self.caller.or(caller),
            target: self.target.or(target),
            ..self.clone()
        })
    }

    /// When the call with the id that is asked for was made, if that tells.
    #[must_use]
    pub fn made_at(&self) -> Option<Timestamp> {
        let id = self.id.filter(|id| id.get_version_num() == 7)?;
        let (seconds, nanos) = id.get_timestamp()?.to_unix();
        Some(Timestamp(i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))?))
    }

    /// Whether it selects `row`: the same as the database would find.
    #[must_use]
    pub fn selects(&self, row: &CallRow) -> bool {
        let same = |wanted: &Option<String>, there: Option<&str>| wanted.is_none() || wanted.as_deref() == there;
        let (caller, target) = (row.caller_agent_id, row.target_agent_id);
        let is = |wanted: Option<Uuid>, there: Option<Uuid>| wanted.is_none() || wanted == there;
        self.agent.is_none_or(|agent| [caller, target].contains(&Some(agent)))
            && self.pair.is_none_or(|[one, other]| {
                [(Some(one), Some(other)), (Some(other), Some(one))].contains(&(caller, target))
            })
            && is(self.target, target)
            && is(self.caller, caller)
            && is(self.id, Some(row.id))
            && same(&self.trust_level, Some(&row.trust_level))
            && same(&self.outcome, Some(&row.outcome))
            && same(&self.decision, Some(&row.decision))
            && same(&self.operation, Some(&row.operation))
            && same(&self.reason, row.reason.as_deref())
            && self.status.is_none_or(|status| i64::from(status) == row.status_code)
            && self.since.is_none_or(|since| row.called_at >= since)
            && self.until.is_none_or(|until| row.called_at < until)
            && same(&self.task_id, row.task_id.as_deref())
            && same(&self.context_id, row.context_id.as_deref())
            && same(&self.trace_id, row.trace_id.as_deref())
            && self
                .known_to
                .is_none_or(|agent| target == Some(agent) || row.reason.as_deref() != Some("agent_not_found"))
    }
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

    fn limit(&self) -> u32 {
        self.limit.clamp(1, Self::LIMIT_MAX)
    }
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
        let rows = self.along_indexes(near.as_ref().unwrap_or(filter), page).await?;
        // The two clocks may have been set apart: then the id's time says nothing, and it is looked for in the time that was asked.
        if rows.is_empty() && near.is_some() && filter.since.is_some() {
            return self.along_indexes(filter, page).await;
        }
        Ok(rows)
    }

    /// As [`Store::calls`]: "either side" is two questions, each of which one index answers from its end.
    async fn along_indexes(&self, filter: &CallFilter, page: &CallPage) -> Result<Vec<CallRow>, StoreError> {
        let mut rows = Vec::new();
        for filter in filter.sides() {
            rows.extend(self.select_calls(&filter, page).await?);
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.called_at, row.id, row.node_id, row.seq)));
        // An agent that called itself is on both sides.
        rows.dedup_by_key(|row| (row.node_id, row.seq));
        rows.truncate(page.limit() as usize);
        Ok(rows)
    }

    /// How many calls the filter's rows stand for.
    #[cfg(test)]
    pub(crate) async fn calls_sum(&self, filter: &CallFilter) -> Result<u64, StoreError> {
        let mut query = self.select("SELECT CAST(coalesce(sum(calls), 0) AS bigint) FROM proxy_calls WHERE true");
        conditions(&mut query, filter);
        let sum = query.build().number(&self.reader).await?;
        u64::try_from(sum).map_err(|_| StoreError::Corrupt(format!("proxy_calls.calls sums to {sum}")))
    }

    /// The rows recorded after `after`, in the order they were recorded in: ascending by (`node_id`, `seq`). Without `after`, the
    /// newest `limit` of each node. Only so many rows of each node are looked at (`LOOKED_AT`).
    ///
    /// # Errors
    /// When the database cannot be read, or holds what this version cannot read.
    pub async fn recorded_calls(
        &self,
        filter: &CallFilter,
        after: &[(Uuid, i64)],
        limit: u32,
    ) -> Result<Record, StoreError> {
        let limit = limit.clamp(1, CallPage::LIMIT_MAX) as usize;
        // Whoever has read before misses nothing, whoever begins wants what is new.
        let begins = after.is_empty();
        let mut record = Record::default();
        for (node, newest) in self.record_ends().await? {
            let (from, to) = match after.iter().find(|(id, _)| *id == node) {
                _ if begins => (newest.saturating_sub(LOOKED_AT), newest),
                seen => {
                    let from = seen.map_or(0, |(_, seq)| *seq);
                    (from, newest.min(from.saturating_add(LOOKED_AT)))
                }
            };
            let room = if begins { limit } else { limit - record.rows.len() };
            let found = match room {
                0 => Vec::new(),
                _ => self.recorded_by(node, from..to, filter, begins, room).await?,
            };
            let reached = match found.last() {
                Some(last) if !begins && found.len() == room => last.seq,
                _ if room == 0 => from,
                _ => to,
            };
            record.more |= reached < newest;
            record.reached.push((node, reached));
            record.rows.extend(found);
        }
        Ok(record)
    }

    /// Of one node those after the beginning of `seqs` up to its end: the first, or the last.
    async fn recorded_by(
        &self,
        node: Uuid,
        seqs: Range<i64>,
        filter: &CallFilter,
        last: bool,
        limit: usize,
    ) -> Result<Vec<CallRow>, StoreError> {
        let mut query = self.select(&SELECT);
        query.push(" AND node_id = ").push_bind(node);
        query.push(" AND seq > ").push_bind(seqs.start).push(" AND seq <= ").push_bind(seqs.end);
        conditions(&mut query, filter);
        query.push(if last { " ORDER BY seq DESC LIMIT " } else { " ORDER BY seq LIMIT " });
        query.push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = query.build().fetch_all(&self.reader).await?;
        let mut rows: Vec<CallRow> = rows.iter().map(call_row).collect::<Result<_, _>>()?;
        if last {
            rows.reverse();
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

    /// How far each node's record goes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn record_ends(&self) -> Result<Vec<(Uuid, i64)>, StoreError> {
        let (mut ends, mut last) = (Vec::new(), None);
        while let Some(node) = self.next_node(last).await? {
            ends.push((node, last_seq_in(&self.reader, node).await?));
            last = Some(node);
        }
        Ok(ends)
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
        query.push(" ORDER BY called_at DESC, id DESC LIMIT ").push_bind(page.limit());
        query.build().fetch_all(&self.reader).await?.iter().map(call_row).collect()
    }
}

/// There is no index on ids, but a UUIDv7 tells when it was made: the same filter, narrowed to that time.
fn near_id(filter: &CallFilter) -> Option<CallFilter> {
    let made = filter.made_at()?;
    let (from, to) = (made.plus_micros(-ID_SLACK_US), made.plus_micros(ID_SLACK_US));
    Some(CallFilter {
        since: Some(filter.since.map_or(from, |since| since.max(from))),
        until: Some(filter.until.map_or(to, |until| until.min(to))),
        ..filter.clone()
    })
}

fn conditions(query: &mut Built, filter: &CallFilter) {
    on_sums(query, filter);
    if let Some(id) = filter.id {
        query.push(" AND id = ").push_bind(id);
    }
    let texts = [
        (" AND operation = ", &filter.operation),
        (" AND task_id = ", &filter.task_id),
        (" AND context_id = ", &filter.context_id),
        (" AND trace_id = ", &filter.trace_id),
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

/// The conditions that the sums of calls can be held to as well.
pub(super) fn on_sums(query: &mut Built, filter: &CallFilter) {
    if let Some(agent) = filter.agent {
        query.push(" AND (target_agent_id = ").push_bind(agent);
        query.push(" OR caller_agent_id = ").push_bind(agent).push(")");
    }
    if let Some([one, other]) = filter.pair {
        query.push(" AND ((caller_agent_id = ").push_bind(one).push(" AND target_agent_id = ").push_bind(other);
        query.push(") OR (caller_agent_id = ").push_bind(other).push(" AND target_agent_id = ").push_bind(one);
        query.push("))");
    }
    for (sql, id) in [(" AND target_agent_id = ", filter.target), (" AND caller_agent_id = ", filter.caller)] {
        if let Some(id) = id {
            query.push(sql).push_bind(id);
        }
    }
    let texts = [
        (" AND trust_level = ", &filter.trust_level),
        (" AND outcome = ", &filter.outcome),
        (" AND decision = ", &filter.decision),
        (" AND reason = ", &filter.reason),
    ];
    for (sql, text) in texts {
        if let Some(text) = text {
            query.push(sql).push_bind(text.as_str());
        }
    }
    if let Some(agent) = filter.known_to {
        query.push(" AND (target_agent_id = ").push_bind(agent);
        query.push(" OR coalesce(reason, '') <> 'agent_not_found')");
    }
}

/// Reads a row selected with [`COLUMNS`].
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
