//! What A2A means, without any I/O: operations, the JSON-RPC envelope, agent cards, event streams and errors.

mod operation;

pub use operation::{Binding, Effect, Operation};
