//! The whole gateway, started on free ports against scripted agents, spoken to over real sockets.

#![allow(clippy::large_futures)] // a test holds its whole world in one future

mod support;

mod access;
mod backup;
mod calls;
mod cards;
mod cli;
mod cli_calls;
mod cli_nouns;
mod control;
mod crash;
mod database_away;
mod hostile;
mod http2;
mod journal_down;
mod journal_full;
mod ledger;
mod ledger_proofs;
mod lifecycle;
mod limits;
mod logs;
mod misbehaving;
mod nodes;
mod outlets;
mod questions;
mod rate_fields;
mod readme;
mod registration;
mod requests;
mod revocation;
mod secrets;
mod shared_limits;
mod slots;
mod streams;
mod terms;
mod traces;
mod transport;
