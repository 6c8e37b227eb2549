//! How each kind of value is written in TOML: read with an error that says what to write, printed so that it reads back the same.
//!
//! Knows nothing of which setting a value belongs to.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::units::{DurationText, Size};

/// Why a value was refused, and where in the text it begins.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) message: String,
}

/// A kind of value that a setting can have.
pub(super) trait Written: Sized {
    /// Reads it.
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong>;
    /// Its TOML text; none for "not set", which TOML cannot say.
    fn written(&self) -> Option<String>;
}

/// `text` as a TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn wrong<T>(value: &Spanned<DeValue<'_>>, message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { at: value.span().start, message: message.into() })
}

/// What was found, for "expected ..., found ...".
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Table(_) => "a section".to_owned(),
        other => format!("a value of type {}", other.type_str()),
    }
}

/// Reads a value that is written as a string; `example` is a whole right-hand side.
pub(super) fn text<T: FromStr>(value: &Spanned<DeValue<'_>>, what: &str, example: &str) -> Result<T, Wrong>
where
    T::Err: Display,
{
    match value.get_ref() {
        DeValue::String(text) => text.parse().or_else(|error: T::Err| wrong(value, error.to_string())),
        // A bare number is the likely slip where a unit belongs, and the type's own words for it are the best ones.
        DeValue::Integer(number) => match number.to_string().parse::<T>() {
            Err(error) => wrong(value, error.to_string()),
            Ok(_) => wrong(value, format!("{what} is written as a string; write \"{number}\"")),
        },
        other => wrong(value, format!("expected {what}, found {}; write {example}", found(other))),
    }
}

impl Written for bool {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        match value.get_ref() {
            DeValue::Boolean(yes) => Ok(*yes),
            other => wrong(
                value,
                format!("expected true or false, found {}; write true or false, without quotes", found(other)),
            ),
        }
    }

    fn written(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Written for usize {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let read = match value.get_ref() {
            DeValue::Integer(number) => Self::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        read.map_or_else(
            || {
                wrong(
                    value,
                    format!(
                        "expected a whole number, found {}; write one like 1024, without quotes",
                        found(value.get_ref())
                    ),
                )
            },
            Ok,
        )
    }

    fn written(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Written for String {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            other => wrong(value, format!("expected a string, found {}; write it between double quotes", found(other))),
        }
    }

    fn written(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Written for PathBuf {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        match value.get_ref() {
            DeValue::String(text) if !text.is_empty() => Ok(Self::from(&**text)),
            other => wrong(value, format!("expected a path, found {}; write one between double quotes", found(other))),
        }
    }

    fn written(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Written for Duration {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        text::<DurationText>(value, "a duration", "one like \"10s\"").map(|read| read.0)
    }

    fn written(&self) -> Option<String> {
        Some(quoted(&DurationText(*self).to_string()))
    }
}

impl Written for Size {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        text(value, "a size", "one like \"64KiB\"")
    }

    fn written(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Written for SocketAddr {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let advice = "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"";
        match value.get_ref() {
            DeValue::String(text) => {
                text.parse().or_else(|_| wrong(value, format!("{text:?} is not an address to listen on; {advice}")))
            }
            other => wrong(value, format!("expected an address to listen on, found {}; {advice}", found(other))),
        }
    }

    fn written(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Written for IpNet {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let advice = "write a network such as \"10.0.0.0/8\" or \"fd00::/8\"";
        let DeValue::String(text) = value.get_ref() else {
            return wrong(value, format!("expected a network, found {}; {advice}", found(value.get_ref())));
        };
        match text.parse::<Self>() {
            // With bits set below the mask it is not clear which of the two was meant.
            Ok(net) if net != net.trunc() => wrong(
                value,
                format!("{text:?} is an address inside a network; write \"{}\" for the network", net.trunc()),
            ),
            Ok(net) => Ok(net),
            Err(_) => match text.parse::<std::net::IpAddr>() {
                Ok(address) => {
                    wrong(value, format!("{text:?} lacks its prefix length; write \"{}\"", Self::from(address)))
                }
                Err(_) => wrong(value, format!("{text:?} is not a network; {advice}")),
            },
        }
    }

    fn written(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl<T: Written> Written for Option<T> {
    /// An empty string means "not set", so that an environment variable can take back what the file sets.
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        match value.get_ref() {
            DeValue::String(text) if text.is_empty() => Ok(None),
            _ => T::read(value).map(Some),
        }
    }

    fn written(&self) -> Option<String> {
        self.as_ref().and_then(T::written)
    }
}

impl<T: Written> Written for Vec<T> {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        match value.get_ref() {
            DeValue::Array(items) => items.iter().map(T::read).collect(),
            DeValue::String(text) if text.is_empty() => {
                wrong(value, "expected a list, found an empty string; write []")
            }
            DeValue::String(text) => wrong(value, format!("expected a list, found a string; write [{text:?}]")),
            other => wrong(value, format!("expected a list, found {}; write it between [ and ]", found(other))),
        }
    }

    fn written(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(T::written).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}
