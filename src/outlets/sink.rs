//! Where a batch of rows goes.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use uuid::Uuid;

use super::file::LineFile;
use super::post::{Failure, Post, PostRequest, bearer, deliver};
use crate::config::Destination;

/// How long an address may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Who may read a file of rows.
const ONLY_ITS_OWNER: u32 = 0o600;

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
    File(LineFile),
    Http { url: String, token_file: Option<PathBuf>, post: Post },
}

impl Sink {
    /// The destination in the configuration; addresses are posted to by `post`.
    #[must_use]
    pub fn new(destination: &Destination, post: Post) -> Self {
        Self(match destination {
            Destination::File(path) => Kind::File(LineFile::new(path.clone(), ONLY_ITS_OWNER)),
            Destination::Http(url, token_file) => {
                Kind::Http { url: url.as_str().to_owned(), token_file: token_file.clone(), post }
            }
        })
    }

    /// Hands a batch over; the rows are the destination's when it returns.
    pub(super) async fn take(&self, batch: Batch) -> Result<(), Failure> {
        match &self.0 {
            Kind::File(file) => file.append(batch.lines).await,
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
