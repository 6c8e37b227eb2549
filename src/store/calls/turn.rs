//! Whose turn it is to let go of what is old: of all nodes one at a time.

use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};

use crate::store::sql::{Pool, in_time};
use crate::store::{Store, StoreError};

/// A node's turn; it ends with the connection that has it.
#[derive(Debug)]
pub struct RetentionTurn(Option<PgConnection>);

impl Store {
    /// The turn, unless another node has it. A database that is not shared has nobody to wait for.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retention_turn(&self) -> Result<Option<RetentionTurn>, StoreError> {
        let Pool::Postgres(pool, patience) = &self.writer else { return Ok(Some(RetentionTurn(None))) };
        // One of its own: it is idle for as long as the turn takes.
        let mut connection = in_time(*patience, pool.acquire()).await?.detach();
        let asked = sqlx::query("SELECT pg_try_advisory_lock(8390891584382493560)").fetch_one(&mut connection);
        let mine: bool = in_time(*patience, asked).await?.try_get(0)?;
        Ok(mine.then_some(RetentionTurn(Some(connection))))
    }
}

impl RetentionTurn {
    /// Gives it to others.
    pub async fn end(self) {
        if let Some(mut connection) = self.0 {
            // It ends with the connection, whichever way these go; but the server hears of that in its own time.
            let _ = sqlx::query("SELECT pg_advisory_unlock(8390891584382493560)").execute(&mut connection).await;
            let _ = connection.close().await;
        }
    }
}
