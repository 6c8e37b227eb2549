//! `GET /api/calls/{id}`: one call, and in plain words which rule decided it and what was left of which limit.
//!
//! Promises: shows a call to those only who find it in the list; names no agent that the list would not let the asker know.
//! Decides nothing anew: everything is in the record of the call.

use axum::Json;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

use super::calls;
use super::problem::Problem;
use super::readings;
use super::view;
use super::who::Asked;
use crate::audit::gap;
use crate::audit::record::{Decision, Intent};
use crate::registry::Actor;
use crate::store::call_query::{CallFilter, CallPage};
use crate::store::rows::CallRow;

/// One call and its story.
#[derive(Serialize, ToSchema)]
struct Story {
    /// As the list shows it; of an open call `outcome` is null.
    #[schema(value_type = Object)]
    call: Value,
    /// Which rule decided it, and what was left of which limit.
    explanation: Explanation,
}

/// Why a call went as it did.
#[derive(Serialize, ToSchema)]
struct Explanation {
    /// Whether it was let through.
    decision: String,
    /// The rule that decided.
    rule: Option<String>,
    /// Why it was refused, or ended as it did.
    reason: Option<String>,
    /// All of it in plain words.
    text: String,
    /// The limit that decided, or was nearest.
    limit: Option<Limit>,
    /// Who called.
    caller: Option<view::NamedAgent>,
    /// Who was called.
    target: Option<view::NamedAgent>,
    /// The connection between the two then.
    connection: Option<Tie>,
}

/// A limit and what was left of it after the call.
#[derive(Serialize, ToSchema)]
#[schema(as = LimitLeft)]
struct Limit {
    /// Its rule.
    name: String,
    /// Units, calls or streams.
    left: i64,
}

/// A connection as it is now.
#[derive(Serialize, ToSchema)]
#[schema(as = NamedConnection)]
struct Tie {
    /// Names it.
    id: Uuid,
    /// Null: it is gone.
    status: Option<&'static str>,
}

/// What an explanation is made of, of a call that is over and of one that is not.
struct Facts<'a> {
    decision: &'a str,
    outcome: Option<&'a str>,
    rule: Option<&'a str>,
    reason: Option<&'a str>,
    limit: Option<(&'a str, i64)>,
    level: &'a str,
    caller: Option<Uuid>,
    target: Option<Uuid>,
    connection: Option<Uuid>,
    calls: i64,
}

impl<'a> Facts<'a> {
    fn of_row(row: &'a CallRow) -> Self {
        Self {
            decision: &row.decision,
            outcome: Some(&row.outcome),
            rule: row.policy_rule.as_deref(),
            reason: row.reason.as_deref(),
            limit: row.limit_name.as_deref().zip(row.limit_left),
            level: &row.trust_level,
            caller: row.caller_agent_id,
            target: row.target_agent_id,
            connection: row.connection_id,
            calls: row.calls,
        }
    }

    fn of_open(call: &'a Intent) -> Self {
        Self {
            decision: call.decision.as_str(),
            outcome: None,
            rule: call.policy_rule.as_deref(),
            reason: call.reason,
            limit: call.limit.map(|limit| (limit.name, i64::from(limit.left))),
            level: call.trust_level.as_str(),
            caller: call.caller_agent_id,
            target: call.target_agent_id,
            connection: call.connection_id,
            calls: 1,
        }
    }

    async fn names(&self, asked: &Asked) -> Result<view::Names, Problem> {
        calls::names(asked, [self.caller, self.target].into_iter()).await
    }

