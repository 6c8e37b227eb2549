//! What A2A means, without any I/O: operations, the JSON-RPC envelope, agent cards, event streams and errors.
//!
//! Everything here is a function of bytes. Nothing is forwarded from here, nothing is rewritten but the agent card, which is
//! built; requests and answers are only looked at, and what is looked at is borrowed.

pub mod answer;
pub mod card;

pub mod envelope;
pub mod events;
mod json;
mod operation;
mod operation_set;

pub use answer::Noticed;
pub use envelope::{Envelope, EnvelopeError, RawId};
pub use events::EventScanner;
pub use operation::{Binding, Dialect, Effect, Operation};
pub use operation_set::{NoOperation, OperationSet};
