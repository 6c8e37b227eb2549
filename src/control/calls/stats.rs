//! `/api/calls/stats`: the log in numbers, from the sums that are kept beside it.
//!
//! Promises: the numbers are those of the rows, to the minute; an agent is told no more in sums than call by call.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::filter;
use crate::audit::record::Decision;
use crate::clock::Timestamp;
use crate::control::problem::Problem;
use crate::control::readings;
use crate::control::view;
use crate::control::who::Asked;
use crate::registry::Actor;
use crate::store::calls::histogram::Histogram;
use crate::store::calls::rollups::MINUTES_DAYS;
use crate::store::calls::stats::{Bucket, CallSums, Dimension, StatsQuery, has_minutes, whole_spans};

/// The most sums that are read for one answer.
const SUMS_MAX: usize = if cfg!(test) { 300 } else { 50_000 };
/// The most groups of an answer.
const GROUPS_MAX: usize = if cfg!(test) { 100 } else { 5_000 };
const DAY_US: i64 = 86_400_000_000;

/// What the sums do not know of a call.
const UNKNOWN_TO_SUMS: [&str; 7] = ["operation", "status", "task_id", "context_id", "trace_id", "request_id", "id"];

/// Calls in numbers.
#[derive(Serialize, ToSchema)]
struct CallStats {
    /// From when on: a whole minute.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Until when: a whole minute.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
    /// By time, then the most calls first.
    groups: Vec<CallGroup>,
    /// Whether groups with fewer calls were left out.
    truncated: bool,
}

/// The calls that have all of this in common. What is not told apart by `by` is null.
#[derive(Serialize, ToSchema)]
struct CallGroup {
    /// Where the time bucket begins; that is `since` where time is not cut up.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    /// Who called; null also: nobody known.
    caller_agent_id: Option<Uuid>,
    /// Who was called; null also: nobody known.
    target_agent_id: Option<Uuid>,
    /// Who called, by its names.
    caller: Option<view::NamedAgent>,
    /// Who was called, by its names.
    target: Option<view::NamedAgent>,
    /// What the caller was to the target.
    trust_level: Option<String>,
    #[serde(flatten)]
    numbers: Numbers,
    /// How long calls that were let through took.
    latency_ms: Percentiles,
}

/// What is counted.
#[derive(Default, Serialize, ToSchema)]
struct Numbers {
    /// Calls, refused ones included.
    calls: i64,
    /// Those that were refused.
    refused: i64,
    /// The same by reason.
    refusals: BTreeMap<String, i64>,
    /// Calls that were let through, by how they ended.
    outcomes: BTreeMap<String, i64>,
    /// Bytes of the requests' bodies.
    request_bytes: i64,
    /// Bytes of the answers' bodies.
    response_bytes: i64,
}

/// Each is the upper bound of the bucket (1, 2, 5, 10, 20, 50, 100, 200, 500 ms, 1, 2, 5, 10, 20 s, 1, 2, 5, 10 min) in which the
/// call lies that so many percent took no longer than. Null: no call, or more than 10 minutes.
#[derive(Serialize, ToSchema)]
struct Percentiles {
    /// The median.
    p50: Option<i64>,
    /// Nine of ten.
    p90: Option<i64>,
    /// All but one of a hundred.
    p99: Option<i64>,
}

impl Percentiles {
    fn of(latency: &Histogram) -> Self {
        let [p50, p90, p99] = [50, 90, 99].map(|percent| latency.percentile(percent));
        Self { p50, p90, p99 }
    }
}

/// The call log in numbers: calls, refusals, outcomes, bytes and latency, of all of it for operators, of its own calls for an agent.
/// Times are rounded outwards to whole minutes, those of more than 35 days ago to whole hours.
#[utoipa::path(get, path = "/api/calls/stats", operation_id = "call_stats", tag = "calls",
    params(("since" = Option<String>, Query, description = "A time; a day before `until` unless said", format = DateTime),
        ("until" = Option<String>, Query, description = "A time; now unless said", format = DateTime),
        ("by" = Option<String>, Query, description = "What is told apart: any of `caller`, `agent` (the one called) and `level`, with commas"),
        ("bucket" = Option<String>, Query, description = "How time is cut up: `none`, `minute` (at most a day of them), `hour` (at most 31 days) or `day` (at most 366, of an agent 31)"),
        ("agent" = Option<String>, Query, description = "Id or slug of caller or target"),
        ("target" = Option<String>, Query, description = "Id or slug"),
        ("caller" = Option<String>, Query, description = "Id or slug"),
        ("pair" = Option<String>, Query, description = "Two agents by id or slug, as in `planner:weather`: calls either way round"),
        ("trust_level" = Option<String>, Query, description = "`blocked`, `unverified`, `verified` or `connected`"),
        ("outcome" = Option<String>, Query, description = "How they ended"),
        ("decision" = Option<String>, Query, description = "Whether they were let through"),
        ("reason" = Option<String>, Query, description = "Why they were refused, or ended as they did")),
    responses((status = 200, description = "The numbers", body = CallStats)))]
