//! Which calls are asked for: the parameters that all questions to the log share.
//!
//! Promises: an agent is held to its own calls; a name that is nobody's is answered like that of an agent without calls; what no
//! index answers is looked for in a bounded time only, and whoever forgets to say which is told how.

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::control::problem::Problem;
use crate::control::who::Asked;
use crate::registry::Actor;
use crate::store::call_query::CallFilter;

/// The longest time that is read for what no index answers.
const RANGE_DAYS: i64 = 31;
const DAY_US: i64 = 86_400_000_000;

/// Whoever is named that there is not: no agent has this id, so its calls are none.
const NOBODY: Uuid = Uuid::max();

/// Which calls are asked for.
pub(super) async fn read(asked: &Asked) -> Result<CallFilter, Problem> {
    let parameters = &asked.parameters;
    let mut agents = [None, None, None];
    for (place, name) in agents.iter_mut().zip(["agent", "target", "caller"]) {
        if let Some(text) = parameters.text(&[name, &format!("{name}_agent_id"), &format!("{name}_id")]) {
            *place = Some(agent(asked, text).await?);
        }
    }
    let [mut agent, target, caller] = agents;
    let pair = match parameters.text(&["pair"]) {
        Some(text) => Some(pair(asked, text).await?),
        None => None,
    };
    let mut known_to = None;
    if let Actor::Agent(own) = asked.known()? {
        if agent.is_some_and(|agent| agent != *own) {
            return Err(Problem::forbidden(
                "an agent sees its own calls only: leave agent out, name a caller or a target",
            ));
        }
        agent = Some(*own);
        // To find a call by the name of an agent would be to learn that there is one.
        known_to = (target.is_some() || pair.is_some()).then_some(*own);
    }
    let text = |name: &str| parameters.text(&[name]).map(str::to_owned);
    Ok(CallFilter {
        agent,
        pair,
        target,
        caller,
        trust_level: text("trust_level"),
        outcome: text("outcome"),
        decision: text("decision"),
        operation: text("operation"),
        reason: text("reason"),
        status: parameters.status("status")?,
        since: parameters.time("since")?,
        until: parameters.time("until")?,
        id: parameters.id("request_id")?.or(parameters.id("id")?),
        task_id: text("task_id"),
        context_id: text("context_id"),
        trace_id: text("trace_id"),
        known_to,
    })
}

/// An agent by id or slug. The log outlives the agents it names: an id need not be a living agent's.
async fn agent(asked: &Asked, name: &str) -> Result<Uuid, Problem> {
    match Uuid::parse_str(name) {
        Ok(id) => Ok(id),
        Err(_) => Ok(asked.find_agent(name).await?.map_or(NOBODY, |agent| agent.id)),
    }
}

async fn pair(asked: &Asked, text: &str) -> Result<[Uuid; 2], Problem> {
    let names = text.split_once(':').filter(|(one, other)| !one.is_empty() && !other.is_empty());
    let (one, other) = names.ok_or_else(|| Problem::invalid("pair", "must be two agents, as in planner:weather"))?;
    Ok([agent(asked, one).await?, agent(asked, other).await?])
}

/// Refuses what would be looked for in the whole log: times and agents are found by indexes, a request id of ours by the time in
/// it, everything else by reading the calls of a time.
pub(super) fn bounded(filter: &CallFilter, now: Timestamp) -> Result<(), Problem> {
    if filter.made_at().is_some() {
        return Ok(());
    }
    let scanned = [
        ("trust_level", filter.trust_level.is_some()),
        ("operation", filter.operation.is_some()),
        ("decision", filter.decision.is_some()),
        ("reason", filter.reason.is_some()),
        ("outcome", filter.outcome.is_some()),
        ("status", filter.status.is_some()),
        ("task_id", filter.task_id.is_some()),
        ("context_id", filter.context_id.is_some()),
        ("trace_id", filter.trace_id.is_some()),
        ("request_id", filter.id.is_some()),
    ];
    let Some((parameter, _)) = scanned.into_iter().find(|(_, asked)| *asked) else {
        return Ok(());
    };
    let Some(since) = filter.since else {
        let yesterday = now.plus_micros(-DAY_US);
        return Err(Problem::invalid(
            parameter,
            format!(
                "is looked for in a range of time: add one, as in since={yesterday}; without one the log is asked by \
                 agent, caller, target, pair and a request_id of this gateway, which is a UUID of version 7"
            ),
        ));
    };
    if filter.until.unwrap_or(now).0.saturating_sub(since.0) > RANGE_DAYS * DAY_US {
        return Err(Problem::invalid(
            "since",
            format!(
                "{parameter} is looked for in at most {RANGE_DAYS} days at once: come nearer, or set until as well"
            ),
        ));
    }
    Ok(())
}
