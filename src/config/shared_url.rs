//! Where the server of shared limits is: `redis://` or `rediss://`, with a password that is never shown.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use toml::Spanned;
use toml::de::DeValue;
use url::Url;

use super::values::{Written, Wrong, quoted, text};

const DEFAULT_PORT: u16 = 6379;
const EXAMPLE: &str = "\"redis://127.0.0.1:6379\"";

/// Where the server of shared limits is, and who the gateway is to it. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedUrl {
    /// Its name or address; an IPv6 one without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The user, where it knows any.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The number of the database.
    pub database: u16,
}

impl fmt::Display for SharedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let user = self.user.as_deref().unwrap_or_default();
        let who = if self.password.is_some() { format!("{user}:***@") } else { String::new() };
        write!(f, "{scheme}://{who}{host}:{}", self.port)?;
        if self.database > 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for SharedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedUrl({self})")
    }
}

#[cfg(test)]
impl serde::Serialize for SharedUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for SharedUrl {
    type Err = String;

    /// The text is in no error: it may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{what}; write one such as {EXAMPLE}, or rediss:// for TLS"));
        let Ok(url) = Url::parse(text) else { return wrong("this is not a URL") };
        let tls = match url.scheme() {
            "redis" => false,
            "rediss" => true,
            _ => return wrong("limits are shared through Valkey or Redis"),
        };
        let host = match url.host_str() {
            Some(host) if !host.is_empty() => host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            _ => return wrong("the host is missing"),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return wrong("options after \"?\" or \"#\" are not read");
        }
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => match number.parse() {
                Ok(number) => number,
                Err(_) => return wrong("the path is the number of the database"),
            },
        };
        let plain = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
        let (Ok(user), Ok(password)) = (plain(url.username()), url.password().map(plain).transpose()) else {
            return wrong("the name or the password is not UTF-8 once its %-escapes are read");
        };
        let user = Some(user).filter(|user| !user.is_empty());
        if user.is_some() && password.is_none() {
            return wrong("the name has no password: a password alone is written \":password@\"");
        }
        Ok(Self { host, port: url.port().unwrap_or(DEFAULT_PORT), tls, user, password, database })
    }
}

impl Written for SharedUrl {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        text(value, "a URL", EXAMPLE)
    }

    fn written(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_the_server_is_and_who_the_gateway_is() {
        let url: SharedUrl = "rediss://gate:p%40ss@limits.example:6380/2".parse().expect("a URL");
        let expected = SharedUrl {
            host: "limits.example".to_owned(),
            port: 6380,
            tls: true,
            user: Some("gate".to_owned()),
            password: Some("p@ss".to_owned()),
            database: 2,
        };
        assert_eq!(url, expected);
        let url: SharedUrl = "redis://[::1]".parse().expect("a URL");
        assert_eq!((url.host.as_str(), url.port, url.to_string().as_str()), ("::1", 6379, "redis://[::1]:6379"));
        let url: SharedUrl = "redis://:only@h/".parse().expect("a URL");
        assert_eq!((url.user, url.password.as_deref()), (None, Some("only")));
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let url: SharedUrl = "redis://gate:hunter2@h/1".parse().expect("a URL");
        for shown in [url.to_string(), format!("{url:?}"), url.written().expect("set")] {
            assert!(!shown.contains("hunter2") && shown.contains("redis://gate:***@h:6379/1"), "{shown}");
        }
        for wrong in
            ["redis:hunter2", "postgres://:hunter2@h", "redis://:hunter2@h/x", "redis://h?password=hunter2", "hunter2"]
        {
            let error = wrong.parse::<SharedUrl>().expect_err(wrong);
            assert!(!error.contains("hunter2") && error.contains("write"), "{error}");
        }
    }
}
