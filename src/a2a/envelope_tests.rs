use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn ids(body: &str) -> (Option<String>, Option<String>, Option<String>) {
    let e = look(body.as_bytes()).unwrap_or_else(|e| panic!("{body}: {e}"));
    (e.task_id.map(Into::into), e.context_id.map(Into::into), e.message_id.map(Into::into))
}

fn three(task: &str, context: &str, message: &str) -> (Option<String>, Option<String>, Option<String>) {
    let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    (some(task), some(context), some(message))
}

fn fault(body: &str) -> EnvelopeError {
    look(body.as_bytes()).expect_err(body)
}

#[test]
fn ids_are_found_where_each_dialect_keeps_them() {
    let cases = [
        (
            r#"{"method":"SendMessage","params":{"message":{"messageId":"m","taskId":"t","contextId":"c"}}}"#,
            three("t", "c", "m"),
        ),
        (
            r#"{"method":"message/send","params":{"message":{"message_id":"m","task_id":"t","context_id":"c"}}}"#,
            three("t", "c", "m"),
        ),
        (r#"{"method":"GetTask","params":{"id":"t"}}"#, three("t", "", "")),
        (r#"{"method":"ListTasks","params":{"contextId":"c"}}"#, three("", "c", "")),
        (r#"{"method":"GetTaskPushNotificationConfig","params":{"taskId":"t","id":"p"}}"#, three("t", "", "")),
        (
            r#"{"method":"tasks/pushNotificationConfig/get","params":{"id":"t","pushNotificationConfigId":"p"}}"#,
            three("t", "", ""),
        ),
        (r#"{"method":"tasks/send","params":{"id":"t","sessionId":"s","message":{"parts":[]}}}"#, three("t", "s", "")),
        // An agent ignores these, so the row must not be told otherwise.
        (
            r#"{"method":"SendMessage","params":{"id":"x","contextId":"y","message":{"messageId":"m"}}}"#,
            three("", "", "m"),
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(ids(body), expected, "{body}");
    }
}

#[test]
fn odd_params_are_the_agents_business() {
    for params in
        ["null", "[]", "7", "\"x\"", r#"{"id":7,"message":[],"configuration":3}"#, r#"{"message":{"taskId":{}}}"#]
    {
        assert_eq!(ids(&format!(r#"{{"method":"tasks/get","params":{params}}}"#)), three("", "", ""), "{params}");
    }
}

#[test]
fn the_id_is_kept_as_it_was_written() {
    for id in [r#""a\u0062""#, r#""\ud800""#, "1", "-1.50e+3", "123456789012345678901234567890", "null", r#""""#] {
        let body = format!(r#"{{"jsonrpc":"2.0", "id" : {id} ,"method":"GetTask"}}"#);
        assert_eq!(look(body.as_bytes()).expect(id).id.as_json(), Some(id));
        assert_eq!(find_id(body.as_bytes()).and_then(RawId::as_json), Some(id));
    }
    assert_eq!(look(br#"{"method":"x"}"#).expect("a notification").id.as_json(), None);
}

#[test]
fn an_id_of_another_type_or_of_absurd_length_is_refused() {
    for id in ["true", "false", "{}", "[]", &format!("\"{}\"", "x".repeat(MAX_RPC_ID))] {
        assert_eq!(fault(&format!(r#"{{"id":{id},"method":"x"}}"#)), EnvelopeError::BadId);
    }
}

#[test]
fn an_id_is_found_early_only_in_a_small_body_that_is_whole() {
    let body = br#"{"id":1,"method":"x"}"#;
    assert!(find_id(&body[..body.len() - 1]).is_none());
    assert!(find_id(&[&body[..], &vec![b' '; FIND_ID_LIMIT]].concat()).is_none());
    assert!(find_id(br#"{"id":1,"id":2,"method":"x"}"#).is_none());
}

#[test]
fn the_version_may_be_missing_but_not_another() {
    assert!(look(br#"{"method":"tasks/send"}"#).is_ok());
    for version in ["\"1.0\"", "2.0", "null", "\"2\""] {
        assert_eq!(fault(&format!(r#"{{"jsonrpc":{version},"method":"x"}}"#)), EnvelopeError::Version);
    }
}

#[test]
fn what_is_not_one_json_value_is_a_parse_error() {
    for body in
        ["", " ", "{", "{}x", "{} {}", "\u{feff}{}", "{'a':1}", "[1,", "{\"a\":NaN}", "{\"method\":\"\\ud800\"}", "nul"]
    {
        assert_eq!(fault(body).code(), -32700, "{body:?}");
    }
    for body in [&b"{\"a\":\"\xff\"}"[..], b"\xff\xfe{\0}\0", b"{\0}\0"] {
        assert_eq!(look(body).expect_err("not UTF-8").code(), -32700);
    }
}

#[test]
fn what_is_json_but_no_request_is_invalid() {
    assert_eq!(fault("[]"), EnvelopeError::Batch);
    assert_eq!(fault(r#" [{"method":"x"}]"#), EnvelopeError::Batch);
    for body in ["1", "null", "\"x\"", "true"] {
        assert_eq!(fault(body), EnvelopeError::NotAnObject);
    }
    for body in ["{}", r#"{"method":""}"#, r#"{"method":null}"#, r#"{"method":["x"]}"#] {
        assert_eq!(fault(body), EnvelopeError::NoMethod);
    }
    assert_eq!(fault("[]").code(), -32600);
}

#[test]
fn brackets_without_end_neither_overflow_the_stack_nor_pass() {
    let hostile = "[".repeat(10 << 20);
    assert_eq!(fault(&hostile).code(), -32700);
    assert_eq!(fault(&format!(r#"{{"method":"x","params":{hostile}"#)).code(), -32700);
    let nested = |n| format!(r#"{{"method":"x","x":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(look(nested(MAX_DEPTH - 1).as_bytes()).is_ok());
    assert_eq!(fault(&nested(MAX_DEPTH)), EnvelopeError::TooDeep);
}

#[test]
fn a_member_that_decides_may_stand_once_and_in_one_spelling() {
    let top = [
        r#"{"method":"GetTask","method":"SendMessage"}"#,
        r#"{"method":"GetTask","method":"GetTask"}"#,
        r#"{"method":"GetTask","\u006dethod":"SendMessage"}"#,
        r#"{"method":"GetTask","Method":"SendMessage"}"#,
        r#"{"METHOD":"GetTask"}"#,
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","method":"x"}"#,
        r#"{"id":1,"id":1,"method":"x"}"#,
        r#"{"id":1,"ID":2,"method":"x"}"#,
        r#"{"method":"x","params":{},"params":{}}"#,
        r#"{"method":"x","paramſ":{}}"#,
    ];
    let inner = [
        r#"{"id":"a","id":"a"}"#,
        r#"{"taskId":"a","taskId":"a"}"#,
        r#"{"taskId":"a","task_id":"b"}"#,
        r#"{"taskId":"a","TaskID":"b"}"#,
        r#"{"taskId":"a","task_id":null}"#,
        r#"{"contextId":"a","context_id":"b"}"#,
        r#"{"message":{},"message":{}}"#,
        r#"{"message":{},"Message":{}}"#,
        r#"{"configuration":{},"Configuration":{}}"#,
        r#"{"message":{"messageId":"a","message_id":"b"}}"#,
        r#"{"message":{"taskId":"a","taskId":"b"}}"#,
        r#"{"message":{"contextId":"a","context_id":"b"}}"#,
    ];
    let inner = inner.map(|params| format!(r#"{{"method":"SendMessage","params":{params}}}"#));
    for body in top.into_iter().chain(inner.iter().map(String::as_str)) {
        assert!(matches!(fault(body), EnvelopeError::Ambiguous(_)), "{body}");
    }
}

#[test]
fn two_spellings_with_one_value_are_no_contradiction() {
    assert_eq!(
        ids(r#"{"method":"message/send","params":{"message":{"taskId":"t","task_id":"t","messageId":"m"}}}"#),
        three("t", "", "m")
    );
}

#[test]
fn broken_json_is_worse_than_a_broken_request() {
    assert_eq!(fault(r#"{"method":1,"id":{},"x":"#).code(), -32700);
}

#[test]
fn a_push_configuration_is_seen_in_every_spelling() {
    for params in [
        r#"{"configuration":{"taskPushNotificationConfig":{"url":"u"}}}"#,
        r#"{"configuration":{"task_push_notification_config":{}}}"#,
        r#"{"configuration":{"pushNotificationConfig":{"url":"u"}}}"#,
        r#"{"configuration":{"push_notification_config":"u"}}"#,
        r#"{"configuration":{"push_notification":{"url":"u"}}}"#,
        r#"{"Configuration":{"PushNotificationConfig":{"url":"u"}}}"#,
        r#"{"configuration":{"pushNotificationConfig":null,"push_notification_config":{}}}"#,
        r#"{"pushNotification":{"url":"u"}}"#,
        r#"{"configuration":{"\u0070ushNotificationConfig":{"url":"u"}}}"#,
    ] {
        let rpc = format!(r#"{{"method":"SendMessage","params":{params}}}"#);
        assert!(look(rpc.as_bytes()).expect(params).inline_push, "{params}");
        assert!(look_rest(rpc.as_bytes()).expect(params).inline_push, "{params}");
        assert!(look_rest(params.as_bytes()).expect(params).inline_push, "{params}");
    }
    for params in
        [r#"{"configuration":{"pushNotificationConfig":null}}"#, r#"{"metadata":{"pushNotificationConfig":1}}"#]
    {
        let rpc = format!(r#"{{"method":"SendMessage","params":{params}}}"#);
        assert!(!look(rpc.as_bytes()).expect(params).inline_push, "{params}");
    }
}

#[test]
fn a_rest_body_is_an_object_an_envelope_or_nothing() {
    let message = r#"{"message":{"messageId":"m","taskId":"t","contextId":"c"},"id":{"any":"thing"}}"#;
    let envelope = r#"{"jsonrpc":"2.0","id":"r","method":"message/send","params":{"message":{"messageId":"m","task_id":"t","contextId":"c"}}}"#;
    let proto = r#"{"request":{"message_id":"m","task_id":"t","context_id":"c"}}"#;
    for (body, id) in [(message, None), (envelope, Some("\"r\"")), (proto, None)] {
        let rest = look_rest(body.as_bytes()).expect(body);
        assert_eq!(rest.id.as_json(), id);
        assert_eq!(
            (rest.task_id.as_deref(), rest.context_id.as_deref(), rest.message_id.as_deref()),
            (Some("t"), Some("c"), Some("m")),
            "{body}"
        );
    }
    assert_eq!(look_rest(b" \r\n"), Ok(RestBody::default()));
    assert_eq!(look_rest(b"{").expect_err("broken").code(), -32700);
    assert_eq!(look_rest(b"[]"), Err(EnvelopeError::Batch));
    assert!(look_rest(br#"{"message":{},"request":{}}"#).is_err());
}

/// JSON that is mostly like a request, with members doubled, misspelt and of odd types now and then.
fn request() -> impl Strategy<Value = String> {
    let text = prop_oneof![Just("\"a\""), Just("\"b\""), Just("null"), Just("7"), Just("[]"), Just("{\"x\":[1]}")];
    let key = |keys: &'static [&'static str]| prop::sample::select(keys);
    let object = |members: BoxedStrategy<(&'static str, String)>| {
        prop::collection::vec(members, 0..5).prop_map(|members| {
            let members: Vec<_> = members.into_iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
            format!("{{{}}}", members.join(","))
        })
    };
    let plain = text.prop_map(str::to_owned).boxed();
    let message = object((key(&["taskId", "task_id", "contextId", "messageId", "parts"]), plain.clone()).boxed());
    let configuration = object((key(&["pushNotificationConfig", "blocking"]), plain.clone()).boxed());
    let params = object(
        prop_oneof![
            (Just("message"), prop_oneof![message.boxed(), plain.clone()]),
            (Just("configuration"), prop_oneof![configuration.boxed(), plain.clone()]),
            (key(&["id", "taskId", "task_id", "contextId", "sessionId", "metadata"]), plain.clone()),
        ]
        .boxed(),
    );
    let method = prop::sample::select(vec!["\"SendMessage\"", "\"GetTask\"", "\"tasks/send\"", "\"\"", "3"]);
    let versions = prop_oneof![4 => Just("\"2.0\""), 1 => Just("\"1.0\"")];
    (
        prop::option::weighted(0.9, versions),
        prop::option::of(plain),
        prop::option::weighted(0.9, method),
        prop::option::weighted(0.9, params),
        prop::option::weighted(0.1, Just("\"method\":\"SendMessage\"".to_owned())),
    )
        .prop_map(|(version, id, method, params, extra)| {
            let members = [
                version.map(|v| format!("\"jsonrpc\":{v}")),
                id.map(|v| format!("\"id\":{v}")),
                method.map(|v| format!("\"method\":{v}")),
                params.map(|v| format!("\"params\":{v}")),
                extra,
            ];
            format!("{{{}}}", members.into_iter().flatten().collect::<Vec<_>>().join(","))
        })
}

/// What a reader with a whole tree would say.
fn oracle(tree: &Value) -> Option<(String, bool)> {
    let method = tree["method"].as_str().filter(|m| !m.is_empty())?;
    let versioned = tree.get("jsonrpc").is_none_or(|v| v == "2.0");
    let good_id = tree.get("id").is_none_or(|id| !(id.is_array() || id.is_object() || id.is_boolean()));
    let push = tree["params"]["configuration"].get("pushNotificationConfig").is_some_and(|p| !p.is_null());
    (versioned && good_id).then(|| (method.to_owned(), push))
}

proptest! {
    #[test]
    fn what_passes_is_what_any_reader_would_read(body in request()) {
        let tree: Value = serde_json::from_str(&body).expect("generated JSON");
        match look(body.as_bytes()) {
            Ok(envelope) => {
                let (method, push) = oracle(&tree).expect("a request to any reader");
                prop_assert_eq!(&envelope.method, &method);
                // Of two configurations readers may see either, so one that is there counts.
                let twice = body.matches("pushNotificationConfig").count() > 1;
                prop_assert!(envelope.inline_push == push || (envelope.inline_push && twice));
                let raw = envelope.id.as_json().map(|raw| serde_json::from_str::<Value>(raw).expect("an id is JSON"));
                prop_assert_eq!(raw.as_ref(), tree.get("id"));
                if envelope.operation().is_send() {
                    let message = &tree["params"]["message"];
                    let task = message.get("taskId").or(message.get("task_id")).and_then(Value::as_str);
                    prop_assert_eq!(envelope.task_id.as_deref(), task);
                }
            }
            Err(EnvelopeError::Ambiguous(_)) => {
                // Only a member written twice is ambiguous here: the last-wins tree has then lost something.
                let spelt = body.matches("\"message\":").count() > 1
                    || body.matches("\"configuration\":").count() > 1
                    || body.matches("\"method\":").count() > 1
                    || ["\"id\":", "\"taskId\":", "\"contextId\":", "\"sessionId\":", "\"messageId\":"].iter().any(|m| body.matches(m).count() > 1)
                    || (body.contains("task_id"));
                prop_assert!(spelt, "{body}");
            }
            Err(_) => prop_assert_eq!(oracle(&tree), None),
        }
    }

    #[test]
    fn no_bytes_whatever_upset_it(body: Vec<u8>) {
        let _ = (look(&body), look_rest(&body), find_id(&body));
    }

    #[test]
    fn any_json_is_judged_as_serde_json_judges_it(depth in 0_usize..4, seed in "[\\[\\]{}\",:0-9a-z ]{0,40}") {
        let body = format!("{}{seed}", "[".repeat(depth));
        let parses = serde_json::from_str::<Value>(&body).is_ok();
        prop_assert_eq!(look(body.as_bytes()).err().is_some_and(|e| e.code() == -32700), !parses);
    }

    #[test]
    fn an_id_survives_whatever_it_holds(id: String) {
        let raw = json!(id).to_string();
        let body = format!(r#"{{"method":"x","id":{raw}}}"#);
        prop_assert_eq!(find_id(body.as_bytes()).and_then(RawId::as_json), Some(raw.as_str()));
    }
}
