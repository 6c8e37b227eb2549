//! What the gateway tells others by itself: rows of the log to other systems, events to webhooks.
//!
//! | module | what it is for |
//! |---|---|
//! | `rows` | an outlet: follows the log and sends its rows, batch by batch |
//! | `sink` | where a batch goes: a file, an address |
//! | `webhooks` | events and conditions on their way to webhooks |
//! | `message` | what a webhook is sent, and how it is signed |
//! | `post` | a request of the gateway's own, and what its answer means |
//! | `pause` | how long to wait after a failure |
//!
//! Promises: what is sent is in the database first, and is sent until it was taken (at least once); nothing here is on the
//! path of a call or in the way of the drain. Knows the store; HTTP only as a function it is given.

mod file;
mod message;
mod pause;
mod post;
mod rows;
mod sink;
mod webhooks;

pub use file::LineFile;
pub use message::{Secret, SecretError};
pub use post::{Failure, Post, PostAnswer, PostRequest, bearer, bearer_token, deliver};
pub use rows::{Outlet, OutletTold, Render};
pub use sink::Sink;
pub use webhooks::{Hook, HookTold, TestFailure, Webhooks};
