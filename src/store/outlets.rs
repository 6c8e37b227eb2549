//! The log as those follow it who are sent its rows: what comes after a position, and the positions themselves.
//!
//! Reads over connections of its own: nobody who asks something waits for an outlet, nor an outlet for them.

use uuid::Uuid;

use super::calls::last_seq_in;
use super::sql::query;
use super::{Store, StoreError, columns};
use crate::clock::Timestamp;

impl Store {
    /// The nodes whose rows are sent from here: the own one; in a database that is not shared, all that ever wrote there.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn followed_nodes(&self, own: Uuid) -> Result<Vec<Uuid>, StoreError> {
        if self.is_shared() {
            return Ok(vec![own]);
        }
        let rows = query("SELECT id FROM nodes ORDER BY id").fetch_all(&self.follower).await?;
        rows.iter().map(|row| columns::id(row, "id")).collect()
    }

    /// The `seq` of a node's newest row; 0 before its first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn newest_seq(&self, node: Uuid) -> Result<i64, StoreError> {
        last_seq_in(&self.follower, node).await
    }

    /// The last row of a node that an outlet's destination has taken; 0: none yet.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn outlet_position(&self, outlet: &str, node: Uuid) -> Result<i64, StoreError> {
        query("SELECT coalesce(max(seq), 0) FROM outlet_positions WHERE outlet = $1 AND node_id = $2")
            .bind(outlet)
            .bind(node)
            .number(&self.follower)
            .await
    }

    /// Keeps that position.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn move_outlet(&self, outlet: &str, node: Uuid, seq: i64, now: Timestamp) -> Result<(), StoreError> {
        query(
            "INSERT INTO outlet_positions (outlet, node_id, seq, moved_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (outlet, node_id) DO UPDATE SET seq = excluded.seq, moved_at = excluded.moved_at",
        )
        .bind(outlet)
        .bind(node)
        .bind(seq)
        .bind(now)
        .execute(&self.writer)
        .await
        .map(drop)
    }
}
