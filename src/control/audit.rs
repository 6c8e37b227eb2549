//! `/api/audit`: parts of the log that prove themselves, for operators: exports, the proof of one call, the consistency of two
//! states.
//!
//! Promises: exports go over connections of their own, few at a time, and are recorded before their first row leaves.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use super::problem::Problem;
use super::who::Asked;
use crate::audit::ledger::export::{ExportError, Format, Header, Range, consistency, export, header, proof};
use crate::audit::ledger::read::ReadError;
use crate::store::Store;

/// Exports under way at a time: each reads as fast as its asker takes it.
const AT_ONCE: usize = 2;

/// What exports are made with.
#[derive(Debug)]
pub struct Exports {
    store: Store,
    turns: Arc<Semaphore>,
}

impl Exports {
    /// Out of the database of `store`.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self { store: store.aside(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.turns).try_acquire_owned().map_err(|_| {
            Problem::new(429, format!("{AT_ONCE} exports are under way: ask again when one is done")).retry_after(10)
        })
    }
}

impl From<ExportError> for Problem {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Absent(what) => Self::not_found(what),
            ExportError::Read(error @ (ReadError::OutOfRange { .. } | ReadError::Dropped(_))) => {
                Self::not_found(error.to_string())
            }
            ExportError::Read(error) => Self::new(500, error.to_string()),
            ExportError::Store(error) => error.into(),
        }
    }
}

impl Asked {
    fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let row = |text: &str| text.parse().ok().filter(|n: &u64| i64::try_from(*n).is_ok());
        self.parameters.word(name, "a whole number", row)
    }

    /// The rows that are asked for, and what proves them.
    async fn export_header(&self) -> Result<Header, Problem> {
        self.known()?;
        let parameters = &self.parameters;
        let range = Range {
            from_seq: self.number("from_seq")?,
            to_seq: self.number("to_seq")?,
            since: parameters.time("since")?,
            until: parameters.time("until")?,
        };
        let node = parameters.id("node")?.unwrap_or(self.control.about.node_id);
        Ok(header(&self.control.exports.store, node, &range).await?)
    }

    async fn record_export(&self, action: &str, header: &Header) -> Result<(), Problem> {
        let Header { sealed, first_seq, last_seq, .. } = header;
        let what = json!({"node": sealed.node_id, "first_seq": first_seq, "last_seq": last_seq});
        Ok(self.control.registry.record_reading(&self.who, action, what).await?)
    }
}

/// Rows of one node's log, as a file that proves itself: `docs/ledger.md` describes it.
#[utoipa::path(get, path = "/api/audit/export", operation_id = "export_log", tag = "audit",
    params(("node" = Option<Uuid>, Query, description = "Whose; without it, that of the node that answers"),
        ("from_seq" = Option<u64>, Query, description = "From this row on"),
        ("to_seq" = Option<u64>, Query, description = "Up to this row; without it, all that are signed for"),
        ("since" = Option<String>, Query, description = "Rows of calls that arrived then or later, and what lies between them", format = DateTime),
        ("until" = Option<String>, Query, description = "Before then", format = DateTime),
        ("format" = Option<String>, Query, description = "`jsonl`, or `csv`: that is proved by `/api/audit/export/proof` for the same rows")),
    responses((status = 200, description = "The rows", content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 404, description = "There are no such rows, or they are not signed for"),
        (status = 429, description = "Too many exports at a time")))]
pub(super) async fn rows(asked: Asked) -> Result<Response, Problem> {
    let format = |text: &str| match text {
        "jsonl" => Some(Format::Jsonl),
        "csv" => Some(Format::Csv),
        _ => None,
    };
    let format = asked.parameters.word("format", "jsonl or csv", format)?.unwrap_or(Format::Jsonl);
    let header = asked.export_header().await?;
    let turn = asked.control.exports.turn()?;
    asked.record_export("audit.export", &header).await?;
    let kind = match format {
        Format::Jsonl => "application/x-ndjson",
        Format::Csv => "text/csv; charset=utf-8; header=present",
    };
    let pieces = export(asked.control.exports.store.clone(), &header, format)?;
    let pieces = pieces.inspect_err(|error| tracing::error!(%error, "an export breaks off")).map(move |piece| {
        // Others wait until the last piece was taken.
        let _turn = &turn;
        piece
    });
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(pieces)).into_response())
}

/// What proves the rows of an export: the first line of one in JSONL, for one in CSV a file of its own.
#[utoipa::path(get, path = "/api/audit/export/proof", operation_id = "prove_export", tag = "audit",
    params(("node" = Option<Uuid>, Query, description = "Whose; without it, that of the node that answers"),
        ("from_seq" = Option<u64>, Query, description = "From this row on"),
        ("to_seq" = Option<u64>, Query, description = "Up to this row; without it, all that are signed for"),
        ("since" = Option<String>, Query, description = "Rows of calls that arrived then or later, and what lies between them", format = DateTime),
        ("until" = Option<String>, Query, description = "Before then", format = DateTime)),
    responses((status = 200, description = "Node, keys, checkpoint, the first and the last row, and the range proof", body = Object),
        (status = 404, description = "There are no such rows, or they are not signed for")))]
pub(super) async fn rows_proof(asked: Asked) -> Result<Response, Problem> {
    let header = asked.export_header().await?;
    Ok(Json(header).into_response())
}

/// That one call is in the log: its row, and the proof of inclusion up to a signed checkpoint.
#[utoipa::path(get, path = "/api/audit/proof/{request_id}", operation_id = "prove_call", tag = "audit",
    params(("request_id" = Uuid, Path, description = "The call's id")),
    responses((status = 200, description = "Row, proof and checkpoint", body = Object),
        (status = 404, description = "There is no such call in the log, or it is not signed for yet")))]
pub(super) async fn call(
    axum::extract::Path(id): axum::extract::Path<String>,
    asked: Asked,
) -> Result<Response, Problem> {
    asked.known()?;
    let id = Uuid::parse_str(&id).map_err(|_| Problem::invalid("request_id", "must be an id"))?;
    if let Some(flush) = &asked.control.drain_flush {
        flush().await;
    }
    let proof = proof(&asked.control.store, id).await?;
    asked.control.registry.record_reading(&asked.who, "audit.prove", json!({"call": id})).await?;
    Ok(Json(proof).into_response())
}

/// That one state of a node's log is the beginning of a later one.
#[utoipa::path(get, path = "/api/audit/consistency", operation_id = "prove_consistency", tag = "audit",
    params(("node" = Option<Uuid>, Query, description = "Whose; without it, that of the node that answers"),
        ("from" = u64, Query, description = "The smaller number of rows"),
        ("to" = u64, Query, description = "The larger number of rows")),
    responses((status = 200, description = "Both roots and the proof (RFC 6962 section 2.1.2)", body = Object),
        (status = 404, description = "The log has fewer rows, or the first of them are gone")))]
pub(super) async fn consistent(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let number = |name: &str| asked.number(name)?.ok_or_else(|| Problem::invalid(name, "is missing: a number of rows"));
    let (from, to) = (number("from")?, number("to")?);
    let node = asked.parameters.id("node")?.unwrap_or(asked.control.about.node_id);
    Ok(Json(consistency(&asked.control.store, node, from, to).await?).into_response())
}
