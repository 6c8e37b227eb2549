//! The log as it grows: every row once, to whoever may see it, for as long as they may.

use std::collections::BTreeSet;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use http::{Method, Request};
use serde_json::{Value, json};
use tower_service::Service as _;
use uuid::Uuid;

use super::calls::{id, log, row};
use super::{Answer, Api};
use crate::control::{Source, operator, public};
use crate::store::rows::CallRow;

/// A stream that tells of no call for as long never will.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

/// A stream that somebody reads.
struct Stream {
    body: BodyDataStream,
    unread: String,
    /// The id of the last event.
    last: String,
}

impl Stream {
    async fn open(api: &Api, key: Option<&str>, path: &str, last: &str) -> Self {
        let (router, token) = match key {
            Some(key) => (public(api.control.clone()), key),
            None => (operator(api.control.clone()), api.auditor.as_str()),
        };
        let mut router = router;
        api.rebuild().await;
        let request = Request::get(path).header("authorization", format!("Bearer {token}"));
        let request = request.header("accept", "text/event-stream").header("last-event-id", last);
        let mut request = request.body(Body::empty()).expect("a request");
        request.extensions_mut().insert(Source(std::net::Ipv4Addr::LOCALHOST.into()));
        let response = router.call(request).await.expect("infallible");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().expect("a value"))
        );
        Self { body: response.into_body().into_data_stream(), unread: String::new(), last: String::new() }
    }

    /// The next call; `None`: the stream has ended.
    async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(PATIENCE, self.told()).await.expect("a call, or the end")
    }

    async fn told(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.event().await? {
                return Some(serde_json::from_str(&data).expect("JSON"));
            }
        }
    }

    /// The data of the next event, if it has any.
    async fn event(&mut self) -> Option<Option<String>> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let (id, data) = (field("id: "), field("data: "));
                self.unread = rest.to_owned();
                self.last = id.unwrap_or_else(|| self.last.clone());
                return Some(data);
            }
            let bytes = self.body.next().await?.expect("never broken");
            self.unread.push_str(std::str::from_utf8(&bytes).expect("text"));
        }
    }

    /// The cursor it has come to once it is another than `before`, without a call.
    async fn moved_on(&mut self, before: &str) -> String {
        let moved = async {
            while self.last == before {
                assert_eq!(self.event().await, Some(None));
            }
        };
        tokio::time::timeout(PATIENCE, moved).await.expect("it says how far it is");
        self.last.clone()
    }

    async fn seqs(&mut self, count: usize) -> Vec<i64> {
        let mut seqs = Vec::new();
        for _ in 0..count {
            seqs.push(self.next().await.expect("it goes on")["seq"].as_i64().expect("a number"));
        }
        seqs
    }
}

fn rows(from: u128, to: u128) -> Vec<CallRow> {
    (from..=to).map(|n| row(n, Uuid::from_u128(n % 2), Uuid::from_u128(9))).collect()
}

#[tokio::test]
async fn a_listener_sees_what_it_asked_for_from_then_on_once_and_goes_on_where_it_was() {
    let api = Api::new().await;
    log(&api, rows(1, 3)).await;
    let mut all = Stream::open(&api, None, "/api/calls/live", "").await;
    let mut odd = Stream::open(&api, None, &format!("/api/calls/live?caller={}", Uuid::from_u128(1)), "").await;
    log(&api, rows(4, 6)).await;
    log(&api, rows(7, 8)).await;
    assert_eq!(all.seqs(5).await, [4, 5, 6, 7, 8]);
    assert_eq!(odd.seqs(2).await, [5, 7]);
    let (seen, seen_odd) = (all.last.clone(), odd.last.clone());
    drop((all, odd));
    log(&api, rows(9, 11)).await;
    let mut again = Stream::open(&api, None, "/api/calls/live", &seen).await;
    let mut odd = Stream::open(&api, None, &format!("/api/calls/live?caller={}", Uuid::from_u128(1)), &seen_odd).await;
    log(&api, rows(12, 13)).await;
    assert_eq!(again.seqs(5).await, [9, 10, 11, 12, 13]);
    assert_eq!(odd.seqs(3).await, [9, 11, 13]);
    // News that was in the log already is no news.
    log(&api, rows(14, 15)).await;
    assert_eq!((again.seqs(2).await, odd.seqs(1).await), (vec![14, 15], vec![15]));
}

#[tokio::test]
async fn a_reader_that_stalls_holds_nobody_up_and_misses_nothing() {
    let api = Api::new().await;
    let mut slow = Stream::open(&api, None, "/api/calls/live", "").await;
    let mut brisk = Stream::open(&api, None, "/api/calls/live", "").await;
    let expected: Vec<i64> = (1..=10_000).collect();
    for batch in 0..10 {
        log(&api, rows(batch * 1_000 + 1, (batch + 1) * 1_000)).await;
    }
    assert_eq!(brisk.seqs(10_000).await, expected);
    // More than is kept for one that does not read.
    assert_eq!(slow.seqs(10_000).await, expected);
    log(&api, rows(10_001, 10_001)).await;
    assert_eq!((slow.seqs(1).await, brisk.seqs(1).await), (vec![10_001], vec![10_001]));
}

