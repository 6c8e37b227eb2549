//! Other systems are sent every row and webhooks every event, whatever they do and whenever the gateway is killed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use crate::support::agent::{Agent, Conn, Received};
use crate::support::client::Client;
use crate::support::person::at_work;
use crate::support::postgres::Postgres;
use crate::support::process::Process;
use crate::support::{rpc, within};

/// Makes `n` calls without a key: the first passes, the others are refused, and all are rows.
async fn calls(gateway: &Process, n: usize) {
    let mut client = Client::connect(gateway.public).await;
    for _ in 0..n {
        client.call("/api/proxy/target", None, &rpc(1, "SendMessage")).await;
        client.answer().await;
    }
}

async fn registered(gateway: &Process, agent: &Agent) {
    let target = json!({"name": "target", "slug": "target", "url": agent.url()});
    gateway.operated("POST", "/api/agents", &target).await;
}

/// The rows in the requests, as they came.
fn rows(requests: &[Received]) -> Vec<Value> {
    let lines = requests.iter().flat_map(|request| request.body.split(|byte| *byte == b'\n'));
    lines.filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).expect("a row")).collect()
}

fn seqs(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["seq"].as_i64().expect("a number")).collect()
}

/// How the outlet `name` is.
async fn told(gateway: &Process, name: &str) -> Value {
    let status = gateway.operated("GET", "/api/status", &Value::Null).await;
    let outlets = status["outlets"].as_array().cloned().unwrap_or_default();
    outlets.into_iter().find(|outlet| outlet["name"] == name).expect("it is told of")
}

