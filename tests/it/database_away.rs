//! PostgreSQL restarted, crashed and frozen while calls are made: none is lost, doubled or left waiting, and it is shown.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row as _;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::agent::Agent;
use crate::support::client::{Answer, Client};
use crate::support::gateway::Registered;
use crate::support::nodes::Nodes;
use crate::support::process::Process;
use crate::support::{rpc, within};

/// Two nodes, a connected caller and one that is not, who call all the time.
struct Load {
    cluster: Nodes,
    agent: Agent,
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    callers: JoinSet<BTreeSet<String>>,
}

impl Load {
    async fn start() -> Self {
        let (cluster, agent) = (Nodes::start(&[]).await, Agent::echo().await);
        let caller = scene(&cluster, &agent).await;
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut callers = JoinSet::new();
        for n in 0..6 {
            let address = cluster.nodes[n % 2].public;
            callers.spawn(call_on(address, caller.key.clone(), Arc::clone(&stop), Arc::clone(&calls)));
        }
        let load = Self { cluster, agent, stop, calls, callers };
        load.goes_on().await;
        load
    }

    /// Resolves when calls were answered that were not made yet.
    async fn goes_on(&self) {
        let before = self.calls.load(Ordering::Relaxed);
        within("calls go on", async {
            while self.calls.load(Ordering::Relaxed) < before + 50 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Resolves when both nodes say so of themselves; neither stops being ready to serve.
    async fn told(&self, status: &str) {
        for node in &self.cluster.nodes {
            told(node, status).await;
        }
    }

    /// Ends the calls, and holds the rows against them.
    async fn every_call_is_one_row(self) {
        self.stop.store(true, Ordering::Relaxed);
        let answered: BTreeSet<String> = self.callers.join_all().await.into_iter().flatten().collect();
        assert_eq!(answered.len(), self.calls.load(Ordering::Relaxed), "no two calls have one id");
        assert_eq!(self.agent.calls().len(), answered.len());
        let postgres = &self.cluster.postgres;
        within("every call is a row", async {
            loop {
                let rows: i64 = postgres.rows("SELECT count(*) FROM proxy_calls").await[0].get(0);
                if usize::try_from(rows).expect("a count") >= answered.len() {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let rows = postgres.rows("SELECT id::text FROM proxy_calls").await;
        let ids: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(rows.len(), answered.len(), "none is there twice");
        assert_eq!(ids, answered);
        let gapless = "SELECT count(*) = max(seq) AND min(seq) = 1 AND count(DISTINCT seq) = count(*) \
                       FROM proxy_calls GROUP BY node_id";
        let nodes = postgres.rows(gapless).await;
        assert_eq!(nodes.iter().map(|row| row.get(0)).collect::<Vec<bool>>(), [true, true], "by node, without a gap");
    }
}

/// Calls one after the other until told to stop; the ids of the calls, each of which was answered.
async fn call_on(address: SocketAddr, key: String, stop: Arc<AtomicBool>, calls: Arc<AtomicUsize>) -> BTreeSet<String> {
    let mut client = Client::connect(address).await;
    let mut ids = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        client.call("/api/proxy/target", Some(&key), &rpc(1, "SendMessage")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.cut), (200, false), "{}", answer.text());
        ids.insert(answer.header("x-openagora-request-id").expect("every answer has one").to_owned());
        calls.fetch_add(1, Ordering::Relaxed);
        // As many as a slow database will have caught up with soon.
        sleep(Duration::from_millis(5)).await;
    }
    ids
}

/// An agent and a caller connected to it, known to both nodes.
async fn scene(cluster: &Nodes, agent: &Agent) -> Registered {
    let node = &cluster.nodes[0];
    let target = node.register("target", Some(&agent.url())).await;
    let caller = node.register("caller", None).await;
    let limits = json!({"rate": 1_000_000, "period_ms": 1_000, "burst": 1_000_000, "daily": 100_000_000});
    let connection =
        json!({"requester_id": caller.id, "target_id": target.id, "status": "connected", "limits": limits});
    node.operated("POST", "/api/connections", &connection).await;
    within("both nodes know of it", cluster.in_step()).await;
    caller
}

/// Waits until `node` says that it is `status`, and gives what it found. It serves all along.
async fn told(node: &Process, status: &str) -> Value {
    within(status, async {
        loop {
            let ready = node.operate("GET", "/readyz", &Value::Null).await;
            assert_eq!(ready.status, 200, "{}", ready.text());
            let ready = ready.json();
            if ready["status"] == status {
                return ready["checks"].clone();
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn frozen_for(time: Duration) {
    let load = Load::start().await;
    load.cluster.postgres.freeze();
    let thaw = sleep(time);
    for node in &load.cluster.nodes {
        let checks = told(node, "degraded").await;
        assert!(checks["database"].as_str().is_some_and(|told| told.contains("has not answered")), "{checks}");
        assert_eq!(checks["journal"], "ok", "{checks}");
    }
    load.goes_on().await;
    thaw.await;
    load.goes_on().await;
    load.cluster.postgres.thaw();
    load.told("ready").await;
    load.every_call_is_one_row().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_restarts_under_load_lose_and_double_nothing_and_are_told() {
    let mut load = Load::start().await;
    for signal in ["INT", "QUIT", "INT"] {
        load.cluster.postgres.stop(signal);
        load.told("degraded").await;
        load.goes_on().await;
        load.cluster.postgres.start_again();
        load.told("ready").await;
        load.goes_on().await;
    }
    load.every_call_is_one_row().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_frozen_for_seconds_under_load_loses_and_doubles_nothing() {
    frozen_for(Duration::from_secs(6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half a minute in which the database is frozen"]
async fn a_database_frozen_for_half_a_minute_under_load_loses_and_doubles_nothing() {
    frozen_for(Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_for_too_long_serves_connected_callers_only_until_it_is_back() {
    let cluster = Nodes::start(&[("DIRECTORY__MAX_STALE", "1s")]).await;
    let agent = Agent::echo().await;
    let connected = scene(&cluster, &agent).await;
    let stranger = cluster.nodes[0].register("stranger", None).await;
    within("both nodes know the stranger", cluster.in_step()).await;
    let reads = |key: Option<String>| {
        let address = cluster.nodes[1].public;
        async move {
            let mut client = Client::connect(address).await;
            client.call("/api/proxy/target", key.as_deref(), &rpc(1, "GetTask")).await;
            client.answer().await
        }
    };
    let stale =
        |answer: &Answer| answer.status == 503 && answer.json()["error"]["data"][0]["reason"] == "DIRECTORY_STALE";
    for key in [None, Some(stranger.key.clone())] {
        assert_eq!(reads(key).await.status, 200);
    }

    cluster.postgres.freeze();
    for key in [None, Some(stranger.key.clone())] {
        within("who is not connected is refused", async {
            while !stale(&reads(key.clone()).await) {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    assert_eq!(reads(Some(connected.key.clone())).await.status, 200);
    let checks = told(&cluster.nodes[1], "degraded").await;
    let why = checks["directory"].as_str().expect("a word");
    assert!(why.contains("only connected callers are served"), "{why}");
    let asked = cluster.nodes[1].operate("GET", "/api/agents", &Value::Null).await;
    assert_eq!(asked.status, 503, "{}", asked.text());

    cluster.postgres.thaw();
    for key in [None, Some(stranger.key.clone())] {
        within("everybody is served again", async {
            while stale(&reads(key.clone()).await) {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    told(&cluster.nodes[1], "ready").await;
}
