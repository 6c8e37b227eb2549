//! Hostile strings wherever one is accepted: the answer is well-formed, the row can be read, nothing else breaks.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use trust_gateway::clock::{Clock, Timestamp};

use crate::support::agent::Agent;
use crate::support::client::Answer;
use crate::support::gateway::{Registered, TestGateway};
use crate::support::rpc;

/// Text that has broken something somewhere.
const HOSTILE: &[&str] = &[
    "'; DROP TABLE proxy_calls; --",
    "' OR '1'='1",
    "\" onmouseover=\"alert(1)",
    "<script>alert(1)</script>",
    "\u{1b}[31mred\u{1b}[0m\u{7}",
    "line\r\nX-Injected: yes\r\n\r\nHTTP/1.1 200 OK",
    "nul\0nul",
    "\u{2028}\u{2029}\u{85}",
    "\u{202e}desrever",
    "\u{feff}bom",
    "%00%0a%2e%2e%2f",
    "../../../../etc/passwd",
    "${jndi:ldap://x/y}",
    "{{7*7}}",
    "\\\\\\\"",
    "Ω≈ç√∫˜µ≤≥÷",
    "👩‍👩‍👧‍👦",
    "\u{10ffff}\u{fffe}",
    "-1",
    "NaN",
    " ",
];

fn stopped() -> Clock {
    Clock::manual(Timestamp(1_790_000_000_000_000))
}

/// A gateway with an agent and a caller that may call it without end.
async fn scene(clock: Clock) -> (TestGateway, Agent, Registered, Registered) {
    let gateway = TestGateway::with(clock, |_| {}).await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    let connection = gateway.connect(&caller, &target).await;
    let path = format!("/api/connections/{}", connection["id"].as_str().expect("an id"));
    let limits = json!({"limits": {"rate": 1_000_000, "period_ms": 1000, "burst": 1_000_000, "daily": 100_000_000}});
    gateway.operated("PUT", &path, &limits).await;
    (gateway, agent, target, caller)
}

async fn post(gateway: &TestGateway, path: &str, key: &str, body: &[u8]) -> Answer {
    let mut client = gateway.client().await;
    client.send("POST", path, &[("content-type", "application/json"), ("x-api-key", key)], body).await;
    client.answer().await
}

/// The id of a JSON-RPC answer as it is written there.
fn raw_id(answer: &Answer) -> String {
    #[derive(serde::Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    let raw: Raw<'_> = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.text()));
    raw.id.get().to_owned()
}

