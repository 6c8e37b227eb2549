//! What agents say of themselves: their cards, those that are held, and `probe`, which asks them now.

use clap::Subcommand;
use serde_json::json;

use super::agents::WithReason;
use super::client::path;
use super::failure::Failure;
use super::session::{Session, text};
use crate::telemetry::escaped;

#[derive(Debug, Subcommand)]
pub(super) enum Card {
    /// Print the card that callers get, or with --held the one that waits.
    Show {
        /// The agent's slug or id.
        agent: String,
        /// The changed card that is held.
        #[arg(long)]
        held: bool,
    },
    /// Serve the changed card that is held.
    Accept(WithReason),
    /// Drop the changed card that is held and keep the old one.
    Reject(WithReason),
}

pub(super) async fn run(command: Card, session: &Session) -> Result<(), Failure> {
    let (asked, verb) = match command {
        Card::Show { agent, held } => {
            let parts: &[&str] =
                if held { &["agents", &agent, "card", "held"] } else { &["agents", &agent, "agent-card.json"] };
            let answer = session.client.get(&path(parts)).await?;
            if session.raw(&answer)? {
                return Ok(());
            }
            // A card is JSON whoever reads it; laid out, and with nothing in it that acts on a terminal.
            let shown = if held { &answer.json["held"] } else { &answer.json };
            let laid_out = serde_json::to_string_pretty(shown).unwrap_or_default();
            let lines: String = laid_out.lines().map(|line| format!("{}\n", escaped(line))).collect();
            if !held {
                return session.print(&lines);
            }
            let changes = |name: &str| text(&answer.json["changes"][name]);
            session.fields(
                &format!("A changed card of {agent}, held since {}", session.time(&answer.json["held_at"])),
                &[
                    ("held for", changes("held_for")),
                    ("changed, too", changes("other")),
                    ("accept it", format!("trust-gateway agents card accept {agent}")),
                    ("or drop it", format!("trust-gateway agents card reject {agent}")),
                ],
            )?;
            return session.print(&lines);
        }
        Card::Accept(asked) => (asked, "accept"),
        Card::Reject(asked) => {
            session.confirm(&format!("The changed card of {} will be dropped.", asked.agent))?;
            (asked, "reject")
        }
    };
    let body = asked.reason.map_or(json!({}), |reason| json!({"reason": reason}));
    let answer = session.client.post(&path(&["agents", &asked.agent, "card", verb]), &body).await?;
    let done = if verb == "accept" { "Callers get the new card now." } else { "Callers go on getting the old card." };
    session.done(&answer, done)
}

/// Asks an agent now.
pub(super) async fn probe(agent: &str, session: &Session) -> Result<(), Failure> {
    let answer = session.client.post(&path(&["agents", agent, "probe"]), &json!({})).await?;
    if session.raw(&answer)? {
        return Ok(());
    }
    let found = &answer.json;
    let health = match found["reason"].as_str() {
        Some(reason) => format!("{} ({reason})", text(&found["health"])),
        None => text(&found["health"]),
    };
    let credential = match found["credential"].as_str() {
        Some("accepted") => "the agent accepts it",
        Some("refused") => "the agent REFUSES it: `trust-gateway agents credential set` replaces it",
        Some("unknown") => "this probe could not tell whether it is accepted",
        _ => "none is set",
    };
    let card = match found["card"]["state"].as_str() {
        Some("held") => "a changed one is HELD",
        Some("current") => "current",
        _ => "none was found",
    };
    let calls = match found["breaker"].as_str() {
        Some("open") => "refused for now: too many failed one after the other",
        Some("half_open") => "one is let through as a trial",
        Some(_) => "let through",
        None => "",
    };
    let held = if found["card"]["state"] == "held" {
        format!("trust-gateway agents card show {agent} --held")
    } else {
        String::new()
    };
    session.fields(
        &format!("{agent}, asked {}", session.time(&found["checked_at"])),
        &[
            ("health", health),
            ("calls", calls.to_owned()),
            ("credential", credential.to_owned()),
            ("card", card.to_owned()),
            ("next", held),
            ("card from", text(&found["card"]["url"])),
        ],
    )
}