#[tokio::test]
async fn whoever_was_told_nothing_yet_has_a_cursor_to_go_on_from() {
    let api = Api::new().await;
    let nobody = format!("/api/calls/live?caller={}", Uuid::from_u128(77));
    let mut other = Stream::open(&api, None, &nobody, "").await;
    assert_eq!(other.event().await, Some(None), "a greeting");
    let began = other.last.clone();
    assert!(!began.is_empty());
    log(&api, rows(1, 300)).await;
    // Silence says how far it went, so that what was passed over is not read again.
    let behind = other.moved_on(&began).await;
    let mut all = Stream::open(&api, None, "/api/calls/live", &behind).await;
    log(&api, rows(301, 301)).await;
    assert_eq!(all.seqs(1).await, [301]);
    // Before the first row there is a place to go on from, too.
    let mut all = Stream::open(&api, None, &format!("/api/calls/live?next={began}"), "").await;
    assert_eq!(all.seqs(301).await, (1..=301).collect::<Vec<i64>>());
}

#[tokio::test]
async fn rows_of_every_node_are_told_once() {
    let api = Api::new().await;
    let other = |n| CallRow { node_id: Uuid::from_u128(6), ..row(n, Uuid::from_u128(1), Uuid::from_u128(2)) };
    log(&api, rows(1, 3)).await;
    let mut all = Stream::open(&api, None, "/api/calls/live", "").await;
    log(&api, vec![other(1), other(2)]).await;
    assert_eq!(all.seqs(2).await, [1, 2], "of a node that was not there before");
    let mut again = Stream::open(&api, None, "/api/calls/live", &all.last).await;
    log(&api, [rows(4, 4), vec![other(3)]].concat()).await;
    for stream in [&mut all, &mut again] {
        let mut seqs = stream.seqs(2).await;
        seqs.sort_unstable();
        assert_eq!(seqs, [3, 4]);
    }
}

#[tokio::test]
async fn an_agent_hears_of_its_own_calls_only() {
    let api = Api::new().await;
    let (one, key) = api.agent("one").await;
    let mut own = Stream::open(&api, Some(&key), "/api/calls/live", "").await;
    let mut nobody = Stream::open(&api, Some(&key), "/api/calls/live?caller=nobody", "").await;
    let other = Uuid::from_u128(99);
    log(&api, vec![row(1, other, other), row(2, other, id(&one))]).await;
    let call = own.next().await.expect("a call");
    assert_eq!((&call["seq"], &call["target"]["slug"], &call["client_ip"]), (&2.into(), &"one".into(), &Value::Null));
    let revoked = api.admin(Method::DELETE, "/api/agents/one", None).await;
    assert_eq!(revoked.status, 204);
    api.rebuild().await;
    assert_eq!(own.next().await, None);
    assert_eq!(nobody.next().await, None);
}

#[tokio::test]
async fn a_stream_ends_with_the_token_it_was_opened_with() {
    let api = Api::new().await;
    let mut stream = Stream::open(&api, None, "/api/calls/live", "").await;
    assert_eq!(api.admin(Method::DELETE, "/api/operators/eve", None).await.status, 204);
    assert_eq!(stream.next().await, None);

    let end = api.bench.clock.wall().plus_micros(60_000_000);
    let body = json!({"name": "temp", "role": "auditor", "expires_at": end.to_string()});
    let made = api.admin(Method::POST, "/api/operators", Some(body)).await;
    let api = Api { auditor: made.body["token"].as_str().expect("a token").to_owned(), ..api };
    let mut stream = Stream::open(&api, None, "/api/calls/live", "").await;
    api.bench.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(stream.next().await, None, "it is over");

    let (_, key) = api.agent("one").await;
    let mut stream = Stream::open(&api, Some(&key), "/api/calls/live", "").await;
    assert_eq!(api.admin(Method::PUT, "/api/agents/one", Some(json!({"state": "disabled"}))).await.status, 200);
    api.rebuild().await;
    assert_eq!(stream.next().await, None, "it is out of service");
}

#[tokio::test]
async fn streams_end_with_the_gateway() {
    let api = Api::new().await;
    let mut stream = Stream::open(&api, None, "/api/calls/live", "").await;
    api.close.send_replace(true);
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn the_number_of_listeners_is_bounded_and_each_gives_its_place_back() {
    let api = Api::new().await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Stream::open(&api, None, "/api/calls/live", "").await);
    }
    let ask = async |accept: &str, last: &str| -> Answer {
        let request = Request::get("/api/calls/live").header("authorization", format!("Bearer {}", api.auditor));
        let request = request.header("accept", accept).header("last-event-id", last);
        api.send(operator(api.control.clone()), request.body(Body::empty()).expect("a request")).await
    };
    let full = ask("text/event-stream", "").await;
    full.is_problem(503);
    assert!(full.headers.contains_key("retry-after"), "{}", full.text);
    assert!(full.text.contains("close another stream first"), "{}", full.text);
    open.pop();
    drop(Stream::open(&api, None, "/api/calls/live", "").await);
    ask("*/*", "").await.is_problem(406);
    ask("text/event-stream", "nonsense").await.is_problem(400);
    let asked: BTreeSet<String> = api.admin(Method::GET, "/api/events?action=calls.read", None).await.body["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["after"]["query"].to_string())
        .collect();
    assert_eq!(asked, BTreeSet::from(["\"live&\"".to_owned()]), "nobody listens unseen");
}
