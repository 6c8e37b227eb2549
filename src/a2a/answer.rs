//! Noticing in answers: which task and context an agent answered about, in which state the task is, and whether the answer
//! is an error. All dialects and bindings, unary bodies and single events alike.
//!
//! Promises to copy nothing but what it keeps, and never to fail: an answer that makes no sense is simply not noticed.
//! Knows nothing of streams; [`super::events`] cuts those into events.

use std::borrow::Cow;

use serde::de::{DeserializeSeed as _, IgnoredAny, MapAccess};

use super::json::{Flag, Integer, MAX_DEPTH, Members, Name, Object, Text, deeper_than};

/// The largest body or event that is looked at.
pub const NOTICE_LIMIT: usize = 64 * 1024;

/// Kept of an id, in bytes.
const MAX_ID: usize = 256;

/// Kept of a state, in bytes.
const MAX_STATE: usize = 64;

/// What was noticed in the answer so far. What is not in a body leaves what was noticed before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noticed {
    /// The task answered about.
    pub task_id: Option<Box<str>>,
    /// The context (0.1: session) answered about.
    pub context_id: Option<Box<str>>,
    /// The task's state as the agent spelled it.
    pub task_state: Option<Box<str>>,
    /// The code of a JSON-RPC error.
    pub rpc_error_code: Option<i64>,
    /// Whether nothing more is to come in a stream: a terminal state, `final`, a message in place of a task, or an error.
    pub terminal: bool,
}

/// Notices what is in `body`: a JSON-RPC response, a bare REST object, or the data of one event. Larger than
/// [`NOTICE_LIMIT`], or not JSON: nothing.
pub fn notice_unary(body: &[u8], noticed: &mut Noticed) {
    if body.len() > NOTICE_LIMIT || deeper_than(body, MAX_DEPTH) {
        return;
    }
    let Ok(text) = std::str::from_utf8(body) else { return };
    let mut answer = Answer::default();
    let mut json = serde_json::Deserializer::from_str(text);
    if Object(&mut answer).deserialize(&mut json).and_then(|_| json.end()).is_ok() {
        answer.tell(noticed);
    }
}

/// The outermost object: a response, a stream response, or a bare object.
#[derive(Default)]
struct Answer<'a> {
    /// The `result`, where there is one.
    result: Option<Payload<'a>>,
    /// The object itself, where it is bare.
    bare: Payload<'a>,
    is_rpc: bool,
    error: Option<Fault>,
}

impl<'de> Members<'de> for Answer<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        match &*key {
            "jsonrpc" => {
                self.is_rpc = true;
                map.next_value::<IgnoredAny>()?;
            }
            "result" => {
                map.next_value_seed(Object(self.result.insert(Payload::default())))?;
            }
            "error" => {
                let mut fault = Fault::default();
                if map.next_value_seed(Object(&mut fault))? == super::json::Shape::Object {
                    self.error = Some(fault);
                }
            }
            _ => self.bare.member(key, map)?,
        }
        Ok(())
    }
}

impl Answer<'_> {
    fn tell(self, noticed: &mut Noticed) {
        if let Some(fault) = self.error {
            noticed.terminal = true;
            // A REST error has a `status` beside its code, which is an HTTP status and no JSON-RPC code.
            if self.is_rpc || !fault.has_status {
                noticed.rpc_error_code = fault.code.or(noticed.rpc_error_code);
            }
        }
        match self.result {
            Some(result) => result.tell(noticed),
            None if self.is_rpc => {}
            None => self.bare.tell(noticed),
        }
    }
}

/// An `error` object.
#[derive(Default)]
struct Fault {
    code: Option<i64>,
    has_status: bool,
}

