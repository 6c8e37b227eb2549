//! The log as it lies there, for those who check it or take it elsewhere: every row of a node in order, readable or not.

use uuid::Uuid;

use super::packed;
use crate::store::call_query::call_row;
use crate::store::rows::CallRow;
use crate::store::sql::{Pool, Row, either, query};
use crate::store::{Store, StoreError, columns};

/// A row as it was found.
#[derive(Debug)]
pub struct ScannedRow {
    /// Where it stands.
    pub seq: i64,
    /// The leaf hash beside it, if it is one.
    pub leaf_hash: Option<[u8; 32]>,
    /// What it holds, or what of it does not read.
    pub row: Result<CallRow, StoreError>,
    /// When its content was erased.
    pub erased: bool,
}

impl Store {
    /// The rows of `node` behind `after`, in the order of `seq`, at most `limit`. A statement of its own each time: whoever reads
    /// a whole log so keeps no moment of the database alive for hours.
    ///
    /// # Errors
    /// When the database cannot be read. A row that cannot is part of the answer.
    pub async fn scan_calls(&self, node: Uuid, after: i64, limit: u32) -> Result<Vec<ScannedRow>, StoreError> {
        if let Pool::Sqlite(_) = &self.reader
            && let Some(rows) = self.scan_packed(node, after, limit).await
        {
            return Ok(rows);
        }
        self.scan_plainly(node, after, limit).await
    }

    /// The same, fast; `None` where a row among them does not read so.
    async fn scan_packed(&self, node: Uuid, after: i64, limit: u32) -> Option<Vec<ScannedRow>> {
        let rows = query(&packed::SELECT).bind(node).bind(after).bind(limit).fetch_all(&self.reader).await.ok()?;
        let unpack = move || rows.iter().map(|row| packed::unpacked(&row.get_text("packed").ok()??)).collect();
        tokio::task::spawn_blocking(unpack).await.ok()?
    }

    async fn scan_plainly(&self, node: Uuid, after: i64, limit: u32) -> Result<Vec<ScannedRow>, StoreError> {
        // With all columns: not every database that is checked has those that later versions added.
        let rows = query("SELECT * FROM proxy_calls WHERE node_id = $1 AND seq > $2 ORDER BY seq LIMIT $3")
            .bind(node)
            .bind(after)
            .bind(limit)
            .fetch_all(&self.reader)
            .await?;
        rows.iter().map(scanned).collect()
    }

