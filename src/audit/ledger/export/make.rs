//! Exports and proofs out of a database.

use std::fmt;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use uuid::Uuid;

use super::row::ExportedRow;
use super::{Consistency, EXPORT, Header, PROOF, Proof, RangeProof, Sealed, Trailer, VERSION, csv};
use crate::audit::ledger::note::Note;
use crate::audit::ledger::read::{ReadError, TreeReader};
use crate::clock::Timestamp;
use crate::store::call_query::{CallFilter, CallPage};
use crate::store::calls::ScannedRow;
use crate::store::ledger::CheckpointRow;
use crate::store::{Store, StoreError};

/// Rows per statement.
const CHUNK: u32 = if cfg!(test) { 70 } else { 2_000 };

/// Why there is no export or proof.
#[derive(Debug)]
pub enum ExportError {
    /// What was asked for is not there; says so.
    Absent(String),
    /// The tree does not tell.
    Read(ReadError),
    /// The database.
    Store(StoreError),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(what) => f.write_str(what),
            Self::Read(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ExportError {}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ReadError> for ExportError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Self::Store(error),
            error => Self::Read(error),
        }
    }
}

/// The form of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line of JSON for each; the header is the first line, the trailer the last.
    Jsonl,
    /// A line of CSV for each, below the names of the columns; the header is a file of its own.
    Csv,
}

/// Which rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// From this `seq` on.
    pub from_seq: Option<u64>,
    /// Up to this one; without it, all that are signed for.
    pub to_seq: Option<u64>,
    /// Arrived then or later,
    pub since: Option<Timestamp>,
    /// or before then: whatever lies between the first and the last of those is exported, too.
    pub until: Option<Timestamp>,
}

/// Whose log it is and what was signed of it last.
async fn sealed(store: &Store, node: Uuid) -> Result<(Sealed, CheckpointRow), ExportError> {
    let last = store.last_checkpoint(node).await?;
    let last = last.ok_or_else(|| ExportError::Absent(format!("nothing was signed for node {node} yet")))?;
    let keys = store.ledger_keys(node).await?.into_iter().map(|row| row.key).collect();
    let announcements = store.announcements(node).await?.into_iter().map(|row| row.note).collect();
    let note = Note::parse(&last.note).map_err(|error| StoreError::Corrupt(format!("ledger_checkpoints: {error}")))?;
    let origin = note.unverified().origin.clone();
    let sealed = Sealed { node_id: node, origin, keys, announcements, checkpoint: last.note.clone() };
    Ok((sealed, last))
}

/// What an export of these rows begins with.
///
/// # Errors
/// When there are no such rows, or they are not signed for.
pub async fn header(store: &Store, node: Uuid, range: &Range) -> Result<Header, ExportError> {
    let (sealed, last) = sealed(store, node).await?;
    let reader = TreeReader::open(store, node).await?;
    let (mut first_seq, mut last_seq) = (reader.dropped().size() + 1, last.size);
    if range.since.is_some() || range.until.is_some() {
        let between = store.seqs_between(node, range.since, range.until).await?;
        let (first, last) =
            between.ok_or_else(|| ExportError::Absent("no call arrived in that time, or none is kept".to_owned()))?;
        (first_seq, last_seq) = (first_seq.max(first), last_seq.min(last));
    }
    first_seq = range.from_seq.map_or(first_seq, |from| first_seq.max(from));
    if let Some(to) = range.to_seq {
        if to > last.size {
            return Err(ExportError::Absent(format!("rows up to {} are signed for by now, not up to {to}", last.size)));
        }
        last_seq = last_seq.min(to);
    }
    if first_seq > last_seq {
        return Err(ExportError::Absent(format!("there are no rows from {first_seq} to {last_seq}")));
    }
    let range_proof = RangeProof {
        before: reader.frontier(first_seq - 1).await?.roots().to_vec(),
        after: reader.after(last_seq, last.size).await?,
    };
    Ok(Header { format: EXPORT.to_owned(), version: VERSION, sealed, first_seq, last_seq, range_proof })
}

