//! Two nodes on one database, as an admin lives with them: what is done at one is so at the other.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row as _;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::gateway::Registered;
use crate::support::nodes::{Nodes, directories, share, start};
use crate::support::postgres::Postgres;
use crate::support::process::Process;
use crate::support::{rpc, within};

/// A change is in force everywhere within a second; the rest is for a machine that has much else to do.
const IN_FORCE: Duration = Duration::from_secs(5);

async fn in_force<F: Future>(what: &str, future: F) -> F::Output {
    timeout(IN_FORCE, future).await.unwrap_or_else(|_| panic!("not in force at the other node: {what}"))
}

/// Resolves when calls at `node` are answered so: with this level of trust where there is one, with this status otherwise.
async fn answers(node: &Process, key: &str, so: &str) {
    loop {
        let mut client = Client::connect(node.public).await;
        client.call("/api/proxy/target", Some(key), &rpc(1, "GetTask")).await;
        let answer = client.answer().await;
        let level =
            (answer.status == 200).then(|| answer.header("x-openagora-trust-level").map(str::to_owned)).flatten();
        if level.unwrap_or_else(|| answer.status.to_string()) == so {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An agent whose streams begin and do not end.
async fn streaming() -> Agent {
    Agent::start(|mut conn| async move {
        while let Some(request) = conn.request().await {
            if !request.request_line().starts_with("POST") {
                conn.json("405 Method Not Allowed", &json!({})).await;
            } else if request.json()["method"] == "SendStreamingMessage" {
                conn.begin_events().await;
                conn.chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n").await;
                conn.closed().await;
            } else {
                conn.json("200 OK", &json!({"jsonrpc": "2.0", "id": 1, "result": {}})).await;
            }
        }
    })
    .await
}

/// A stream through `node` that has begun.
async fn stream(node: &Process, key: &str) -> Client {
    let mut client = Client::connect(node.public).await;
    client.call("/api/proxy/target", Some(key), &rpc(1, "SendStreamingMessage")).await;
    assert_eq!(client.head().await.status, 200);
    client.until("\n\n").await;
    client
}

async fn connected(node: &Process, caller: &Registered, target: &Registered) -> String {
    let body = json!({"requester_id": caller.id, "target_id": target.id, "status": "connected"});
    let connection = node.operated("POST", "/api/connections", &body).await;
    format!("/api/connections/{}", connection["id"].as_str().expect("an id"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_at_one_node_works_at_the_other_and_what_is_taken_back_cuts_its_streams() {
    let cluster = Nodes::start(&[]).await;
    let (here, there) = (&cluster.nodes[0], &cluster.nodes[1]);
    let agent = streaming().await;
    let target = here.register("target", Some(&agent.url())).await;
    for (n, taken_back) in ["block", "key", "end", "agent"].into_iter().enumerate() {
        let caller = here.register(&format!("caller-{n}"), None).await;
        let connection = connected(here, &caller, &target).await;
        in_force("an agent, its key and its connection", answers(there, &caller.key, "connected")).await;
        let mut open = stream(there, &caller.key).await;
        let after = match taken_back {
            "block" => {
                here.operated("PUT", &connection, &json!({"action": "block"})).await;
                "403"
            }
            "key" => {
                let keys = here.operated("GET", &format!("/api/keys?agent_id={}", caller.id), &Value::Null).await;
                let key = keys["keys"][0]["id"].as_str().expect("an id").to_owned();
                here.operated("DELETE", &format!("/api/keys/{key}"), &Value::Null).await;
                "401"
            }
            "end" => {
                here.operated("PUT", &connection, &json!({"action": "end"})).await;
                "verified"
            }
            _ => {
                here.operated("PUT", &format!("/api/agents/{}", target.id), &json!({"state": "disabled"})).await;
                "503"
            }
        };
        in_force(taken_back, open.ended()).await;
        in_force(taken_back, answers(there, &caller.key, after)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_arrive_although_nobody_announces_them_or_nobody_can_listen() {
    let cluster = Nodes::start(&[]).await;
    let (here, there) = (&cluster.nodes[0], &cluster.nodes[1]);
    let agent = Agent::echo().await;
    here.register("target", Some(&agent.url())).await;
    let listeners = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    let cut: i64 = cluster.postgres.rows(listeners).await[0].get(0);
    assert_eq!(cut, 2, "both nodes listen");
    let caller = here.register("caller-1", None).await;
    in_force("a key, with the listeners cut off", answers(there, &caller.key, "verified")).await;
    there.logs("are not announced any more").await;
    there.logs("are announced again").await;

    let silent = "DO $$ BEGIN EXECUTE replace(pg_get_functiondef('directory_changed'::regproc), 'PERFORM pg_notify', \
                  'PERFORM concat'); END $$";
    cluster.postgres.run(silent).await;
    let caller = here.register("caller-2", None).await;
    in_force("a key, announced to nobody", answers(there, &caller.key, "verified")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_start_at_once_on_an_empty_database_both_serve_and_one_has_the_first_token() {
    // Keys come from whoever was first; here they were made before.
    let before = tempfile::tempdir().expect("a temporary directory");
    Process::start(before.path(), &[]).await.kill().await;
    let (dirs, postgres) = (directories(), Postgres::start());
    dirs.iter().for_each(|dir| share(&before, dir, "keys"));
    let nodes: [Process; 2] = tokio::join!(start(&dirs[0], &postgres, &[]), start(&dirs[1], &postgres, &[])).into();
    let tokens: Vec<_> = nodes.iter().map(|node| node.token.as_str()).filter(|token| !token.is_empty()).collect();
    assert_eq!(tokens.len(), 1, "one has written one, the other none");
    let count: i64 = postgres.rows("SELECT count(*) FROM operators").await[0].get(0);
    assert_eq!(count, 1);
    for node in &nodes {
        let mut client = Client::connect(node.admin).await;
        let bearer = format!("Bearer {}", tokens[0]);
        client.send("GET", "/readyz", &[("authorization", &bearer)], b"").await;
        assert_eq!(client.answer().await.json()["status"], "ready");
        client.send("GET", "/api/status", &[("authorization", &bearer)], b"").await;
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_keys_of_the_database_is_refused_and_told_where_to_get_them() {
    let (dirs, postgres) = (directories(), Postgres::start());
    let first = start(&dirs[0], &postgres, &[]).await;
    let url = postgres.url();
    let (status, log) = Process::start_in_vain(dirs[1].path(), &[("STORE__URL", &url)]).await;
    assert!(!status.success());
    for expected in ["secrets.key is not the one", "copy the directory", "of another node"] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    assert_eq!(first.operated("GET", "/readyz", &Value::Null).await["status"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_data_directory_is_no_node_while_the_original_serves() {
    let (dirs, postgres) = (directories(), Postgres::start());
    let original = start(&dirs[0], &postgres, &[]).await;
    ["keys", "node-id"].iter().for_each(|name| share(&dirs[0], &dirs[1], name));
    let url = postgres.url();
    let (status, log) = Process::start_in_vain(dirs[1].path(), &[("STORE__URL", &url)]).await;
    assert!(!status.success());
    assert!(log.contains("another gateway is serving as that node") && log.contains("new-node"), "{log}");
    assert_eq!(original.operated("GET", "/readyz", &Value::Null).await["status"], "ready");

    original.kill().await;
    let successor = start(&dirs[1], &postgres, &[]).await;
    within("it takes over", successor.logs("serving")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_not_sealed_anew_under_a_node_that_could_not_open_them() {
    let (dirs, postgres) = (directories(), Postgres::start());
    let first = start(&dirs[0], &postgres, &[]).await;
    share(&dirs[0], &dirs[1], "keys");
    share(&dirs[0], &dirs[1], "admin-token");
    let second = start(&dirs[1], &postgres, &[]).await;
    let rotate = async |dir: &TempDir| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trust-gateway"));
        command.arg("rotate-secrets-key").env("TRUST_GATEWAY__DATA_DIR", dir.path().join("data"));
        command.env("TRUST_GATEWAY__STORE__URL", postgres.url()).kill_on_drop(true);
        within("the command ends", command.output()).await.expect("the program starts")
    };
    first.kill().await;
    let refused = rotate(&dirs[0]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("stop all of the nodes"), "{said}");

    second.kill().await;
    within("all are gone", async { while !rotate(&dirs[0]).await.status.success() {} }).await;
    let (status, log) = Process::start_in_vain(dirs[1].path(), &[("STORE__URL", &postgres.url())]).await;
    assert!(!status.success() && log.contains("secrets.key is not the one"), "{log}");
    start(&dirs[0], &postgres, &[]).await.logs("serving").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_waits_for_the_calls_that_its_predecessor_ends() {
    let (dirs, postgres) = (directories(), Postgres::start());
    let agent = Agent::start(|mut conn| async move {
        while conn.request().await.is_some_and(|request| !request.request_line().starts_with("POST")) {
            conn.json("405 Method Not Allowed", &json!({})).await;
        }
        conn.closed().await;
    })
    .await;
    // Longer than a node waits for one that is only not known to be dead yet.
    let predecessor = start(&dirs[0], &postgres, &[("SERVER__DRAIN_TIMEOUT", "14s")]).await;
    predecessor.register("target", Some(&agent.url())).await;
    let mut client = Client::connect(predecessor.public).await;
    client.call("/api/proxy/target", None, &rpc(1, "SendMessage")).await;
    within("the agent has it", async {
        while agent.calls().iter().all(|call| !call.request_line().starts_with("POST")) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    predecessor.signal("TERM").await;
    predecessor.logs("stopping").await;
    let successor = start(&dirs[0], &postgres, &[]).await;
    assert_eq!(client.answer().await.status, 503, "its time was over");
    assert!(predecessor.ended().await.success());
    assert_eq!(successor.ids().await.len(), 1);
}
