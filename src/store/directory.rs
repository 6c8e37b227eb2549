//! What the directory is built from: all of it, or what changed since a revision.
//!
//! Promises: the database itself notes every change of an agent, its slugs and keys, and of a connection, in the transaction
//! of the change (triggers); so no path that writes can forget to, and what is read here misses nothing.

use super::rows::{DirectoryChanges, DirectoryRows};
use super::sql::{Row, Tx, among, query};
use super::{Store, StoreError, agents, columns, connections, keys};

/// More changes than that are read as everything.
const CHANGES_MAX: i64 = 2_000;

/// Both sides alive.
macro_rules! living_connections {
    ($rest:literal) => {
        concat!(
            "SELECT * FROM connections WHERE requester_id IN (SELECT id FROM agents WHERE state <> 'deleted') \
             AND target_id IN (SELECT id FROM agents WHERE state <> 'deleted')",
            $rest
        )
    };
}

/// Slugs an agent had before.
macro_rules! aliases {
    ($rest:literal) => {
        concat!(
            "SELECT agent_slugs.slug, agent_slugs.agent_id FROM agent_slugs JOIN agents ON agents.id = agent_slugs.agent_id \
             WHERE agents.state <> 'deleted' AND agents.slug <> agent_slugs.slug",
            $rest
        )
    };
}

impl Store {
    /// Everything calls are decided from, as of one moment.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn directory_rows(&self) -> Result<DirectoryRows, StoreError> {
        let mut tx = self.snapshot().await?;
        let agents = query("SELECT * FROM agents WHERE state <> 'deleted'").fetch_all(&mut tx).await?;
        let aliases = query(aliases!("")).fetch_all(&mut tx).await?;
        let keys = query("SELECT * FROM api_keys").fetch_all(&mut tx).await?;
        let connections = query(living_connections!("")).fetch_all(&mut tx).await?;
        rows(revision(&mut tx).await?, &agents, &aliases, &keys, &connections)
    }

    /// What changed after the revision `since`, as of one moment; `None` when everything is to be read: because that is so
    /// much, or because the database has not come that far. Then it was restored, or a standby that had not all of it took
    /// over, and what was read before may have been taken back.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn directory_changes(&self, since: i64) -> Result<Option<DirectoryChanges>, StoreError> {
        let mut tx = self.snapshot().await?;
        let noted = query("SELECT kind, id FROM directory_changes WHERE revision > $1 LIMIT $2")
            .bind(since)
            .bind(CHANGES_MAX + 1)
            .fetch_all(&mut tx)
            .await?;
        let revision = revision(&mut tx).await?;
        if revision < since || i64::try_from(noted.len()).is_ok_and(|count| count > CHANGES_MAX) {
            return Ok(None);
        }
        let (mut agents, mut connections) = (Vec::new(), Vec::new());
        for row in &noted {
            let changed = if columns::text(row, "kind")? == "agent" { &mut agents } else { &mut connections };
            changed.push(columns::id(row, "id")?);
        }
        let agent_rows = among!("SELECT * FROM agents WHERE state <> 'deleted' AND ", "id")
            .bind(agents.as_slice())
            .fetch_all(&mut tx)
            .await?;
        let alias_rows = among!(aliases!(" AND "), "agents.id").bind(agents.as_slice()).fetch_all(&mut tx).await?;
        let key_rows =
            among!("SELECT * FROM api_keys WHERE ", "agent_id").bind(agents.as_slice()).fetch_all(&mut tx).await?;
        let connection_rows =
            among!(living_connections!(" AND "), "id").bind(connections.as_slice()).fetch_all(&mut tx).await?;
        let rows = rows(revision, &agent_rows, &alias_rows, &key_rows, &connection_rows)?;
        Ok(Some(DirectoryChanges { agents, connections, rows }))
    }
}

async fn revision(tx: &mut Tx) -> Result<i64, StoreError> {
    query("SELECT coalesce(max(revision), 0) FROM directory_changes").number(tx).await
}

fn rows(
    revision: i64,
    agent_rows: &[Row],
    alias_rows: &[Row],
    key_rows: &[Row],
    connection_rows: &[Row],
) -> Result<DirectoryRows, StoreError> {
    let alias = |row: &Row| Ok((columns::text(row, "slug")?, columns::id(row, "agent_id")?));
    Ok(DirectoryRows {
        revision,
        agents: agent_rows.iter().map(agents::read).collect::<Result<_, _>>()?,
        slug_aliases: alias_rows.iter().map(alias).collect::<Result<_, StoreError>>()?,
        keys: key_rows.iter().map(keys::read).collect::<Result<_, _>>()?,
        connections: connection_rows.iter().map(connections::read).collect::<Result<_, _>>()?,
    })
}
