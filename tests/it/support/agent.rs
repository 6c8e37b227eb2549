//! Agents that do exactly what a test tells them, byte by byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as the agent received it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Request line and header lines, as they came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    /// The value of the first header with this name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn request_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// One connection to a scripted agent.
pub(crate) struct Conn {
    stream: TcpStream,
    unread: Vec<u8>,
    seen: Arc<Mutex<Vec<Received>>>,
}

impl Conn {
    /// The next request, or `None` when the gateway has closed.
    pub(crate) async fn request(&mut self) -> Option<Received> {
        let end = loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill().await == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        let mut received = Received { head, body: Vec::new() };
        let length = received.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        while self.unread.len() < end + length {
            if self.fill().await == 0 {
                return None;
            }
        }
        received.body = self.unread[end..end + length].to_vec();
        self.unread.drain(..end + length);
        self.seen.lock().expect("no test panics with it").push(received.clone());
        Some(received)
    }

    async fn fill(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        let n = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..n]);
        n
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Resolves when the gateway has closed or reset its side.
    pub(crate) async fn closed(&mut self) {
        while self.fill().await > 0 {}
    }

    /// Ends the connection with a reset instead of an orderly close.
    pub(crate) fn reset(self) {
        #[allow(deprecated)] // a linger of zero is what makes it a reset; it cannot block
        let _ = self.stream.set_linger(Some(std::time::Duration::ZERO));
    }

    /// Answers with a JSON body of known length.
    pub(crate) async fn json(&mut self, status: &str, body: &serde_json::Value) -> bool {
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        self.write(head + &body).await
    }

    /// The head of an event stream.
    pub(crate) async fn begin_events(&mut self) -> bool {
        self.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await
    }

    /// One chunk.
    pub(crate) async fn chunk(&mut self, data: impl AsRef<[u8]>) -> bool {
        let data = data.as_ref();
        let mut bytes = format!("{:x}\r\n", data.len()).into_bytes();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\r\n");
        self.write(bytes).await
    }

    pub(crate) async fn end_chunks(&mut self) -> bool {
        self.write("0\r\n\r\n").await
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// An agent that runs a script for each connection.
pub(crate) struct Agent {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Received>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    pub(crate) async fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(script(Conn { stream, unread: Vec::new(), seen: Arc::clone(&log) }));
            }
        });
        Self { address, seen, task }
    }

    /// An agent that answers every JSON-RPC call with a completed task, and everything else with 405.
    pub(crate) async fn echo() -> Self {
        Self::start(|mut conn| async move {
            while let Some(request) = conn.request().await {
                let sent = if request.request_line().starts_with("POST") {
                    let id = request.json()["id"].clone();
                    let task = serde_json::json!({"id": "t-1", "contextId": "c-1", "status": {"state": "TASK_STATE_COMPLETED"}});
                    conn.json("200 OK", &serde_json::json!({"jsonrpc": "2.0", "id": id, "result": {"task": task}})).await
                } else {
                    conn.json("405 Method Not Allowed", &serde_json::json!({})).await
                };
                if !sent {
                    return;
                }
            }
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/a2a", self.address)
    }

    /// The calls received so far: POSTs; probes are GETs.
    pub(crate) fn calls(&self) -> Vec<Received> {
        let seen = self.seen.lock().expect("no test panics with it");
        seen.iter().filter(|request| request.request_line().starts_with("POST")).cloned().collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}
