//! One borrowed look at a request's body: which operation it asks for and which task, context and message it names.
//!
//! Promises that whatever decides anything (version, id, method, params, the push configuration) cannot be read differently
//! by the agent: what parsers disagree on is refused (a member twice, two spellings with different values, a byte-order
//! mark, trailing bytes, nesting that breaks parsers). Everything else is the agent's business and passes unseen.
//!
//! Builds no tree and copies nothing but strings that hold escapes. Knows nothing of limits, callers or HTTP.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed as _, IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::Operation;
use super::json::{MAX_DEPTH, Members, Name, Object, Present, Shape, Text, deeper_than};

/// The longest JSON-RPC id, in bytes of JSON text. It is echoed in refusals, so it must not be as large as a body may be.
pub const MAX_RPC_ID: usize = 4096;

/// The largest body [`find_id`] looks at.
pub const FIND_ID_LIMIT: usize = 64 * 1024;

/// The JSON-RPC id as the JSON text it was written as, so that it can be echoed with its type and digits; or absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RawId<'a>(Option<&'a str>);

impl<'a> RawId<'a> {
    /// The JSON text (`"a"` with its quotes, `1`, `null`); `None` where the request had no id: a notification.
    #[must_use]
    pub fn as_json(self) -> Option<&'a str> {
        self.0
    }
}

/// What the gateway needs to know of a JSON-RPC request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The request's id.
    pub id: RawId<'a>,
    /// The method, as sent.
    pub method: Cow<'a, str>,
    /// The task the request names.
    pub task_id: Option<Cow<'a, str>>,
    /// The context (0.1: session) the request names.
    pub context_id: Option<Cow<'a, str>>,
    /// The id the caller gave its message.
    pub message_id: Option<Cow<'a, str>>,
    /// Whether a push configuration rides along: present and not null, in any spelling of any dialect.
    pub inline_push: bool,
}

impl Envelope<'_> {
    /// The operation the method stands for.
    #[must_use]
    pub fn operation(&self) -> Operation {
        Operation::from_method(&self.method)
    }
}

/// What the gateway needs to know of a REST request's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestBody<'a> {
    /// The JSON-RPC id, where a JSON-RPC envelope was posted to a REST path (Agno does).
    pub id: RawId<'a>,
    /// The task the message, or the configuration, belongs to.
    pub task_id: Option<Cow<'a, str>>,
    /// The context the message belongs to.
    pub context_id: Option<Cow<'a, str>>,
    /// The id the caller gave its message.
    pub message_id: Option<Cow<'a, str>>,
    /// Whether a push configuration rides along.
    pub inline_push: bool,
}

/// Why a body is not a request that could be handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not UTF-8; a UTF-16 body ends here or as `NotJson`.
    NotUtf8,
    /// Not one JSON value: broken, cut off, with a byte-order mark, or with something after it.
    NotJson {
        /// Where the parser gave up, from 1.
        line: usize,
        /// The byte in that line, from 1.
        column: usize,
    },
    /// Nested deeper than agents' parsers can be expected to bear.
    TooDeep,
    /// A batch. A2A has none.
    Batch,
    /// Neither an object nor an array.
    NotAnObject,
    /// `jsonrpc` is there and not `"2.0"`. It may be missing: old clients leave it out and agents let them.
    Version,
    /// `method` is missing, empty or not a string.
    NoMethod,
    /// `id` is neither a string nor a number nor null, or is absurdly long.
    BadId,
    /// A member that decides something stands twice, or in two spellings with different values, or so spelt that only some
    /// agents would take it for what it resembles.
    Ambiguous(&'static str),
}

impl EnvelopeError {
    /// The JSON-RPC code: -32700 for what is not JSON, -32600 for what is no request.
    #[must_use]
    pub fn code(self) -> i64 {
        match self {
            Self::NotUtf8 | Self::NotJson { .. } | Self::TooDeep => -32700,
            _ => -32600,
        }
    }

    /// The word for the row's column `reason`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotUtf8 | Self::NotJson { .. } => "parse_error",
            Self::TooDeep => "nested_too_deep",
            Self::Batch => "batch",
            Self::Ambiguous(_) => "ambiguous_request",
            Self::NotAnObject | Self::Version | Self::NoMethod | Self::BadId => "invalid_request",
        }
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("The body is not UTF-8: send JSON in UTF-8."),
            Self::NotJson { line, column } => {
                write!(
                    f,
                    "The body is not one valid JSON value (line {line}, column {column}): send plain JSON, nothing before or after it."
                )
            }
            Self::TooDeep => write!(f, "The body nests deeper than {MAX_DEPTH} levels: flatten it."),
            Self::Batch => f.write_str("A2A has no batches: send one request at a time."),
            Self::NotAnObject => f.write_str("A request is a JSON object."),
            Self::Version => f.write_str("The member \"jsonrpc\" must be \"2.0\"."),
            Self::NoMethod => f.write_str("The member \"method\" is missing: name the operation as a string."),
            Self::BadId => {
                write!(f, "The member \"id\" must be a string, a number or null, of at most {MAX_RPC_ID} bytes.")
            }
            Self::Ambiguous(member) => {
                write!(
                    f,
                    "The member \"{member}\" is given twice or in more than one spelling: give it once, spelt exactly so."
                )
            }
        }
    }
}

