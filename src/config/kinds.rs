//! The kinds of value that are the gateway's own: choices between words, the store, trust roots, the public URL.
//!
//! Each is valid once it exists, and says in its error what to write instead.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::DeValue;
use url::Url;

use super::server_url::ServerUrl;
use super::values::{Written, Wrong, found, quoted, text, wrong};
use crate::store::PostgresOptions;

/// A setting that is one of a few words: the type, its words, their text in the file.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(test, derive(serde::Serialize))]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Written for $name {
            fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
                match value.get_ref() {
                    $(DeValue::String(text) if text == $word => Ok(Self::$variant),)+
                    other => {
                        let words: &[&str] = &[$(concat!("\"", $word, "\"")),+];
                        wrong(value, format!("{} is not one of the choices; write {}", found(other), words.join(" or ")))
                    }
                }
            }

            fn written(&self) -> Option<String> {
                Some(quoted(self.as_str()))
            }
        }
    };
}
pub(super) use words;

words! {
    /// When an answer may leave: how safe its record has to be by then.
    Durability {
        /// With the operating system: survives the end of the gateway, not of the machine.
        Process = "process",
        /// On the disk: survives a power cut.
        Disk = "disk",
    }
}

words! {
    /// How much of a caller's network address is kept in the audit log.
    Addresses {
        /// The network only: /24 of IPv4, /48 of IPv6.
        Truncated = "truncated",
        /// All of it.
        Full = "full",
    }
}

words! {
    /// Who may register agents.
    Registration {
        /// Operators.
        Closed = "closed",
        /// Anybody may ask; an operator decides, and until then the agent is not in service.
        Approval = "approval",
        /// Anybody, and what is registered is in service at once.
        Open = "open",
    }
}

words! {
    /// The form of log lines.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

words! {
    /// How much is logged; each level includes the ones before it.
    LogLevel {
        /// What needs somebody at once.
        Error = "error",
        /// What somebody should look at.
        Warn = "warn",
        /// What happens.
        Info = "info",
        /// Why it happens.
        Debug = "debug",
        /// Everything, that of libraries included.
        Trace = "trace",
    }
}

words! {
    /// The oldest version of TLS that is spoken.
    TlsVersion {
        /// TLS 1.2 and 1.3.
        V1_2 = "1.2",
        /// TLS 1.3 alone.
        V1_3 = "1.3",
    }
}

/// Where the state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum StoreUrl {
    /// SQLite: in this file, or in `gateway.db` of the data directory.
    Sqlite(Option<PathBuf>),
    /// A PostgreSQL database, which other nodes may share.
    Postgres(ServerUrl),
}

impl FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let advice = "write \"sqlite\" for gateway.db in the data directory, \"sqlite:PATH\", or \"postgres://user@host/database\"";
        match text.split_once(':') {
            None if text == "sqlite" => Ok(Self::Sqlite(None)),
            Some(("sqlite", path)) if path.contains('?') => Err(format!("options after \"?\" are not read; {advice}")),
            Some(("sqlite", path)) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err(format!("the path is missing; {advice}")),
                ":memory:" => Err(format!("an audit log cannot live in memory; {advice}")),
                path => Ok(Self::Sqlite(Some(PathBuf::from(path)))),
            },
            Some(("postgres" | "postgresql", _)) => match PostgresOptions::parse(text) {
                Ok(_) => Ok(Self::Postgres(ServerUrl::new(text))),
                Err(error) => Err(format!("{error}; {advice}")),
            },
            // Not all of what was written: there may be a password in it.
            Some((kind, _)) => Err(format!("{kind:?} is no kind of store; {advice}")),
            None => Err(format!("this is not a store; {advice}")),
        }
    }
}

impl Written for StoreUrl {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        text(value, "a store", "\"sqlite\"")
    }

    fn written(&self) -> Option<String> {
        match self {
            Self::Sqlite(None) => Some(quoted("sqlite")),
            Self::Sqlite(Some(path)) => Some(quoted(&format!("sqlite:{}", path.display()))),
            Self::Postgres(url) => Some(quoted(&url.to_string())),
        }
    }
}

/// Which authorities may vouch for agents reached over https.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub enum Roots {
    /// Those of the Mozilla root programme, compiled in.
    Bundled,
    /// Those and the ones in this PEM file.
    WithFile(PathBuf),
}

impl Written for Roots {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        match value.get_ref() {
            DeValue::String(text) if text == "bundled" => Ok(Self::Bundled),
            DeValue::String(text) if !text.is_empty() => Ok(Self::WithFile(PathBuf::from(&**text))),
            other => wrong(
                value,
                format!(
                    "expected \"bundled\" or a file, found {}; write \"bundled\" or the path of a PEM file",
                    found(other)
                ),
            ),
        }
    }

    fn written(&self) -> Option<String> {
        match self {
            Self::Bundled => Some(quoted("bundled")),
            Self::WithFile(path) => path.clone().written(),
        }
    }
}

impl Roots {
    /// The file whose authorities are added to the bundled ones.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Bundled => None,
            Self::WithFile(path) => Some(path),
        }
    }
}

/// The address callers use: `http` or `https`, host, port, perhaps a path; never a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The address a listener has by itself.
    #[must_use]
    pub fn of_listener(listen: SocketAddr, tls: bool) -> Self {
        Self(format!("{}://{listen}", if tls { "https" } else { "http" }))
    }

    /// The text, without a slash at the end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let advice = "write one such as \"https://gateway.example.org\"";
        let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error}); {advice}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("callers come by http or https, not {:?}; {advice}", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("a name or password in the URL would be shown to everybody; {advice}"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("paths are added to this URL, so it cannot end in a query or fragment; {advice}"));
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl Written for PublicUrl {
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        text(value, "a URL", "one such as \"https://gateway.example.org\"")
    }

    fn written(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}
