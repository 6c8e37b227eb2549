//! `/metrics`: how the gateway is, in the text form that Prometheus reads.
//!
//! Promises: nothing has a label that somebody outside can make up: agents are those that are registered, everything else is of
//! a fixed set. Numbers are gathered when they are asked for; calls are counted elsewhere (`meter`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::header;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::ledger::LedgerTold;
use super::problem::Problem;
use super::shared_limits::SharedLimits;
use super::status::DATABASE_PATIENCE;
use super::who::Asked;
use crate::audit::drain::Lag;
use crate::directory::Directory;
use crate::meter::{self, BOUNDS_MS, Class, Durations, Totals};
use crate::store::Tally;
use crate::vitals::BreakerState;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;

/// How the snapshot that calls are decided from came about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Freshness {
    /// The database has changes that it has not.
    pub behind: bool,
    /// How long ago it was last held against the database, and how long that may be ago.
    pub unconfirmed: Duration,
    /// From then on all but connected callers are refused.
    pub max_stale: Duration,
    /// How many snapshots were built.
    pub rebuilds: u64,
    /// What the last one took.
    pub last_rebuild: Duration,
}

/// What only the parts of a running gateway know of themselves.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// How the ledger is.
    pub ledger: LedgerTold,
    /// How limits are shared with other nodes; `None` where they are not.
    pub shared_limits: Option<SharedLimits>,
    /// How far behind the drain is.
    pub drain: Lag,
    /// How fresh the directory is.
    pub directory: Freshness,
    /// Connections accepted on the public listener.
    pub connections_accepted: u64,
    /// Those of them that are open.
    pub connections_open: u64,
    /// TLS handshakes that failed.
    pub handshakes_failed: u64,
    /// Log lines that nobody could take.
    pub log_lines_lost: u64,
}

/// The state of the gateway for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "gateway",
    security(("bearer" = []), ("api_key" = [])),
    responses((status = 200, description = "OpenMetrics text", body = String,
            content_type = "application/openmetrics-text"),
        (status = 400, description = "More than one credential"),
        (status = 401, description = "No operator's token, or one that is not good"),
        (status = 429, description = "Too many wrong tokens from one network address"),
        (status = 503, description = "The database cannot be read")))]
pub(super) async fn show(asked: Asked) -> Result<Response, Problem> {
    asked.known()?;
    let control = &asked.control;
    let now = control.registry.clock().wall();
    let open = (control.active_calls)();
    let page = Page {
        totals: meter::totals(control.meters.iter().map(|meter| &**meter)),
        directory: control.directory.load_full(),
        // Without the database there is less to tell, and more that has to be.
        tally: tokio::time::timeout(DATABASE_PATIENCE, control.store.tally()).await.ok().and_then(Result::ok),
        open_calls: open.len(),
        open_streams: open.iter().filter(|call| call.operation.streams()).count(),
        limiter_keys: control.limits.keys(),
        recorded: (control.ready)().is_ok(),
        started: control.about.started_at.0 / 1_000_000,
        uptime: now.0.saturating_sub(control.about.started_at.0).max(0) / 1_000_000,
        gauges: (control.gauges)(),
        process: Process::read(),
    };
    let mut registry = Registry::with_prefix("trust_gateway");
    registry.register_collector(Box::new(page));
    let mut body = String::new();
    text::encode(&mut body, &registry).map_err(|_| Problem::new(500, "the numbers could not be written as text"))?;
    Ok(([(header::CONTENT_TYPE, TEXT)], body).into_response())
}

/// What the operating system counts for this process.
#[derive(Clone, Copy, Debug, Default)]
struct Process {
    resident_bytes: u64,
    cpu_seconds: f64,
    open_files: u64,
}

impl Process {
    /// Zeroes where the system does not tell.
    fn read() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let (status, stat) = (read("status"), read("stat"));
        let kib =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
        // User and system time, in ticks that are hundredths of a second on every architecture we know.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Self {
            resident_bytes: kib.unwrap_or_default() * 1024,
            cpu_seconds: ticks as f64 / 100.0,
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        }
    }
}

