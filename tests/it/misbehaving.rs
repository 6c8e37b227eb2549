//! Agents that do everything wrong: the caller gets a truthful answer, the row says what happened, the next call works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use trust_gateway::clock::{Clock, Timestamp};

use crate::support::agent::{Agent, Conn};
use crate::support::client::Answer;
use crate::support::gateway::TestGateway;
use crate::support::{rpc, within};

/// One call to an agent that runs `script` once it has a POST; the answer and the row.
async fn call<F, Fut>(script: F) -> (Answer, Value)
where
    F: Fn(Conn) -> Fut + Send + Sync + Copy + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let gateway = TestGateway::with(trust_gateway::clock::Clock::system(), |config| {
        config.upstream.first_byte = Duration::from_millis(500);
        config.upstream.idle = Duration::from_millis(500);
    })
    .await;
    let agent = Agent::start(move |mut conn| async move {
        while let Some(request) = conn.request().await {
            if request.request_line().starts_with("POST") {
                return script(conn).await;
            }
            conn.json("405 Method Not Allowed", &json!({})).await;
        }
    })
    .await;
    let target = gateway.register("odd", &agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    let answer = gateway.call("odd", Some(&caller.key), &rpc(5, "SendMessage")).await;
    let rows = gateway.rows_of(&target).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(agent.calls().len(), 1, "work is never asked for twice");
    gateway.stop().await;
    (answer, rows[0].clone())
}