impl<'de> Members<'de> for Fault {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        match &*key {
            "code" => self.code = map.next_value::<Integer>()?.0,
            "status" => self.has_status = map.next_value::<Text<'de>>()?.0.is_some(),
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// A result or an event: a task, message or update, bare or under the member that says which.
#[derive(Default)]
struct Payload<'a> {
    wrapped: Option<(Kind, Thing<'a>)>,
    bare: Thing<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Task,
    Message,
    Update,
}

impl<'de> Members<'de> for Payload<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        let kind = match Name::of(&key).as_bytes() {
            b"task" => Kind::Task,
            b"message" => Kind::Message,
            b"statusupdate" | b"artifactupdate" => Kind::Update,
            _ => return self.bare.member(key, map),
        };
        let mut thing = Thing::default();
        if map.next_value_seed(Object(&mut thing))? == super::json::Shape::Object {
            self.wrapped = Some((kind, thing));
        }
        Ok(())
    }
}

impl Payload<'_> {
    fn tell(self, noticed: &mut Noticed) {
        match self.wrapped {
            Some((kind, thing)) => thing.tell(Some(kind), noticed),
            None => {
                let kind = match self.bare.kind.as_deref() {
                    Some("task") => Some(Kind::Task),
                    Some("message") => Some(Kind::Message),
                    // 0.1 and bare 1.0 tasks do not say what they are, but only a task has both.
                    None if self.bare.id.is_some() && self.bare.has_status => Some(Kind::Task),
                    _ => None,
                };
                self.bare.tell(kind, noticed);
            }
        }
    }
}

/// A task, a message or an update.
#[derive(Default)]
struct Thing<'a> {
    kind: Option<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    task_id: Option<Cow<'a, str>>,
    context_id: Option<Cow<'a, str>>,
    has_status: bool,
    state: Option<Cow<'a, str>>,
    is_final: bool,
}

impl<'de> Members<'de> for Thing<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        match Name::of(&key).as_bytes() {
            b"kind" => self.kind = map.next_value::<Text<'de>>()?.0,
            b"id" => self.id = map.next_value::<Text<'de>>()?.0,
            b"taskid" => self.task_id = map.next_value::<Text<'de>>()?.0,
            b"contextid" | b"sessionid" => self.context_id = map.next_value::<Text<'de>>()?.0,
            b"final" => self.is_final = map.next_value::<Flag>()?.0,
            b"status" => {
                let mut status = Status::default();
                self.has_status = map.next_value_seed(Object(&mut status))? == super::json::Shape::Object;
                self.state = status.state;
            }
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl Thing<'_> {
    fn tell(self, kind: Option<Kind>, noticed: &mut Noticed) {
        let own_id = if kind == Some(Kind::Task) { self.id } else { None };
        keep(&mut noticed.task_id, own_id.or(self.task_id), MAX_ID);
        keep(&mut noticed.context_id, self.context_id, MAX_ID);
        noticed.terminal |=
            self.is_final || kind == Some(Kind::Message) || self.state.as_deref().is_some_and(is_terminal);
        keep(&mut noticed.task_state, self.state, MAX_STATE);
    }
}

#[derive(Default)]
struct Status<'a> {
    state: Option<Cow<'a, str>>,
}

