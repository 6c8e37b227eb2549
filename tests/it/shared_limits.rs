//! Two gateways that share their limits through one Redis server and the rest through one PostgreSQL database, as processes
//! of their own over real sockets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::gateway::Registered;
use crate::support::nodes::Nodes;
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::{rpc, within};

/// For what must be exact: a machine under load is not taken for an absent server.
const PATIENT: &str = "5s";
/// For what is about absence.
const HASTY: &str = "20ms";

/// Two gateways with one database and one Redis.
struct Pair {
    cluster: Nodes,
    redis: Redis,
    agent: Agent,
    caller: Registered,
}

impl Pair {
    /// A caller connected to `agent` under `limits`.
    async fn start(agent: Agent, timeout: &str, limits: Value) -> Self {
        let redis = Redis::start();
        let url = redis.url();
        let cluster = Nodes::start(&[("LIMITS__SHARED", &url), ("LIMITS__SHARED_TIMEOUT", timeout)]).await;
        let first = &cluster.nodes[0];
        let target = first.register("echo", Some(&agent.url())).await;
        let caller = first.register("caller", None).await;
        let connection =
            json!({"requester_id": caller.id, "target_id": target.id, "status": "connected", "limits": limits});
        first.operated("POST", "/api/connections", &connection).await;
        let pair = Self { cluster, redis, agent, caller };
        within("the second node knows of it", pair.cluster.in_step()).await;
        pair.share().await;
        pair
    }

