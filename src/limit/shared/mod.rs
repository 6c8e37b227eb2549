//! Limits that several nodes hold a caller to together, through a Valkey or Redis server.
//!
//! The server decides: one script takes everything of a call or nothing, by the server's clock (`script`). What it answers is
//! also entered in the node's own accounts, so that a node that cannot reach it (`node`) goes on from there: for its part of what
//! is left, `parts` being twice as many as there are other nodes. Whatever each node knew of the others, together they then admit
//! at most half a burst more than there is. A node that comes back tells what it knows before it asks again (`keeper`).
//!
//! Shared are the accounts of connections, of verified and of anonymous callers: buckets, the day's units, open streams. A
//! node's own are calls in flight and the limits on network sources. Must not know HTTP or SQL.

mod admit;
mod changed;
mod connection;
mod counts;
mod keeper;
mod link;
mod node;
mod script;

pub(super) use changed::Changed;
pub use connection::{Server, Tls};
pub use counts::{BOUNDS_US, Cause, Counted, RoundTrips};
pub use keeper::Keeper;
pub use link::Link;
pub use node::{Node, Settings};

#[cfg(test)]
mod tests;
