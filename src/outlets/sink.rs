//! Where a batch of rows goes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use uuid::Uuid;

use super::file::LineFile;
use super::post::{Failure, Post, PostRequest, bearer, deliver};
use crate::config::Destination;

/// How long an address may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Rows of one node, without a gap but for those the outlet does not send.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub node: Uuid,
    /// The `seq` of the first and last row it stands for.
    pub seqs: (i64, i64),
    /// The rows, each with its line end.
    pub lines: String,
}

/// A destination of rows.
pub struct Sink(Kind);

enum Kind {
    /// Lent to a thread that may wait for the disk.
    File(Arc<Mutex<LineFile>>),
    Http {
        url: String,
        token_file: Option<PathBuf>,
        post: Post,
    },
}

impl Sink {
    /// The destination in the configuration; addresses are posted to by `post`.
    #[must_use]
    pub fn new(destination: &Destination, post: Post) -> Self {
        Self(match destination {
            Destination::File(path) => Kind::File(Arc::new(Mutex::new(LineFile::new(path.clone())))),
            Destination::Http(url, token_file) => {
                Kind::Http { url: url.as_str().to_owned(), token_file: token_file.clone(), post }
            }
        })
    }

    /// Hands a batch over; the rows are the destination's when it returns.
    pub(super) async fn take(&self, batch: Batch) -> Result<(), Failure> {
        match &self.0 {
            Kind::File(file) => append(Arc::clone(file), batch.lines).await,
            Kind::Http { url, token_file, post } => {
                let mut headers = HeaderMap::new();
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
                headers.insert("x-trustgateway-node", text(&batch.node.to_string())?);
                headers.insert("x-trustgateway-first-seq", HeaderValue::from(batch.seqs.0));
                headers.insert("x-trustgateway-last-seq", HeaderValue::from(batch.seqs.1));
                if let Some(file) = token_file {
                    headers.insert(header::AUTHORIZATION, bearer(file).map_err(Failure::lasting)?);
                }
                let body = Bytes::from(batch.lines);
                deliver(post, PostRequest { url: url.clone(), headers, body, timeout: TIMEOUT }).await
            }
        }
    }
}

fn text(value: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(value).map_err(|_| Failure::lasting("this cannot stand in a header"))
}

async fn append(file: Arc<Mutex<LineFile>>, lines: String) -> Result<(), Failure> {
    let appending = move || file.lock().unwrap_or_else(PoisonError::into_inner).append(lines.as_bytes());
    let failed = |error: &dyn std::fmt::Display| Failure::passing(format!("the file cannot be written: {error}"));
    match tokio::task::spawn_blocking(appending).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}
