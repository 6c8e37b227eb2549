//! `/api/calls/live`: the log as it grows, as a stream of events. Each carries a row, and as its id the cursor behind that row.
//!
//! Promises: from its cursor on, a listener sees every row it asked for once, in the order of each node's record; a reader that
//! stalls holds nothing up; the stream ends with the credential it was opened with, and with the gateway.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, header};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::filter;
use super::follow::{Full, News, Place};
use super::record::RecordCursor;
use crate::control::problem::Problem;
use crate::control::readings;
use crate::control::view;
use crate::control::who::Asked;
use crate::store::StoreError;
use crate::store::call_query::CallFilter;
use crate::store::rows::CallRow;

/// How often the credential is looked at again.
const LOOK: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1_000 });
/// The longest silence.
const KEEP_ALIVE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 15_000 });
/// Rows of one read of what was missed.
const PAGE: u32 = 200;

/// The call log as it grows, as server-sent events: `data` is a call, `id` a cursor to go on from. Ends when the credential
/// does, and when the gateway stops.
#[utoipa::path(get, path = "/api/calls/live", operation_id = "follow_calls", tag = "calls",
    params(("Last-Event-ID" = Option<String>, Header, description = "Go on behind this event"),
        ("next" = Option<String>, Query, description = "The same, or the `next` of `/api/calls?order=recorded`; without either, from now on"),
        ("agent" = Option<String>, Query, description = "Id or slug of caller or target"),
        ("target" = Option<String>, Query, description = "Id or slug"),
        ("caller" = Option<String>, Query, description = "Id or slug"),
        ("pair" = Option<String>, Query, description = "Two agents by id or slug, as in `planner:weather`: calls either way round"),
        ("trust_level" = Option<String>, Query, description = "`blocked`, `unverified`, `verified` or `connected`"),
        ("outcome" = Option<String>, Query, description = "How it ended"),
        ("decision" = Option<String>, Query, description = "Whether it was let through"),
        ("operation" = Option<String>, Query, description = "The A2A operation"),
        ("reason" = Option<String>, Query, description = "Why it was refused, or ended as it did"),
        ("status" = Option<u16>, Query, description = "The HTTP status"),
        ("task_id" = Option<String>, Query, description = "The A2A task"),
        ("context_id" = Option<String>, Query, description = "The A2A context"),
        ("trace_id" = Option<String>, Query, description = "The W3C trace")),
    responses((status = 200, description = "Events", content_type = "text/event-stream", body = String),
        (status = 406, description = "The request does not say that it takes an event stream")))]
pub(in crate::control) async fn follow(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    if !takes_events(&asked.headers) {
        return Err(Problem::new(
            406,
            "this is a stream that does not end by itself: say Accept: text/event-stream, or read pages of /api/calls?order=recorded",
        ));
    }
    let filter = filter::read(&asked).await?;
    let cursor = |text: &str| RecordCursor::read(text);
    let resumed = match asked.headers.get("last-event-id").filter(|id| !id.is_empty()) {
        Some(id) => {
            let read = id.to_str().ok().and_then(cursor);
            Some(read.ok_or_else(|| Problem::invalid("Last-Event-ID", "must be the id of an event of this stream"))?)
        }
        None => asked.parameters.word("next", super::NEXT, RecordCursor::read)?,
    };
    let place = asked.control.follow.place(&asked.who).map_err(|full| {
        Problem::unavailable(match full {
            Full::Asker => "you follow the log as often as you may: close another stream first",
            Full::All => "as many follow the log as may: try again later, or read pages of /api/calls?order=recorded",
        })
    })?;
    readings::record_as(&asked, format!("live&{}", asked.parameters.without(&["next", "limit"])), 0).await?;
    let news = asked.control.follow.listen(&asked.control.store).await?;
    let missed = resumed.is_some();
    let seen = match resumed {
        Some(cursor) => cursor,
        None => RecordCursor(asked.control.store.record_ends().await?),
    };
    let now = Instant::now();
    let greeting = Bytes::from(format!(": calls as they become rows\nretry: 1000\nid: {}\n\n", seen.write()));
    let stopping = asked.control.follow.stopping();
    let listener = Listener { asked, filter, seen, news, missed, stopping, spoke: now, looked: now, _place: place };
    let events = futures_util::stream::unfold((Some(greeting), listener), |(greeting, mut listener)| async move {
        let said = match greeting {
            Some(greeting) => greeting,
            None => listener.next().await?,
        };
        Some((Ok::<_, std::convert::Infallible>(said), (None, listener)))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events)).into_response())
}

