//! The path of a call: route, headers, forwarding, the answer's body, refusals.

pub mod roots;