async fn assert_it_still_works(gateway: &TestGateway, caller: &Registered) {
    let answer = gateway.call("echo", Some(&caller.key), &rpc("still here", "SendMessage")).await;
    assert_eq!((answer.status, &answer.json()["id"]), (200, &json!("still here")), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_echoed_as_they_are_written_and_kept_in_readable_rows() {
    let (gateway, agent, target, caller) = scene(stopped()).await;
    let mut ids: Vec<String> = HOSTILE.iter().map(|text| json!(text).to_string()).collect();
    ids.extend(
        [
            r#""\u0000""#,
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            r#""\u2028\u001b[2J""#,
            r#""\/\b\f""#,
            "\"\u{2028}\"",
            "\"\"",
            "0",
            "-0",
            "-1.5e-3",
            "12345678901234567890123456789",
            "1e400",
        ]
        .map(str::to_owned),
    );
    ids.push(format!("\"{}\"", "x".repeat(4094)));
    ids.push(format!("\"{}\"", "\u{2028}".repeat(1300)));
    for id in &ids {
        // Refused by the agent's name, and let through.
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"SendMessage","params":{{}}}}"#);
        let refused = post(&gateway, "/api/proxy/nobody", &caller.key, body.as_bytes()).await;
        assert_eq!(raw_id(&refused), *id, "{}", refused.status);
        let passed = post(&gateway, "/api/proxy/echo", &caller.key, body.as_bytes()).await;
        assert_eq!(passed.status, 200, "{id}: {}", passed.text());
        let seen = agent.calls().pop().expect("it was let through");
        assert_eq!(String::from_utf8_lossy(&seen.body), body);
    }
    let kept: Vec<String> =
        gateway.rows_of(&target).await.iter().filter_map(|row| row["rpc_id"].as_str().map(str::to_owned)).collect();
    let short: Vec<&String> = ids.iter().filter(|id| id.len() <= 256).collect();
    for id in short {
        assert!(kept.contains(id), "{id} is not among {kept:?}");
    }
    assert_it_still_works(&gateway, &caller).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_id_is_answered_with_null() {
    let (gateway, agent, _, caller) = scene(stopped()).await;
    let too_long = json!("x".repeat(4095)).to_string();
    for id in ["{}", "[1]", "true", r#"{"a":"b"}"#, too_long.as_str()] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"SendMessage"}}"#);
        let answer = post(&gateway, "/api/proxy/echo", &caller.key, body.as_bytes()).await;
        let (code, expected) = (&answer.json()["error"]["code"], json!(-32600));
        assert_eq!((answer.status, code, raw_id(&answer).as_str()), (200, &expected, "null"), "{id}");
    }
    assert!(agent.calls().is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_tasks_contexts_and_messages_pass_and_are_found_by_what_they_say() {
    let (gateway, agent, target, caller) = scene(stopped()).await;
    let long = "長い".repeat(20_000);
    let texts: Vec<&str> = HOSTILE.iter().copied().chain([long.as_str()]).collect();
    for (n, text) in texts.iter().enumerate() {
        let method = if n % 2 == 0 { "SendMessage" } else { text };
        let body = json!({"jsonrpc": "2.0", "id": n, "method": method, "params": {"message": {
            "messageId": text, "taskId": text, "contextId": text, "role": "ROLE_USER", "parts": [{"text": text}]}}});
        let answer = gateway.call("echo", Some(&caller.key), &body).await;
        assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(n)), "{text:?}: {}", answer.text());
        assert_eq!(agent.calls()[n].json(), body);
    }
    let rows = gateway.rows_of(&target).await;
    assert_eq!(rows.len(), texts.len());
    for (row, text) in rows.iter().zip(&texts) {
        let message = row["message_id"].as_str().unwrap_or_default();
        // A row may have no U+0000: PostgreSQL keeps none.
        assert!(
            text.replace('\0', "\u{1a}").starts_with(message) && message.len() <= 256 && !message.is_empty(),
            "{message:?} of {text:?}"
        );
        assert!(row["method"].as_str().is_some_and(|method| method.len() <= 200), "{row}");
        assert_eq!((&row["outcome"], &row["calls"]), (&json!("completed"), &json!(1)));
    }
    // The filters of the log take the same text, and take it for text. The agent's answers named other tasks.
    let sent = texts.len() as u64;
    let since = stopped().wall().plus_micros(-3_600_000_000);
    for text in HOSTILE {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let page = gateway.operate("GET", &format!("/api/calls?task_id={encoded}&since={since}&limit=200"), None).await;
        assert!(page.status == 200 || page.status == 400, "{text:?}: {} {}", page.status, page.text());
        assert!(page.json()["calls"].as_array().is_none_or(Vec::is_empty), "{text:?}: {}", page.text());
    }
    assert_eq!(gateway.rows_of(&target).await.len() as u64, sent, "nothing was dropped");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_utf_8_is_a_parse_error_and_a_row() {
    let (gateway, agent, target, caller) = scene(stopped()).await;
    for body in [
        b"{\"jsonrpc\":\"2.0\",\"id\":\"\xff\",\"method\":\"SendMessage\"}".as_slice(),
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xc3\x28\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\",\"params\":{\"a\":\"\xed\xa0\x80\"}}",
        b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"SendMessage\"}",
        b"\0",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\0b\"}",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"SendMessage\"}{",
    ] {
        let answer = post(&gateway, "/api/proxy/echo", &caller.key, body).await;
        let code = answer.json()["error"]["code"].clone();
        assert_eq!((answer.status, code, raw_id(&answer).as_str()), (200, json!(-32700), "null"), "{body:?}");
    }
    let rows = gateway.rows_of(&target).await;
    let calls: u64 = rows.iter().filter_map(|row| row["calls"].as_u64()).sum();
    assert_eq!(calls, 7);
    assert!(rows.iter().all(|row| row["reason"] == "parse_error" && row["rpc_id"].is_null()), "{rows:?}");
    assert!(agent.calls().is_empty());
    assert_it_still_works(&gateway, &caller).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_lead_to_the_agent_or_nowhere() {
    let clock = stopped();
    let (gateway, agent, _, caller) = scene(clock.clone()).await;
    let long = format!("/api/proxy/{}", "a".repeat(20_000));
    let deep = format!("/api/proxy/echo{}", "/x".repeat(5_000));
    for path in [
        "/api/proxy/",
        "/api/proxy//",
        "/api/proxy/echo//",
        "/api/proxy//echo",
        "/api/proxy/ECHO",
        "/api/proxy/echo%20",
        "/api/proxy/ech%6f",
        "/api/proxy/echo%00",
        "/api/proxy/echo/..%2f",
        "/api/proxy/echo/%2e%2e",
        "/api/proxy/echo/;/",
        "/api/proxy/echo;x=1",
        "/api/proxy/echo\\",
        "/api/proxy/'%20OR%201=1",
        "/api/proxy/%f0%9f%92%a9",
        "/api/proxy/\u{e9}cho",
        "/api/proxy/echo/tasks/%00",
        "/api/proxy/echo/tasks/%0d%0aX-A:b",
        "/api/proxy/echo?\u{0}",
        long.as_str(),
        deep.as_str(),
    ] {
        clock.advance(Duration::from_secs(2));
        let answer = post(&gateway, path, &caller.key, rpc(1, "SendMessage").to_string().as_bytes()).await;
        assert!((400..500).contains(&answer.status), "{path:.80}: {} {}", answer.status, answer.text());
    }
    assert!(agent.calls().is_empty());
    assert_it_still_works(&gateway, &caller).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_are_taken_for_what_they_say_and_reach_the_agent_as_one_line_each() {
    let clock = stopped();
    let (gateway, agent, target, caller) = scene(clock.clone()).await;
    let body = rpc(1, "SendMessage").to_string();
    let huge = "v".repeat(30_000);
    for (name, value) in [
        ("a2a-version", b"\xff\xfe".as_slice()),
        ("a2a-version", huge.as_bytes()),
        ("a2a-extensions", b"urn:x, ,,\"\x80"),
        ("traceparent", b"00-00000000000000000000000000000000-0000000000000000-00"),
        ("traceparent", b"'; DROP TABLE proxy_calls; --"),
        ("via", b"1.1 \xe9, ,,,"),
        ("x-forwarded-for", b"::ffff:1.2.3.4, <script>"),
        ("user-agent", b"\x1b]0;title\x07".as_slice().split_at(1).1),
        ("cookie", b"a=b; ' OR 1=1"),
        ("x-user-id", b"root"),
        ("connection", b"close, authorization, x-openagora-caller-id, content-type, \xff"),
        ("x-openagora-trust-level", b"connected"),
        ("accept", b"*/*;q=\xff"),
    ] {
        clock.advance(Duration::from_secs(1));
        let mut client = gateway.client().await;
        let mut bytes = format!("POST /api/proxy/echo HTTP/1.1\r\nhost: g\r\nx-api-key: {}\r\n{name}: ", caller.key);
        bytes.push_str(&format!("\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        let at = bytes.find(&format!("{name}: ")).expect("just written") + name.len() + 2;
        let mut bytes = bytes.into_bytes();
        bytes.splice(at..at, value.iter().copied());
        client.write(bytes).await;
        let answer = client.answer().await;
        // A BEL is no header value: that one is refused by the protocol itself.
        let expected = if name == "user-agent" { 400 } else { 200 };
        assert_eq!(answer.status, expected, "{name}: {}", answer.text());
    }
    for call in agent.calls() {
        assert_eq!(call.header("x-openagora-caller-id"), Some(caller.id.as_str()));
        assert_eq!(call.header("x-user-id"), None);
        assert!(!call.head.contains(&caller.key), "{}", call.head);
    }
    assert_eq!(gateway.rows_of(&target).await.len(), 12);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_refused_or_reach_agents_in_a_form_that_is_one_header() {
    let (gateway, agent, target, _) = scene(stopped()).await;
    for (n, text) in HOSTILE.iter().enumerate() {
        let body = json!({"name": format!("n{text}n"), "slug": format!("hostile-{n}")});
        let answer = gateway.operate("POST", "/api/agents", Some(&body)).await;
        let acts = text.chars().any(|c| c.is_control() || "\u{2028}\u{202e}\u{feff}".contains(c));
        assert_eq!(answer.status, if acts { 400 } else { 201 }, "{text:?}: {}", answer.text());
        if acts {
            assert!(answer.text().contains("must not hold the character U+"), "{}", answer.text());
            continue;
        }
        let created = answer.json();
        let member = |name: &str| created[name].as_str().unwrap_or_default().to_owned();
        let named = Registered { id: member("id"), key: member("api_key") };
        gateway.connect(&named, &target).await;
        let answer = gateway.call("echo", Some(&named.key), &rpc(n, "SendMessage")).await;
        assert_eq!(answer.status, 200, "{text:?}: {}", answer.text());
        let call = agent.calls().pop().expect("it was let through");
        let name = call.header("x-openagora-caller-name").expect("a name");
        assert!(name.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{name:?}");
        let decoded: Vec<u8> = decode(name);
        assert_eq!(String::from_utf8_lossy(&decoded), format!("n{text}n"));
    }
    for slug in ["' OR 1=1", "a\nb", "..", "%2e", "ÄÖÜ", "a/b", ""] {
        let answer = gateway.operate("POST", "/api/agents", Some(&json!({"name": "x", "slug": slug}))).await;
        assert_eq!(answer.status, 400, "{slug:?}: {}", answer.text());
    }
    gateway.stop().await;
}

/// Percent-decoding.
fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, ..]) => {
                let pair = [*high, *low];
                out.push(u8::from_str_radix(std::str::from_utf8(&pair).expect("ASCII"), 16).expect("hex"));
                rest = &tail[2..];
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// Bytes that may or may not be what they are put in the place of.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 0..40),
        2 => "[!-~]{0,40}".prop_map(String::into_bytes),
        1 => proptest::sample::select(HOSTILE).prop_map(|text| text.as_bytes().to_vec()),
        1 => any::<String>().prop_map(String::into_bytes),
    ]
}

#[test]
fn no_bytes_in_any_place_of_a_request_are_answered_with_a_fault_of_ours() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let clock = stopped();
    let (gateway, _agent, _, caller) = runtime.block_on(scene(clock.clone()));
    let words = proptest::sample::select(vec![&b"POST"[..], b"GET", b"PUT", b"HEAD", b"OPTIONS", b"x", b"P\xffST"]);
    let names = proptest::sample::select(vec![
        &b"a2a-version"[..],
        b"accept",
        b"expect",
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"x-api-key",
        b"connection",
        b"te",
        b"upgrade",
        b"via",
        b"host",
        b"x\xffy",
    ]);
    // Half of the time a place holds what belongs there: faults hide behind the first thing that is wrong.
    let or = |right: &'static [&'static str]| {
        let right = proptest::sample::select(right).prop_map(|text| text.as_bytes().to_vec());
        prop_oneof![right, bytes()]
    };
    let rest = or(&["", "", "/", "/tasks/7", "/message:send", "/.well-known/agent-card.json"]);
    let (rpc_method, id) = (or(&["SendMessage", "message/stream", "x"]), or(&["1", "\"a\"", "null"]));
    let strategy = (words, rest, names, bytes(), rpc_method, id, any::<bool>());
    let mut runner = TestRunner::new(Cases { cases: 96, failure_persistence: None, ..Cases::default() });
    let outcome = runner.run(&strategy, |(method, rest, name, value, rpc_method, id, identified)| {
        let answer = runtime.block_on(async {
            clock.advance(Duration::from_secs(5));
            let mut body = br#"{"jsonrpc":"2.0","method":""#.to_vec();
            body.extend_from_slice(&rpc_method);
            body.extend_from_slice(br#"","id":"#);
            body.extend_from_slice(&id);
            body.push(b'}');
            let mut request = [method, b" /api/proxy/echo", &rest, b" HTTP/1.1\r\nhost: g\r\n", name, b": "].concat();
            request.extend_from_slice(&value);
            if identified {
                request.extend_from_slice(format!("\r\nx-api-key: {}", caller.key).as_bytes());
            }
            request.extend_from_slice(format!("\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
            request.extend_from_slice(&body);
            let mut client = gateway.client().await;
            client.write(request).await;
            client.finish().await;
            let answer = client.head().await;
            assert_it_still_works(&gateway, &caller).await;
            answer
        });
        // No status: the connection was closed without an answer, which is what half a request deserves.
        prop_assert!(answer.status < 500, "{}", answer.head);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    runtime.block_on(async {
        let rows: Vec<Value> = gateway.rows().await;
        assert!(rows.iter().filter(|row| row["rpc_id"] == "\"still here\"").count() >= 96);
        gateway.stop().await;
    });
}
