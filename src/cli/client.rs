//! The command line's HTTP client: one request, one answer, errors in words that say what to do.
//!
//! Promises: a token goes to the gateway it was meant for and nowhere else (redirects are not followed, no proxy is asked);
//! an answer is read whole, up to a bound, within a time limit, unless it is a stream of events. Knows nothing of what is asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::event_stream::EventStream;
use super::failure::Failure;
use super::profile::Resolved;
use crate::config::Roots;
use crate::proxy::roots;

const CONNECT: Duration = Duration::from_secs(10);
/// An import of a whole registry takes its time.
const ANSWER: Duration = Duration::from_secs(120);
const ANSWER_MAX: usize = 64 * 1024 * 1024;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// A gateway, and the token shown to it.
pub(super) struct Client {
    resolved: Resolved,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// An answer that is not a refusal.
pub(super) struct Answer {
    /// As it came.
    pub(super) text: String,
    pub(super) json: Value,
}

impl Client {
    pub(super) fn new(resolved: Resolved) -> Result<Self, Failure> {
        let tls = if resolved.url.starts_with("https:") {
            let roots = resolved.ca_file.clone().map_or(Roots::Bundled, Roots::WithFile);
            Some(roots::client_config(&roots).map_err(|error| Failure::usage(error.to_string()))?)
        } else {
            None
        };
        Ok(Self { resolved, tls })
    }

    pub(super) fn url(&self) -> &str {
        &self.resolved.url
    }

    pub(super) async fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    pub(super) async fn patch(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.send(Method::PATCH, path, Some(body.to_string())).await
    }

    pub(super) async fn delete(&self, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        self.send(Method::DELETE, path, body.map(ToString::to_string)).await
    }

