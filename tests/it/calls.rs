//! One call, looked at from all sides.

use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::gateway::TestGateway;
use crate::support::{rpc, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_reaches_the_agent_unchanged_and_becomes_a_row() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &target).await;

    // Spaces, key order and a number no double can hold: bytes, not JSON, must arrive.
    let body = r#"{ "method":"SendMessage","jsonrpc":"2.0", "id":"a-1","params":{"message":{"messageId":"m-7","taskId":"t-0","n":12345678901234567890}}}"#;
    let mut client = gateway.client().await;
    let bearer = format!("bearer {}", caller.key);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("a2a-version", "1.0")];
    client.send("POST", "/api/proxy/echo", &headers, body.as_bytes()).await;
    let answer = client.answer().await;

    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["id"], "a-1");
    assert_eq!(answer.header("x-openagora-trust-level"), Some("connected"));
    let calls = agent.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(String::from_utf8_lossy(&calls[0].body), body);
    assert_eq!(calls[0].request_line(), "POST /a2a HTTP/1.1");
    assert_eq!(calls[0].header("x-openagora-caller-id"), Some(caller.id.as_str()));
    assert_eq!(calls[0].header("x-openagora-trust-level"), Some("connected"));
    assert_eq!(calls[0].header("authorization"), None);

    let rows = gateway.rows_of(&target).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    for (column, expected) in [
        ("caller_agent_id", json!(caller.id)),
        ("trust_level", json!("connected")),
        ("connection_id", connection["id"].clone()),
        ("status_code", json!(200)),
        ("binding", json!("jsonrpc")),
        ("protocol_version", json!("1.0")),
        ("method", json!("SendMessage")),
        ("operation", json!("SendMessage")),
        ("rpc_id", json!("\"a-1\"")),
        ("message_id", json!("m-7")),
        ("task_id", json!("t-1")),
        ("context_id", json!("c-1")),
        ("task_state", json!("TASK_STATE_COMPLETED")),
        ("decision", json!("allowed")),
        ("outcome", json!("completed")),
        ("units", json!(1)),
        ("calls", json!(1)),
        ("auth_method", json!("api_key")),
        ("client_ip", json!("127.0.0.0/24")),
        ("request_bytes", json!(body.len())),
        ("response_bytes", json!(answer.body.len())),
        ("upstream_status", json!(200)),
    ] {
        assert_eq!(row[column], expected, "{column} in {row}");
    }
    assert_eq!(row["id"].as_str(), answer.header("x-openagora-request-id"));
    let traceparent = calls[0].header("traceparent").expect("a trace begins at the gateway");
    assert_eq!(row["trace_id"].as_str(), traceparent.split('-').nth(1), "and its row is found by it");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_the_real_status_echo_the_id_with_its_type_and_become_rows() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let blocked = gateway.register_client("blocked").await;
    let connection = gateway.connect(&blocked, &target).await;
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    gateway.operated("PUT", &path, &json!({"status": "blocked"})).await;

    let wrong = gateway.call("echo", Some("oag_wrong"), &rpc(7, "SendMessage")).await;
    assert_eq!((wrong.status, &wrong.json()["id"]), (401, &json!(7)));
    assert!(wrong.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    let nobody = gateway.call("nobody", Some(&blocked.key), &rpc("x", "SendMessage")).await;
    assert_eq!((nobody.status, &nobody.json()["id"]), (404, &json!("x")));
    let denied = gateway.call("echo", Some(&blocked.key), &rpc(Value::Null, "SendMessage")).await;
    assert_eq!((denied.status, &denied.json()["id"]), (403, &Value::Null));
    let batch = gateway.call("echo", None, &json!([rpc(1, "SendMessage")])).await;
    assert_eq!(
        (batch.status, &batch.json()["error"]["code"], &batch.json()["id"]),
        (200, &json!(-32600), &Value::Null)
    );
    let mut client = gateway.client().await;
    client.send("POST", "/api/proxy/echo", &[("content-type", "application/json")], b"{\"jsonrpc\":").await;
    let broken = client.answer().await;
    assert_eq!((broken.status, &broken.json()["error"]["code"]), (200, &json!(-32700)));
    let text = [("content-type", "text/plain")];
    client.send("POST", "/api/proxy/echo", &text, rpc(9, "SendMessage").to_string().as_bytes()).await;
    let unsupported = client.answer().await;
    assert_eq!((unsupported.status, &unsupported.json()["id"]), (415, &json!(9)));
    client.send("PUT", "/api/proxy/echo", &[], b"").await;
    let wrong_method = client.answer().await;
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, Some("GET, HEAD, POST")));

    assert!(agent.calls().is_empty(), "nothing of this may reach the agent");
    let rows = gateway.rows().await;
    let mut seen: Vec<(u64, &str)> = rows
        .iter()
        .map(|row| (row["status_code"].as_u64().unwrap_or_default(), row["reason"].as_str().unwrap_or_default()))
        .collect();
    seen.sort_unstable();
    assert_eq!(seen.len(), 7, "{seen:?}");
    assert!(rows.iter().all(|row| row["outcome"] == "refused" && row["decision"] == "refused"));
    let id = denied.header("x-openagora-request-id").expect("every refusal has one");
    assert!(rows.iter().any(|row| row["id"] == id && row["trust_level"] == "blocked"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_may_not_be_known_looks_like_one_that_does_not_exist() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let body = json!({"name": "hidden", "slug": "hidden", "url": agent.url(), "listed": false});
    gateway.register_as(body).await;
    let stranger = gateway.register_client("stranger").await;
    for key in [None, Some(stranger.key.as_str())] {
        let hidden = gateway.call("hidden", key, &rpc(1, "SendMessage")).await;
        let absent = gateway.call("absent", key, &rpc(1, "SendMessage")).await;
        assert_eq!((hidden.status, absent.status), (404, 404));
        let normal = |answer: &crate::support::client::Answer| {
            let id = answer.header("x-openagora-request-id").unwrap_or_default().to_owned();
            answer.text().replace(&id, "ID")
        };
        assert_eq!(normal(&hidden), normal(&absent));
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rpc_url_works_with_and_without_a_slash_by_id_slug_and_relay() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    let by_id = format!("/api/proxy/{}", target.id);
    for path in ["/api/proxy/echo", "/api/proxy/echo/", by_id.as_str(), "/relay/echo", "/relay/echo/"] {
        let mut client = gateway.client().await;
        client.call(path, Some(&caller.key), &rpc(1, "message/send")).await;
        assert_eq!(client.answer().await.status, 200, "{path}");
    }
    assert!(agent.calls().iter().all(|call| call.request_line() == "POST /a2a HTTP/1.1"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_paths_and_listed_paths_go_below_the_registered_url_and_nothing_else_does() {
    let gateway = TestGateway::start().await;
    let agent = Agent::start(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.json("200 OK", &json!({"id": "t-9", "status": {"state": "TASK_STATE_WORKING"}})).await;
        }
    })
    .await;
    let url = format!("{}?assistant=7", agent.url());
    let body = json!({"name": "rest", "slug": "rest", "url": url, "subpaths": ["/chat"]});
    let target = gateway.register_as(body).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    let bearer = format!("Bearer {}", caller.key);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let mut client = gateway.client().await;
    for (method, path, status) in [
        ("POST", "/v1/message:send", 200),
        ("POST", "/message:send?x=1", 200),
        ("GET", "/tasks/t%209?historyLength=3", 200),
        ("POST", "/chat", 200),
        ("POST", "/status", 404),
        ("POST", "/chat/../admin", 400),
        ("POST", "/%2e%2e/admin", 400),
    ] {
        let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
        client.send(method, &format!("/api/proxy/rest{path}"), &headers, body).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_other_servers_read_differently_are_refused() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    gateway.register("echo", &agent).await;
    for request in [
        "POST /api/proxy/echo HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
        "POST /api/proxy/echo HTTP/1.1\r\nhost: a\r\nhost: b\r\ncontent-length: 0\r\n\r\n",
        "POST /api/proxy/echo HTTP/1.1\r\nhost: a b\r\ncontent-length: 0\r\n\r\n",
        "POST /api/proxy/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST /api/proxy/echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut client = gateway.client().await;
        client.write(request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{request:?}: {}", answer.text());
    }
    assert!(agent.calls().is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_hangs_up_before_or_while_it_is_answered_has_its_row() {
    let gateway = TestGateway::start().await;
    let agent = Agent::start(|mut conn| async move {
        conn.request().await;
        conn.closed().await;
    })
    .await;
    let target = gateway.register("silent", &agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;

    let mut early = gateway.client().await;
    early.write("POST /api/proxy/silent HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{\"jsonrpc\"").await;
    drop(early);
    let mut late = gateway.client().await;
    late.call("/api/proxy/silent", Some(&caller.key), &rpc(1, "SendMessage")).await;
    within("the agent has the call", async {
        while agent.calls().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(late);
    let rows = within("both rows", async {
        loop {
            let rows = gateway.rows_of(&target).await;
            if rows.len() >= 2 {
                break rows;
            }
        }
    })
    .await;
    assert!(rows.iter().all(|row| row["outcome"] == "client_gone"), "{rows:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_its_own_agent_answers_508_instead_of_turning_in_circles() {
    let gateway = TestGateway::start().await;
    // By a name the registration does not recognise as the gateway's own.
    let url = format!("http://localhost:{}/api/proxy/loop", gateway.gateway.public_address().port());
    let target = gateway.register_as(json!({"name": "loop", "slug": "loop", "url": url})).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    let answer = gateway.call("loop", Some(&caller.key), &rpc(1, "SendMessage")).await;
    assert_eq!(answer.status, 508, "{}", answer.text());
    let rows = gateway.rows_of(&target).await;
    let calls: Vec<_> = rows.iter().filter(|row| row["operation"] != "GetAgentCard").collect();
    assert_eq!(calls.len(), 2, "one that went out and one that came back: {calls:?}");
    gateway.stop().await;
}