impl std::error::Error for EnvelopeError {}

/// Looks at the body of a JSON-RPC request.
///
/// # Errors
/// When the body is not a JSON-RPC request, or one that agents could read in more than one way.
pub fn look(body: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let mut request = Request::new(Surface::Rpc);
    parse(body, &mut request)?;
    let Some(method) = request.method.filter(|m| !m.is_empty()) else { return Err(EnvelopeError::NoMethod) };
    let Ids { id, task, context, session, message_task, message_context, message_id, .. } = request.ids;
    let operation = Operation::from_method(&method);
    let (task_id, context_id) = if operation.is_send() {
        (message_task.value, message_context.value)
    } else {
        (task.value.or(id.value).or(message_task.value), context.value.or(session.value).or(message_context.value))
    };
    Ok(Envelope {
        id: request.id,
        method,
        task_id,
        context_id,
        message_id: message_id.value,
        inline_push: request.inline_push,
    })
}

/// Looks at the body of a REST request: a bare object, a JSON-RPC envelope around it, or nothing at all.
///
/// # Errors
/// When the body is neither empty nor a JSON object, or one that agents could read in more than one way.
pub fn look_rest(body: &[u8]) -> Result<RestBody<'_>, EnvelopeError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(RestBody::default());
    }
    let mut request = Request::new(Surface::Rest);
    parse(body, &mut request)?;
    let Ids { task, context, message_task, message_context, message_id, .. } = request.ids;
    Ok(RestBody {
        id: request.id,
        task_id: message_task.value.or(task.value),
        context_id: message_context.value.or(context.value),
        message_id: message_id.value,
        inline_push: request.inline_push,
    })
}

/// The id in what has arrived of a body, for refusals that are decided before the body is read: only where it is already
/// whole and no larger than [`FIND_ID_LIMIT`].
#[must_use]
pub fn find_id(prefix: &[u8]) -> Option<RawId<'_>> {
    if prefix.len() > FIND_ID_LIMIT {
        return None;
    }
    look(prefix).ok().map(|envelope| envelope.id)
}

fn parse<'a>(body: &'a [u8], request: &mut Request<'a>) -> Result<(), EnvelopeError> {
    let text = std::str::from_utf8(body).map_err(|_| EnvelopeError::NotUtf8)?;
    // serde_json skips what it does not look at without recursion and without a limit: the limit is ours to keep.
    if deeper_than(body, MAX_DEPTH) {
        return Err(EnvelopeError::TooDeep);
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let shape = Object(request).deserialize(&mut json).and_then(|shape| json.end().map(|()| shape));
    match shape.map_err(|e| EnvelopeError::NotJson { line: e.line(), column: e.column() })? {
        Shape::Array => Err(EnvelopeError::Batch),
        Shape::Scalar => Err(EnvelopeError::NotAnObject),
        Shape::Object => request.fault.map_or(Ok(()), Err),
    }
}

/// What kind of body the top-level object is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surface {
    /// A JSON-RPC request.
    Rpc,
    /// A REST body, in which the members of `params` stand at the top.
    Rest,
}

/// One string member, under whichever spelling it came.
#[derive(Default)]
struct Slot<'a> {
    spelling: Option<Cow<'a, str>>,
    value: Option<Cow<'a, str>>,
}

impl<'a> Slot<'a> {
    /// Keeps the first value; false if this one could make a difference to somebody.
    fn put(&mut self, spelling: Cow<'a, str>, value: Option<Cow<'a, str>>) -> bool {
        match &self.spelling {
            Some(first) => *first != spelling && self.value == value,
            None => {
                *self = Self { spelling: Some(spelling), value };
                true
            }
        }
    }
}

#[derive(Default)]
struct Ids<'a> {
    id: Slot<'a>,
    task: Slot<'a>,
    context: Slot<'a>,
    session: Slot<'a>,
    message: bool,
    message_task: Slot<'a>,
    message_context: Slot<'a>,
    message_id: Slot<'a>,
    configuration: bool,
}

struct Request<'a> {
    surface: Surface,
    /// The first thing that was wrong with it; the rest of the body is still parsed, since broken JSON is worse.
    fault: Option<EnvelopeError>,
    seen_jsonrpc: bool,
    seen_id: bool,
    seen_method: bool,
    seen_params: bool,
    id: RawId<'a>,
    method: Option<Cow<'a, str>>,
    ids: Ids<'a>,
    inline_push: bool,
}

impl<'a> Request<'a> {
    fn new(surface: Surface) -> Self {
        Self {
            surface,
            fault: None,
            seen_jsonrpc: false,
            seen_id: false,
            seen_method: false,
            seen_params: false,
            id: RawId(None),
            method: None,
            ids: Ids::default(),
            inline_push: false,
        }
    }

