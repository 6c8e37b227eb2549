//! Every call becomes one row of `proxy_calls`: the record, the journal that makes it durable, the drain that writes the row.
//!
//! Promises: a call whose [`journal::Written`] resolved `Ok` has exactly one row, whatever dies afterwards; a call that was
//! opened and never closed has one that says `interrupted`. Must not know HTTP, limits or policies.

pub mod canonical;
pub mod drain;
pub mod gap;
pub mod journal;
pub mod ledger;
pub mod record;
