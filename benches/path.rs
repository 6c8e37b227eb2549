//! What the steps of the path cost by themselves: looking at the envelope, finding a key, cleaning headers, signing, recording.
//! Admission has a bench of its own, `limits`; the whole path is measured by `load`.

#![allow(missing_docs)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use trust_gateway::a2a::answer::notice_unary;
use trust_gateway::a2a::{Binding, EventScanner, Noticed, Operation, envelope};
use trust_gateway::audit::journal::{Durability, Journal, JournalConfig, WorkerJournal};
use trust_gateway::audit::record::{AuthMethod, Decision, Ending, Intent, Outcome};
use trust_gateway::clock::{Clock, Timestamp};
use trust_gateway::directory::{Builder, Defaults, Directory, Timeouts};
use trust_gateway::identity::identify;
use trust_gateway::limit::Limits;
use trust_gateway::policy::Policy;
use trust_gateway::proxy::headers::{self, Hop};
use trust_gateway::proxy::sign::{self, Statement};
use trust_gateway::registry::vault::{Purpose, Vault};
use trust_gateway::store::rows::{
    AdminState, AgentLimits, AgentRow, AgentTimeouts, DirectoryRows, HealthStatus, KeyRow, PushMode,
};
use trust_gateway::trust::TrustLevel;
use uuid::Uuid;

const AGENT: Uuid = Uuid::from_u128(1);
const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

fn padded(size: usize, make: impl Fn(&str) -> String) -> String {
    make(&"x".repeat(size.saturating_sub(make("").len())))
}

fn call(size: usize) -> String {
    padded(size, |text| {
        format!(
            r#"{{"jsonrpc":"2.0","id":"7f9a1c52","method":"SendMessage","params":{{"message":{{"messageId":"m-0001","contextId":"ctx-0001","role":"ROLE_USER","parts":[{{"text":"{text}"}}]}}}}}}"#
        )
    })
}

#[divan::bench(args = [400, 65_536])]
fn envelope_look(bencher: Bencher<'_, '_>, size: usize) {
    let body = call(size);
    bencher.counter(BytesCount::new(size)).bench(|| envelope::look(black_box(body.as_bytes())).is_ok());
}

#[divan::bench]
fn answer_notice() {
    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":"7f9a1c52","result":{"task":{"id":"task-0001","contextId":"ctx-0001","status":{"state":"TASK_STATE_COMPLETED"},"artifacts":[{"artifactId":"a","parts":[{"text":"done"}]}]}}}"#;
    let mut noticed = Noticed::default();
    notice_unary(black_box(ANSWER.as_bytes()), &mut noticed);
    black_box(noticed);
}

#[divan::bench]
fn event_notice(bencher: Bencher<'_, '_>) {
    const EVENT: &[u8] = b"data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"statusUpdate\":{\"taskId\":\"t\",\"contextId\":\"c\",\"status\":{\"state\":\"TASK_STATE_WORKING\"}}}}\n\n";
    let (mut scanner, mut noticed) = (EventScanner::new(), Noticed::default());
    bencher.bench_local(|| scanner.feed(black_box(EVENT), &mut noticed));
}

