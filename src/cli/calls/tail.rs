//! `calls tail`: the newest calls, and with --follow those to come, over restarts of the gateway.

use std::time::Duration;

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

use super::filter::Parameters;
use super::result;
use crate::cli::client::query;
use crate::cli::failure::Failure;
use crate::cli::names::Names;
use crate::cli::session::{Session, list, text};
use crate::cli::table::cut;
use crate::telemetry::escaped;

/// Between two tries to be told.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn tail(parameters: Parameters, follow: bool, lines: u32, session: &Session) -> Result<(), Failure> {
    tokio::select! {
        ended = shown(parameters, follow, lines, session) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn shown(parameters: Parameters, follow: bool, lines: u32, session: &Session) -> Result<(), Failure> {
    let mut names = Names::default();
    let mut asked = parameters.clone();
    asked.extend([("order", Some("recorded".to_owned())), ("limit", Some(lines.clamp(1, 200).to_string()))]);
    let answer = session.client.get(&query("/api/calls", &asked)).await?;
    let rows = list(&answer.json, "calls");
    for row in rows {
        print_line(row, &mut names, session).await?;
    }
    if !follow {
        if rows.is_empty() {
            session.note("No calls that match yet; --follow waits for them.");
        }
        return Ok(());
    }
    let mut next = text(&answer.json["next"]);
    let mut lost = false;
    loop {
        match told(&parameters, &mut next, &mut lost, &mut names, session).await {
            Ok(()) => {}
            // A restart of the gateway, or a bad moment: the cursor still holds.
            Err(failure) if matches!(failure.code(), 1 | 6) && !matches!(failure, Failure::ReaderGone) => {
                if !lost {
                    session.note("The gateway does not answer; trying again every second.");
                }
                lost = true;
            }
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Prints what the gateway tells until it ends the stream; `next` is behind what was printed.
async fn told(
    parameters: &Parameters,
    next: &mut String,
    lost: &mut bool,
    names: &mut Names,
    session: &Session,
) -> Result<(), Failure> {
    let mut asked = parameters.clone();
    asked.push(("next", Some(next.clone())));
    let mut events = session.client.events(&query("/api/calls/live", &asked)).await?;
    *lost = false;
    while let Some(event) = events.next().await? {
        if let Some(row) = event.data.as_deref().and_then(|data| serde_json::from_str::<Value>(data).ok()) {
            print_line(&row, names, session).await?;
        }
        if let Some(id) = event.id {
            *next = id;
        }
    }
    Ok(())
}

async fn print_line(row: &Value, names: &mut Names, session: &Session) -> Result<(), Failure> {
    if session.json {
        return session.print(&format!("{row}\n"));
    }
    let time: String = text(&row["called_at"]).chars().skip(11).take(8).collect();
    let (caller, target) = (&row["caller_agent_id"], &row["target_agent_id"]);
    let (caller, target) = (names.of(caller, session).await, names.of(target, session).await);
    // The pair as commands take it; then as much as there is room for.
    let mut what = format!("{time} {caller}:{target} {}", result(row));
    let room = session.width.saturating_sub(38).max(24);
    for more in [format!(" {}ms", text(&row["latency_ms"])), format!(" {}", text(&row["operation"]))] {
        if what.width() + more.width() <= room {
            what.push_str(&more);
        }
    }
    session.print(&format!("{}  {}\n", escaped(&text(&row["id"])), cut(&escaped(&what), room)))
}
