//! The trace a call belongs to (W3C Trace Context): continued where the caller sent a valid `traceparent`, begun where not.
//!
//! Promises: the agent sees exactly one valid `traceparent`. Its parent is this call, known by the last 16 digits of its request
//! id, so that what the agent reports can be joined with the row and the access line. Must not know agents or callers.

use std::fmt;

use http::header::{HeaderMap, HeaderValue};
use uuid::Uuid;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// The flags that have a meaning: sampled, and that the trace id is random. Others must not be passed on.
const KNOWN_FLAGS: u8 = 0b11;

/// A trace id that is not zero; written as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceId(u128);

impl TraceId {
    /// Reads what [`fmt::Display`] writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        digits(text, 32).filter(|id| *id != 0).map(Self)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A call's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// The caller's, with its flags.
    Continued(TraceId, u8),
    /// One that nobody knew before.
    Begun(TraceId),
}

impl Trace {
    /// The caller's trace, if it sent one valid `traceparent`; of versions to come, what this one knows of them.
    pub(super) fn continued(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return None;
        };
        let mut parts = value.to_str().ok()?.split('-');
        let version = digits(parts.next()?, 2)?;
        let trace = TraceId::parse(parts.next()?)?;
        let parent = digits(parts.next()?, 16)?;
        let flags = u8::try_from(digits(parts.next()?, 2)?).ok()?;
        let whole = version != 0 || parts.next().is_none();
        (version != 0xff && whole && parent != 0).then_some(Self::Continued(trace, flags & KNOWN_FLAGS))
    }

    /// A new trace.
    pub(super) fn begin() -> Self {
        // A version 4 UUID is never zero.
        Self::Begun(TraceId(Uuid::new_v4().as_u128()))
    }

    /// The caller's trace, or a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self::continued(headers).unwrap_or_else(Self::begin)
    }

    pub(super) fn id(self) -> TraceId {
        match self {
            Self::Continued(id, _) | Self::Begun(id) => id,
        }
    }

    /// Makes `headers`, which are the caller's, those of the call with this id in this trace.
    pub(super) fn pass(self, headers: &mut HeaderMap, request_id: Uuid) {
        let (_, parent) = request_id.as_u64_pair();
        let flags = match self {
            Self::Continued(_, flags) => flags,
            Self::Begun(_) => {
                // It belongs to the trace that could not be read.
                headers.remove(TRACESTATE);
                0
            }
        };
        let value = format!("00-{}-{parent:016x}-{flags:02x}", self.id());
        headers.insert(TRACEPARENT, HeaderValue::try_from(value).expect("hex and dashes"));
    }
}

/// The value of so many hex digits, none of them a capital.
fn digits(text: &str, length: usize) -> Option<u128> {
    let plain = text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    fn sent(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).expect("a value"));
        }
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        headers
    }

    #[test]
    fn a_valid_parent_continues_its_trace_with_its_known_flags_and_state() {
        let request: Uuid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().expect("an id");
        for (value, flags) in [
            (format!("00-{ID}-{PARENT}-01"), "01"),
            (format!("00-{ID}-{PARENT}-00"), "00"),
            (format!("00-{ID}-{PARENT}-ff"), "03"),
            (format!("cc-{ID}-{PARENT}-01"), "01"),
            (format!("cc-{ID}-{PARENT}-01-what-is-to-come"), "01"),
        ] {
            let mut headers = sent(&[&value]);
            let trace = Trace::of(&headers);
            assert_eq!(trace.id().to_string(), ID, "{value}");
            trace.pass(&mut headers, request);
            assert_eq!(headers[TRACEPARENT], format!("00-{ID}-bcceb302099a8057-{flags}"), "{value}");
            assert_eq!(headers[TRACESTATE], "vendor=1");
        }
    }

    #[test]
    fn anything_else_begins_a_trace_and_ends_the_state_of_the_old() {
        let good = format!("00-{ID}-{PARENT}-01");
        for values in [
            vec![],
            vec![""],
            vec!["00-0-0-0"],
            vec![&*format!("00-{}-{PARENT}-01", "0".repeat(32))],
            vec![&*format!("00-{ID}-{}-01", "0".repeat(16))],
            vec![&*format!("ff-{ID}-{PARENT}-01")],
            vec![&*format!("0-{ID}-{PARENT}-01")],
            vec![&*format!("000-{ID}-{PARENT}-01")],
            vec![&*format!("00-{}-{PARENT}-01", ID.to_uppercase())],
            vec![&*format!("00-{ID}-{}-01", PARENT.to_uppercase())],
            vec![&*format!("0X-{ID}-{PARENT}-01")],
            vec![&*format!("00-{ID}-{PARENT}-0A")],
            vec![&*format!("00-{ID}-{PARENT}-1")],
            vec![&*format!("00-{ID}-{PARENT}-+1")],
            vec![&*format!("00-{ID}0-{PARENT}-01")],
            vec![&*format!("00-{ID}-{PARENT}-01-")],
            vec![&*format!("00-{ID}-{PARENT}-01-more")],
            vec![&*format!("cc-{ID}-{PARENT}-01.more")],
            vec![&*format!("00-{ID}-{PARENT}")],
            vec![&*format!("{good},{good}")],
            vec![&*good, &*good],
        ] {
            let mut headers = sent(&values);
            assert_eq!(Trace::continued(&headers), None, "{values:?}");
            let trace = Trace::of(&headers);
            assert_ne!(trace.id().to_string(), ID);
            trace.pass(&mut headers, Uuid::now_v7());
            assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1, "{values:?}");
            assert_eq!(Trace::continued(&headers), Some(Trace::Continued(trace.id(), 0)), "{values:?}");
            assert!(!headers.contains_key(TRACESTATE), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_one_valid_parent_is_passed(value in "[0f]{2}-[0-9a-gA]{30,34}-[0-9a-f]{15,17}-[0-9a-f]{2}(-x)?") {
            let mut headers = sent(&[&value]);
            let trace = Trace::of(&headers);
            trace.pass(&mut headers, Uuid::now_v7());
            prop_assert_eq!(Trace::continued(&headers).map(Trace::id), Some(trace.id()));
            prop_assert_eq!(TraceId::parse(&trace.id().to_string()), Some(trace.id()));
        }
    }
}
