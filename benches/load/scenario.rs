//! The loads, and how they are run: every proxy has its turn in every round.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::drive::{self, Load, Seen};
use crate::proxy::{Kind, Proxy};
use crate::{Fallible, MEBIBYTE, call};

/// A kind of load.
pub(crate) enum Scenario {
    /// Calls that are answered at once.
    Calls { name: &'static str, bytes: usize, connections: usize, calls: usize, reconnect: bool },
    /// Event streams, open all at once; `events` on each, one every `every`.
    Streams { name: &'static str, streams: usize, events: usize, every: Duration },
}

/// In the order of the table.
pub(crate) const SCENARIOS: [Scenario; 4] = [
    Scenario::Calls {
        name: "small call, 64 connections",
        bytes: 400,
        connections: 64,
        calls: 20_000,
        reconnect: false,
    },
    Scenario::Calls { name: "new connection per call", bytes: 400, connections: 64, calls: 4_000, reconnect: true },
    Scenario::Calls { name: "1 MiB both ways", bytes: MEBIBYTE, connections: 8, calls: 400, reconnect: false },
    Scenario::Streams { name: "streams", streams: 500, events: 30, every: Duration::from_millis(100) },
];

/// How much of it.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    rounds: usize,
    divisor: usize,
}

impl Scale {
    pub(crate) const FULL: Self = Self { rounds: 5, divisor: 1 };
    pub(crate) const QUICK: Self = Self { rounds: 2, divisor: 4 };
}

/// One turn of one proxy.
pub(crate) struct Round {
    /// Calls, or events.
    pub(crate) units: usize,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Of the database server's processes.
    pub(crate) database: Duration,
    /// In order; none for streams.
    pub(crate) latencies: Vec<u32>,
    /// KiB that open streams took, each.
    pub(crate) stream_kib: Option<f64>,
}

/// All turns of one proxy.
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) rounds: Vec<Round>,
    /// KiB, after the last round.
    pub(crate) rss: u64,
    pub(crate) sent: u64,
    /// What the audit log holds of it, after the end of the process; `None` where there is none.
    pub(crate) rows: Option<u64>,
}

impl Outcome {
    /// Whether every call sent is in the audit log, once.
    pub(crate) fn complete(&self) -> bool {
        self.rows.is_none_or(|rows| rows == self.sent)
    }
}

struct Contender {
    proxy: Proxy,
    sent: u64,
    rounds: Vec<Round>,
}

impl Scenario {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Calls { name, .. } | Self::Streams { name, .. } => name,
        }
    }

    /// What its costs are per.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Calls { .. } => "call",
            Self::Streams { .. } => "event",
        }
    }

    /// Runs it against every proxy, each started anew.
    pub(crate) async fn run(
        &self,
        kinds: &[(String, Kind)],
        agent: SocketAddr,
        scale: Scale,
    ) -> Fallible<Vec<Outcome>> {
        let mut contenders = Vec::new();
        for (name, kind) in kinds {
            let proxy = Proxy::start(name, kind, agent)?;
            contenders.push(Contender { proxy, sent: 0, rounds: Vec::new() });
        }
        for round in 0..=scale.rounds {
            for contender in &mut contenders {
                let (progress, _shown) =
                    progress(format!("{}: {}, {round}/{}", self.name(), contender.proxy.name, scale.rounds));
                let done = self.round(contender, agent, scale, &progress).await;
                let done = done.map_err(|error| format!("{}, {}: {error}", self.name(), contender.proxy.name))?;
                // The first one warms connections and memory up. What streams take is seen only while memory is new.
                if round > 0 {
                    contender.rounds.push(done);
                } else if done.stream_kib.is_some() {
                    contender.rounds.push(Round { units: 0, ..done });
                }
            }
        }
        clear();
        let mut outcomes = Vec::new();
        for Contender { mut proxy, sent, rounds } in contenders {
            let rss = proxy.process.rss();
            proxy.process.stop()?;
            let rows = if proxy.audits() { Some(proxy.rows().await?) } else { None };
            outcomes.push(Outcome { name: proxy.name.clone(), rounds, rss, sent, rows });
        }
        Ok(outcomes)
    }

    async fn round(
        &self,
        contender: &mut Contender,
        agent: SocketAddr,
        scale: Scale,
        progress: &Rc<Cell<usize>>,
    ) -> Fallible<Round> {
        let Contender { proxy, sent, rounds } = contender;
        let (cpu, database) = (proxy.process.cpu(), proxy.database_cpu());
        match *self {
            Self::Calls { bytes, connections, calls, reconnect, .. } => {
                let request = proxy.request(&call("SendMessage", bytes), reconnect);
                let calls = calls / scale.divisor;
                let load = Load { address: proxy.address, request: &request, connections, calls, reconnect };
                let Seen { wall, latencies } = drive::calls(load, progress).await?;
                *sent += calls as u64;
                proxy.settle(*sent).await?;
                Ok(Round {
                    units: calls,
                    wall,
                    cpu: proxy.process.cpu() - cpu,
                    database: proxy.database_cpu() - database,
                    latencies,
                    stream_kib: None,
                })
            }
            Self::Streams { streams, events, every, .. } => {
                let request = proxy.request(&call("SendStreamingMessage", 400), false);
                let events = events / scale.divisor;
                if rounds.is_empty() {
                    // What the first calls of a process take for good is not the streams'.
                    let small = proxy.request(&call("SendMessage", 400), false);
                    let load =
                        Load { address: proxy.address, request: &small, connections: 8, calls: 500, reconnect: false };
                    drive::calls(load, progress).await?;
                    *sent += 500;
                    proxy.settle(*sent).await?;
                }
                let before = proxy.process.rss();
                let open = drive::open(proxy.address, &request, streams).await?;
                let grown = proxy.process.rss().saturating_sub(before);
                *sent += streams as u64;
                // Opening is a call like any other; here the events are counted.
                let cpu = proxy.process.cpu();
                let wall = open.play(agent, events, every, progress).await?;
                proxy.settle(*sent).await?;
                let cpu = proxy.process.cpu() - cpu;
                let stream_kib = Some(grown as f64 / streams as f64);
                Ok(Round {
                    units: streams * events,
                    wall,
                    cpu,
                    database: proxy.database_cpu() - database,
                    latencies: Vec::new(),
                    stream_kib,
                })
            }
        }
    }
}

/// Stops showing when dropped.
struct Shown(tokio::task::JoinHandle<()>);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A count that is shown while it rises, where somebody is looking.
fn progress(what: String) -> (Rc<Cell<usize>>, Shown) {
    let count = Rc::new(Cell::new(0));
    let seen = Rc::clone(&count);
    let shown = tokio::task::spawn_local(async move {
        let mut often = tokio::time::interval(Duration::from_millis(250));
        while std::io::stderr().is_terminal() {
            often.tick().await;
            eprint!("\r\x1b[K{what}: {}", seen.get());
            let _ = std::io::stderr().flush();
        }
        eprintln!("{what}");
    });
    (count, Shown(shown))
}

fn clear() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