/// Everything that is told, as it was when it was asked for.
struct Page {
    totals: Totals,
    directory: Arc<Directory>,
    tally: Option<Tally>,
    open_calls: usize,
    open_streams: usize,
    limiter_keys: [usize; 3],
    recorded: bool,
    started: i64,
    uptime: i64,
    gauges: Gauges,
    process: Process,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

pub(super) type Label = (&'static str, String);

/// Writes families one after the other.
pub(super) struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        each: impl IntoIterator<Item = (Vec<Label>, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        for (labels, value) in each {
            family.encode_family(&labels.as_slice())?.encode_counter(&value, NO_EXEMPLAR)?;
        }
        Ok(())
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        family.encode_counter(&value, NO_EXEMPLAR)
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        each: impl IntoIterator<Item = (Vec<Label>, i64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in each {
            family.encode_family(&labels.as_slice())?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn durations(&mut self, name: &str, help: &str, each: &[Durations; Class::ALL.len()]) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (class, durations) in Class::ALL.into_iter().zip(each) {
            let bounds = BOUNDS_MS.iter().map(|ms| f64::from(*ms) / 1e3).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(durations.buckets).collect();
            let labels = [label("class", class.as_str())];
            let count = durations.buckets.iter().sum();
            let sum = durations.sum_ms as f64 / 1e3;
            family.encode_family(&labels.as_slice())?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    /// A histogram in seconds: all of it, and how much of it is in each bucket, by the bucket's upper bound.
    pub(super) fn seconds(&mut self, name: &str, help: &str, sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let count = buckets.iter().map(|(_, n)| n).sum();
        family.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}

pub(super) fn label(name: &'static str, value: impl Into<String>) -> Label {
    (name, value.into())
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        self.calls(&mut families)?;
        self.registry(&mut families)?;
        self.node(&mut families)
    }
}

impl Page {
    fn calls(&self, families: &mut Families<'_>) -> fmt::Result {
        // Agents by their slugs of now. The series of one that is gone ends: added to another it would jump, and fall again.
        let mut by_slug: BTreeMap<(String, usize, usize, usize), f64> = BTreeMap::new();
        for count in &self.totals.calls {
            let agent = match count.agent {
                None => "none",
                Some(id) => match self.directory.agent(id) {
                    Some(agent) => &*agent.slug,
                    None => continue,
                },
            };
            let key = (agent.to_owned(), count.operation as usize, count.decision as usize, count.ending as usize);
            *by_slug.entry(key).or_default() += count.calls as f64;
        }
        let calls = by_slug.into_iter().map(|((agent, operation, decision, ending), calls)| {
            let labels = vec![
                label("agent", agent),
                label("operation", meter::OPERATIONS[operation].as_str()),
                label("decision", meter::DECISIONS[decision].as_str()),
                label("outcome", meter::ENDINGS[ending].as_str()),
            ];
            (labels, calls)
        });
        families.counters("calls", "Calls that are over, refused ones included", None, calls)?;
        let reasons = self.totals.reasons.iter().map(|(reason, n)| (vec![label("reason", *reason)], *n as f64));
        families.counters("call_reasons", "Why calls were refused, or ended as they did", None, reasons)?;
        families.durations("call_duration", "From arrival to the end of a call", &self.totals.latency)?;
        families.durations("first_byte", "From arrival to the agent's first byte", &self.totals.first_byte)?;
        let bytes = [("request", self.totals.request_bytes), ("response", self.totals.response_bytes)];
        let bytes = bytes.into_iter().map(|(body, n)| (vec![label("body", body)], n as f64));
        families.counters("bodies", "Bytes of bodies", Some(&Unit::Bytes), bytes)?;
        families.gauge("open_calls", "Calls that are open", None, signed(self.open_calls))?;
        families.gauge("open_streams", "Those of them that stream", None, signed(self.open_streams))
    }

    fn registry(&self, families: &mut Families<'_>) -> fmt::Result {
        let of = |name: &'static str, groups: &[(String, i64)]| {
            groups.iter().map(move |(word, n)| (vec![label(name, word.clone())], *n)).collect::<Vec<_>>()
        };
        families.gauge("database_readable", "1 while the database answers", None, i64::from(self.tally.is_some()))?;
        if let Some(tally) = &self.tally {
            families.gauges("agents", "Agents by admin state", of("state", &tally.agents_by_state))?;
            families.gauges("agents_health", "Agents in service by health", of("health", &tally.agents_by_health))?;
            families.gauges("connections", "Agreements by status", of("status", &tally.connections_by_status))?;
            families.gauge(
                "connections_blocked",
                "Those with a block on either side",
                None,
                tally.connections_blocked,
            )?;
            families.gauge("cards_held", "Changed cards that wait for an admin", None, tally.cards_held)?;
            families.gauge("database_size", "The database", Some(&Unit::Bytes), tally.bytes)?;
        }
        let breakers = || self.directory.agents().filter(|agent| agent.endpoint.is_some());
        let states = breakers().filter_map(|agent| {
            // The closed ones go without saying.
            let state = agent.vitals.breaker.state();
            (state != BreakerState::Closed)
                .then(|| (vec![label("agent", &*agent.slug), label("state", state.as_str())], 1))
        });
        families.gauges("breaker", "Breakers that are not closed", states)?;
        let opened = breakers().filter(|agent| agent.vitals.breaker.opened() > 0);
        let opened = opened.map(|agent| (vec![label("agent", &*agent.slug)], agent.vitals.breaker.opened() as f64));
        families.counters("breaker_opened", "How often a breaker opened", None, opened)?;
        let refused = breakers().filter(|agent| agent.vitals.breaker.refused() > 0);
        let refused = refused.map(|agent| (vec![label("agent", &*agent.slug)], agent.vitals.breaker.refused() as f64));
        families.counters("breaker_refused", "Calls a breaker refused", None, refused)?;
        let kinds = ["verified", "unverified", "source"].into_iter().zip(self.limiter_keys);
        let kinds = kinds.map(|(kind, keys)| (vec![label("kind", kind)], signed(keys)));
        families.gauges("limiter_keys", "Callers the limiter remembers", kinds)
    }

    fn node(&self, families: &mut Families<'_>) -> fmt::Result {
        let Gauges { drain, directory, shared_limits, .. } = &self.gauges;
        if let Some(shared) = shared_limits {
            shared.families(families)?;
        }
        families.gauge("recording", "1 while calls can be recorded", None, i64::from(self.recorded))?;
        let behind = drain.behind.as_secs_f64();
        families.gauge("drain_behind", "How long rows could not be written", Some(&Unit::Seconds), behind)?;
        families.counter("drain_failures", "How often rows could not be written", drain.failures)?;
        self.gauges.ledger.families(families)?;
        let behind = i64::from(directory.behind);
        families.gauge("directory_behind", "1 while changes are not in force", None, behind)?;
        let unconfirmed = directory.unconfirmed.as_secs_f64();
        let help = "How long ago the directory was held against the database";
        families.gauge("directory_unconfirmed", help, Some(&Unit::Seconds), unconfirmed)?;
        families.gauge("directory_revision", "The last change in force", None, self.directory.revision())?;
        families.counter("directory_rebuilds", "Snapshots that were built", directory.rebuilds)?;
        let took = directory.last_rebuild.as_secs_f64();
        families.gauge("directory_rebuild", "What the last one took", Some(&Unit::Seconds), took)?;
        families.counter("accepted_connections", "On the public listener", self.gauges.connections_accepted)?;
        let open = i64::try_from(self.gauges.connections_open).unwrap_or(i64::MAX);
        families.gauge("open_connections", "Those of them that are open", None, open)?;
        families.counter("tls_handshakes_failed", "On the public listener", self.gauges.handshakes_failed)?;
        families.counter("log_lines_lost", "Lines that nobody could take", self.gauges.log_lines_lost)?;
        let resident = i64::try_from(self.process.resident_bytes).unwrap_or(i64::MAX);
        families.gauge("process_resident", "Memory in use", Some(&Unit::Bytes), resident)?;
        families.counters(
            "process_cpu",
            "Processor time",
            Some(&Unit::Seconds),
            [(Vec::new(), self.process.cpu_seconds)],
        )?;
        let files = i64::try_from(self.process.open_files).unwrap_or(i64::MAX);
        families.gauge("process_open_files", "Sockets included", None, files)?;
        families.gauge("start_time", "When it was started, since 1970", Some(&Unit::Seconds), self.started)?;
        families.gauge("uptime", "Since then", Some(&Unit::Seconds), self.uptime)?;
        let build = [(vec![label("version", env!("CARGO_PKG_VERSION"))], 1)];
        families.gauges("build_info", "The program", build)
    }
}
