//! A client over a bare socket: what it sends and what it reads is exactly what is on the wire.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// An answer, read whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether the connection ended before the body did.
    pub cut: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What a client speaks over: a bare socket, or TLS on one.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// One connection to the gateway.
pub(crate) struct Client {
    stream: Box<dyn Wire>,
    unread: Vec<u8>,
    host: String,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the gateway listens");
        let _ = stream.set_nodelay(true);
        Self::over(stream, &address.to_string())
    }

    /// A client on a connection that stands, which calls the gateway `host`.
    pub(crate) fn over(stream: impl Wire + 'static, host: &str) -> Self {
        Self { stream: Box::new(stream), unread: Vec::new(), host: host.to_owned() }
    }

    /// Names the gateway `host` from now on.
    pub(crate) fn call_it(&mut self, host: &str) {
        host.clone_into(&mut self.host);
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Resolves when the gateway has ended the connection; what came before that.
    pub(crate) async fn ended(&mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// As [`Client::write`], to a gateway that may have stopped reading.
    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the gateway reads");
    }

    /// Sends a request with these extra header lines.
    pub(crate) async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let bytes = self.request(method, path, headers, body);
        self.write(bytes).await;
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" || method == "PUT" {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Sends a JSON-RPC call.
    pub(crate) async fn call(&mut self, path: &str, key: Option<&str>, body: &Value) {
        assert!(self.try_call(path, key, body).await, "the gateway reads");
    }

    /// Sends a JSON-RPC call to a gateway that may be gone.
    pub(crate) async fn try_call(&mut self, path: &str, key: Option<&str>, body: &Value) -> bool {
        let token = key.map(|key| format!("Bearer {key}"));
        let mut headers = vec![("content-type", "application/json"), ("a2a-version", "1.0")];
        if let Some(token) = &token {
            headers.push(("authorization", token));
        }
        let bytes = self.request("POST", path, &headers, body.to_string().as_bytes());
        self.stream.write_all(&bytes).await.is_ok()
    }

    async fn fill(&mut self) -> usize {
        let mut buffer = vec![0; 64 * 1024];
        let n = within("the gateway answers", self.stream.read(&mut buffer)).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..n]);
        n
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        self.unread.drain(..n).collect()
    }

    /// The head of the next answer.
    pub(crate) async fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill().await == 0 {
                return Answer { status: 0, head: String::new(), body: Vec::new(), cut: true };
            }
        };
        let head = String::from_utf8_lossy(&self.take(end)).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Answer { status, head, body: Vec::new(), cut: false }
    }

    /// The next chunk of a chunked body; `None` at its end; `Err` when the connection ends instead.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let line = loop {
            if let Some(end) = self.unread.windows(2).position(|window| window == b"\r\n") {
                break self.take(end + 2);
            }
            if self.fill().await == 0 {
                return Err(());
            }
        };
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).map_err(|_| ())?;
        while self.unread.len() < size + 2 {
            if self.fill().await == 0 {
                return Err(());
            }
        }
        let mut data = self.take(size + 2);
        data.truncate(size);
        Ok((size > 0).then_some(data))
    }

    /// The next answer, whole.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("POST").await
    }

    /// The next answer, whole, to a request with this method: those to HEAD have no body whatever they say.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        if method == "HEAD" || answer.status == 304 {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                match self.chunk().await {
                    Ok(Some(data)) => answer.body.extend_from_slice(&data),
                    Ok(None) => break,
                    Err(()) => {
                        answer.cut = true;
                        break;
                    }
                }
            }
        } else if let Some(length) = answer.header("content-length").and_then(|n| n.parse::<usize>().ok()) {
            while self.unread.len() < length {
                if self.fill().await == 0 {
                    answer.cut = true;
                    break;
                }
            }
            let n = self.unread.len().min(length);
            answer.body = self.take(n);
        }
        answer
    }

    /// Reads until `text` has arrived in the body of an event stream; returns what came up to and with it.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        loop {
            match self.chunk().await {
                Ok(Some(data)) => seen.push_str(&String::from_utf8_lossy(&data)),
                other => panic!("the stream ended ({other:?}) before {text:?}; it had {seen:?}"),
            }
            if seen.contains(text) {
                return seen;
            }
        }
    }
}
