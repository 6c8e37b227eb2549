//! The sections of the configuration as plain data, with their defaults.
//!
//! `trust-gateway.example.toml` says the same to operators; a test holds the two together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::kinds::{Addresses, Durability, LogFormat, LogLevel, PublicUrl, Registration, Roots, StoreUrl, TlsVersion};
use super::outlets::{Outlet, Witness};
use super::shared_url::SharedUrl;
use super::units::Size;

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `[server]`: the public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Server {
    /// The address the public listener binds.
    pub listen: SocketAddr,
    /// The address callers use; without it, the listener's own (see [`super::Config::public_url`]).
    pub public_url: Option<PublicUrl>,
    /// How many worker threads serve connections; 0 means one for each core.
    pub workers: usize,
    /// Networks of proxies in front whose forwarded-for headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long open calls may go on once the gateway has been told to stop.
    pub drain_timeout: Duration,
    /// How many connections may be open at once.
    pub max_connections: usize,
    /// How many calls may be open at once, of all callers to all agents.
    pub max_in_flight: usize,
    /// How long a connection may take to send the head of a request.
    pub header_timeout: Duration,
    /// The most bytes a request's head may have.
    pub max_header_bytes: Size,
    /// The most fields a request's head may have.
    pub max_headers: usize,
    /// The most bytes a request's body may have.
    pub max_body: Size,
    /// What all bodies being read or forwarded may take of memory.
    pub body_memory: Size,
    /// What the bodies of one caller may take of it.
    pub body_memory_per_caller: Size,
    /// The least a request's body must bring per second once `body_grace` is over; zero means no floor.
    pub body_min_rate: Size,
    /// How long a body may be slower than `body_min_rate`.
    pub body_grace: Duration,
    /// How long a caller may take nothing of an answer that waits for it.
    pub stall_timeout: Duration,
    /// Whether answers tell what is left of limits in the older `X-RateLimit-*` fields, too.
    pub x_ratelimit: bool,
    /// TLS on the public listener.
    pub tls: Tls,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            public_url: None,
            workers: 0,
            trusted_proxies: Vec::new(),
            drain_timeout: Duration::from_secs(30),
            max_connections: 20_000,
            max_in_flight: 10_000,
            header_timeout: Duration::from_secs(10),
            max_header_bytes: Size(64 << 10),
            max_headers: 100,
            max_body: Size(10 << 20),
            body_memory: Size(512 << 20),
            body_memory_per_caller: Size(64 << 20),
            body_min_rate: Size(1 << 10),
            body_grace: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(60),
            x_ratelimit: false,
            tls: Tls::default(),
        }
    }
}

/// `[server.tls]` and `[admin.tls]`: without both files the listener speaks plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Tls {
    /// The certificate chain, PEM, the listener's own certificate first.
    pub cert: Option<PathBuf>,
    /// The private key, PEM, not encrypted.
    pub key: Option<PathBuf>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
}

impl Default for Tls {
    fn default() -> Self {
        Self { cert: None, key: None, min_version: TlsVersion::V1_2 }
    }
}

impl Tls {
    /// Whether the listener speaks TLS. A checked configuration names both files or none.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.cert.is_some() && self.key.is_some()
    }
}

/// `[admin]`: the operators' listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Admin {
    /// The address it binds; any but loopback needs TLS.
    pub listen: SocketAddr,
    /// TLS on the operators' listener.
    pub tls: Tls,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: loopback(8081), tls: Tls::default() }
    }
}

/// `[store]`: where agents, keys, connections and the audit log are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Store {
    /// The database.
    pub url: StoreUrl,
    /// A file that holds the password for it.
    pub password_file: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Self { url: StoreUrl::Sqlite(None), password_file: None }
    }
}

/// `[directory]`: what calls are decided from while the database cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Directory {
    /// How old it may get before all but connected callers are refused.
    pub max_stale: Duration,
}

