//! Listeners, workers, TLS, drain: how connections reach the path.

pub mod tls;
