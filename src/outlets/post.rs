//! A request that the gateway makes by itself to an address an operator configured, and what its answer means.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue};

/// A POST.
#[derive(Clone, Debug)]
pub struct PostRequest {
    /// Where to.
    pub url: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// How long it may take altogether.
    pub timeout: Duration,
}

/// What is of interest in its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostAnswer {
    /// The status.
    pub status: u16,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// Makes POST requests; why there is no whole answer, in words.
pub type Post = Arc<dyn Fn(PostRequest) -> BoxFuture<'static, Result<PostAnswer, String>> + Send + Sync>;

/// Why something was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub text: String,
    /// Whether it will be so until somebody does something about it.
    pub lasting: bool,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// One that may be over in a moment.
    pub(super) fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), lasting: false, retry_after: None }
    }

    /// One that somebody has to do something about.
    pub(super) fn lasting(text: impl Into<String>) -> Self {
        Self { text: text.into(), lasting: true, retry_after: None }
    }
}

/// Sends a request that must be taken: 2xx. A redirect is not followed.
///
/// # Errors
/// When it was not taken.
pub async fn deliver(post: &Post, request: PostRequest) -> Result<(), Failure> {
    let PostAnswer { status, retry_after } = post(request).await.map_err(Failure::passing)?;
    match status {
        200..300 => Ok(()),
        408 | 429 | 500.. => {
            Err(Failure { retry_after, ..Failure::passing(format!("the receiver answered {status}")) })
        }
        300..400 => Err(Failure::lasting(format!(
            "the receiver answered {status}: redirects are not followed; write the address it leads to"
        ))),
        _ => Err(Failure::lasting(format!("the receiver refuses what it is sent: it answered {status}"))),
    }
}

/// The bearer token in a file; read anew for each use, so that it can be changed at any time.
///
/// # Errors
/// Why there is none, in words.
pub fn bearer_token(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    let token = text.trim();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token.to_owned()),
        false => Err(format!("{}: this is no token: write it on one line, without spaces", file.display())),
    }
}

/// The header that shows the token in a file.
///
/// # Errors
/// As [`bearer_token`].
pub fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let token = bearer_token(file)?;
    let no_header = |_| format!("{}: this is no token", file.display());
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(no_header)?;
    bearer.set_sensitive(true);
    Ok(bearer)
}