fn takes_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(','));
    kinds.any(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("text/event-stream")
    })
}

/// One stream.
struct Listener {
    asked: Asked,
    filter: CallFilter,
    /// How far it has been shown the record.
    seen: RecordCursor,
    news: broadcast::Receiver<Arc<News>>,
    /// There is more than the news: it has to read for itself first.
    missed: bool,
    stopping: watch::Receiver<bool>,
    spoke: Instant,
    looked: Instant,
    _place: Place,
}

impl Listener {
    /// What is said next; `None`: nothing any more.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.looked.elapsed() >= LOOK {
                self.looked = Instant::now();
                if !self.asked.still_good().await {
                    return None;
                }
            }
            if *self.stopping.borrow() {
                return None;
            }
            let said = if self.missed { self.read().await } else { self.hear().await };
            match said {
                Ok(Heard::Said(events)) => {
                    self.spoke = Instant::now();
                    return Some(events);
                }
                Ok(Heard::Nothing) if self.spoke.elapsed() >= KEEP_ALIVE => {
                    self.spoke = Instant::now();
                    // With the cursor: what was passed over need not be read again.
                    return Some(Bytes::from(format!(": nothing new\nid: {}\n\n", self.seen.write())));
                }
                Ok(Heard::Nothing) => {}
                Ok(Heard::Over) => return None,
                Err(error) => {
                    tracing::warn!(%error, "a stream of the log ends: it cannot be read");
                    return None;
                }
            }
        }
    }

    /// From the log, what it has not been shown.
    async fn read(&mut self) -> Result<Heard, StoreError> {
        let store = self.asked.control.store.clone();
        let record = store.recorded_calls(&self.filter, self.seen.after(), PAGE).await?;
        self.missed = record.more;
        let names = super::names_in(&store, &record.rows).await?;
        let said = self.tell(&record.rows, &names);
        self.seen = RecordCursor(record.reached);
        Ok(said)
    }

    /// From the news, once there are some; but not for longer than until the credential has to be looked at.
    async fn hear(&mut self) -> Result<Heard, StoreError> {
        let news = tokio::select! {
            news = self.news.recv() => news,
            () = tokio::time::sleep(LOOK) => return Ok(Heard::Nothing),
            _ = self.stopping.wait_for(|stopping| *stopping) => return Ok(Heard::Over),
        };
        match news {
            Ok(news) => Ok(self.tell(&news.rows, &news.names)),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                self.missed = true;
                Ok(Heard::Nothing)
            }
            Err(broadcast::error::RecvError::Closed) => Ok(Heard::Over),
        }
    }

    /// The events of those `rows` that are asked for and were not told before.
    fn tell(&mut self, rows: &[CallRow], names: &view::Names) -> Heard {
        let mut events = String::new();
        for row in rows {
            if self.seen.has(row) {
                continue;
            }
            self.seen.pass(row);
            if self.filter.selects(row) {
                let call = serde_json::to_string(&view::call(row, &self.asked.who, names)).unwrap_or_default();
                let _ = write!(events, "id: {}\ndata: {call}\n\n", self.seen.write());
            }
        }
        if events.is_empty() { Heard::Nothing } else { Heard::Said(events.into()) }
    }
}

enum Heard {
    Said(Bytes),
    Nothing,
    Over,
}