/// One agent with as many keys as asked for.
fn directory(keys: u128) -> Directory {
    let dir = TempDir::new().expect("a temporary directory");
    let vault = Arc::new(Vault::open(&dir.path().join("vault")).expect("a new key"));
    let policy = Policy::load(include_str!("../policies/default.toml"), "bench").expect("a valid policy");
    let limits = Arc::new(Limits::new(Clock::system(), Arc::new(policy), [7; 32], Vec::new()));
    let second = Duration::from_secs(1);
    let defaults = Defaults {
        public_url: "http://127.0.0.1:8080".to_owned(),
        allow_networks: Arc::default(),
        connect_timeout: second,
        timeouts: Timeouts { first_byte: second, read_first_byte: second, idle: second },
        max_in_flight: 1024,
        breaker: trust_gateway::vitals::BreakerSettings::default(),
        anonymous_allowed: true,
    };
    let agent = AgentRow {
        id: AGENT,
        slug: "echo".to_owned(),
        name: "Echo".to_owned(),
        description: String::new(),
        provider: None,
        avatar_url: None,
        endpoint_url: Some("http://127.0.0.1:9000/".to_owned()),
        card_url: None,
        subpaths: Vec::new(),
        capabilities: Vec::new(),
        skills_json: "[]".to_owned(),
        payment_json: None,
        state: AdminState::Active,
        listed: true,
        auto_accept_connections: false,
        registered_by_operator: true,
        push: PushMode::Refuse,
        pass_authorization: false,
        sign_large_bodies: false,
        http2: false,
        max_in_flight: None,
        limits: AgentLimits::default(),
        timeouts: AgentTimeouts::default(),
        signing_secret: vault.seal(Purpose::SigningSecret, AGENT, &[7; 32]).expect("sealed"),
        upstream_credential: None,
        card_json: None,
        card_fetched_at: None,
        held_card: None,
        health_interval_s: None,
        next_signing_secret: None,
        health: HealthStatus::Unknown,
        health_reason: None,
        health_checked_at: None,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    };
    let keys = (0..keys)
        .map(|i| KeyRow {
            id: Uuid::from_u128(1_000 + i),
            agent_id: AGENT,
            digest: digest::digest(&digest::SHA256, key(i).as_bytes()).as_ref().try_into().expect("32 bytes"),
            hint: None,
            name: String::new(),
            expires_at: None,
            last_used_at: None,
            created_at: Timestamp(0),
            replaces: None,
        })
        .collect();
    let rows = DirectoryRows { agents: vec![agent], keys, ..DirectoryRows::default() };
    Builder { vault, limits, defaults }.build(rows, &Directory::default())
}

fn key(i: u128) -> String {
    format!("oag_{i:043}")
}