    fn require(&mut self, holds: bool, otherwise: EnvelopeError) {
        if !holds && self.fault.is_none() {
            self.fault = Some(otherwise);
        }
    }

    /// Notes that a top-level member was seen: once, and spelt as it must be.
    fn once(&mut self, key: &str, name: &'static str, seen: fn(&mut Self) -> &mut bool) {
        let again = std::mem::replace(seen(self), true);
        self.require(!again && key == name, EnvelopeError::Ambiguous(name));
    }
}

impl<'de> Members<'de> for Request<'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        match Name::of(&key).as_bytes() {
            b"jsonrpc" => {
                self.once(&key, "jsonrpc", |r| &mut r.seen_jsonrpc);
                let Text(version) = map.next_value()?;
                self.require(version.as_deref() == Some("2.0"), EnvelopeError::Version);
            }
            b"id" => {
                self.once(&key, "id", |r| &mut r.seen_id);
                let raw: &'de RawValue = map.next_value()?;
                let raw = raw.get();
                let scalar = matches!(raw.as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9' | b'n'));
                // In a bare REST body `id` is some object's own and nobody's to judge.
                let judged = self.surface == Surface::Rpc;
                let good = scalar && raw.len() <= MAX_RPC_ID;
                self.require(good || !judged, EnvelopeError::BadId);
                if good {
                    self.id = RawId(Some(raw));
                }
            }
            b"method" => {
                self.once(&key, "method", |r| &mut r.seen_method);
                let Text(method) = map.next_value()?;
                self.method = method;
            }
            b"params" => {
                self.once(&key, "params", |r| &mut r.seen_params);
                map.next_value_seed(Object(&mut Params(self)))?;
            }
            _ if self.surface == Surface::Rest => Params(self).member(key, map)?,
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The members of `params`, or of a REST body.
struct Params<'s, 'a>(&'s mut Request<'a>);

impl<'de> Members<'de> for Params<'_, 'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        let request = &mut *self.0;
        match Name::of(&key).as_bytes() {
            b"id" => {
                let Text(value) = map.next_value()?;
                let good = request.ids.id.put(key, value);
                request.require(good, EnvelopeError::Ambiguous("id"));
            }
            b"taskid" => {
                let Text(value) = map.next_value()?;
                let good = request.ids.task.put(key, value);
                request.require(good, EnvelopeError::Ambiguous("taskId"));
            }
            b"contextid" => {
                let Text(value) = map.next_value()?;
                let good = request.ids.context.put(key, value);
                request.require(good, EnvelopeError::Ambiguous("contextId"));
            }
            b"sessionid" => {
                let Text(value) = map.next_value()?;
                let good = request.ids.session.put(key, value);
                request.require(good, EnvelopeError::Ambiguous("sessionId"));
            }
            b"message" => self.message(map)?,
            // The 0.3 proto calls the member `request` and ProtoJSON takes a field's own name as well.
            b"request" if request.surface == Surface::Rest => self.message(map)?,
            b"configuration" => {
                let again = std::mem::replace(&mut request.ids.configuration, true);
                request.require(!again, EnvelopeError::Ambiguous("configuration"));
                map.next_value_seed(Object(&mut Configuration(request)))?;
            }
            name if is_push(name) => {
                let Present(present) = map.next_value()?;
                request.inline_push |= present;
            }
            _ => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> Params<'_, 'de> {
    fn message<A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        let again = std::mem::replace(&mut self.0.ids.message, true);
        self.0.require(!again, EnvelopeError::Ambiguous("message"));
        map.next_value_seed(Object(&mut Message(self.0)))?;
        Ok(())
    }
}

/// The members of a message.
struct Message<'s, 'a>(&'s mut Request<'a>);

impl<'de> Members<'de> for Message<'_, 'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        let ids = &mut self.0.ids;
        let (slot, name) = match Name::of(&key).as_bytes() {
            b"taskid" => (&mut ids.message_task, "taskId"),
            b"contextid" => (&mut ids.message_context, "contextId"),
            b"messageid" => (&mut ids.message_id, "messageId"),
            _ => {
                map.next_value::<IgnoredAny>()?;
                return Ok(());
            }
        };
        let Text(value) = map.next_value()?;
        let good = slot.put(key, value);
        self.0.require(good, EnvelopeError::Ambiguous(name));
        Ok(())
    }
}

/// The members of a send's configuration.
struct Configuration<'s, 'a>(&'s mut Request<'a>);

impl<'de> Members<'de> for Configuration<'_, 'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: Cow<'de, str>, map: &mut A) -> Result<(), A::Error> {
        if is_push(Name::of(&key).as_bytes()) {
            let Present(present) = map.next_value()?;
            self.0.inline_push |= present;
        } else {
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// 1.0, 0.3 JSON-RPC, and the name in the 0.3 proto and in 0.1.
fn is_push(name: &[u8]) -> bool {
    matches!(name, b"taskpushnotificationconfig" | b"pushnotificationconfig" | b"pushnotification")
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
