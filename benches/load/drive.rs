//! The callers: so many connections, so many calls, as fast as they are answered.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Fallible;
use crate::wire::Wire;

/// What the callers saw.
pub(crate) struct Seen {
    pub(crate) wall: Duration,
    /// Microseconds from the first byte sent to the last received, in order.
    pub(crate) latencies: Vec<u32>,
}

/// A load that is answered call by call.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) request: &'a [u8],
    pub(crate) connections: usize,
    pub(crate) calls: usize,
    /// A new connection for each call.
    pub(crate) reconnect: bool,
}

/// Makes all calls of `load`; `progress` counts them.
pub(crate) async fn calls(load: Load<'_>, progress: &Rc<Cell<usize>>) -> Fallible<Seen> {
    let request: Rc<[u8]> = load.request.into();
    let left = Rc::new(Cell::new(load.calls));
    let latencies = Rc::new(RefCell::new(Vec::with_capacity(load.calls)));
    let begun = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..load.connections {
        let (request, left, latencies) = (Rc::clone(&request), Rc::clone(&left), Rc::clone(&latencies));
        let progress = Rc::clone(progress);
        callers.spawn_local(async move {
            let mut wire = None;
            while let Some(rest) = left.get().checked_sub(1) {
                left.set(rest);
                let sent = Instant::now();
                let mut open = match wire.take() {
                    Some(open) => open,
                    None => Wire::connect(load.address).await?,
                };
                call(&mut open, &request).await?;
                latencies.borrow_mut().push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
                progress.set(progress.get() + 1);
                wire = (!load.reconnect).then_some(open);
            }
            Ok::<_, std::io::Error>(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    let wall = begun.elapsed();
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    Ok(Seen { wall, latencies })
}

async fn call(wire: &mut Wire, request: &[u8]) -> std::io::Result<()> {
    wire.send(request).await?;
    let head = wire.head().await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    if head.status() != "200" {
        return Err(std::io::Error::other(format!("a call was answered with {}", head.line)));
    }
    let length = head.length.ok_or_else(|| std::io::Error::other("an answer came without its length"))?;
    wire.body(length, b"\0").await.map(drop)
}

/// Streams that are open and have brought one event each.
pub(crate) struct Streams(Vec<Wire>);

/// Opens `count` streams.
pub(crate) async fn open(address: SocketAddr, request: &[u8], count: usize) -> Fallible<Streams> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut wire = Wire::connect(address).await?;
        wire.send(request).await?;
        let head = wire.head().await?.ok_or("no answer to a stream call")?;
        if head.status() != "200" || head.length.is_some() {
            return Err(format!("a stream call was answered with {}", head.line).into());
        }
        wire.events(1).await?;
        streams.push(wire);
    }
    Ok(Streams(streams))
}

impl Streams {
    /// Lets the agent send `events` on each, and reads them to the end.
    pub(crate) async fn play(
        self,
        agent: SocketAddr,
        events: usize,
        every: Duration,
        progress: &Rc<Cell<usize>>,
    ) -> Fallible<Duration> {
        let begun = Instant::now();
        let mut readers = JoinSet::new();
        for mut wire in self.0 {
            let progress = Rc::clone(progress);
            readers.spawn_local(async move {
                let mut seen = 0;
                loop {
                    let (more, over) = wire.events(1).await?;
                    progress.set(progress.get() + more);
                    seen += more;
                    if over {
                        return Ok::<_, std::io::Error>(seen);
                    }
                }
            });
        }
        let go = format!("GET /go/{events}/{} HTTP/1.1\r\nHost: agent\r\n\r\n", every.as_millis());
        call(&mut Wire::connect(agent).await?, go.as_bytes()).await?;
        while let Some(reader) = readers.join_next().await {
            let seen = reader??;
            if seen != events {
                return Err(format!("a stream brought {seen} events of {events}").into());
            }
        }
        Ok(begun.elapsed())
    }
}
