//! `agents limits`: what operations cost at an agent, and what each level's callers may do there.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::client::path;
use super::failure::Failure;
use super::limits::{Amounts, limits_told, merged};
use super::session::{Session, text};

const LEVELS: [&str; 3] = ["connected", "verified", "unverified"];

/// A level whose callers are served.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// Callers with a connection.
    Connected,
    /// Callers with a key and no connection.
    Verified,
    /// Callers without a key.
    Unverified,
}

#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The agent's slug or id.
    agent: String,
    /// Whose limits are meant; a connection's own go before these.
    #[arg(long, value_enum)]
    level: Option<Level>,
    #[command(flatten)]
    amounts: Amounts,
    /// Calls open at once, streams included.
    #[arg(long, value_name = "N")]
    in_flight: Option<u32>,
    /// What an operation costs here, such as SendMessage=5; may be repeated.
    #[arg(long = "cost", value_name = "OPERATION=UNITS", value_parser = cost)]
    costs: Vec<(String, u32)>,
    /// Back to the policy: the level's limits, or without --level all of them and the costs.
    #[arg(long, conflicts_with_all = ["rate", "period", "burst", "daily", "streams", "in_flight", "costs"])]
    clear: bool,
    /// Why; kept in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

fn cost(text: &str) -> Result<(String, u32), String> {
    let wrong = || format!("{text:?} is no cost: write an operation and its units, such as SendMessage=5");
    let (operation, units) = text.split_once('=').ok_or_else(wrong)?;
    Ok((operation.to_owned(), units.parse().map_err(|_| wrong())?))
}

pub(super) async fn run(asked: Asked, session: &Session) -> Result<(), Failure> {
    let level = asked.level.map(|level| LEVELS[level as usize]);
    let mut amounts = asked.amounts.members();
    amounts.extend(asked.in_flight.map(|n| ("in_flight".to_owned(), n.into())));
    if !amounts.is_empty() && level.is_none() {
        return Err(Failure::usage("say whose limits: --level connected, verified or unverified"));
    }
    let agent = path(&["agents", &asked.agent]);
    let limits = match (asked.clear, level) {
        (true, Some(level)) => json!({level: null}),
        (true, None) => Value::Null,
        (false, _) => {
            // The API replaces a level's limits, and the costs, at once: those that are not named stay as they are.
            let current = session.client.get(&agent).await?.json;
            let mut limits = Map::new();
            if let Some(level) = level.filter(|_| !amounts.is_empty()) {
                limits.insert(level.to_owned(), merged(&current["limits"][level], amounts));
            }
            if !asked.costs.is_empty() {
                let costs = asked.costs.into_iter().map(|(operation, units)| (operation, units.into())).collect();
                limits.insert("costs".to_owned(), merged(&current["limits"]["costs"], costs));
            }
            if limits.is_empty() {
                return Err(Failure::usage(
                    "there is nothing to change: name a limit, such as --level verified --rate 5 --period 1m, or a --cost, or --clear",
                ));
            }
            Value::Object(limits)
        }
    };
    let mut body = json!({"limits": limits});
    if let Some(reason) = asked.reason {
        body["reason"] = reason.into();
    }
    let answer = session.client.patch(&agent, &body).await?;
    let row = &answer.json;
    session.done(&answer, &format!("{}: {}.", text(&row["slug"]), told(&row["limits"])))
}

/// `SendMessage costs 5; verified: 5 calls each 1min`
pub(super) fn told(limits: &Value) -> String {
    let costs = limits["costs"].as_object().into_iter().flatten();
    let costs = costs.map(|(operation, units)| format!("{operation} costs {units}"));
    let levels = LEVELS.iter().map(|level| (level, &limits[*level]));
    let said = levels.filter(|(_, own)| own.as_object().is_some_and(|own| own.values().any(|value| !value.is_null())));
    let told: Vec<String> = costs.chain(said.map(|(level, own)| format!("{level}: {}", limits_told(own)))).collect();
    if told.is_empty() { "limits of the policy".to_owned() } else { told.join("; ") }
}