    /// Sends `body`, which is JSON.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<String>) -> Result<Answer, Failure> {
        let url = self.address(path)?;
        let asked = format!("{method} {}", url.path());
        let exchange = self.exchange(&url, method, body.map(Bytes::from));
        let (status, retry, body) = timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(self.unanswered()))?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let json: Option<Value> = serde_json::from_str(&text).ok();
        if (200..300).contains(&status) {
            return match json {
                Some(json) => Ok(Answer { text, json }),
                None if text.is_empty() => Ok(Answer { text, json: Value::Null }),
                None => Err(self.stranger(&asked, "with something that is not JSON")),
            };
        }
        Err(self.refused(status, &asked, retry.as_deref(), json))
    }

    /// Opens a stream of events.
    pub(super) async fn events(&self, path: &str) -> Result<EventStream, Failure> {
        let opened = timeout(ANSWER, self.opened(path, EVENTS));
        let body = opened.await.unwrap_or_else(|_| Err(self.unanswered()))?;
        Ok(EventStream::new(body))
    }

    /// Hands the answer over piece by piece, however long it takes.
    pub(super) async fn download(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut body = self.opened(path, JSON).await?;
        loop {
            match timeout(ANSWER, body.frame()).await {
                Ok(Some(Ok(frame))) => frame.data_ref().map_or(Ok(()), |piece| take(piece))?,
                Ok(Some(Err(error))) => return Err(self.unreachable(&format!("the answer broke off ({error})"))),
                Ok(None) => return Ok(()),
                Err(_) => return Err(self.unreachable(&format!("nothing came for {} s", ANSWER.as_secs()))),
            }
        }
    }

    /// The body of a good answer, unread.
    async fn opened(&self, path: &str, accept: &'static str) -> Result<Incoming, Failure> {
        let url = self.address(path)?;
        let response = self.open(&url, Method::GET, accept, None).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let (status, retry, body) =
            timeout(ANSWER, self.read(response)).await.unwrap_or_else(|_| Err(self.unanswered()))?;
        Err(self.refused(status, &format!("GET {}", url.path()), retry.as_deref(), serde_json::from_slice(&body).ok()))
    }

    fn address(&self, path: &str) -> Result<Url, Failure> {
        Url::parse(&format!("{}{path}", self.resolved.url))
            .map_err(|error| Failure::usage(format!("{path} is no path: {error}")))
    }

    async fn exchange(
        &self,
        url: &Url,
        method: Method,
        body: Option<Bytes>,
    ) -> Result<(u16, Option<String>, Bytes), Failure> {
        self.read(self.open(url, method, JSON, body).await?).await
    }

    /// Sends a request, and waits for the head of its answer.
    async fn open(
        &self,
        url: &Url,
        method: Method,
        accept: &'static str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, Failure> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or(80);
        let socket_host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let stream = match timeout(CONNECT, TcpStream::connect((socket_host.as_str(), port))).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(&plain(&error))),
            Err(_) => return Err(self.unreachable(&format!("no connection within {} s", CONNECT.as_secs()))),
        };
        let _ = stream.set_nodelay(true);
        let path = url.path().to_owned() + &url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::builder().method(method).uri(path).header("host", authority);
        request = request.header("user-agent", concat!("trust-gateway/", env!("CARGO_PKG_VERSION")));
        request = request.header("accept", accept);
        if let Some(token) = &self.resolved.token {
            let mut value = http::HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Failure::usage(format!("the token from {} cannot be sent", self.resolved.token_from)))?;
            value.set_sensitive(true);
            request = request.header("authorization", value);
        }
        if body.is_some() {
            request = request.header("content-type", JSON);
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| Failure::usage(format!("this cannot be asked: {error}")))?;
        let Some(tls) = &self.tls else { return self.speak(stream, request).await };
        let name = ServerName::try_from(socket_host)
            .map_err(|_| Failure::usage(format!("{host} is no name that a certificate could be for")))?;
        let stream = timeout(CONNECT, tokio_rustls::TlsConnector::from(Arc::clone(tls)).connect(name, stream));
        match stream.await {
            Ok(Ok(stream)) => self.speak(stream, request).await,
            Ok(Err(error)) => Err(Failure::Running(format!(
                "no TLS with {}: {error}. --ca-file names the authority of a private network; is it http there?",
                self.url()
            ))),
            Err(_) => Err(self.unreachable("TLS took too long")),
        }
    }

    async fn speak<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| {
            if error.is_parse() {
                Failure::Running(format!("{} does not speak HTTP as asked: is it https?", self.url()))
            } else {
                self.unreachable(&format!("the connection broke off ({error})"))
            }
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the exchange, which tells what went wrong.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }

    async fn read(&self, response: Response<Incoming>) -> Result<(u16, Option<String>, Bytes), Failure> {
        let (head, body) = response.into_parts();
        let retry = head.headers.get("retry-after").and_then(|value| value.to_str().ok()).map(str::to_owned);
        match Limited::new(body, ANSWER_MAX).collect().await {
            Ok(body) => Ok((head.status.as_u16(), retry, body.to_bytes())),
            Err(error) => Err(self.unreachable(&format!("the answer broke off ({error})"))),
        }
    }

    fn unanswered(&self) -> Failure {
        self.unreachable(&format!("no answer within {} s", ANSWER.as_secs()))
    }

    fn unreachable(&self, why: &str) -> Failure {
        Failure::Running(format!(
            "cannot reach {}: {why}. Is the gateway running? `trust-gateway serve` starts it; --url names another",
            self.url()
        ))
    }

    fn stranger(&self, asked: &str, how: &str) -> Failure {
        Failure::Running(format!("{} answered {asked} {how}: is it a trust gateway? --url names another", self.url()))
    }

    fn refused(&self, status: u16, asked: &str, retry: Option<&str>, json: Option<Value>) -> Failure {
        let Some(json) = json else {
            return if status == 404 || status < 400 {
                self.stranger(asked, &format!("with {status}"))
            } else {
                Failure::Refused {
                    status,
                    said: format!("{} answered {asked} with {status}", self.url()),
                    todo: vec![],
                }
            };
        };
        let said = ["detail", "error", "message"].iter().find_map(|name| json[*name].as_str());
        let said = said.unwrap_or("it did not say why").to_owned();
        let todo = match status {
            401 if self.resolved.token.is_none() => vec![
                format!("No token was found for {}: `trust-gateway login --url {0}` stores one,", self.url()),
                "--token-file FILE or TRUST_GATEWAY_TOKEN gives one for this command.".to_owned(),
            ],
            401 => vec![
                format!("{} did not take the token from {}.", self.url(), self.resolved.token_from),
                "Operators' tokens count on the operators' listener, agents' keys on the public one.".to_owned(),
            ],
            404 if said == "there is nothing at this path" => vec![format!(
                "{} has no {asked}: it may be an older gateway, or its public listener where the operators' is meant.",
                self.url()
            )],
            429 if said.contains("try again in") => Vec::new(),
            429 => vec![format!("Try again in {} s.", retry.unwrap_or("a few"))],
            _ => Vec::new(),
        };
        Failure::Refused { status, said, todo }
    }
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

/// A path from its parts, each escaped, so that a name with a slash in it stays one name.
pub(super) fn path(parts: &[&str]) -> String {
    let mut path = "/api".to_owned();
    for part in parts {
        path.push('/');
        // A dot segment would be taken out on the way, and the request would ask for something else.
        if matches!(*part, "." | "..") {
            path.push_str("%20");
        }
        path.extend(part.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        }));
    }
    path
}

/// `path` with those parameters that are given.
pub(super) fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut pairs = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            pairs.append_pair(name, value);
        }
    }
    let pairs = pairs.finish();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{pairs}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment_whatever_is_in_it() {
        assert_eq!(path(&["agents", "a/b?c#d e"]), "/api/agents/a%2Fb%3Fc%23d%20e");
        assert_eq!(path(&["agents", ".."]), "/api/agents/%20..");
        let url = Url::parse(&format!("http://x{}", path(&["agents", "../../keys"]))).expect("an address");
        assert_eq!(url.path(), "/api/agents/..%2F..%2Fkeys");
    }

    #[test]
    fn only_parameters_that_are_given_are_sent() {
        let parameters = [("q", Some("a&b=c".to_owned())), ("tag", None)];
        assert_eq!(query("/api/agents", &parameters), "/api/agents?q=a%26b%3Dc");
        assert_eq!(query("/x", &[("tag", None)]), "/x");
    }
}
