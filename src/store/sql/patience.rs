//! How long one statement may take. A server that answers nothing is no reason to hang.

use std::future::Future;
use std::time::Duration;

use crate::store::StoreError;

/// The longest wait for a connection and one statement on it together.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Patience(pub(super) Duration);

impl Patience {
    /// For what people and agents wait for.
    pub(in crate::store) const ASKED: Self = Self(Duration::from_secs(10));
    /// For the drain, which writes much at once and has nobody waiting.
    pub(in crate::store) const RECORDING: Self = Self(Duration::from_secs(60));
    /// For migrations: an index over a large log takes its time.
    pub(in crate::store) const MIGRATING: Self = Self(Duration::from_secs(3_600));
}

/// What `work` gives, or [`StoreError::Silent`].
pub(in crate::store) async fn in_time<T>(
    patience: Patience,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(patience.0, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(StoreError::Silent(patience.0)),
    }
}