    /// Waits until both share.
    async fn share(&self) {
        for node in &self.cluster.nodes {
            within("limits are shared", async {
                while metric(node, "limits_shared").await != 1.0 || metric(node, "limits_nodes").await != 2.0 {
                    sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    }

    /// Makes so many calls at once, over both nodes, and does `meanwhile` among them; how many got which status.
    async fn calls(&mut self, calls: usize, meanwhile: impl FnOnce(&mut Redis)) -> BTreeMap<u16, usize> {
        let mut answers = JoinSet::new();
        for id in 0..calls {
            let address = self.cluster.nodes[id % 2].public;
            let key = self.caller.key.clone();
            answers.spawn(async move {
                let mut client = Client::connect(address).await;
                client.call("/api/proxy/echo", Some(&key), &rpc(id, "SendMessage")).await;
                client.answer().await.status
            });
        }
        let mut statuses = BTreeMap::new();
        for _ in 0..calls / 20 {
            let status = answers.join_next().await.expect("there are more").expect("no client panics");
            *statuses.entry(status).or_default() += 1;
        }
        meanwhile(&mut self.redis);
        while let Some(status) = answers.join_next().await {
            *statuses.entry(status.expect("no client panics")).or_default() += 1;
        }
        let answered: usize = statuses.values().sum();
        assert_eq!(answered, calls, "{statuses:?}");
        assert!(statuses.keys().all(|status| [200, 429].contains(status)), "{statuses:?}");
        statuses
    }

    /// Opens an event stream on a node; the status, and the client that has it open.
    async fn stream(&self, node: usize) -> (u16, Client) {
        let mut client = Client::connect(self.cluster.nodes[node].public).await;
        client.call("/api/proxy/echo", Some(&self.caller.key), &rpc(1, "SubscribeToTask")).await;
        let head = client.head().await;
        (head.status, client)
    }

    /// Opens an event stream on a node as soon as there is a slot.
    async fn stream_at_last(&self, node: usize) -> Client {
        within("a slot comes back", async {
            loop {
                match self.stream(node).await {
                    (200, client) => return client,
                    _ => sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await
    }
}

async fn metric(node: &Process, name: &str) -> f64 {
    let page = node.operate("GET", "/metrics", &Value::Null).await.text();
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("trust_gateway_{name} ")));
    line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

/// 300 at once, one per hour.
fn burst() -> Value {
    json!({"rate": 1, "period_ms": 3_600_000, "burst": 300})
}

/// An agent that begins event streams and ends none.
async fn streaming() -> Agent {
    Agent::start(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.begin_events().await;
            conn.closed().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_thousand_parallel_calls_over_two_nodes_exactly_300_pass() {
    let mut pair = Pair::start(Agent::echo().await, PATIENT, burst()).await;
    assert_eq!(pair.calls(2_000, |_| {}).await, [(200, 300), (429, 1_700)].into());
    assert_eq!(pair.agent.calls().len(), 300);
    for node in &pair.cluster.nodes {
        assert!(metric(node, "limits_decided_shared_total").await >= 300.0);
        for cause in ["starting", "unreachable", "timeout", "emptied", "failed"] {
            let alone = format!("limits_decided_alone_total{{cause=\"{cause}\"}}");
            assert_eq!(metric(node, &alone).await, 0.0, "{cause}");
        }
    }
    let ready = pair.cluster.nodes[0].operated("GET", "/readyz", &Value::Null).await;
    assert_eq!(ready["checks"]["limits"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_the_server_among_the_calls_at_most_450_pass_and_all_are_answered() {
    for what in ["stopped", "frozen", "restarted empty"] {
        let mut pair = Pair::start(Agent::echo().await, HASTY, burst()).await;
        let event = |redis: &mut Redis| match what {
            "stopped" => redis.stop(),
            "frozen" => redis.freeze(),
            _ => redis.restart(),
        };
        let passed = pair.calls(2_000, event).await.get(&200).copied().unwrap_or_default();
        assert!((150..=450).contains(&passed), "{what}: {passed}");
        assert_eq!(pair.agent.calls().len(), passed, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_from_the_beginning_is_survived_shown_and_told_of_when_it_is_back() {
    let mut pair = Pair::start(Agent::echo().await, HASTY, burst()).await;
    pair.redis.freeze();
    let passed = pair.calls(2_000, |_| {}).await[&200];
    assert!((150..=450).contains(&passed), "{passed}");
    let ready = pair.cluster.nodes[0].operated("GET", "/readyz", &Value::Null).await;
    let why = ready["checks"]["limits"].as_str().expect("a word").to_owned();
    assert!(why.contains("did not answer in time"), "{why}");
    assert!(
        pair.cluster.nodes[0].operated("GET", "/api/status", &Value::Null).await["warnings"].to_string().contains(&why)
    );

    pair.redis.restart();
    pair.share().await;
    pair.redis.freeze();
    pair.redis.thaw();
    pair.share().await;
    assert_eq!(pair.calls(100, |_| {}).await, [(429, 100)].into(), "no second burst for coming back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_day_is_exact_over_both_nodes() {
    let limits = json!({"rate": 1_000, "period_ms": 1_000, "burst": 1_000, "daily": 77});
    let mut pair = Pair::start(Agent::echo().await, PATIENT, limits).await;
    assert_eq!(pair.calls(400, |_| {}).await, [(200, 77), (429, 323)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_slots_are_exact_over_both_nodes_and_come_back_when_streams_end_or_a_node_is_killed() {
    let mut pair = Pair::start(streaming().await, PATIENT, json!({"streams": 5})).await;
    let mut open = Vec::new();
    for n in 0..12 {
        let (status, client) = pair.stream(n % 2).await;
        if status == 200 {
            open.push((n % 2, client));
        }
    }
    assert_eq!(open.len(), 5);
    // One that ended on the first node is there for the second.
    let first = open.iter().position(|(node, _)| *node == 0).expect("some on each");
    drop(open.remove(first));
    open.push((1, pair.stream_at_last(1).await));
    assert_eq!(pair.stream(0).await.0, 429);

    let lost = open.iter().filter(|(node, _)| *node == 0).count();
    assert_eq!(lost, 2);
    pair.cluster.nodes.remove(0).kill().await;
    for _ in 0..lost {
        open.push((1, pair.stream_at_last(0).await));
    }
    assert_eq!(pair.stream(0).await.0, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_of_the_server_is_in_no_log_and_a_wrong_one_is_told() {
    let redis = Redis::start();
    let _ = redis.ask("CONFIG SET requirepass right-one");
    let dir = TempDir::new().expect("a temporary directory");
    let wrong = format!("redis://:hunter2-wrong@127.0.0.1:{}", redis.port);
    let node = Process::start(dir.path(), &[("LIMITS__SHARED", &wrong)]).await;
    node.logs("Password authentication failed").await;
    assert!(!node.log().contains("hunter2-wrong"));
    node.kill().await;

    let right = format!("redis://:right-one@127.0.0.1:{}", redis.port);
    let node = Process::start(dir.path(), &[("LIMITS__SHARED", &right)]).await;
    node.logs("limits are shared with the other nodes").await;
    assert!(!node.log().contains("right-one"));
}