fn request_headers(key: &str) -> HeaderMap {
    let pairs = [
        ("host", "gateway.example.org"),
        ("x-api-key", key),
        ("content-type", "application/json"),
        ("content-length", "400"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate"),
        ("connection", "keep-alive"),
        ("a2a-version", "1.0"),
        ("user-agent", "python-httpx/0.28.1"),
    ];
    let value = |text: &str| HeaderValue::from_str(text).expect("printable");
    pairs.iter().map(|(name, text)| (HeaderName::from_static(name), value(text))).collect()
}

#[divan::bench(args = [1, 10_000])]
fn key_lookup(bencher: Bencher<'_, '_>, keys: u128) {
    let directory = directory(keys);
    let callers: Vec<HeaderMap> =
        (0..keys.min(1_000)).map(|i| request_headers(&key(i * keys.div_ceil(1_000)))).collect();
    let mut next = callers.iter().cycle();
    bencher.bench_local(|| next.next().map(|headers| identify(headers, &directory, Timestamp(1)).is_ok()));
}

#[divan::bench]
fn headers_to_agent(bencher: Bencher<'_, '_>) {
    let from = request_headers(&key(1));
    let pseudonym = HeaderValue::from_static("trust-gateway-0123456789ab");
    let hop = Hop {
        source: CALLER,
        scheme: "http",
        host: Some("gateway.example.org"),
        pseudonym: pseudonym.to_str().expect("printable"),
        version: Version::HTTP_11,
        pass_accept_encoding: false,
    };
    bencher.bench(|| headers::to_agent(black_box(&from), &hop));
}

#[divan::bench]
fn headers_of_answer(bencher: Bencher<'_, '_>) {
    let pairs = [
        ("date", "Sat, 21 Nov 2026 06:00:00 GMT"),
        ("server", "uvicorn"),
        ("content-type", "application/json"),
        ("content-length", "600"),
    ];
    let answer: HeaderMap =
        pairs.into_iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
    bencher.with_inputs(|| answer.clone()).bench_local_refs(headers::clean_answer);
}

#[divan::bench(args = [400, 65_536])]
fn signing(bencher: Bencher<'_, '_>, size: usize) {
    let directory = directory(1);
    let headers = request_headers(&key(0));
    let caller = identify(&headers, &directory, Timestamp(1)).expect("a key that is there");
    let target = directory.agent(AGENT).expect("it is there");
    let body = call(size);
    let statement = Statement {
        request_id: Uuid::now_v7(),
        at: Clock::system().wall(),
        caller: &caller,
        level: TrustLevel::Connected,
        http_method: &Method::POST,
        method: "SendMessage",
        body: body.as_bytes(),
    };
    bencher
        .with_inputs(|| HeaderMap::with_capacity(32))
        .bench_local_refs(|headers| sign::add_identity(headers, target, &statement));
}

fn intent(clock: &Clock) -> Intent {
    Intent {
        request_id: Uuid::now_v7(),
        called_at: clock.wall(),
        target_agent_id: Some(AGENT),
        caller_agent_id: Some(Uuid::from_u128(2)),
        credential_id: Some(Uuid::from_u128(3)),
        auth_method: AuthMethod::ApiKey,
        trust_level: TrustLevel::Connected,
        connection_id: Some(Uuid::from_u128(4)),
        client_ip: Some(CALLER),
        binding: Binding::JsonRpc,
        protocol_version: Some("1.0".into()),
        method: Some("SendMessage".into()),
        operation: Operation::SendMessage,
        rpc_id: Some("\"7f9a1c52\"".into()),
        task_id: None,
        context_id: Some("ctx-0001".into()),
        message_id: Some("m-0001".into()),
        decision: Decision::Allowed,
        reason: None,
        policy_rule: None,
        policy_digest: Some("0123456789abcdef".into()),
        units: 1,
        limit: None,
        trace_id: None,
        charge: None,
    }
}

fn outcome() -> Outcome {
    Outcome {
        ending: Ending::Completed,
        reason: None,
        status_code: 200,
        upstream_status: Some(200),
        rpc_error_code: None,
        task_state: Some("TASK_STATE_COMPLETED".into()),
        task_id: Some("task-0001".into()),
        context_id: Some("ctx-0001".into()),
        request_bytes: 400,
        response_bytes: 600,
        stream_events: None,
        ttfb_ms: Some(1),
        latency_ms: 1,
        calls: 1,
    }
}

async fn record(journal: Arc<WorkerJournal>, clock: Clock) {
    let open = journal.open(intent(&clock), 400).expect("the journal is healthy");
    open.intent_written().await.expect("written");
    open.close(outcome()).await.expect("written");
}

/// Open and close of as many calls at once, each waiting for both writes: the files are real.
#[divan::bench(args = [1, 16, 64])]
fn record_and_journal(bencher: Bencher<'_, '_>, at_once: usize) {
    let (runtime, _dir, journal, clock) = journal();
    let worker = journal.worker(0);
    let _flusher = runtime.spawn(Arc::clone(&worker).run_flusher());
    bencher.counter(ItemsCount::new(at_once)).bench_local(|| {
        runtime.block_on(async {
            let calls: Vec<_> =
                (0..at_once).map(|_| tokio::spawn(record(Arc::clone(&worker), clock.clone()))).collect();
            for call in calls {
                call.await.expect("no panic");
            }
        });
    });
}

fn journal() -> (Runtime, TempDir, Journal, Clock) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let dir = TempDir::new().expect("a temporary directory");
    let clock = Clock::system();
    let config = JournalConfig {
        dir: dir.path().to_owned(),
        durability: Durability::Process,
        segment_bytes: JournalConfig::SEGMENT_BYTES,
        budget: u64::MAX,
        full_addresses: false,
        node_id: Uuid::from_u128(5),
    };
    let journal = Journal::create(config, 1, clock.clone()).expect("a directory that can be written");
    (runtime, dir, journal, clock)
}
