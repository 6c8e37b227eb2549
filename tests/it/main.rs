//! The whole gateway, started on free ports against scripted agents, spoken to over real sockets.

#![allow(clippy::large_futures)] // a test holds its whole world in one future

mod support;

mod access;
mod calls;
mod control;
mod crash;
mod http2;
mod limits;
mod misbehaving;
mod revocation;
mod streams;