    /// One or two sentences for people.
    fn text(&self) -> String {
        if self.decision == gap::WORD {
            let known = match self.calls {
                0 => "How many calls are missing is not known, or none is.".to_owned(),
                1 => "One call is missing.".to_owned(),
                calls => format!("{calls} calls are missing."),
            };
            return format!(
                "No call, but a gap in the log: {}. {known}",
                what_it_means(self.reason.unwrap_or("unknown"))
            );
        }
        let mut text = if self.decision == Decision::Refused.as_str() {
            let reason = self.reason.unwrap_or("unknown");
            let by = self.rule.map(|rule| format!(" by the rule {rule}")).unwrap_or_default();
            format!("Refused{by}: {}.", what_it_means(reason))
        } else {
            let how = match self.outcome {
                None => "it is still open".to_owned(),
                Some("completed") => "its answer was handed on whole".to_owned(),
                Some(outcome) => {
                    let why = self.reason.map(|reason| format!(": {}", what_it_means(reason))).unwrap_or_default();
                    format!("it ended as {outcome}{why}")
                }
            };
            format!("Let through as a call of a caller that is {} to this agent; {how}.", self.level)
        };
        if let Some((name, left)) = self.limit {
            text.push_str(&format!(" The limit {name} had {left} left after it."));
        }
        if self.calls > 1 {
            text.push_str(&format!(" This record stands for {} refusals of one kind within a second.", self.calls));
        }
        text
    }
}

/// What a reason means, and what helps.
#[rustfmt::skip] // a table
fn what_it_means(reason: &str) -> &'static str {
    match reason {
        "credential_missing"     => "the agent takes no anonymous calls; the caller needs an API key",
        "credential_invalid"     => "the credential is unknown, expired or malformed; give the caller a valid API key",
        "credential_ambiguous"   => "more than one credential was sent; the caller must send one",
        "blocked"                => "one side has blocked the other; whoever set the block can take it back",
        "agent_not_found"        => "there is no such agent, or none that this caller may know of; check the name, or connect the two",
        "base_url_without_slash" => "the path names no agent; the client's base URL needs a slash at its end",
        "path_not_found"         => "this path of the agent is not public; list it in the registration if it should be",
        "rate_limited"           => "the rate was used up; the caller must wait, or needs a connection with a higher rate",
        "quota_exhausted"        => "the quota of the UTC day was used up; wait for the next day, or raise the daily limit",
        "too_many_streams"       => "the caller held as many streams open as it may; it must close one, or needs more slots",
        "too_many_calls"         => "the caller had as many calls in flight as it may; it must wait for one to end",
        "agent_busy"             => "the agent had as many calls in flight as it takes; raise its max_in_flight if it can do more",
        "too_much_in_hand"       => "the caller's calls under way held as many bytes as they may; raise server.body_memory_per_caller if it may send more at once",
        "gateway_busy"           => "the gateway had as many calls or bytes in hand as it may; raise server.max_in_flight or server.body_memory if it can do more",
        "agent_disabled"         => "the agent is out of service; its owner or an operator can bring it back",
        "connect_failed"         => "no connection to the agent could be made and nothing was sent; look at its health and address",
        "upstream_timeout"       => "the agent did not answer in time; see whether it is overloaded, or raise its time limits",
        "agent_gone"             => "the agent broke off without a whole answer; its own log should say why",
        "invalid_answer"         => "the agent's answer could not be passed on; its owner has to mend it",
        "journal_down"           => "the call could not be recorded; see /readyz on the operators' listener for the disk's complaint",
        "journal_full"           => "records had too little room left for calls of this level; see why the database does not take the rows, or raise audit.journal_budget",
        "draining"               => "the gateway was shutting down; the call may be made again",
        "too_large"              => "the body was larger than server.max_body",
        "slow_body"              => "the body came too slowly",
        "bad_framing"            => "the request was not sound HTTP",
        "bad_path"               => "the path held dot segments, encoded slashes or control characters",
        "content_type"           => "the body was not of a type that A2A has; it must be JSON",
        "content_encoding"       => "the body was compressed, which is not supported",
        "method_not_allowed"     => "this path does not take that HTTP method",
        "push_refused"           => "push notifications are not passed on to this agent; its registration decides that",
        "loop"                   => "the call had come through this gateway before; check the agent's registered address",
        "revoked"                => "what allowed it was taken back while it ran: a block, a key or the agent itself",
        "ended_by_operator"      => "an operator ended it while it ran; the history says who and why",
        "caller_gone"            => "the caller left before it was answered",
        "undecided"              => "the caller left before a decision was made",
        "extended_card"          => "this agent has no extended card here",
        "segment_damaged"        => "a file of the journal was not as it had been written; it is kept in journal/damaged, the disk needs a look",
        "segment_missing"        => "a file of the journal was not there; see who or what removed it",
        "entry_unreadable"       => "an entry of the journal made no sense although it was as written, which is a fault of the program; its file is kept in journal/damaged",
        "journal_unreadable"     => "nothing of the journal of an earlier start could be read; it is kept in journal/damaged, the disk needs a look",
        _                        => "the request was not acceptable; the reason says in a word why",
    }
}

