//! The real program and the reader of its standard error: what it says arrives, and a reader that stops reading holds up nothing.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::{rpc, within};

/// A pipe that takes no byte more, and the end that nobody reads yet.
async fn full_pipe() -> (Stdio, pipe::Receiver) {
    let (sender, receiver) = pipe::pipe().expect("a pipe");
    sender.writable().await.expect("a reader");
    // Byte by byte: a larger write fails while a smaller one has room.
    while sender.try_write(b"\n").is_ok() {}
    (sender.into_blocking_fd().expect("a file descriptor").into(), receiver)
}

/// Reads on until `text` has come; everything that came.
async fn read_until(log: &mut pipe::Receiver, text: &str) -> String {
    let mut read = Vec::new();
    within(&format!("{text:?} is read"), async {
        let mut looked = 0;
        while !String::from_utf8_lossy(&read[looked..]).contains(text) {
            looked = read.len().saturating_sub(text.len());
            assert_ne!(log.read_buf(&mut read).await.expect("readable"), 0, "the log ended without {text:?}");
        }
    })
    .await;
    String::from_utf8(read).expect("text")
}

/// The lines that were begun and ended.
fn objects(log: &str) -> Vec<Value> {
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Reads the call log, as an operator, over and over.
async fn look_often(gateway: &Process) {
    let mut operator = Client::connect(gateway.admin).await;
    let bearer = format!("Bearer {}", gateway.token);
    for _ in 0..2200 {
        operator.send("GET", "/api/calls?limit=1", &[("authorization", &bearer)], b"").await;
        assert_eq!(operator.answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_while_nobody_reads_the_log_and_the_loss_is_told_to_who_reads_on() {
    const CALLS: usize = 20;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (stderr, mut log) = full_pipe().await;
    let policy = include_str!("../../policies/default.toml")
        .replace("work = { rate = \"1/min\", burst = 1 }", "work = { rate = \"1000000/s\", burst = 1000000 }");
    std::fs::write(dir.path().join("policy.toml"), policy).expect("write");
    let settings = [("LOG__FORMAT", "json"), ("LOG__LEVEL", "trace"), ("POLICY__FILE", "policy.toml")];
    let gateway = Process::start_logging_to(stderr, dir.path(), &settings).await;
    let agent = Agent::echo().await;
    gateway.register("echo", Some(&agent.url())).await;
    let caller = gateway.register("caller", None).await;
    let mut client = Client::connect(gateway.public).await;
    for id in 0..CALLS {
        if id == CALLS / 2 {
            // At this level each of these logs 1 kB of SQL: together more than the 4 MiB that may wait.
            tokio::join!(look_often(&gateway), look_often(&gateway));
        }
        client.call("/api/proxy/echo", Some(&caller.key), &rpc(id, "SendMessage")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let recorded = gateway.ids().await;
    assert_eq!(recorded.len(), CALLS, "every call has its row");

    // Now it is read again: first what waited, then how much did not fit.
    let read = read_until(&mut log, "log lines were lost here").await;
    let rest = read_until(&mut log, "\n").await;
    let lines = objects(&(read + &rest));
    let access = lines.iter().filter(|line| line["target"] == "access").count();
    assert!((CALLS / 2..CALLS).contains(&access), "{access}: what found room was kept, and nothing else");
    let loss = lines.iter().find(|line| line["target"] == "trust_gateway::telemetry").expect("told");
    assert_eq!(loss["level"], "WARN");
    let lost = loss["lines"].as_u64().expect("a number");
    assert!(lost >= (CALLS - access) as u64, "{access} of {CALLS} access lines, and {lost} lost lines: {loss}");

    // From here on nothing is missing, the last line included.
    let reading = tokio::spawn(async move {
        let mut read = String::new();
        log.read_to_string(&mut read).await.map(|_| read)
    });
    client.call("/api/proxy/echo", Some(&caller.key), &rpc("after", "SendMessage")).await;
    let answer = client.answer().await;
    let id = answer.header("x-openagora-request-id").expect("every answer has one").to_owned();
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
    let rest = within("the log ends", reading).await.expect("no panic").expect("text");
    assert!(rest.contains(&id), "the line of the call after: {id}");
    assert!(rest.contains("stopping: no new connections") && rest.ends_with('\n'), "{rest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_ends_although_nobody_reads_its_log() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (stderr, _unread) = full_pipe().await;
    let gateway = Process::start_logging_to(stderr, dir.path(), &[]).await;
    gateway.register("somebody", None).await;
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_ends_although_nobody_reads_why() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (stderr, _unread) = full_pipe().await;
    let settings = [("SERVER__LISTEN", address.as_str())];
    assert_eq!(Process::start_in_vain_logging_to(stderr, dir.path(), &settings).await.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_goes_away_holds_up_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (stderr, unread) = full_pipe().await;
    let gateway = Process::start_logging_to(stderr, dir.path(), &[]).await;
    drop(unread);
    let mut client = Client::connect(gateway.public).await;
    for id in 0..3 {
        client.call("/api/proxy/nobody", None, &rpc(id, "SendMessage")).await;
        assert_eq!(client.answer().await.json()["id"], json!(id));
    }
    gateway.signal("TERM").await;
    assert!(gateway.ended().await.success());
}