fn assert_refused(answer: &Answer, row: &Value, status: u16, outcome: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.json()["id"], 5);
    assert!(answer.json()["error"]["code"].is_i64());
    assert_eq!((&row["outcome"], &row["status_code"]), (&json!(outcome), &json!(status)), "{row}");
    assert_eq!(row["decision"], "allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_caller_alone_cannot_have_the_others_refused() {
    // Time stands still: no bucket fills, and the agent is probed once.
    let clock = Clock::manual(Timestamp::parse("2026-01-01T00:00:00Z").expect("a time"));
    let gateway = TestGateway::with(clock, |_| {}).await;
    let agent = Agent::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            let work = request.request_line().starts_with("POST");
            let status = if work { "503 Service Unavailable" } else { "405 Method Not Allowed" };
            conn.json(status, &json!({})).await;
        }
    })
    .await;
    let target = gateway.register("odd", &agent).await;
    let health = async || gateway.operated("GET", "/api/agents/odd", &json!({})).await["health_status"].clone();
    within("it is probed", async { while health().await != "online" {} }).await;
    let (one, two) = (gateway.register_client("one").await, gateway.register_client("two").await);
    gateway.connect(&one, &target).await;
    gateway.connect(&two, &target).await;
    for n in 1..9 {
        assert_eq!(gateway.call("odd", Some(&one.key), &rpc(n, "SendMessage")).await.status, 503);
    }
    assert_eq!(agent.calls().len(), 8, "all of them reached it");
    for n in 1..3 {
        assert_eq!(gateway.call("odd", Some(&two.key), &rpc(n, "SendMessage")).await.status, 503);
    }
    assert_eq!(agent.calls().len(), 9, "the other saw it too: now it is left alone");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_answers_is_504() {
    let (answer, row) = call(|mut conn| async move { conn.closed().await }).await;
    assert_refused(&answer, &row, 504, "timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_resets_is_502() {
    let (answer, row) = call(|conn| async move { conn.reset() }).await;
    assert_refused(&answer, &row, 502, "agent_gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_closes_without_a_word_is_502() {
    let (answer, row) = call(|conn| async move { drop(conn) }).await;
    assert_refused(&answer, &row, 502, "agent_gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_speaks_another_protocol_is_502() {
    let (answer, row) = call(|mut conn| async move {
        conn.write("SSH-2.0-OpenSSH_9.2\r\n").await;
        conn.closed().await;
    })
    .await;
    assert_refused(&answer, &row, 502, "agent_gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_switches_protocols_unasked_is_502() {
    let (answer, row) = call(|mut conn| async move {
        conn.write("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
        conn.closed().await;
    })
    .await;
    assert_refused(&answer, &row, 502, "agent_gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_redirects_is_502_and_not_followed() {
    let (answer, row) = call(|mut conn| async move {
        conn.write("HTTP/1.1 307 Temporary Redirect\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n").await;
        conn.closed().await;
    })
    .await;
    assert_refused(&answer, &row, 502, "agent_gone");
    assert!(!answer.head.contains("10.0.0.1") && !answer.text().contains("10.0.0.1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_truncates_its_body_is_passed_on_as_a_cut() {
    let (answer, row) = call(|mut conn| async move {
        conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"jsonrpc\"")
            .await;
    })
    .await;
    assert!(answer.cut || answer.status == 0);
    assert_eq!(row["outcome"], "agent_gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_falls_silent_in_its_body_is_cut_off() {
    let (answer, row) = call(|mut conn| async move {
        conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"jsonrpc\"")
            .await;
        conn.closed().await;
    })
    .await;
    assert!(answer.cut);
    assert_eq!(row["outcome"], "timeout");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_drips_byte_by_byte_is_passed_on_whole() {
    let (answer, row) = call(|mut conn| async move {
        let body =
            json!({"jsonrpc": "2.0", "id": 5, "result": {"task": {"id": "t", "status": {"state": "x"}}}}).to_string();
        conn.write(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        ))
        .await;
        for byte in body.bytes() {
            conn.write([byte]).await;
            tokio::task::yield_now().await;
        }
        conn.closed().await;
    })
    .await;
    assert_eq!((answer.status, &answer.json()["id"], answer.cut), (200, &json!(5), false));
    assert_eq!((&row["outcome"], &row["task_id"]), (&json!("completed"), &json!("t")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_html_500_is_passed_on_as_it_is() {
    let (answer, row) = call(|mut conn| async move {
        let body = "<html>Internal Server Error</html>";
        conn.write(format!(
            "HTTP/1.1 500 Oops\r\ncontent-type: text/html\r\nset-cookie: a=b\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        conn.closed().await;
    })
    .await;
    assert_eq!((answer.status, answer.text().as_str()), (500, "<html>Internal Server Error</html>"));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!((&row["outcome"], &row["upstream_status"]), (&json!("agent_error"), &json!(500)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_204_is_passed_on_without_a_body() {
    let (answer, row) = call(|mut conn| async move {
        conn.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        conn.closed().await;
    })
    .await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!((&row["outcome"], &row["response_bytes"]), (&json!("completed"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_headers_are_502_and_large_ones_pass() {
    let (answer, row) = call(|mut conn| async move {
        conn.write(format!("HTTP/1.1 200 OK\r\nx-big: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(600 * 1024))).await;
        conn.closed().await;
    })
    .await;
    assert_refused(&answer, &row, 502, "agent_gone");
    let (answer, _) = call(|mut conn| async move {
        conn.write(format!("HTTP/1.1 200 OK\r\nx-big: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(20 * 1024))).await;
        conn.closed().await;
    })
    .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_end_an_answer_like_any_other_end() {
    let (answer, row) = call(|mut conn| async move {
        conn.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await;
        conn.write("2\r\n{}\r\n0\r\nx-checksum: 1\r\n\r\n").await;
        conn.closed().await;
    })
    .await;
    assert_eq!((answer.text().as_str(), answer.cut), ("{}", false));
    assert_eq!(row["outcome"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_beside_chunks_means_nothing() {
    let (answer, row) = call(|mut conn| async move {
        conn.write("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n").await;
        conn.write("transfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n").await;
        conn.closed().await;
    })
    .await;
    assert_eq!((answer.text().as_str(), answer.cut), ("abcdef", false));
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(row["outcome"], "completed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_does_not_answer_is_left_alone_until_a_trial_finds_it_back() {
    let clock = Clock::manual(Timestamp::parse("2026-01-01T00:00:00Z").expect("a time"));
    let gateway = TestGateway::with(clock.clone(), |_| {}).await;
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let agent = Agent::start(move |mut conn| {
        let well = Arc::clone(&is_well);
        async move {
            while let Some(request) = conn.request().await {
                let status = match request.request_line().starts_with("POST") {
                    false => "405 Method Not Allowed",
                    true if well.load(Ordering::SeqCst) => "200 OK",
                    true => "503 Service Unavailable",
                };
                conn.json(status, &json!({"jsonrpc": "2.0", "id": 5, "result": {}})).await;
            }
        }
    })
    .await;
    let target = gateway.register("odd", &agent).await;
    let callers = [gateway.register_client("one").await, gateway.register_client("two").await];
    for caller in &callers {
        gateway.connect(caller, &target).await;
    }
    let call = async |n: usize| gateway.call("odd", Some(&callers[n % 2].key), &rpc(5, "SendMessage")).await;
    for n in 0..5 {
        assert_eq!(call(n).await.header("retry-after"), None);
    }
    let refused = call(5).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.text());
    let error = &refused.json()["error"];
    assert_eq!((&error["code"], &error["data"][0]["reason"]), (&json!(-32000), &json!("AGENT_UNAVAILABLE")));
    assert_eq!(agent.calls().len(), 5, "the sixth never came to the agent");
    well.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(1));
    assert_eq!((call(0).await.status, call(1).await.status), (200, 200));

    let rows = gateway.rows_of(&target).await;
    let row = rows.iter().find(|row| row["reason"] == "circuit_open").expect("refusals have rows");
    assert_eq!((&row["decision"], &row["policy_rule"]), (&json!("refused"), &json!("breaker")));
    assert_eq!(row["units"], 0, "what was refused costs nothing");
    assert_eq!(rows.len(), 8);
    gateway.stop().await;
}
