use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::a2a::{EnvelopeError, Operation, OperationSet};

const ALL: [Reason; 32] = [
    Reason::OperationNotAgreed { operation: Operation::ListTasks, agreed: OperationSet::EMPTY },
    Reason::CredentialMissing,
    Reason::CredentialInvalid,
    Reason::CredentialAmbiguous,
    Reason::Blocked,
    Reason::AgentNotFound,
    Reason::BaseUrlWithoutSlash,
    Reason::PathNotFound,
    Reason::RateLimited,
    Reason::QuotaExhausted,
    Reason::TooManyStreams,
    Reason::TooManyCalls,
    Reason::AgentBusy,
    Reason::GatewayBusy,
    Reason::AgentDisabled,
    Reason::ConnectFailed,
    Reason::CircuitOpen,
    Reason::UpstreamTimeout,
    Reason::AgentGone,
    Reason::InvalidAnswer,
    Reason::JournalDown,
    Reason::Draining,
    Reason::TooLarge,
    Reason::SlowBody,
    Reason::BadFraming,
    Reason::BadPath,
    Reason::ContentType,
    Reason::ContentEncoding,
    Reason::Envelope(EnvelopeError::Batch),
    Reason::MethodNotAllowed { allow: "GET, HEAD, POST" },
    Reason::PushRefused,
    Reason::Loop,
];

fn ctx(binding: Binding, rpc_id: Option<&str>) -> RenderContext<'_> {
    RenderContext { binding, rpc_id, request_id: Uuid::nil(), trust_level: Some(TrustLevel::Verified), head: false }
}

fn limited() -> Refusal {
    Refusal::new(Reason::RateLimited).retry_after(Duration::from_millis(11_001)).with("limit", "verified")
}

fn body(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).expect("JSON")
}

#[test]
fn a_json_rpc_refusal_has_the_real_status_the_callers_id_and_a_typed_reason() {
    let response = render(&limited(), &ctx(Binding::JsonRpc, Some("\"a\\u0062\"")));
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "12");
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["x-openagora-trust-level"], "verified");
    assert_eq!(response.headers()["x-openagora-request-id"], Uuid::nil().to_string().as_str());
    assert!(response.body().starts_with(b"{\"jsonrpc\":\"2.0\",\"id\":\"a\\u0062\",\"error\":{\"code\":-32000,"));
    let error = &body(&response)["error"];
    assert_eq!(
        error["message"],
        "Too many calls: the rate limit is reached. Try again in 12 seconds. \
         Connected agents have higher limits: ask this agent for a connection."
    );
    assert_eq!(
        error["data"],
        json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMITED", "domain": "trust-gateway",
            "metadata": {"retry_after": "12", "trust_level": "verified", "limit": "verified",
                "request_id": "00000000-0000-0000-0000-000000000000"}}])
    );
}

