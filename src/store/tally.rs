//! How much of what there is: counts for those who watch over the gateway.

use super::sql::{either, query};
use super::{Store, StoreError, columns};

/// Counts of what the database holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Agents that are not deleted, by state.
    pub agents_by_state: Vec<(String, i64)>,
    /// The same by health.
    pub agents_by_health: Vec<(String, i64)>,
    /// Connections by status; block marks stand beside it.
    pub connections_by_status: Vec<(String, i64)>,
    /// Connections with a block mark on either side.
    pub connections_blocked: i64,
    /// Changed cards that wait for an admin.
    pub cards_held: i64,
    /// Bytes of the database.
    pub bytes: i64,
}

impl Store {
    /// Counts agents, connections, held cards and bytes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn tally(&self) -> Result<Tally, StoreError> {
        let groups = async |sql| {
            let rows = query(sql).fetch_all(&self.reader).await?;
            let group = |row| Ok((columns::text(row, "name")?, columns::number(row, "count")?));
            rows.iter().map(group).collect::<Result<Vec<_>, StoreError>>()
        };
        let count = async |sql| query(sql).number(&self.reader).await;
        Ok(Tally {
            agents_by_state: groups(
                "SELECT state AS name, count(*) AS count FROM agents WHERE state <> 'deleted' GROUP BY state",
            )
            .await?,
            agents_by_health: groups(
                "SELECT health AS name, count(*) AS count FROM agents WHERE state <> 'deleted' GROUP BY health",
            )
            .await?,
            connections_by_status: groups("SELECT status AS name, count(*) AS count FROM connections GROUP BY status")
                .await?,
            connections_blocked: count(
                "SELECT count(*) FROM connections WHERE blocked_by_requester OR blocked_by_target",
            )
            .await?,
            cards_held: count("SELECT count(*) FROM agents WHERE held_card IS NOT NULL AND state <> 'deleted'").await?,
            bytes: either(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
                "SELECT pg_database_size(current_database())",
            )
            .number(&self.reader)
            .await?,
        })
    }
}
