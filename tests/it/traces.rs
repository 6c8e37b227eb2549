//! W3C Trace Context: a call's trace goes on through the gateway, and its row is found by it.

use serde_json::Value;

use crate::support::agent::{Agent, Received};
use crate::support::gateway::{Registered, TestGateway};
use crate::support::rpc;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Makes a call with these headers; what the agent got, and the row.
async fn called(
    gateway: &TestGateway,
    agent: &Agent,
    caller: &Registered,
    headers: &[(&str, &str)],
) -> (Received, Value) {
    let key = [("x-api-key", caller.key.as_str()), ("content-type", "application/json")];
    let mut client = gateway.client().await;
    let body = rpc(1, "SendMessage").to_string();
    client.send("POST", "/api/proxy/echo", &[&key, headers].concat(), body.as_bytes()).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = answer.header("x-openagora-request-id").expect("every answer has one");
    let row = gateway.rows().await.into_iter().find(|row| row["id"] == id).expect("a row");
    (agent.calls().pop().expect("a call"), row)
}

/// All values of a header that an agent got.
fn values<'a>(received: &'a Received, name: &str) -> Vec<&'a str> {
    let fields = received.head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valid_trace_goes_on_with_the_call_as_its_parent() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    for (version, more) in [("00", ""), ("cc", "-what-is-to-come")] {
        let parent = format!("{version}-{TRACE}-{PARENT}-01{more}");
        let headers = [("traceparent", parent.as_str()), ("tracestate", "a=1,b=2"), ("tracestate", "c=3")];
        let (received, row) = called(&gateway, &agent, &caller, &headers).await;
        assert_eq!(row["trace_id"], TRACE);
        let request_id = row["id"].as_str().expect("an id").replace('-', "");
        let span = request_id.get(16..).expect("32 digits");
        assert_eq!(values(&received, "traceparent"), [format!("00-{TRACE}-{span}-01")]);
        assert_eq!(values(&received, "tracestate").join(","), "a=1,b=2,c=3");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_valid_trace_one_begins_and_the_row_is_found_by_it() {
    let gateway = TestGateway::start().await;
    let agent = Agent::echo().await;
    let target = gateway.register("echo", &agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    let good = format!("00-{TRACE}-{PARENT}-01");
    let zero_trace = format!("00-{}-{PARENT}-01", "0".repeat(32));
    let zero_parent = format!("00-{TRACE}-{}-01", "0".repeat(16));
    let invalid = format!("ff-{TRACE}-{PARENT}-01");
    let capitals = good.to_uppercase();
    let long = format!("{good}-more");
    for sent in [
        vec![],
        vec![&*zero_trace],
        vec![&*zero_parent],
        vec![&*invalid],
        vec![&*capitals],
        vec![&*long],
        vec![&*good, &*good],
    ] {
        let mut headers: Vec<_> = sent.iter().map(|value| ("traceparent", *value)).collect();
        headers.push(("tracestate", "a=1"));
        let (received, row) = called(&gateway, &agent, &caller, &headers).await;
        let parents = values(&received, "traceparent");
        assert_eq!(parents.len(), 1, "{sent:?}");
        let parts: Vec<_> = parents[0].split('-').collect();
        let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
        assert_eq!((lengths, parts[0], parts[3]), (vec![2, 32, 16, 2], "00", "00"), "{sent:?}");
        assert!(parts[1] != TRACE && parts[1].bytes().any(|byte| byte != b'0'), "{sent:?}: {parents:?}");
        assert_eq!(row["trace_id"], parts[1], "{sent:?}");
        assert!(values(&received, "tracestate").is_empty(), "it belongs to a trace that has ended: {sent:?}");
    }
    gateway.stop().await;
}