impl<'de> Members<'de> for Status<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        if key == "state" {
            self.state = map.next_value::<Text<'de>>()?.0;
        } else {
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Whether a task in this state has come to its end, in the spelling of any dialect.
#[must_use]
pub fn is_terminal(state: &str) -> bool {
    matches!(
        state,
        "TASK_STATE_COMPLETED"
            | "TASK_STATE_FAILED"
            | "TASK_STATE_CANCELED"
            | "TASK_STATE_CANCELLED" // the 0.3 proto
            | "TASK_STATE_REJECTED"
            | "completed"
            | "failed"
            | "canceled"
            | "rejected"
    )
}

/// Replaces `slot` by at most `max` bytes of `text`, allocating only where that is something new.
fn keep(slot: &mut Option<Box<str>>, text: Option<Cow<'_, str>>, max: usize) {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return };
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    if slot.as_deref() != Some(text) {
        *slot = Some(text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noticed(body: &str) -> Noticed {
        let mut n = Noticed::default();
        notice_unary(body.as_bytes(), &mut n);
        n
    }

    fn told(task: &str, context: &str, state: &str, terminal: bool) -> Noticed {
        let some = |s: &str| (!s.is_empty()).then(|| s.into());
        Noticed {
            task_id: some(task),
            context_id: some(context),
            task_state: some(state),
            rpc_error_code: None,
            terminal,
        }
    }

    #[test]
    fn every_shape_of_every_dialect_is_understood() {
        let cases = [
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"task":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_COMPLETED"}}}}"#,
                told("t", "c", "TASK_STATE_COMPLETED", true),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"message":{"messageId":"m","contextId":"c"}}}"#,
                told("", "c", "", true),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}"#,
                told("t", "c", "TASK_STATE_WORKING", false),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_REJECTED"}}}}"#,
                told("t", "c", "TASK_STATE_REJECTED", true),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"status-update","taskId":"t","contextId":"c","final":true,"status":{"state":"input-required"}}}"#,
                told("t", "c", "input-required", true),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"task","id":"t","contextId":"c","status":{"state":"submitted"}}}"#,
                told("t", "c", "submitted", false),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"kind":"artifact-update","taskId":"t","contextId":"c","artifact":{}}}"#,
                told("t", "c", "", false),
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"result":{"id":"t","sessionId":"s","status":{"state":"failed"}}}"#,
                told("t", "s", "failed", true),
            ),
            (
                r#"{"task":{"id":"t","context_id":"c","status":{"state":"TASK_STATE_CANCELLED"}}}"#,
                told("t", "c", "TASK_STATE_CANCELLED", true),
            ),
            (r#"{"artifactUpdate":{"taskId":"t","contextId":"c"}}"#, told("t", "c", "", false)),
            (
                r#"{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}"#,
                told("t", "c", "TASK_STATE_WORKING", false),
            ),
            // A push configuration: its own id is not the task's.
            (r#"{"jsonrpc":"2.0","id":1,"result":{"id":"p","taskId":"t","url":"u"}}"#, told("t", "", "", false)),
        ];
        for (body, expected) in cases {
            assert_eq!(noticed(body), expected, "{body}");
        }
    }

    #[test]
    fn the_id_of_the_response_is_never_the_task() {
        assert_eq!(noticed(r#"{"jsonrpc":"2.0","id":"r","status":{"state":"x"}}"#), Noticed::default());
        assert_eq!(noticed(r#"{"jsonrpc":"2.0","id":"r","result":null}"#), Noticed::default());
    }

    #[test]
    fn an_rpc_error_gives_its_code_and_a_rest_error_only_its_end() {
        let rpc = noticed(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"no"}}"#);
        assert_eq!((rpc.rpc_error_code, rpc.terminal), (Some(-32001), true));
        let rest = noticed(r#"{"error":{"code":404,"status":"NOT_FOUND"}}"#);
        assert_eq!((rest.rpc_error_code, rest.terminal), (None, true));
        assert!(!noticed(r#"{"jsonrpc":"2.0","id":1,"error":null,"result":{"taskId":"t"}}"#).terminal);
    }

    #[test]
    fn odd_types_and_broken_bodies_leave_what_was_noticed_before() {
        let before = told("t", "c", "working", false);
        for body in
            ["", "{", "[]", "7", r#"{"result":{"task":{"id":{},"status":[]}}}"#, r#"{"result":{"taskId":"x"}} 1"#]
        {
            let mut n = before.clone();
            notice_unary(body.as_bytes(), &mut n);
            assert_eq!(n, before, "{body}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let n = noticed(&format!(r#"{{"taskId":"{}","status":{{"state":"{}"}}}}"#, "ä".repeat(200), "s".repeat(100)));
        assert_eq!(n.task_id.map(|t| t.len()), Some(256));
        assert_eq!(n.task_state.map(|t| t.len()), Some(64));
        let large = format!(r#"{{"taskId":"t","x":"{}"}}"#, "x".repeat(NOTICE_LIMIT));
        assert_eq!(noticed(&large), Noticed::default());
    }
}
