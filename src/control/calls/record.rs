//! How far each node's record was read: where those who follow the log go on. Opaque to those who hand it back.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::store::rows::CallRow;

/// The last `seq` that was read of each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordCursor(pub(super) Vec<(Uuid, i64)>);

impl RecordCursor {
    /// What [`RecordCursor::write`] wrote.
    pub(super) fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (entries, []) = bytes.strip_prefix(b"r")?.as_chunks::<24>() else { return None };
        let entry = |entry: &[u8; 24]| {
            let (node, seq) = entry.split_at(16);
            Some((Uuid::from_slice(node).ok()?, i64::from_be_bytes(seq.try_into().ok()?)))
        };
        entries.iter().map(entry).collect::<Option<_>>().map(Self)
    }

    pub(super) fn write(&self) -> String {
        // The first byte keeps it from being empty, which would count as not sent.
        let mut bytes = vec![b'r'];
        for (node, seq) in &self.0 {
            bytes.extend_from_slice(node.as_bytes());
            bytes.extend_from_slice(&seq.to_be_bytes());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What it says to whoever reads on; never nothing, which would mean to begin anew.
    pub(super) fn after(&self) -> &[(Uuid, i64)] {
        const NOBODY: &[(Uuid, i64)] = &[(Uuid::nil(), 0)];
        if self.0.is_empty() { NOBODY } else { &self.0 }
    }

    /// Whether it lies behind `row`.
    pub(super) fn has(&self, row: &CallRow) -> bool {
        self.0.iter().any(|(node, seq)| *node == row.node_id && *seq >= row.seq)
    }

    /// Moves it on to `row`.
    pub(super) fn pass(&mut self, row: &CallRow) {
        match self.0.iter_mut().find(|(node, _)| *node == row.node_id) {
            Some((_, seq)) => *seq = row.seq,
            None => self.0.push((row.node_id, row.seq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::control::cursor;

    #[test]
    fn a_record_cursor_reads_back_and_nonsense_does_not() {
        let id = Uuid::now_v7();
        for seen in [vec![], vec![(id, 1)], vec![(id, i64::MAX), (Uuid::nil(), 0)]] {
            let cursor = RecordCursor(seen);
            assert_eq!(RecordCursor::read(&cursor.write()), Some(cursor));
        }
        for bad in ["", "x", "cg0", &cursor::write(Timestamp(1), id)] {
            assert_eq!(RecordCursor::read(bad), None, "{bad}");
        }
    }
}
