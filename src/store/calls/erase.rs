//! Taking values out of rows: addresses, which leave a commitment behind, and what else came from outside.

use uuid::Uuid;

use super::permit::{Permit, Permitted, ledger_turn};
use crate::clock::Timestamp;
use crate::store::holds::HoldRow;
use crate::store::sql::{Built, Dialect, Row, query};
use crate::store::{Store, StoreError, columns};

/// What is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasure {
    /// The addresses of all calls.
    Addresses,
    /// The addresses of calls that this agent made.
    AddressesOf(Uuid),
    /// Whatever came from outside with calls that were refused.
    Refused,
}

/// A part of a node's rows, by `seq`: from after the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose.
    pub node: Uuid,
    /// Not these.
    pub after: u64,
    /// These.
    pub until: u64,
}

/// A row that has something to be taken out.
#[derive(Clone, Debug)]
pub struct Erasable {
    seq: u64,
    called_at: Timestamp,
    caller: Option<Uuid>,
    target: Option<Uuid>,
    client_ip: Option<String>,
    salt: Option<[u8; 16]>,
    sealed_on: String,
}

/// What became of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Values were taken out of so many.
    pub erased: u64,
    /// So many stay as they are: they are held.
    pub held: u64,
}

impl Erased {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.erased += other.erased;
        self.held += other.held;
    }
}

impl Erasable {
    fn is_held(&self, holds: &[HoldRow]) -> bool {
        holds.iter().any(|hold| hold.covers(self.caller, self.target, self.called_at))
    }
}

impl Store {
    /// The rows of `span` that have something to be taken out, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn erasable(&self, span: Span, what: Erasure) -> Result<Vec<Erasable>, StoreError> {
        let mut select = Built::new(
            self.reader.dialect(),
            "SELECT seq, called_at, caller_agent_id, target_agent_id, client_ip, personal_salt, \
             CAST(sealed_on AS text) AS sealed_on FROM proxy_calls WHERE node_id = ",
        );
        select.push_bind(span.node).push(" AND seq > ").push_bind(span.after.cast_signed());
        select.push(" AND seq <= ").push_bind(span.until.cast_signed());
        match what {
            Erasure::Addresses => select.push(" AND client_ip IS NOT NULL"),
            Erasure::AddressesOf(caller) => {
                select.push(" AND client_ip IS NOT NULL AND caller_agent_id = ").push_bind(caller)
            }
            Erasure::Refused => select.push(" AND decision = 'refused' AND erased_at IS NULL"),
        };
        select.push(" ORDER BY seq");
        select.build().fetch_all(&self.reader).await?.iter().map(erasable).collect()
    }

    /// Takes out of `rows`, which are of `node`, what is to be taken out, but for those that are held. All of them or none.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn erase(
        &self,
        node: Uuid,
        rows: &[Erasable],
        what: Erasure,
        now: Timestamp,
    ) -> Result<Erased, StoreError> {
        let Permitted { mut tx, holds } = self.permitted(Permit::Erase).await?;
        let free: Vec<&Erasable> = rows.iter().filter(|row| !row.is_held(&holds)).collect();
        let held = (rows.len() - free.len()) as u64;
        let days = || free.iter().map(|row| row.sealed_on.as_str());
        let (Some(first), Some(last)) = (days().min(), days().max()) else { return Ok(Erased { erased: 0, held }) };
        let mut update = Built::new(tx.dialect(), "WITH gone (seq, commitment) AS (VALUES ");
        for (n, row) in free.iter().enumerate() {
            let commitment = match (&row.client_ip, &row.salt) {
                (Some(ip), Some(salt)) => Some(crate::audit::canonical::commitment(salt, ip).to_vec()),
                _ => None,
            };
            update.push(if n > 0 { ", (" } else { "(" }).push_bind(row.seq.cast_signed());
            update.push(", ").push_bind(commitment).push(")");
        }
        update.push(
            ") UPDATE proxy_calls SET client_ip = NULL, personal_salt = NULL, \
             client_ip_commitment = coalesce(gone.commitment, client_ip_commitment)",
        );
        if what == Erasure::Refused {
            update.push(
                ", credential_id = NULL, protocol_version = NULL, method = NULL, rpc_id = NULL, task_id = NULL, \
                 context_id = NULL, message_id = NULL, trace_id = NULL, erased_at = ",
            );
            update.push_bind(now);
        }
        update.push(" FROM gone WHERE proxy_calls.seq = gone.seq AND node_id = ").push_bind(node);
        // Nobody else may have been at it since they were read.
        update.push(match what {
            Erasure::Refused => " AND erased_at IS NULL",
            _ => " AND client_ip IS NOT NULL",
        });
        // The days these rows are in: PostgreSQL looks into no others.
        if tx.dialect() == Dialect::Postgres {
            update.push(" AND sealed_on BETWEEN ").push_bind(first).push("::text::date AND ");
            update.push_bind(last).push("::text::date");
        }
        let erased = update.build().execute(&mut tx).await?;
        Permitted { tx, holds }.commit().await?;
        Ok(Erased { erased, held })
    }

    /// The first row of `span` whose call arrived at `cutoff` or later.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn first_since(&self, span: Span, cutoff: Timestamp) -> Result<Option<u64>, StoreError> {
        let first = query(
            "SELECT seq FROM proxy_calls WHERE node_id = $1 AND seq > $2 AND seq <= $3 AND called_at >= $4 \
             ORDER BY seq LIMIT 1",
        );
        let first = first.bind(span.node).bind(span.after.cast_signed()).bind(span.until.cast_signed()).bind(cutoff);
        let row = first.fetch_optional(&self.reader).await?;
        row.map(|row| columns::unsigned(&row, "seq")).transpose()
    }

    /// How far erasure of a class by age has come in the rows of `node`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn erased_up_to(&self, node: Uuid, class: &str) -> Result<u64, StoreError> {
        let size = query("SELECT size FROM ledger_erased WHERE node_id = $1 AND class = $2").bind(node).bind(class);
        let row = size.fetch_optional(&self.reader).await?;
        row.map_or(Ok(0), |row| columns::unsigned(&row, "size"))
    }

    /// Remembers how far it has come, unless a hold was released meanwhile, after `released` of them: then it begins anew.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn keep_erased_up_to(&self, node: Uuid, class: &str, size: u64, released: u64) -> Result<(), StoreError> {
        let mut tx = self.writer.begin("BEGIN IMMEDIATE", "BEGIN").await?;
        ledger_turn(&mut tx).await?;
        query(
            "INSERT INTO ledger_erased (node_id, class, size) SELECT $1, $2, $3 \
             WHERE (SELECT count(*) FROM ledger_holds WHERE released_at IS NOT NULL) = $4 \
             ON CONFLICT (node_id, class) DO UPDATE SET size = excluded.size",
        )
        .bind(node)
        .bind(class)
        .bind(size.cast_signed())
        .bind(released.cast_signed())
        .execute(&mut tx)
        .await?;
        tx.commit().await
    }
}

fn erasable(row: &Row) -> Result<Erasable, StoreError> {
    Ok(Erasable {
        seq: columns::unsigned(row, "seq")?,
        called_at: columns::time(row, "called_at")?,
        caller: row.get_id("caller_agent_id")?,
        target: row.get_id("target_agent_id")?,
        client_ip: columns::optional_text(row, "client_ip")?,
        salt: columns::optional_array(row, "personal_salt")?,
        sealed_on: columns::text(row, "sealed_on")?,
    })
}