impl Default for Directory {
    fn default() -> Self {
        Self { max_stale: Duration::from_secs(60) }
    }
}

/// `[audit]`: how calls are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Audit {
    /// How safe a record is before the answer leaves.
    pub durability: Durability,
    /// How much of network addresses is kept.
    pub addresses: Addresses,
    /// The size of one file of the journal.
    pub segment: Size,
    /// Where rows of the log are sent.
    pub outlets: Vec<Outlet>,
    /// Where checkpoints of the log are sent.
    pub witnesses: Vec<Witness>,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            durability: Durability::Process,
            addresses: Addresses::Truncated,
            segment: Size(16 << 20),
            outlets: Vec::new(),
            witnesses: Vec::new(),
        }
    }
}

/// `[agents]`: who may register agents, and where they may be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Agents {
    /// Who may register.
    pub registration: Registration,
    /// How many agents may wait for an operator's approval at once.
    pub max_pending: usize,
    /// Private networks on which agents registered by others than operators may be.
    pub allow_networks: Vec<IpNet>,
    /// What new API keys begin with.
    pub key_prefix: String,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            registration: Registration::Closed,
            max_pending: 100,
            allow_networks: Vec::new(),
            key_prefix: "oag_".to_owned(),
        }
    }
}

/// `[upstream]`: connections to agents. The time limits can be set for each agent as well.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Upstream {
    /// How long connecting may take, TLS included.
    pub connect: Duration,
    /// How long the first byte of an answer may take where the agent works for it.
    pub first_byte: Duration,
    /// How long it may take for reads.
    pub read_first_byte: Duration,
    /// How long an answer may pause between bytes.
    pub idle: Duration,
    /// How long an unused connection is kept.
    pub pool_idle: Duration,
    /// How many calls one agent may have open at once.
    pub max_in_flight: usize,
    /// Whether agents are told which encodings the caller accepts; what is compressed cannot be looked into.
    pub pass_accept_encoding: bool,
    /// Which authorities may vouch for agents.
    pub roots: Roots,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(600),
            read_first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(600),
            // Below the 5 s after which common agent servers close: a connection taken from the pool is one they still hold.
            pool_idle: Duration::from_secs(4),
            max_in_flight: 1024,
            pass_accept_encoding: false,
            roots: Roots::Bundled,
        }
    }
}

/// `[health]`: how agents are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Health {
    /// The time between two probes of an agent.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// How many probes run at once.
    pub concurrency: usize,
}

impl Default for Health {
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), timeout: Duration::from_secs(8), concurrency: 8 }
    }
}

/// `[breaker]`: when calls to an agent that does not answer are refused at once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Breaker {
    /// Calls one after the other that an agent does not answer before the next are refused; 0: none ever is.
    pub failures: usize,
    /// How long they are refused before one is tried; doubled each time that fails.
    pub min_open: Duration,
    /// How long they are refused at most before one is tried.
    pub max_open: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, min_open: Duration::from_secs(1), max_open: Duration::from_secs(30) }
    }
}

/// `[limits]`: whether the nodes of a gateway hold callers to their limits together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Limits {
    /// The Valkey or Redis server that counts for all nodes; without it, each counts for itself.
    pub shared: Option<SharedUrl>,
    /// What the names of the keys there begin with.
    pub namespace: String,
    /// How long a call waits for it.
    pub shared_timeout: Duration,
    /// Which authorities may vouch for it.
    pub roots: Roots,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shared: None,
            namespace: "trust-gateway".to_owned(),
            shared_timeout: Duration::from_millis(20),
            roots: Roots::Bundled,
        }
    }
}

/// `[policy]`: what each trust level may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Policy {
    /// The tier table; without it, the one compiled in.
    pub file: Option<PathBuf>,
}

/// `[log]`: what the gateway says about itself, on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Log {
    /// The form of the lines.
    pub format: LogFormat,
    /// How much is logged.
    pub level: LogLevel,
    /// Whether every call is one line.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevel::Info, access: true }
    }
}
