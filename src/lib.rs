//! The Trust Gateway: a reverse proxy for A2A agents that knows who is calling, holds every caller to the limits of its
//! trust level, forwards calls untouched and records each of them in an audit log.
//!
//! # A tour of the house
//!
//! Start with [`proxy`]: one function there is the whole path of a call, and each of its lines is one of the modules below.
//!
//! | module | what it is for |
//! |---|---|
//! | [`server`] | listeners, workers, TLS, drain: how connections reach the path |
//! | [`proxy`] | the path of a call: route, headers, forwarding, the answer's body, refusals |
//! | [`identity`] | credential or address -> caller |
//! | [`trust`] | caller x target -> standing |
//! | [`policy`] | the tier table: what each trust level may do |
//! | [`limit`] | buckets, quotas and slots: what a caller may do *now* |
//! | [`meter`] | counts of calls, worker by worker, for `/metrics` |
//! | [`a2a`] | what A2A means: operations, envelope, cards, streams. Pure, no I/O |
//! | [`audit`] | record, journal, drain: every call becomes one row of `proxy_calls` |
//! | [`directory`] | the immutable snapshot that calls are decided from |
//! | [`registry`] | agents, connections, keys: the rules of their life; health probes |
//! | [`store`] | the database behind one interface |
//! | [`control`] | the HTTP API for agents and operators |
//! | [`gateway`] | all of it put together, started and stopped |
//! | [`cli`] | the commands |
//! | [`vitals`] | how an agent is doing as its calls show it; the circuit breaker |
//! | [`conditions`] | what is wrong with the gateway for as long as it lasts |
//! | [`config`] | every setting, its default, its check |
//! | [`clock`] | time as a parameter, so that tests can set it |
//! | [`telemetry`] | logs |
//!
//! Imports point one way: `server -> proxy -> {identity, trust, policy, limit, a2a, audit}`, `control -> {registry, audit}`,
//! `registry` and `audit` -> `store`. Nothing imports `control` or `server` but [`gateway`], which puts the house
//! together, and nothing imports `cli`; `proxy` never
//! touches SQL; `a2a` and `trust` do no I/O; `store` knows no HTTP.

pub mod a2a;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod conditions;
pub mod config;
pub mod control;
pub mod directory;
pub mod gateway;
pub mod identity;
pub mod limit;
pub mod meter;
pub mod policy;
pub mod proxy;
pub mod registry;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod trust;
pub mod vitals;