/// The rows of `header`, a piece at a time. It ends with an error if one is missing or cannot be read.
pub fn lines(store: Store, header: &Header, format: Format) -> impl Stream<Item = Result<Bytes, ExportError>> + use<> {
    let (node, first, last) = (header.sealed.node_id, header.first_seq, header.last_seq);
    stream::try_unfold((store, first), move |(store, next)| async move {
        if next > last {
            return Ok(None);
        }
        let limit = u32::try_from(last - next + 1).unwrap_or(CHUNK).min(CHUNK);
        let rows = store.scan_calls(node, next.cast_signed() - 1, limit).await?;
        let (text, rows) = encoded(rows, next, format)?;
        Ok(Some((Bytes::from(text), (store, next + rows))))
    })
}

fn encoded(rows: Vec<ScannedRow>, first: u64, format: Format) -> Result<(String, u64), ExportError> {
    let mut text = String::with_capacity(rows.len() * 700);
    let mut count = 0;
    for row in rows {
        if row.seq != (first + count).cast_signed() {
            break;
        }
        let row = ExportedRow::try_from(row)?;
        let unwritable = |error: serde_json::Error| StoreError::Corrupt(error.to_string());
        match format {
            Format::Jsonl => text += &(serde_json::to_string(&row).map_err(unwritable)? + "\n"),
            Format::Csv => text += &csv::line(&row).map_err(unwritable)?,
        }
        count += 1;
    }
    if count == 0 { Err(ReadError::Missing(first).into()) } else { Ok((text, count)) }
}

/// The whole of an export, a piece at a time: what goes before the rows and behind them is part of JSONL; CSV has the names of
/// its columns.
///
/// # Errors
/// When the header cannot be written; what comes later is part of the stream.
pub fn export(
    store: Store,
    header: &Header,
    format: Format,
) -> Result<impl Stream<Item = Result<Bytes, ExportError>> + use<>, ExportError> {
    let unwritable = |error: serde_json::Error| StoreError::Corrupt(error.to_string());
    let (before, behind) = match format {
        Format::Jsonl => (
            serde_json::to_string(header).map_err(unwritable)? + "\n",
            serde_json::to_string(&trailer(header)).map_err(unwritable)? + "\n",
        ),
        Format::Csv => (csv::head(), String::new()),
    };
    let piece = |text: String| stream::iter((!text.is_empty()).then(|| Ok(Bytes::from(text))));
    Ok(piece(before).chain(lines(store, header, format)).chain(piece(behind)))
}

/// What an export of these rows ends with.
#[must_use]
pub fn trailer(header: &Header) -> Trailer {
    Trailer { rows: header.last_seq - header.first_seq + 1, end: true }
}

/// That the call `id` is in the log.
///
/// # Errors
/// When it is not, or is not signed for yet.
pub async fn proof(store: &Store, id: Uuid) -> Result<Proof, ExportError> {
    let filter = CallFilter { id: Some(id), ..CallFilter::default() };
    let row = store.calls(&filter, &CallPage { after: None, limit: 1 }).await?.into_iter().next();
    let row = row.ok_or_else(|| ExportError::Absent(format!("there is no call {id} in the log")))?;
    let (sealed, last) = sealed(store, row.node_id).await?;
    let seq = u64::try_from(row.seq).map_err(|_| StoreError::Corrupt(format!("seq = {}", row.seq)))?;
    if seq > last.size {
        return Err(ExportError::Absent(format!("call {id} is not signed for yet: ask again in a second")));
    }
    let scanned = store.scan_calls(row.node_id, row.seq - 1, 1).await?.into_iter().next();
    let row = ExportedRow::try_from(scanned.ok_or(ReadError::Missing(seq))?)?;
    let reader = TreeReader::open(store, sealed.node_id).await?;
    let (index, size) = (seq - 1, last.size);
    let hashes = reader.inclusion(index, size).await?;
    Ok(Proof { format: PROOF.to_owned(), version: VERSION, sealed, row, index, size, hashes })
}

/// That the first `from` rows of a node's log are the beginning of its first `to`.
///
/// # Errors
/// When there are not that many, or the tree does not tell.
pub async fn consistency(store: &Store, node: Uuid, from: u64, to: u64) -> Result<Consistency, ExportError> {
    let reader = TreeReader::open(store, node).await?;
    let hashes = reader.consistency(from, to).await?;
    let (from_root, to_root) = (reader.frontier(from).await?.root(), reader.frontier(to).await?.root());
    Ok(Consistency { node_id: node, from, from_root, to, to_root, hashes })
}