/// One call, over or open, and in plain words why it went as it did.
#[utoipa::path(get, path = "/api/calls/{id}", operation_id = "explain_call", tag = "calls",
    params(("id" = String, Path, description = "The request id, as `X-OpenAgora-Request-ID` has it")),
    responses((status = 200, description = "The call and its story", body = Story)))]
pub(super) async fn show(Path(id): Path<String>, asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let id = Uuid::parse_str(&id)
        .map_err(|_| Problem::invalid("id", "must be a request id, as X-OpenAgora-Request-ID has it"))?;
    let agent = match &asked.who {
        Actor::Agent(own) => Some(*own),
        _ => None,
    };
    let sees =
        |call: &&Intent| agent.is_none_or(|own| [call.caller_agent_id, call.target_agent_id].contains(&Some(own)));
    // Open ones first: a call that ends in between is in the log when that is read.
    let open = (asked.control.active_calls)();
    if let Some(call) = open.iter().filter(|call| call.request_id == id).find(sees) {
        let facts = Facts::of_open(call);
        let names = facts.names(&asked).await?;
        let mut shown = json!(view::active_call(call, &asked.who, &names));
        shown["outcome"] = Value::Null;
        return answer(shown, &facts, &names, &asked).await;
    }
    if let Some(flush) = &asked.control.drain_flush {
        flush().await;
    }
    let filter = CallFilter { id: Some(id), agent, ..CallFilter::default() };
    let rows = asked.control.store.calls(&filter, &CallPage { limit: 1, ..CallPage::default() }).await?;
    let Some(row) = rows.first() else {
        return Err(Problem::not_found(
            "no call with this id is in the log for you: the id is in the answer's X-OpenAgora-Request-ID; \
             look in /api/calls by caller, target and time, or ask an operator",
        ));
    };
    let facts = Facts::of_row(row);
    let names = facts.names(&asked).await?;
    answer(json!(view::call(row, &asked.who, &names)), &facts, &names, &asked).await
}

async fn answer(call: Value, facts: &Facts<'_>, names: &view::Names, asked: &Asked) -> Result<Response, Problem> {
    readings::record_as(asked, format!("id={}", call["id"].as_str().unwrap_or_default()), 1).await?;
    let target = facts.target.filter(|target| view::knows_target(&asked.who, *target, facts.reason));
    let connection = match facts.connection {
        Some(id) => {
            let row = asked.control.store.connection(id).await?;
            Some(Tie { id, status: row.as_ref().map(view::connection_status) })
        }
        None => None,
    };
    let explanation = Explanation {
        decision: facts.decision.to_owned(),
        rule: facts.rule.map(str::to_owned),
        reason: facts.reason.map(str::to_owned),
        text: facts.text(),
        limit: facts.limit.map(|(name, left)| Limit { name: name.to_owned(), left }),
        caller: facts.caller.and_then(|caller| names.get(&caller)).cloned(),
        target: target.and_then(|target| names.get(&target)).cloned(),
        connection,
    };
    Ok(Json(Story { call, explanation }).into_response())
}