/// The port of a server with a certificate that nobody vouches for.
async fn strange_tls() -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let accepted = acceptor.accept(stream).await;
            assert!(accepted.is_err(), "nobody comes in on a certificate that nobody vouches for");
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_arrives_at_a_receiver_that_breaks_off_fails_and_takes_its_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let turn = Arc::new(AtomicUsize::new(0));
    let receiver = Agent::start(move |mut conn: Conn| {
        let turn = Arc::clone(&turn);
        async move {
            while conn.request().await.is_some() {
                match turn.fetch_add(1, Ordering::SeqCst) {
                    0 => drop(conn.json("500 Internal Server Error", &json!({})).await),
                    // Everything has come, and nobody says so.
                    1 => return conn.reset(),
                    // The answer breaks off in its middle.
                    2 => {
                        conn.write("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal").await;
                        return;
                    }
                    _ => {
                        for part in ["HTTP/1.1 200 OK\r\n", "content-length: 2\r\n\r\n", "{", "}"] {
                            sleep(Duration::from_millis(20)).await;
                            conn.write(part).await;
                        }
                    }
                }
            }
        }
    })
    .await;
    let echo = Agent::echo().await;
    std::fs::write(dir.path().join("token"), "s3cret\n").expect("written");
    // Nobody vouches for one of them; and neither it nor the slow one holds up the file.
    let outlets = format!(
        "[{{ name = \"siem\", url = \"{}\", token_file = \"token\", batch = 3 }}, {{ name = \"tls\", url = \"https://{}/\" }}, \
         {{ name = \"disk\", file = \"calls.jsonl\" }}]",
        receiver.url(),
        strange_tls().await
    );
    let gateway = Process::start(dir.path(), &[("AUDIT__OUTLETS", &outlets)]).await;
    registered(&gateway, &echo).await;
    calls(&gateway, 10).await;

    within("the receiver has all rows", async {
        while seqs(&rows(&receiver.calls())).into_iter().max() != Some(10) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let requests = receiver.calls();
    assert!(requests.iter().all(|request| request.header("authorization") == Some("Bearer s3cret")));
    assert!(requests.iter().all(|request| request.header("content-type") == Some("application/x-ndjson")));
    let rows = rows(&requests);
    let mut seen = 0;
    for seq in seqs(&rows) {
        assert!(seq <= seen + 1, "{seq} came after {seen}");
        seen = seen.max(seq);
    }
    // It is the row as the log shows it.
    let logged = gateway.operated("GET", "/api/calls?limit=1", &Value::Null).await["calls"][0].clone();
    assert_eq!(rows.last(), Some(&logged));
    assert!(logged["leaf_hash"].as_str().is_some_and(|hash| hash.len() == 64), "{logged}");

    let on_disk = std::fs::read_to_string(dir.path().join("calls.jsonl")).expect("a file");
    assert_eq!(on_disk.lines().count(), 10);
    within("what fails is told", async {
        while !told(&gateway, "tls").await["error"].as_str().is_some_and(|why| why.contains("TLS failed")) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    within("the others are well", async {
        while told(&gateway, "siem").await["error"] != Value::Null || told(&gateway, "siem").await["behind"] != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let tls = told(&gateway, "tls").await;
    assert_eq!(tls["behind"], 10, "{tls}");
    gateway.kill().await;
}

/// Every row that is in `files`, by its `seq`; lines that a kill cut off are none.
fn on_disk(files: &[&Path]) -> BTreeSet<i64> {
    let text = files.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect::<String>();
    let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    rows.filter_map(|row| row["seq"].as_i64()).collect()
}

async fn killed_again_and_again(store: &str, rounds: usize) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (file, rotated) = (dir.path().join("calls.jsonl"), dir.path().join("calls.jsonl.1"));
    let outlets = format!("[{{ name = \"disk\", file = {file:?}, batch = 7 }}]");
    let settings = [("STORE__URL", store), ("AUDIT__OUTLETS", &outlets)];
    let echo = Agent::echo().await;
    let mut gateway = Process::start(dir.path(), &settings).await;
    registered(&gateway, &echo).await;
    for round in 0..rounds {
        let load = calls(&gateway, 200);
        // Any moment will do, but not always the same one.
        let _ = tokio::time::timeout(Duration::from_millis(300 + (round as u64 * 370) % 1_100), load).await;
        gateway.kill().await;
        // By then it was started anew with rows to send.
        if round == rounds / 2 {
            std::fs::rename(&file, &rotated).expect("something was sent");
        }
        gateway = Process::start(dir.path(), &settings).await;
    }
    let newest = gateway.rows().await.iter().filter_map(|row| row["seq"].as_i64()).max().expect("rows");
    within("every row is in a file", async {
        while on_disk(&[&file, &rotated]).len() < usize::try_from(newest).expect("positive") {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(on_disk(&[&file, &rotated]), (1..=newest).collect());
    assert!(!on_disk(&[&rotated]).contains(&newest), "the file that was moved away is left alone");
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_leave_no_row_out_of_a_file_that_is_rotated() {
    killed_again_and_again("sqlite", 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_on_postgresql() {
    let postgres = Postgres::start();
    killed_again_and_again(&postgres.url(), 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_told_signed_and_across_a_kill_what_an_operator_must_know() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (secret, turn) = (STANDARD.encode([7; 32]), Arc::new(AtomicUsize::new(0)));
    std::fs::write(dir.path().join("secret"), format!("whsec_{secret}\n")).expect("written");
    let receiver = Agent::start(move |mut conn: Conn| {
        let turn = Arc::clone(&turn);
        async move {
            while conn.request().await.is_some() {
                let status = if turn.fetch_add(1, Ordering::SeqCst) < 2 { "503 Busy" } else { "204 Taken" };
                conn.write(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
            }
        }
    })
    .await;
    let webhooks = format!("[{{ name = \"pager\", url = \"{}\", secret_file = \"secret\" }}]", receiver.url());
    let settings = [("WEBHOOKS", webhooks.as_str())];
    let (gateway, person) = at_work(dir.path(), &settings).await;
    // The test is sent once, and it says so.
    let refused = person.types(&["webhooks", "test", "pager"]).await;
    assert!(refused.code != 0 && refused.err.contains("the receiver answered 503"), "{}", refused.err);

    let (one, other) = (gateway.register("one", None).await, gateway.register("other", None).await);
    let mut client = Client::connect(gateway.public).await;
    let bearer = format!("Bearer {}", one.key);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let wish = json!({"target_id": other.id, "message": "hello"}).to_string();
    client.send("POST", "/api/connections", &headers, wish.as_bytes()).await;
    let asked = client.answer().await;
    assert_eq!(asked.status, 201, "{}", asked.text());
    within("it was sent in vain", async {
        while receiver.calls().len() < 2 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    gateway.kill().await;
    let (gateway, person) = at_work(dir.path(), &settings).await;
    within("it is sent again", async {
        while receiver.calls().len() < 3 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(person.does(&["webhooks", "test", "pager"]).await.contains("pager took it"));
    let missing = person.types(&["webhooks", "test", "nobody"]).await;
    assert!(missing.code == 3 && missing.err.contains("[[webhooks]]"), "{} {}", missing.code, missing.err);

    let calls = receiver.calls();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    for call in &calls {
        let header = |name: &str| call.header(name).expect("sent");
        let body = std::str::from_utf8(&call.body).expect("text");
        let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
        let signature = header("webhook-signature").strip_prefix("v1,").expect("of version 1");
        let signature = STANDARD.decode(signature).expect("base64");
        hmac::verify(&key, signed.as_bytes(), &signature).expect("signed with the secret");
    }
    assert_eq!((calls[1].header("webhook-id"), &calls[1].body), (calls[2].header("webhook-id"), &calls[2].body));
    let told = calls[2].json();
    assert_eq!(told["type"], "connection.requested");
    assert_eq!((&told["data"]["requester_id"], &told["data"]["message"]), (&json!(one.id), &json!("hello")));
    assert_eq!(calls[3].json()["type"], "webhook.test");
    gateway.kill().await;
}
