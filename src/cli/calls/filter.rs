//! Which calls a command is about, and from when on.

use clap::Args;

use crate::cli::session::Session;
use crate::cli::time::{When, when};
use crate::clock::Timestamp;

/// How far back is looked, unless the command line says otherwise, for what is not found by an index.
const DAY_US: i64 = 86_400_000_000;

/// What calls are in common that sums know, too.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Parties {
    /// Made or received by this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Made by this agent.
    #[arg(long)]
    caller: Option<String>,
    /// Received by this agent.
    #[arg(long)]
    target: Option<String>,
    /// Between these two, whichever called.
    #[arg(long, value_name = "AGENT:AGENT")]
    pair: Option<String>,
    /// connected, verified, unverified or blocked.
    #[arg(long)]
    level: Option<String>,
    /// allowed or refused; gap for places where calls are missing.
    #[arg(long)]
    decision: Option<String>,
    /// Such as rate_limited.
    #[arg(long)]
    reason: Option<String>,
    /// Such as completed or agent_error.
    #[arg(long)]
    outcome: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Range {
    /// From when on: 10m, 2h, 2026-12-31 or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<When>,
    /// Until when.
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<When>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub(in crate::cli) struct Filter {
    #[command(flatten)]
    parties: Parties,
    /// Such as SendMessage.
    #[arg(long)]
    operation: Option<String>,
    /// The HTTP status.
    #[arg(long)]
    status: Option<u16>,
    /// Of this task.
    #[arg(long)]
    task: Option<String>,
    /// Of this context.
    #[arg(long)]
    context: Option<String>,
    /// Of this W3C trace.
    #[arg(long)]
    trace: Option<String>,
    /// The one with this request id.
    #[arg(long, value_name = "REQUEST_ID")]
    request: Option<String>,
    #[command(flatten)]
    range: Range,
}

/// Parameters of the API.
pub(super) type Parameters = Vec<(&'static str, Option<String>)>;

impl Parties {
    pub(super) fn parameters(&self) -> Parameters {
        vec![
            ("agent", self.agent.clone()),
            ("caller", self.caller.clone()),
            ("target", self.target.clone()),
            ("pair", self.pair.clone()),
            ("trust_level", self.level.clone()),
            ("decision", self.decision.clone()),
            ("reason", self.reason.clone()),
            ("outcome", self.outcome.clone()),
        ]
    }
}

impl Range {
    pub(super) fn parameters(&self, now: Timestamp) -> Parameters {
        vec![("since", self.since.map(|when| when.before(now))), ("until", self.until.map(|when| when.before(now)))]
    }
}

impl Filter {
    pub(super) fn parameters(&self, now: Timestamp) -> Parameters {
        let mut parameters = self.parties.parameters();
        parameters.extend([
            ("operation", self.operation.clone()),
            ("status", self.status.map(|status| status.to_string())),
            ("task_id", self.task.clone()),
            ("context_id", self.context.clone()),
            ("trace_id", self.trace.clone()),
            ("request_id", self.request.clone()),
        ]);
        parameters.extend(self.range.parameters(now));
        parameters
    }

    /// The same for the log's pages: what only a range of time can be searched for gets one, and the user is told.
    pub(super) fn bounded(&self, session: &Session) -> Parameters {
        let mut parameters = self.parameters(session.now);
        if self.wants_range() && self.range.since.is_none() {
            session.note("Looking at the last 24 hours; --since 7d looks further back.");
            parameters.retain(|(name, _)| *name != "since");
            parameters.push(("since", Some(session.now.plus_micros(-DAY_US).to_string())));
        }
        parameters
    }

    fn wants_range(&self) -> bool {
        let Self { parties, operation, status, task, context, trace, request, .. } = self;
        let texts =
            [&parties.level, &parties.decision, &parties.reason, &parties.outcome, operation, task, context, trace];
        request.is_none() && (status.is_some() || texts.into_iter().any(Option::is_some))
    }
}
