//! Removing the beginning of a node's rows. What stands for them in its tree is written with it, so that at every moment the rest
//! can be proved.

use uuid::Uuid;

use super::permit::{Permit, Permitted};
use crate::audit::ledger::tree::Frontier;
use crate::clock::Timestamp;
use crate::store::call_query::{SELECT, call_row};
use crate::store::holds::HoldRow;
use crate::store::ledger::{drop_up_to, dropped};
use crate::store::rows::CallRow;
use crate::store::sql::{Built, Pool, either, query};
use crate::store::{Store, StoreError, columns};

/// What PostgreSQL says of a lock that was not to be had.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The beginning of a node's rows that is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Whose.
    pub node: Uuid,
    /// How many had gone when the rest was looked at.
    pub before: u64,
    /// The tree of all that is to go, as it was found and signed for.
    pub tree: Frontier,
}

/// How much there is, and how much is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Rows that are there.
    pub rows: u64,
    /// Rows that retention has removed.
    pub dropped: u64,
    /// The earliest call.
    pub oldest: Option<Timestamp>,
}

impl Store {
    /// The rows of a node after `after`, in order, at most `limit`: for what follows the log in the background.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rows_after(&self, node: Uuid, after: u64, limit: u32) -> Result<Vec<CallRow>, StoreError> {
        let mut select = Built::new(self.follower.dialect(), &SELECT);
        select.push(" AND node_id = ").push_bind(node).push(" AND seq > ").push_bind(after.cast_signed());
        select.push(" ORDER BY seq LIMIT ").push_bind(limit);
        select.build().fetch_all(&self.follower).await?.iter().map(call_row).collect()
    }

    /// Removes the next rows of `prefix`, at most `limit`; how many. None once all of it is gone, or where a hold was placed.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when the rows are not those the tree was made of: then they stay.
    pub async fn remove_next(&self, prefix: &Prefix, limit: u32, now: Timestamp) -> Result<u64, StoreError> {
        let Permitted { mut tx, holds } = self.permitted(Permit::Drop).await?;
        let (node, end) = (prefix.node, prefix.tree.size());
        let mut tree = dropped(&mut tx, node).await?;
        let before = tree.size();
        let next = query(
            "SELECT seq, leaf_hash, called_at, caller_agent_id, target_agent_id FROM proxy_calls \
             WHERE node_id = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4",
        );
        let next = next.bind(node).bind(before.cast_signed()).bind(end.cast_signed()).bind(limit);
        for row in next.fetch_all(&mut tx).await? {
            let parties = (row.get_id("caller_agent_id")?, row.get_id("target_agent_id")?);
            let called_at = columns::time(&row, "called_at")?;
            if holds.iter().any(|hold| hold.covers(parties.0, parties.1, called_at)) {
                break;
            }
            if columns::unsigned(&row, "seq")? != tree.size() + 1 {
                return Err(changed(node, tree.size() + 1));
            }
            tree.push(columns::array(&row, "leaf_hash")?, |_, _| {});
        }
        if tree.size() == before {
            return Ok(0);
        }
        if tree.size() == end && tree != prefix.tree {
            return Err(changed(node, end));
        }
        let gone = query("DELETE FROM proxy_calls WHERE node_id = $1 AND seq > $2 AND seq <= $3");
        let gone = gone.bind(node).bind(before.cast_signed()).bind(tree.size().cast_signed()).execute(&mut tx).await?;
        if gone != tree.size() - before {
            return Err(changed(node, before + 1));
        }
        drop_up_to(&mut tx, node, &tree, now).await?;
        Permitted { tx, holds }.commit().await?;
        Ok(gone)
    }

    /// The days that rows are kept in, each a table of its own, the first first; SQLite has none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn days(&self) -> Result<Vec<String>, StoreError> {
        if let Pool::Sqlite(_) = self.reader {
            return Ok(Vec::new());
        }
        let days = query(
            "SELECT to_char(to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD'), 'YYYY-MM-DD') AS day \
             FROM pg_inherits WHERE inhparent = 'proxy_calls'::regclass ORDER BY 1",
        );
        days.fetch_all(&self.reader).await?.iter().map(|row| columns::text(row, "day")).collect()
    }

    /// When the last call of a day's rows arrived; `None`: it has none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_of_day(&self, day: &str) -> Result<Option<Timestamp>, StoreError> {
        let last = query("SELECT max(called_at) AS last FROM proxy_calls WHERE sealed_on = $1::text::date").bind(day);
        columns::optional_time(&last.fetch_one(&self.reader).await?, "last")
    }

    /// How many rows a day has.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rows_of_day(&self, day: &str) -> Result<u64, StoreError> {
        let rows = query("SELECT count(*) FROM proxy_calls WHERE sealed_on = $1::text::date").bind(day);
        rows.number(&self.reader).await.map(i64::cast_unsigned)
    }

    /// The nodes with rows in a day, each with the `seq` of its last.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn ends_of_day(&self, day: &str) -> Result<Vec<(Uuid, u64)>, StoreError> {
        let ends = query(
            "SELECT node_id, (SELECT max(seq) FROM proxy_calls WHERE proxy_calls.node_id = ledger_heads.node_id \
             AND sealed_on = $1::text::date) AS last FROM ledger_heads ORDER BY node_id",
        );
        let mut found = Vec::new();
        for row in ends.bind(day).fetch_all(&self.reader).await? {
            if row.get_number("last")?.is_some() {
                found.push((columns::id(&row, "node_id")?, columns::unsigned(&row, "last")?));
            }
        }
        Ok(found)
    }

    /// Drops a day, the rows of which are those that `prefixes` end with. The answer is no while somebody reads them.
    ///
    /// # Errors
    /// [`StoreError::Changed`] when other holds are in force than `held`, or some of the rows are gone; or when the database
    /// cannot be written.
    pub async fn drop_day(
        &self,
        day: &str,
        prefixes: &[Prefix],
        held: &[HoldRow],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Permitted { mut tx, holds } = self.permitted(Permit::Drop).await?;
        if holds != held {
            return Err(StoreError::Changed(format!(
                "other calls are held by now: the rows of {day} are looked at again"
            )));
        }
        for prefix in prefixes {
            if dropped(&mut tx, prefix.node).await?.size() != prefix.before {
                return Err(changed(prefix.node, prefix.before + 1));
            }
            drop_up_to(&mut tx, prefix.node, &prefix.tree, now).await?;
        }
        match query("SELECT proxy_calls_drop($1::text::date)").bind(day).execute(&mut tx).await {
            Ok(_) => Permitted { tx, holds }.commit().await.map(|()| true),
            Err(StoreError::Database(error))
                if error
                    .as_database_error()
                    .is_some_and(|error| error.code().as_deref() == Some(LOCK_NOT_AVAILABLE)) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a few pages that nothing is in any more back to the file system; whether there are more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn give_back(&self) -> Result<bool, StoreError> {
        let Pool::Sqlite(_) = self.writer else { return Ok(false) };
        // Each row that is read of the answer is a page.
        query("PRAGMA incremental_vacuum(256)").fetch_all(&self.writer).await?;
        Ok(query("PRAGMA freelist_count").number(&self.writer).await? > 0)
    }

    /// How many rows there are, and how old the first is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn kept(&self) -> Result<Kept, StoreError> {
        let sum = "SELECT CAST(coalesce(sum(size), 0) AS bigint) AS n FROM ";
        let of = async |table: &'static str| {
            let mut sum = Built::new(self.reader.dialect(), sum);
            sum.push(table);
            sum.build().number(&self.reader).await.map(i64::cast_unsigned)
        };
        let (all, dropped) = (of("ledger_heads").await?, of("ledger_dropped").await?);
        let oldest = either(
            "SELECT called_at FROM proxy_calls ORDER BY called_at, id LIMIT 1",
            "SELECT min(called_at) AS called_at FROM proxy_calls",
        );
        let oldest = oldest.fetch_optional(&self.reader).await?;
        let oldest = oldest.map_or(Ok(None), |row| columns::optional_time(&row, "called_at"))?;
        Ok(Kept { rows: all.saturating_sub(dropped), dropped, oldest })
    }
}

fn changed(node: Uuid, seq: u64) -> StoreError {
    StoreError::Changed(format!("row {seq} of node {node} is not what it was a moment ago: run audit verify"))
}

#[cfg(test)]
mod testing {
    use super::*;
    use crate::store::sql::Tx;

    impl Store {
        /// Somebody who reads a day's rows, for as long as this lives.
        pub(crate) async fn reading_of_a_day(&self, day: &str) -> impl Sized + use<> {
            let mut tx: Tx = self.snapshot().await.expect("begins");
            let rows = query("SELECT count(*) FROM proxy_calls WHERE sealed_on = $1::text::date").bind(day);
            rows.number(&mut tx).await.expect("reads");
            tx
        }
    }
}
