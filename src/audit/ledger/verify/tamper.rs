//! What somebody with the database in hand may do to a log, for tests.

use uuid::Uuid;

use crate::audit::canonical;
use crate::audit::ledger::grow::tree_of;
use crate::audit::ledger::note::{Checkpoint, Note, Signer};
use crate::clock::Timestamp;
use crate::store::ledger::{CheckpointRow, Growth};
use crate::store::rows::CallRow;
use crate::store::testing::TestStore;

/// Columns of text, and what a row has in each.
type Text = (&'static str, fn(&CallRow) -> Option<&str>);
/// The same for ids and numbers.
type Id = (&'static str, fn(&CallRow) -> Option<Uuid>);
type Number = (&'static str, fn(&CallRow) -> Option<i64>);

const TEXTS: [Text; 18] = [
    ("auth_method", |row| Some(&row.auth_method)),
    ("client_ip", |row| row.client_ip.as_deref()),
    ("trust_level", |row| Some(&row.trust_level)),
    ("binding", |row| Some(&row.binding)),
    ("protocol_version", |row| row.protocol_version.as_deref()),
    ("method", |row| row.method.as_deref()),
    ("operation", |row| Some(&row.operation)),
    ("rpc_id", |row| row.rpc_id.as_deref()),
    ("task_id", |row| row.task_id.as_deref()),
    ("context_id", |row| row.context_id.as_deref()),
    ("message_id", |row| row.message_id.as_deref()),
    ("decision", |row| Some(&row.decision)),
    ("reason", |row| row.reason.as_deref()),
    ("policy_rule", |row| row.policy_rule.as_deref()),
    ("policy_digest", |row| row.policy_digest.as_deref()),
    ("outcome", |row| Some(&row.outcome)),
    ("task_state", |row| row.task_state.as_deref()),
    ("limit_name", |row| row.limit_name.as_deref()),
];
const IDS: [Id; 5] = [
    ("id", |row| Some(row.id)),
    ("target_agent_id", |row| row.target_agent_id),
    ("caller_agent_id", |row| row.caller_agent_id),
    ("credential_id", |row| row.credential_id),
    ("connection_id", |row| row.connection_id),
];
const NUMBERS: [Number; 11] = [
    ("units", |row| Some(row.units)),
    ("status_code", |row| Some(row.status_code)),
    ("upstream_status", |row| row.upstream_status),
    ("rpc_error_code", |row| row.rpc_error_code),
    ("request_bytes", |row| Some(row.request_bytes)),
    ("response_bytes", |row| Some(row.response_bytes)),
    ("stream_events", |row| row.stream_events),
    ("ttfb_ms", |row| row.ttfb_ms),
    ("latency_ms", |row| Some(row.latency_ms)),
    ("calls", |row| Some(row.calls)),
    ("limit_left", |row| row.limit_left),
];
/// The columns that are bytes, and `called_at`.
const OTHERS: usize = 4;
/// Ways to change one column.
pub(crate) const FLIPS: usize = TEXTS.len() + IDS.len() + NUMBERS.len() + OTHERS;

/// Where rows stand while they are renumbered.
const ASIDE: i64 = 1_000_000;

/// A log in the hands of somebody.
#[derive(Debug)]
pub(crate) struct Hands<'a> {
    pub(crate) test: &'a TestStore,
    pub(crate) node: Uuid,
}

impl Hands<'_> {
    /// Runs statements on rows that a trigger may guard: whoever has the database in hand takes it away first.
    pub(crate) async fn run(&self, sql: &str) {
        let unguarded = match self.test.store.is_shared() {
            true => format!("BEGIN; SET LOCAL session_replication_role = replica; {sql}; COMMIT"),
            false => "PRAGMA writable_schema = 1; PRAGMA busy_timeout = 5000; \
                      DELETE FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'proxy_calls'"
                .to_owned(),
        };
        self.test.by_hand(&unguarded).await;
        if !self.test.store.is_shared() {
            self.test.by_hand(sql).await;
        }
    }

    pub(crate) async fn row(&self, seq: u64) -> CallRow {
        let mut rows = self.test.store.scan_calls(self.node, seq.cast_signed() - 1, 1).await.expect("rows");
        rows.pop().expect("a row").row.expect("readable")
    }

    async fn set(&self, seq: u64, column: &str, literal: &str) {
        let node = self.node;
        self.run(&format!("UPDATE proxy_calls SET {column} = {literal} WHERE node_id = '{node}' AND seq = {seq}"))
            .await;
    }

    /// Changes one bit, byte or digit of a column, or puts something where nothing was. What it was that was done.
    pub(crate) async fn flip(&self, seq: u64, which: usize, at: usize) -> String {
        let row = self.row(seq).await;
        let (column, literal) = self.flipped(&row, which, at);
        self.set(seq, column, &literal).await;
        format!("{column} = {literal}")
    }

    fn flipped(&self, row: &CallRow, which: usize, at: usize) -> (&'static str, String) {
        if let Some((column, value)) = TEXTS.get(which) {
            return (column, self.flipped_text(value(row), at));
        }
        let which = which - TEXTS.len();
        if let Some((column, value)) = IDS.get(which) {
            let id = value(row).map_or(Uuid::from_u128(1), |id| Uuid::from_u128(id.as_u128() ^ (1 << (at % 128))));
            return (column, format!("'{id}'"));
        }
        let which = which - IDS.len();
        if let Some((column, value)) = NUMBERS.get(which) {
            return (column, value(row).map_or(0, |number| number ^ (1 << (at % 31))).to_string());
        }
        match which - NUMBERS.len() {
            0 => ("called_at", format!("'{}'", Timestamp(row.called_at.0 ^ (1 << (at % 40))))),
            1 => ("personal_salt", self.bytes(&flipped(&row.personal_salt.unwrap_or([0; 16]), at))),
            2 => ("client_ip_commitment", self.bytes(&flipped(&row.client_ip_commitment.unwrap_or([0; 32]), at))),
            _ => ("leaf_hash", self.bytes(&flipped(&row.leaf_hash, at))),
        }
    }

    fn flipped_text(&self, value: Option<&str>, at: usize) -> String {
        match value {
            None => "''".to_owned(),
            // Not every byte is a text there.
            Some(text) if self.test.store.is_shared() => format!("'{}'", text.replace('\'', "''") + "x"),
            Some(text) => format!("CAST({} AS TEXT)", self.bytes(&flipped(text.as_bytes(), at))),
        }
    }

    fn bytes(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.test.store.is_shared() { format!("'\\x{hex}'::bytea") } else { format!("x'{hex}'") }
    }

    /// Changes a row and makes its leaf hash fit.
    pub(crate) async fn rewrite(&self, seq: u64) {
        let mut row = self.row(seq).await;
        row.latency_ms += 1;
        self.set(seq, "latency_ms", &row.latency_ms.to_string()).await;
        self.set(seq, "leaf_hash", &self.bytes(&canonical::leaf_hash(&row))).await;
    }

    pub(crate) async fn delete(&self, first: u64, last: u64) {
        let node = self.node;
        self.run(&format!("DELETE FROM proxy_calls WHERE node_id = '{node}' AND seq BETWEEN {first} AND {last}")).await;
    }

    /// Gives rows from `first` to `last` other numbers.
    pub(crate) async fn renumber(&self, first: u64, last: u64, by: i64) {
        let node = self.node;
        // In two steps, so that no two have the same in between.
        let moved = [(format!("seq BETWEEN {first} AND {last}"), by + ASIDE), (format!("seq > {ASIDE}"), -ASIDE)];
        for (which, by) in moved {
            self.run(&format!("UPDATE proxy_calls SET seq = seq + ({by}) WHERE node_id = '{node}' AND {which}")).await;
        }
    }

    pub(crate) async fn swap(&self, a: u64, b: u64) {
        self.set(a, "seq", &ASIDE.to_string()).await;
        self.set(b, "seq", &a.to_string()).await;
        self.set(ASIDE.cast_unsigned(), "seq", &b.to_string()).await;
    }

    /// Makes the kept tree that of the rows as they are now.
    pub(crate) async fn regrow(&self) {
        let node = self.node;
        for table in ["ledger_heads", "ledger_subtrees"] {
            self.test.by_hand(&format!("DELETE FROM {table} WHERE node_id = '{node}'")).await;
        }
        let mut growth = Growth::default();
        for (_, leaf) in self.test.store.leaf_hashes(self.node, 0, 100_000).await.expect("leaves") {
            growth.push(leaf);
        }
        self.test.store.grow_ledger(self.node, &growth).await.expect("a tree");
    }

    /// Forgets the checkpoints of more than `size` rows.
    pub(crate) async fn forget_checkpoints(&self, size: u64) {
        let node = self.node;
        let sql = format!("DELETE FROM ledger_checkpoints WHERE node_id = '{node}' AND size > {size}");
        self.test.by_hand(&sql).await;
    }

    /// Signs for the rows that are there, as the gateway does.
    pub(crate) async fn seal(&self, signers: &[&Signer]) -> Note {
        let tree = tree_of(&self.test.store, self.node).await.expect("a tree");
        let next_key = signers.get(1).map(|next| next.key().clone());
        let announces = next_key.is_some();
        let origin = signers[0].key().name().to_owned();
        let note = Checkpoint { origin, size: tree.size(), root: tree.root(), next_key }.signed(signers);
        let row = CheckpointRow {
            node_id: self.node,
            size: tree.size(),
            root: tree.root(),
            signed_at: Timestamp(1_700_000_000_000_000),
            announces,
            note: note.clone(),
        };
        self.test.store.keep_checkpoint(&row).await.expect("kept");
        Note::parse(&note).expect("a note")
    }
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match bytes.len() {
        0 => bytes.push(b'x'),
        len => bytes[at / 8 % len] ^= 1 << (at % 8),
    }
    bytes
}