#[test]
fn a_rest_refusal_has_the_shape_of_google_apis() {
    let response = render(&limited(), &ctx(Binding::Rest, None));
    let error = &body(&response)["error"];
    assert_eq!((&error["code"], &error["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));
    assert_eq!(error["details"][0]["reason"], "RATE_LIMITED");
}

#[test]
fn a_plain_refusal_is_a_problem_with_openagoras_error_member() {
    let response = render(&limited(), &ctx(Binding::Http, None));
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem = body(&response);
    assert_eq!((&problem["status"], &problem["error"]), (&json!(429), &json!("Too Many Requests")));
    assert_eq!((&problem["retry_after"], &problem["reason"]), (&json!(12), &json!("RATE_LIMITED")));
    let unknown = body(&render(&Refusal::new(Reason::AgentNotFound), &ctx(Binding::Http, None)));
    assert_eq!(unknown["error"], "Agent not found");
}

#[test]
fn faults_of_the_envelope_and_push_are_answered_as_the_sdks_do() {
    let envelope = Refusal::new(Reason::Envelope(EnvelopeError::Batch));
    let response = render(&envelope, &ctx(Binding::JsonRpc, Some("7")));
    assert_eq!((response.status().as_u16(), &body(&response)["id"]), (200, &Value::Null));
    assert_eq!(body(&response)["error"]["code"], -32600);
    assert_eq!(render(&envelope, &ctx(Binding::Rest, None)).status(), 400);
    let push = render(&Refusal::new(Reason::PushRefused), &ctx(Binding::JsonRpc, Some("7")));
    assert_eq!((push.status().as_u16(), &body(&push)["id"]), (200, &json!(7)));
    assert_eq!(body(&push)["error"]["data"][0]["domain"], "a2a-protocol.org");
    assert_eq!(render(&Refusal::new(Reason::PushRefused), &ctx(Binding::Rest, None)).status(), 400);
}

#[test]
fn the_headers_that_a_status_demands_are_there() {
    let header = |reason, name: &str| {
        let response = render(&Refusal::new(reason), &ctx(Binding::JsonRpc, None));
        response.headers().get(name).map(|v| v.to_str().expect("text").to_owned())
    };
    assert_eq!(
        header(Reason::CredentialMissing, "www-authenticate").as_deref(),
        Some("Bearer realm=\"trust-gateway\"")
    );
    assert!(
        header(Reason::CredentialInvalid, "www-authenticate")
            .is_some_and(|v| v.starts_with("Bearer realm=\"trust-gateway\""))
    );
    assert_eq!(header(Reason::MethodNotAllowed { allow: "POST" }, "allow").as_deref(), Some("POST"));
    assert_eq!(header(Reason::RateLimited, "retry-after"), None);
}

#[test]
fn an_unknown_agent_and_a_hidden_one_get_the_same_answer() {
    let refusal = Refusal::new(Reason::AgentNotFound);
    for binding in [Binding::JsonRpc, Binding::Rest, Binding::Http] {
        let known = |trust_level| {
            let response = render(&refusal, &RenderContext { trust_level, ..ctx(binding, Some("1")) });
            let headers: BTreeSet<_> = response.headers().iter().map(|(k, v)| format!("{k}: {v:?}")).collect();
            (response.status(), headers, response.into_body())
        };
        assert_eq!(known(Some(TrustLevel::Blocked)), known(Some(TrustLevel::Verified)));
        assert_eq!(known(None), known(Some(TrustLevel::Verified)));
    }
}

#[test]
fn a_head_request_gets_the_head_of_the_answer_it_stands_for() {
    let get = render(&limited(), &ctx(Binding::Http, None));
    let head = render(&limited(), &RenderContext { head: true, ..ctx(Binding::Http, None) });
    assert_eq!((head.status(), head.headers()), (get.status(), get.headers()));
    assert_eq!(head.headers()["content-length"], get.body().len().to_string().as_str());
    assert!(head.body().is_empty());
}

#[test]
fn waits_are_rounded_up_and_never_zero() {
    let wait = |millis| Refusal::new(Reason::RateLimited).retry_after(Duration::from_millis(millis)).retry_seconds();
    assert_eq!([wait(0), wait(1), wait(1000), wait(1001), wait(300_000)], [1, 1, 1, 2, 300].map(Some));
}

#[test]
fn an_error_event_is_framed_as_its_dialect_frames_errors() {
    let refusal = Refusal::new(Reason::Draining);
    let event = |binding, dialect| {
        error_event(&refusal, &ctx(binding, Some("3")), dialect).map(|e| String::from_utf8(e.to_vec()).expect("UTF-8"))
    };
    let new = event(Binding::JsonRpc, Dialect::V10).expect("an event");
    let old = event(Binding::JsonRpc, Dialect::V03).expect("an event");
    assert_eq!(new, format!("event: error\n{old}"));
    assert!(old.starts_with("data: {\"jsonrpc\":\"2.0\",\"id\":3,\"error\":{"));
    assert!(old.ends_with("}\n\n") && old.trim_end().lines().count() == 1);
    assert!(
        event(Binding::Rest, Dialect::V10)
            .is_some_and(|e| e.starts_with("event: error\ndata: {\"error\":{\"code\":503,"))
    );
    assert_eq!(event(Binding::Http, Dialect::V10), None);
}

#[test]
fn every_reason_has_a_row_of_its_own_and_says_what_to_do() {
    let words: BTreeSet<_> = ALL.iter().map(|r| r.word()).collect();
    assert_eq!(words.len(), ALL.len());
    for reason in ALL {
        assert!(reason.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason:?}");
        assert!(reason.info().bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{reason:?}");
        assert!(reason.message().ends_with('.'), "{reason:?}");
        assert!(reason.status(Binding::Rest).is_client_error() || reason.status(Binding::Rest).is_server_error());
        // A2A gave its other numbers meanings of their own; none of them may be borrowed.
        assert!([-32000, -32003, -32005, -32006, -32600, -32603, -32700].contains(&reason.code()), "{reason:?}");
    }
}

proptest! {
    #[test]
    fn whatever_it_is_given_the_answer_is_valid_and_a_valid_id_is_echoed(
        reason in prop::sample::select(ALL.to_vec()),
        id in prop::option::of(any::<String>()),
        raw in prop::option::of(prop_oneof![any::<String>(), "\"[ -~]{0,8}", "[{\\[]\\PC{0,8}", "-?[1-9][0-9]{0,40}"]),
        value: String,
        millis in prop::option::of(any::<u32>()),
        head: bool,
    ) {
        let mut refusal = Refusal::new(reason).with("hostile", value.clone());
        refusal.retry_after = millis.map(|m| Duration::from_millis(m.into()));
        let quoted = id.map(|id| json!(id).to_string());
        for text in [quoted.as_deref(), raw.as_deref()] {
            for binding in [Binding::JsonRpc, Binding::Rest, Binding::Http] {
                let context = RenderContext { head, ..ctx(binding, text) };
                let response = render(&refusal, &context);
                prop_assert_eq!(response.body().is_empty(), head);
                if !head {
                    let _: Value = serde_json::from_slice(response.body()).expect("valid JSON");
                }
                for dialect in [Dialect::V03, Dialect::V10] {
                    let Some(event) = error_event(&refusal, &context, dialect) else { continue };
                    let lines = event.split(|b| *b == b'\n').count();
                    prop_assert_eq!(lines, if dialect == Dialect::V10 { 4 } else { 3 });
                    prop_assert!(!event.contains(&b'\r'));
                }
            }
        }
        if let (Some(quoted), false) = (&quoted, matches!(reason, Reason::Envelope(_))) {
            let response = render(&refusal, &ctx(Binding::JsonRpc, Some(quoted)));
            let start = format!("{{\"jsonrpc\":\"2.0\",\"id\":{quoted},\"error\":");
            prop_assert!(response.body().starts_with(start.as_bytes()));
            prop_assert_eq!(&body(&response)["error"]["data"][0]["metadata"]["hostile"], &json!(value));
        }
    }
}