pub(in crate::control) async fn show(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    if let Some(name) = UNKNOWN_TO_SUMS.into_iter().find(|name| asked.parameters.text(&[name]).is_some()) {
        return Err(Problem::invalid(name, "the sums of calls do not know it: leave it out, or ask /api/calls"));
    }
    let parameters = &asked.parameters;
    let by = parameters.word("by", "any of caller, agent and level, with commas between them", dimensions)?;
    let bucket = parameters.word("bucket", "none, minute, hour or day", bucket)?.unwrap_or(Bucket::Whole);
    let filter = filter::read(&asked).await?;
    let now = asked.control.registry.clock().wall();
    let until = parameters.time("until")?.unwrap_or(now);
    let since = parameters.time("since")?.unwrap_or_else(|| until.plus_micros(-DAY_US));
    if since > until {
        return Err(Problem::invalid("since", "lies after until"));
    }
    let (most, finer) = days(bucket, &asked.who);
    if until.0.saturating_sub(since.0) > most * DAY_US {
        return Err(Problem::invalid("since", format!("lies more than {most} days before until: {finer}")));
    }
    if bucket == Bucket::Minute && !has_minutes(since, now) {
        let text = format!("lies more than {MINUTES_DAYS} days back, where only hours are kept: ask by the hour");
        return Err(Problem::invalid("since", text));
    }
    let range = whole_spans(since..until, now);
    let (since, until) = (range.start, range.end);
    if let Some(flush) = &asked.control.drain_flush {
        flush().await;
    }
    let (groups, truncated) = groups(&asked, StatsQuery { filter, range, by: by.unwrap_or_default(), bucket }).await?;
    readings::record(&asked, groups.len()).await?;
    Ok(Json(CallStats { since, until, groups, truncated }).into_response())
}

fn dimensions(text: &str) -> Option<Vec<Dimension>> {
    let mut all = Vec::new();
    for word in text.split(',').map(str::trim) {
        let dimension = match word {
            "caller" => Dimension::Caller,
            "agent" | "target" => Dimension::Target,
            "level" => Dimension::Level,
            _ => return None,
        };
        if !all.contains(&dimension) {
            all.push(dimension);
        }
    }
    Some(all)
}

fn bucket(text: &str) -> Option<Bucket> {
    match text {
        "none" => Some(Bucket::Whole),
        "minute" => Some(Bucket::Minute),
        "hour" => Some(Bucket::Hour),
        "day" => Some(Bucket::Day),
        _ => None,
    }
}

/// The longest range, and what to do about a longer one. Agents are many, and their sums are found among all.
fn days(bucket: Bucket, who: &Actor) -> (i64, &'static str) {
    match (bucket, who) {
        (Bucket::Minute, _) => (1, "ask by the hour, or for less"),
        (Bucket::Hour, Actor::Operator { .. }) => (31, "ask by the day, or for less"),
        (_, Actor::Operator { .. }) => (366, "ask for less"),
        (_, Actor::Agent(_) | Actor::Anonymous) => (31, "ask for less"),
    }
}

/// What a group has in common.
type Key = (Timestamp, Option<Uuid>, Option<Uuid>, Option<String>);

async fn groups(asked: &Asked, query: StatsQuery) -> Result<(Vec<CallGroup>, bool), Problem> {
    let sums = asked.control.store.call_stats(&query, SUMS_MAX as u32).await?;
    if sums.len() > SUMS_MAX {
        return Err(Problem::invalid(
            "by",
            format!(
                "there are more than {SUMS_MAX} groups: name a caller or agent, tell less apart, or ask for a shorter time"
            ),
        ));
    }
    let mut groups: BTreeMap<Key, (Numbers, Histogram)> = BTreeMap::new();
    for sum in sums {
        let target = sum.target.filter(|target| view::knows_target(&asked.who, *target, sum.reason.as_deref()));
        let key = (sum.starts_at, sum.caller, target, sum.trust_level.clone());
        let (numbers, latency) = match groups.entry(key) {
            Entry::Occupied(group) => group.into_mut(),
            Entry::Vacant(group) => group.insert(Default::default()),
        };
        add(numbers, latency, sum);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (numbers, _))| std::cmp::Reverse(numbers.calls));
    let truncated = groups.len() > GROUPS_MAX;
    groups.truncate(GROUPS_MAX);
    // Stable: of one time the most calls stay first.
    groups.sort_by_key(|((starts_at, ..), _)| *starts_at);
    let sides = groups.iter().flat_map(|((_, caller, target, _), _)| [*caller, *target]);
    let names = super::names(asked, sides).await?;
    let named = |agent: Option<Uuid>| agent.and_then(|agent| names.get(&agent)).cloned();
    let shown = groups.into_iter().map(|((starts_at, caller, target, trust_level), (numbers, latency))| CallGroup {
        starts_at,
        caller_agent_id: caller,
        target_agent_id: target,
        caller: named(caller),
        target: named(target),
        trust_level,
        numbers,
        latency_ms: Percentiles::of(&latency),
    });
    Ok((shown.collect(), truncated))
}

fn add(numbers: &mut Numbers, latency: &mut Histogram, sum: CallSums) {
    numbers.calls += sum.calls;
    numbers.request_bytes += sum.request_bytes;
    numbers.response_bytes += sum.response_bytes;
    if sum.decision == Decision::Refused.as_str() {
        numbers.refused += sum.calls;
        *numbers.refusals.entry(sum.reason.unwrap_or_default()).or_default() += sum.calls;
    } else {
        *numbers.outcomes.entry(sum.outcome).or_default() += sum.calls;
        latency.add(&sum.latency);
    }
}
