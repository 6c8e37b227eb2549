//! Reading what was sent: JSON members and query parameters, each with a complaint that names it. Members that are not
//! known are ignored, as OpenAgora does.

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::problem::Problem;
use crate::clock::Timestamp;
use crate::config::DurationText;

/// The members of a JSON object that was sent.
pub(super) struct Members(Map<String, Value>);

/// What a member may say: nothing, `null`, or a value.
pub(super) type Said<T> = Result<Option<Option<T>>, Problem>;

impl Members {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Problem::bad_request("the body must be a JSON object")),
            Err(_) if body.is_empty() => Err(Problem::bad_request("the body is empty: send a JSON object")),
            Err(error) => Err(Problem::bad_request(format!("the body is not JSON: {error}"))),
        }
    }

    /// Members that were read already.
    pub(super) fn of(members: Map<String, Value>) -> Self {
        Self(members)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The members' names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn said<T>(&self, name: &str, wanted: &str, read: impl FnOnce(&Value) -> Option<T>) -> Said<T> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => read(value)
                .map(|value| Some(Some(value)))
                .ok_or_else(|| Problem::invalid(name, format!("must be {wanted}"))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Said<String> {
        self.said(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A text for which `null` means the same as nothing.
    pub(super) fn plain_text(&self, name: &str) -> Result<Option<String>, Problem> {
        Ok(self.text(name)?.flatten())
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        Ok(self.said(name, "true or false", Value::as_bool)?.flatten())
    }

    pub(super) fn number(&self, name: &str) -> Said<u32> {
        self.said(name, "a whole number up to 4294967295", |value| value.as_u64().and_then(|n| u32::try_from(n).ok()))
    }

    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let read = |value: &Value| {
            value.as_array().and_then(|list| list.iter().map(|item| item.as_str().map(str::to_owned)).collect())
        };
        Ok(self.said(name, "a list of strings", read)?.map(Option::unwrap_or_default))
    }

    pub(super) fn object(&self, name: &str) -> Said<Members> {
        self.said(name, "an object", |value| value.as_object().cloned().map(Members))
    }

    pub(super) fn time(&self, name: &str) -> Said<Timestamp> {
        self.said(name, "a time such as 2026-12-31T23:59:59Z", |value| {
            value.as_str().and_then(|text| Timestamp::parse(text).ok())
        })
    }

    /// A duration: `"500ms"`, `"10s"`, `"5min"`, `"1h"`, `"30d"`, or a number of seconds.
    pub(super) fn duration(&self, name: &str) -> Said<Duration> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) => match text.parse::<DurationText>() {
                Ok(duration) => Ok(Some(Some(duration.0))),
                Err(why) => Err(Problem::invalid(name, why)),
            },
            Some(value) => match value.as_u64() {
                Some(seconds) => Ok(Some(Some(Duration::from_secs(seconds)))),
                None => Err(Problem::invalid(name, "must be a duration such as \"60s\" or \"5min\"")),
            },
        }
    }

    /// A word of a fixed set.
    pub(super) fn word<T>(&self, name: &str, wanted: &str, read: fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        Ok(self.said(name, wanted, |value| value.as_str().and_then(read))?.flatten())
    }
}

/// As the registry keeps it.
pub(super) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The query parameters that were sent. Empty ones count as not sent: that is what forms do.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.filter(|(_, value)| !value.is_empty()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// The first of `names` that was sent.
    pub(super) fn text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.0.iter().find(|(key, _)| key == name)).map(|(_, value)| value.as_str())
    }

    /// All of them but those named, as a query string again.
    pub(super) fn without(&self, names: &[&str]) -> String {
        let rest = self.0.iter().filter(|(key, _)| !names.contains(&key.as_str()));
        url::form_urlencoded::Serializer::new(String::new()).extend_pairs(rest).finish()
    }

    fn read<T>(&self, name: &str, wanted: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let text = self.text(&[name]);
        text.map(|text| read(text).ok_or_else(|| Problem::invalid(name, format!("must be {wanted}")))).transpose()
    }

    /// A whole number of at least 1; more than `most` counts as `most`.
    pub(super) fn count(&self, name: &str, default: u32, most: u32) -> Result<u32, Problem> {
        let number = self.read(name, "a whole number from 1", |text| text.parse().ok().filter(|n: &u32| *n > 0))?;
        Ok(number.unwrap_or(default).min(most))
    }

    pub(super) fn status(&self, name: &str) -> Result<Option<u16>, Problem> {
        self.read(name, "an HTTP status", |text| text.parse().ok())
    }

    pub(super) fn id(&self, name: &str) -> Result<Option<Uuid>, Problem> {
        self.read(name, "an id", |text| Uuid::parse_str(text).ok())
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.read(name, "a time such as 2026-12-31T23:59:59Z", |text| Timestamp::parse(text).ok())
    }

    pub(super) fn word<T>(&self, name: &str, wanted: &str, read: fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        self.read(name, wanted, read)
    }
}
