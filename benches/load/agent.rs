//! The agent behind the proxies, a process of its own: answers small calls small, large ones large, streams when told.

use std::io::{Read as _, Write as _};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::Fallible;
use crate::wire::Wire;

/// What is asked for is in the request's body.
pub(crate) const STREAM: &[u8] = b"SendStreamingMessage";
/// Requests above this are answered with a body as large.
const LARGE: usize = 64 * 1024;

/// How every open stream goes on.
#[derive(Clone, Copy)]
struct Go {
    events: usize,
    every: Duration,
}

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    event: Vec<u8>,
    go: watch::Sender<Option<Go>>,
}

/// Says its port, then answers until standard input ends.
pub(crate) fn run() -> Fallible<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve())
}

async fn serve() -> Fallible<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    out.flush()?;
    let event = b"data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"statusUpdate\":{\"taskId\":\"t\",\"contextId\":\"c\",\
        \"status\":{\"state\":\"TASK_STATE_WORKING\"},\"metadata\":{\"pad\":\"0123456789012345678901234567890123456789\"}}}}\n\n";
    let answers = Rc::new(Answers {
        small: whole(&crate::result(600)),
        large: whole(&crate::result(crate::MEBIBYTE)),
        event: [format!("{:x}\r\n", event.len()).as_bytes(), event, b"\r\n"].concat(),
        go: watch::channel(None).0,
    });
    loop {
        let (stream, _) = listener.accept().await?;
        let answers = Rc::clone(&answers);
        tokio::task::spawn_local(async move {
            if let Ok(wire) = Wire::new(stream) {
                // A proxy that hangs up is its own affair.
                let _ = answers.connection(wire).await;
            }
        });
    }
}

fn whole(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

impl Answers {
    async fn connection(&self, mut wire: Wire) -> std::io::Result<()> {
        while let Some(head) = wire.head().await? {
            let length = head.length.unwrap_or_default();
            let streams = wire.body(length, STREAM).await?;
            if let Some(go) = head.line.strip_prefix("GET /go/").and_then(go) {
                self.go.send_replace(Some(go));
                wire.send(&self.small).await?;
            } else if head.line.starts_with("GET") {
                wire.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?;
            } else if streams {
                self.stream(&mut wire).await?;
            } else {
                wire.send(if length > LARGE { &self.large } else { &self.small }).await?;
            }
        }
        Ok(())
    }

    /// One event at once; when told, the others at their pace.
    async fn stream(&self, wire: &mut Wire) -> std::io::Result<()> {
        self.go.send_if_modified(|go| go.take().is_some());
        let mut told = self.go.subscribe();
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        wire.send(&self.event).await?;
        let go = told.wait_for(Option::is_some).await.ok().and_then(|go| *go);
        let Some(Go { events, every }) = go else { return Ok(()) };
        let mut pace = tokio::time::interval_at(Instant::now() + every, every);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for _ in 0..events {
            pace.tick().await;
            wire.send(&self.event).await?;
        }
        wire.send(b"0\r\n\r\n").await
    }
}

/// `EVENTS/MILLISECONDS HTTP/1.1`.
fn go(line: &str) -> Option<Go> {
    let (events, rest) = line.split_once('/')?;
    let every = rest.split(' ').next()?.parse().ok()?;
    Some(Go { events: events.parse().ok()?, every: Duration::from_millis(every) })
}