    /// The rows of `node` that are in no tree, though they lie behind `end`: the first `seq`, and how many there are.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rows_past_tree(&self, node: Uuid, end: u64) -> Result<Option<(u64, u64)>, StoreError> {
        // One statement sees one moment, in which every row that was recorded is in the tree.
        let row = either(
            "SELECT min(seq) AS first, count(*) AS rows FROM proxy_calls WHERE node_id = $1 \
             AND seq > max($2, coalesce((SELECT size FROM ledger_heads WHERE node_id = $1), 0))",
            "SELECT min(seq) AS first, count(*) AS rows FROM proxy_calls WHERE node_id = $1 \
             AND seq > greatest($2::bigint, (SELECT size FROM ledger_heads WHERE node_id = $1))",
        )
        .bind(node)
        .bind(end.cast_signed())
        .fetch_one(&self.reader)
        .await?;
        Ok(columns::optional_u64(&row, "first")?.zip(columns::optional_u64(&row, "rows")?))
    }

    /// The first and the last `seq` of the rows of `node` whose calls arrived at or after `since` and before `until`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn seqs_between(
        &self,
        node: Uuid,
        since: Option<crate::clock::Timestamp>,
        until: Option<crate::clock::Timestamp>,
    ) -> Result<Option<(u64, u64)>, StoreError> {
        let row = either(
            "SELECT min(seq) AS first, max(seq) AS last FROM proxy_calls WHERE node_id = $1 \
             AND ($2 IS NULL OR called_at >= $2) AND ($3 IS NULL OR called_at < $3)",
            "SELECT min(seq) AS first, max(seq) AS last FROM proxy_calls WHERE node_id = $1 \
             AND ($2::timestamptz IS NULL OR called_at >= $2) AND ($3::timestamptz IS NULL OR called_at < $3)",
        )
        .bind(node)
        .bind(since)
        .bind(until)
        .fetch_one(&self.reader)
        .await?;
        Ok(columns::optional_u64(&row, "first")?.zip(columns::optional_u64(&row, "last")?))
    }

    /// Whatever is called a node by a row, a tree, a key or a checkpoint, as it is written there.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn nodes_in_ledger(&self) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let known = either(
            "SELECT node_id FROM ledger_heads UNION SELECT node_id FROM ledger_keys \
             UNION SELECT node_id FROM ledger_checkpoints",
            "SELECT node_id::text FROM ledger_heads UNION SELECT node_id::text FROM ledger_keys \
             UNION SELECT node_id::text FROM ledger_checkpoints",
        );
        for row in known.fetch_all(&self.reader).await? {
            names.push(columns::text(&row, "node_id")?);
        }
        // One step in the index each; DISTINCT would look at every row.
        let mut last: Option<String> = None;
        loop {
            let next = match &last {
                None => either(
                    "SELECT node_id FROM proxy_calls ORDER BY node_id LIMIT 1",
                    "SELECT node_id::text FROM proxy_calls ORDER BY proxy_calls.node_id LIMIT 1",
                ),
                Some(last) => either(
                    "SELECT node_id FROM proxy_calls WHERE node_id > $1 ORDER BY node_id LIMIT 1",
                    "SELECT node_id::text FROM proxy_calls WHERE node_id > $1::text::uuid \
                     ORDER BY proxy_calls.node_id LIMIT 1",
                )
                .bind(last.as_str()),
            };
            let Some(row) = next.fetch_optional(&self.reader).await? else { break };
            let name = columns::text(&row, "node_id")?;
            names.push(name.clone());
            last = Some(name);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

fn scanned(row: &Row) -> Result<ScannedRow, StoreError> {
    Ok(ScannedRow {
        seq: columns::number(row, "seq")?,
        leaf_hash: columns::array(row, "leaf_hash").ok(),
        row: call_row(row),
        erased: row.is_set("erased_at"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::ledger::testing::{NODE, record};
    use crate::store::testing::TestStore;

    /// What is told of a row.
    fn told(rows: Vec<ScannedRow>) -> Vec<String> {
        rows.into_iter()
            .map(|ScannedRow { seq, leaf_hash, row, erased }| {
                let row = row.map(|row| CallRow { erased_at: None, ..row }).map_err(|error| error.to_string());
                format!("{seq} {leaf_hash:?} {erased} {row:?}")
            })
            .collect()
    }

    #[tokio::test]
    async fn rows_read_the_same_fast_and_plainly() {
        let test = TestStore::sqlite().await;
        let store = &test.store;
        record(store, NODE, 0..300).await;
        let odd = "U&\\0001 \" \\ \u{e9}\u{2028}";
        for (seq, set) in [
            (1, format!("method = '{odd}' || char(0) || char(10)")),
            (2, "limit_left = 9223372036854775807, rpc_error_code = -9223372036854775808".to_owned()),
            (3, "client_ip_commitment = zeroblob(32), client_ip = NULL, personal_salt = NULL".to_owned()),
            (4, "erased_at = '2026-01-01T00:00:00.000000Z'".to_owned()),
            (5, "reason = '', trace_id = NULL, caller_agent_id = NULL".to_owned()),
        ] {
            test.by_hand(&format!("UPDATE proxy_calls SET {set} WHERE seq = {seq}")).await;
        }
        let fast = store.scan_packed(NODE, 0, 1_000).await.expect("all of them read");
        assert_eq!(fast.len(), 300);
        assert_eq!(told(fast), told(store.scan_plainly(NODE, 0, 1_000).await.expect("rows")));
        // What is written otherwise than the gateway does is told of as before.
        for (seq, set) in [
            (6, "target_agent_id = '0000000A-0000-0000-0000-000000000064'"),
            (7, "called_at = '2026-01-01T00:00:00Z'"),
            (8, "leaf_hash = zeroblob(31)"),
            (9, "method = CAST(x'ff' AS TEXT)"),
        ] {
            test.by_hand(&format!("UPDATE proxy_calls SET {set} WHERE seq = {seq}")).await;
            assert!(store.scan_packed(NODE, seq - 1, 1).await.is_none(), "{set}");
            let row = store.scan_calls(NODE, seq - 1, 1).await.expect("reads").pop().expect("a row");
            assert!(row.row.is_err() || row.leaf_hash.is_none(), "{set}");
        }
        test.end().await;
    }
}
