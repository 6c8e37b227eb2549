//! (see the module map in the crate docs)

mod reason;
pub mod refusal;

pub use reason::Reason;
