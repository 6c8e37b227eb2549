//! Reading agent cards, which come from strangers: strictly, boundedly, and without taking any of their URLs at its word.
//!
//! Cards are read seldom and rebuilt whole, so here a tree is right.

use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use url::{Host, Url};

use crate::a2a::json::Name;

/// The largest card that is read.
pub const MAX_CARD: usize = 256 * 1024;

/// Why a card is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardError {
    /// Larger than [`MAX_CARD`].
    TooLarge,
    /// Not JSON, or with a member given twice; the text says where.
    NotJson(String),
    /// JSON, but no object.
    NotAnObject,
    /// Without a name; only registering needs one.
    NoName,
}

impl fmt::Display for CardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "the card is larger than {MAX_CARD} bytes: shorten it"),
            Self::NotJson(why) => write!(f, "the card is not sound JSON: {why}"),
            Self::NotAnObject => f.write_str("the card is not a JSON object"),
            Self::NoName => f.write_str("the card has no name: add a non-empty \"name\""),
        }
    }
}

impl std::error::Error for CardError {}

/// Reads a card; a member given twice anywhere in it makes it unsound, since its readers would differ on what it says.
pub(super) fn read(bytes: &[u8]) -> Result<Map<String, Value>, CardError> {
    if bytes.len() > MAX_CARD {
        return Err(CardError::TooLarge);
    }
    match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(Value::Object(card))) => Ok(card),
        Ok(_) => Err(CardError::NotAnObject),
        Err(e) => Err(CardError::NotJson(e.to_string())),
    }
}

/// A tree in which no object names a member twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if members.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the member {key:?} is given twice")));
            }
            let Strict(value) = map.next_value()?;
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

/// A member by its name, or by another spelling of it (`ProtoJSON` also writes `default_input_modes`).
pub(super) fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let found = object.get(name).or_else(|| {
        let folded = Name::of(name);
        object.iter().find(|(key, _)| Name::of(key).as_bytes() == folded.as_bytes()).map(|(_, value)| value)
    });
    found.filter(|value| !value.is_null())
}

/// A member that is a string with something in it.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    member(object, name).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
}

/// The strings of a member that is a list; what is no string in it is left out. `None` where none is left.
pub(super) fn texts(object: &Map<String, Value>, name: &str) -> Option<Vec<Value>> {
    let texts: Vec<_> = member(object, name)?.as_array()?.iter().filter(|item| item.is_string()).cloned().collect();
    (!texts.is_empty()).then_some(texts)
}

/// The objects in a member that is a list.
pub(super) fn objects<'a>(object: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    member(object, name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

/// Copies the members that are none of `known`, in any spelling, and hold no address; names those left out for that.
pub(super) fn copy_unknown(
    from: &Map<String, Value>,
    to: &mut Map<String, Value>,
    known: &[&str],
    endpoint: Option<&Url>,
) -> Vec<String> {
    let mut dropped = Vec::new();
    for (key, value) in from {
        let name = Name::of(key);
        if value.is_null() || known.iter().any(|k| Name::of(k).as_bytes() == name.as_bytes()) {
            continue;
        }
        if address_like(key, endpoint) || holds_address(value, endpoint) {
            dropped.push(key.clone());
        } else {
            to.insert(key.clone(), value.clone());
        }
    }
    dropped
}

/// Whether any string in `value` could be taken for an address to call.
pub(super) fn holds_address(value: &Value, endpoint: Option<&Url>) -> bool {
    match value {
        Value::String(text) => address_like(text, endpoint),
        Value::Array(items) => items.iter().any(|item| holds_address(item, endpoint)),
        Value::Object(members) => members.iter().any(|(k, v)| address_like(k, endpoint) || holds_address(v, endpoint)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A URL, or text that names the endpoint's host (a gRPC address is a bare `host:port`).
fn address_like(text: &str, endpoint: Option<&Url>) -> bool {
    let names = |host: &str| match host.starts_with('[') {
        true => text.to_ascii_lowercase().contains(host),
        // As a whole word: a host may be called `b`.
        false => {
            text.split(|c: char| !(c.is_alphanumeric() || "-._".contains(c))).any(|w| w.eq_ignore_ascii_case(host))
        }
    };
    text.contains("://") || text.starts_with("//") || endpoint.and_then(Url::host_str).is_some_and(names)
}

/// Whether a link for people (documentation, icon, provider) may be shown: a web address of somebody else's public host.
/// One on the agent's own host, on a private network or without a dot would give away where the agent lives.
pub(super) fn may_be_shown(link: &str, endpoint: Option<&Url>) -> bool {
    let Ok(url) = Url::parse(link) else { return false };
    let plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    let public = match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name.contains('.') && !["localhost", "local", "internal"].iter().any(|t| name.ends_with(&format!(".{t}")))
        }
        Some(Host::Ipv4(address)) => is_public(address.into()),
        Some(Host::Ipv6(address)) => is_public(address.into()),
        None => false,
    };
    plain && public && endpoint.is_none_or(|endpoint| endpoint.host() != url.host())
}

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || shared)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback() || v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local())
        }
    }
}

/// Whether `url` is on the endpoint's host, or on a name that means "this machine": servers that do not know their own
/// address advertise what they are bound to.
pub(super) fn is_own_host(url: &Url, endpoint: &Url) -> bool {
    let own_machine = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(v4)) => v4.is_loopback() || v4.is_unspecified(),
        Some(Host::Ipv6(v6)) => v6.is_loopback() || v6.is_unspecified(),
        None => false,
    };
    own_machine || url.host() == endpoint.host()
}
