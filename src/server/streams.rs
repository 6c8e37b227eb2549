//! The streams of HTTP/2 connections as tasks of the worker's own, so that none outlives its drain: a call that is dropped after
//! the journal has closed would leave no record.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::rt::Executor;
use tokio::task::JoinSet;

/// Runs the streams of one worker's connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(stream);
    }
}

impl Streams {
    /// Ends whatever still runs, and returns when it has been dropped.
    pub(super) async fn end(&self) {
        let mut running = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        running.shutdown().await;
    }
}
