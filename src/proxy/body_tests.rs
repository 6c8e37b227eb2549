use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use uuid::Uuid;

use super::*;
use crate::a2a::Operation;
use crate::audit::drain::Drain;
use crate::audit::journal::tests::journal;
use crate::audit::journal::{Durability, Journal};
use crate::clock::{Clock, Timestamp};
use crate::limit::{Ask, Gate, Limits, Subject};
use crate::policy::Policy;
use crate::proxy::call::{Call, OpenCount};
use crate::proxy::live::{Live, Parties, Tap};
use crate::store::Store;
use crate::store::call_query::{CallFilter, CallPage};
use crate::store::rows::CallRow;

/// A journal with an open call whose answer is `sent` by an agent; the agent's end stays open.
struct Fixture {
    dir: tempfile::TempDir,
    clock: Clock,
    journal: Journal,
    tap: Arc<Tap>,
    /// Where the call has its place among those in flight.
    gate: Arc<Gate>,
    _agent: DuplexStream,
}

const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

impl Fixture {
    async fn new(sent: &str) -> (Self, Box<Answer>) {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Clock::manual(Timestamp(1_700_000_000_000_000));
        let journal = journal(&dir.path().join("journal"), Durability::Process, 1 << 20, &clock);
        let worker = journal.worker(0);
        tokio::spawn(Arc::clone(&worker).run_flusher());

        let limits = Limits::new(clock.clone(), Arc::new(Policy::default()), [7; 32], Vec::new());
        let subject = Subject::Anonymous { target: Uuid::nil(), source: SOURCE };
        let gate = Arc::new(Gate::new(1));
        let ask = Ask { subject, operation: Operation::SendMessage, agent: &gate };
        let permit = limits.admit(&ask).expect("the first call passes");
        let mut call = Call::arrive(&clock, &worker, &Arc::default(), OpenCount::enter(&Arc::default()), SOURCE);
        let (mut open, written) = call.open(&permit).expect("the journal is sound");
        written.await.expect("the journal is sound");
        let entered = Arc::new(Live::default()).enter(
            call.intent.request_id,
            Parties { caller: None, credential: None, target: Uuid::nil(), connected_for: None },
            permit,
        );
        let tap = Arc::clone(&entered.tap);
        open.entered = Some(entered);

        let (agent, body) = answered(sent).await;
        let length = http_body::Body::size_hint(&body).exact();
        tap.attach(body);
        let farewell: Farewell = Box::new(|_| Some(Bytes::from_static(b"data: farewell\n\n")));
        let notice = Notice::Events(EventScanner::new());
        let answer = Answer::new(open, notice, length, Duration::from_secs(600), Some(farewell));
        (Self { dir, clock, journal, tap, gate, _agent: agent }, Box::new(answer))
    }

    /// The one row that the call became.
    async fn row(&self) -> CallRow {
        let store = Store::open_sqlite(&self.dir.path().join("t.db")).await.expect("a store");
        let drain = Drain::start(store.clone(), &self.journal, self.clock.clone());
        drain.flush().await;
        let page = CallPage { limit: 10, ..CallPage::default() };
        let [row] = &store.calls(&CallFilter::default(), &page).await.expect("rows")[..] else { panic!("one row") };
        row.clone()
    }
}

/// The body of an answer that came over a connection of its own.
async fn answered(sent: &str) -> (DuplexStream, Incoming) {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(near)).await.expect("a connection");
    tokio::spawn(connection);
    let request = Request::get("/").header("host", "agent").body(Empty::<Bytes>::new()).expect("a request");
    let answer = tokio::spawn(sender.send_request(request));
    assert!(far.read(&mut [0; 1024]).await.expect("a request") > 0);
    far.write_all(sent.as_bytes()).await.expect("room");
    let answer = answer.await.expect("no panic").expect("an answer");
    (far, answer.into_body())
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn an_answer_without_a_body_does_not_leave_unrecorded_either() {
    for sent in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"] {
        let (fixture, answer) = Fixture::new(sent).await;
        fixture.journal.faults().write.store(true, Ordering::SeqCst);
        assert!(answer.settle().await.is_err(), "{sent}");
    }
}

#[tokio::test]
async fn a_stream_cut_before_its_first_event_ends_with_the_farewell_and_a_cut() {
    let (fixture, answer) = Fixture::new(STREAM).await;
    fixture.tap.cut(Cut::Revoked);
    let mut body = answer.settle().await.expect("it is recorded");
    let farewell = body.frame().await.expect("a frame").expect("the farewell").into_data().expect("data");
    assert_eq!(farewell, "data: farewell\n\n");
    assert!(!http_body::Body::is_end_stream(&body));
    assert!(body.frame().await.expect("more than a clean end").is_err());
    let row = fixture.row().await;
    assert_eq!((row.outcome.as_str(), row.reason.as_deref()), ("interrupted", Some("revoked")));
}

#[tokio::test]
async fn a_cut_that_a_stalled_reader_never_saw_is_still_the_gateways_doing() {
    let (fixture, answer) = Fixture::new(STREAM).await;
    let body = answer.settle().await.expect("it flows");
    assert_eq!(fixture.gate.in_flight(), 1);
    fixture.tap.cut(Cut::Draining);
    assert_eq!(fixture.gate.in_flight(), 0, "its place is free although nobody has read that it is over");
    drop(body);
    let row = fixture.row().await;
    assert_eq!((row.outcome.as_str(), row.reason.as_deref()), ("interrupted", Some("draining")));
}
