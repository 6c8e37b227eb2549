//! Connections: both versions of HTTP, TLS, and peers that take their time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust_gateway::clock::Clock;
use trust_gateway::config::Config;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::gateway::{Registered, TestGateway};
use crate::support::{rpc, within};

async fn connected(gateway: &TestGateway, agent: &Agent) -> (Registered, Registered) {
    let target = gateway.register("agent", agent).await;
    let caller = gateway.register_client("caller").await;
    gateway.connect(&caller, &target).await;
    (target, caller)
}

async fn scene(adjust: impl FnOnce(&mut Config)) -> (TestGateway, Agent, Registered, Registered) {
    let gateway = TestGateway::with(Clock::system(), adjust).await;
    let agent = Agent::echo().await;
    let (target, caller) = connected(&gateway, &agent).await;
    (gateway, agent, target, caller)
}

/// An agent that sends one event and then waits for its connection to be closed.
async fn streaming(closed: tokio::sync::mpsc::UnboundedSender<()>) -> Agent {
    Agent::start(move |mut conn| {
        let closed = closed.clone();
        async move {
            while let Some(request) = conn.request().await {
                if !request.request_line().starts_with("POST") {
                    conn.json("405 Method Not Allowed", &json!({})).await;
                    continue;
                }
                conn.begin_events().await;
                conn.chunk("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n").await;
                conn.closed().await;
                let _ = closed.send(());
            }
        }
    })
    .await
}

// HTTP/2.

async fn http2<S>(stream: S) -> SendRequest<Full<Bytes>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = within("HTTP/2", handshake).await.expect("the gateway speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

fn http2_call(scheme: &str, key: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::post(format!("{scheme}://localhost/api/proxy/agent"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a request")
}

async fn json_of(response: Response<Incoming>) -> Value {
    let body = within("the body", response.into_body().collect()).await.expect("a whole body");
    serde_json::from_slice(&body.to_bytes()).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_spoken_without_an_upgrade_and_calls_share_a_connection() {
    let (gateway, agent, target, caller) = scene(|_| {}).await;
    let stream = TcpStream::connect(gateway.gateway.public_address()).await.expect("the gateway listens");
    let sender = http2(stream).await;
    let mut calls = JoinSet::new();
    for id in 0..50 {
        let (mut sender, key) = (sender.clone(), caller.key.clone());
        calls.spawn(async move {
            let sent = sender.send_request(http2_call("http", &key, &rpc(id, "SendMessage")));
            let response = within("an answer", sent).await.expect("an answer");
            assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
            assert!(!response.headers().contains_key("connection"));
            (id, json_of(response).await["id"].clone())
        });
    }
    while let Some(call) = calls.join_next().await {
        let (id, echoed) = call.expect("no call panics");
        assert_eq!(echoed, json!(id));
    }
    assert!(agent.calls().iter().all(|call| call.header("via").is_some_and(|via| via.starts_with("2 "))));
    assert_eq!(gateway.rows_of(&target).await.len(), 50);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_on_http_2_that_is_reset_ends_the_agents_connection_and_no_other_call() {
    let gateway = TestGateway::start().await;
    let (tell, mut closed) = tokio::sync::mpsc::unbounded_channel();
    let agent = streaming(tell).await;
    let (target, caller) = connected(&gateway, &agent).await;
    let stream = TcpStream::connect(gateway.gateway.public_address()).await.expect("the gateway listens");
    let mut sender = http2(stream).await;
    let mut bodies = Vec::new();
    for id in 0..2 {
        let sent = sender.send_request(http2_call("http", &caller.key, &rpc(id, "SendStreamingMessage")));
        let mut body = within("an answer", sent).await.expect("an answer").into_body();
        let frame = within("the first event", body.frame()).await.expect("not the end").expect("no error");
        assert!(frame.data_ref().is_some_and(|data| data.ends_with(b"\n\n")));
        bodies.push(body);
    }
    drop(bodies.pop());
    within("the agent's connection closes", closed.recv()).await.expect("the agent saw it");
    let rows = within("its row", async {
        loop {
            let rows = gateway.rows_of(&target).await;
            if !rows.is_empty() {
                break rows;
            }
        }
    })
    .await;
    assert_eq!((rows.len(), &rows[0]["outcome"]), (1, &json!("client_gone")), "the other stream goes on");
    assert_eq!(
        gateway.operated("GET", "/api/calls/active", &Value::Null).await["calls"].as_array().map(Vec::len),
        Some(1)
    );
    drop((bodies, sender));
    gateway.stop().await;
}

// TLS.

/// A certificate for `localhost`, in files.
fn certify(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("write");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("write");
    CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("just made")
}

fn tls_files(config: &mut Config, dir: &Path) {
    config.server.tls.cert = Some(dir.join("cert.pem"));
    config.server.tls.key = Some(dir.join("key.pem"));
}

async fn handshake(
    gateway: &TestGateway,
    trusted: &CertificateDer<'static>,
    alpn: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(gateway.gateway.public_address()).await.expect("the gateway listens");
    let name = ServerName::try_from("localhost").expect("a name");
    within("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_client_chooses_the_version_of_http() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let trusted = certify(dir.path());
    let (gateway, agent, _, caller) = scene(|config| tls_files(config, dir.path())).await;

    let stream = handshake(&gateway, &trusted, &["h2", "http/1.1"], rustls::ALL_VERSIONS).await.expect("TLS");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let mut sender = http2(stream).await;
    let sent = sender.send_request(http2_call("https", &caller.key, &rpc("two", "SendMessage")));
    let response = within("an answer", sent).await.expect("an answer");
    assert_eq!(json_of(response).await["id"], "two");

    let only_1_2: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    for (alpn, versions) in
        [(["http/1.1"].as_slice(), rustls::ALL_VERSIONS), (&[], rustls::ALL_VERSIONS), (&[], only_1_2)]
    {
        let stream = handshake(&gateway, &trusted, alpn, versions).await.expect("TLS");
        let mut client = Client::over(stream, "localhost");
        for id in 0..3 {
            client.call("/api/proxy/agent", Some(&caller.key), &rpc(id, "SendMessage")).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, &answer.json()["id"]), (200, &json!(id)));
        }
    }
    assert!(agent.calls().iter().all(|call| call.header("x-forwarded-proto") == Some("https")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_request_on_the_tls_port_hurts_nobody() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let trusted = certify(dir.path());
    let (gateway, agent, _, caller) = scene(|config| tls_files(config, dir.path())).await;
    let mut plain = gateway.client().await;
    plain.call("/api/proxy/agent", Some(&caller.key), &rpc(1, "SendMessage")).await;
    let said = plain.ended().await;
    assert!(!said.starts_with(b"HTTP/"), "{said:?}");
    let stream = handshake(&gateway, &trusted, &[], rustls::ALL_VERSIONS).await.expect("TLS");
    let mut client = Client::over(stream, "localhost");
    client.call("/api/proxy/agent", Some(&caller.key), &rpc(2, "SendMessage")).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(agent.calls().len(), 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_taken_without_a_restart_and_open_connections_live_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let old = certify(dir.path());
    let mut config = None;
    let (gateway, _agent, _, caller) = scene(|own| {
        tls_files(own, dir.path());
        config = Some(own.clone());
    })
    .await;
    let config = config.expect("the gateway was started with it");
    let versions = rustls::ALL_VERSIONS;
    let mut open = Client::over(handshake(&gateway, &old, &[], versions).await.expect("TLS"), "localhost");
    let still_works = async |client: &mut Client| {
        client.call("/api/proxy/agent", Some(&caller.key), &rpc(1, "SendMessage")).await;
        assert_eq!(client.answer().await.status, 200);
    };
    still_works(&mut open).await;

    // A key that is not the certificate's: refused, and nothing changes.
    let broken = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = std::fs::read(dir.path().join("key.pem")).expect("it is there");
    std::fs::write(dir.path().join("key.pem"), broken.signing_key.serialize_pem()).expect("write");
    gateway.gateway.reload(config.clone()).await.expect_err("the pair does not belong together");
    handshake(&gateway, &old, &[], versions).await.expect("the old one is in force");
    std::fs::write(dir.path().join("key.pem"), key).expect("write");

    let new = certify(dir.path());
    gateway.gateway.reload(config).await.expect("a good pair");
    handshake(&gateway, &old, &[], versions).await.expect_err("the old certificate is no longer shown");
    let mut fresh = Client::over(handshake(&gateway, &new, &[], versions).await.expect("the new one is"), "localhost");
    still_works(&mut fresh).await;
    still_works(&mut open).await;
    gateway.stop().await;
}

// Time.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_or_says_it_too_slowly_is_hung_up_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    certify(dir.path());
    for tls in [false, true] {
        let (gateway, _agent, _, _) = scene(|config| {
            config.server.header_timeout = Duration::from_millis(300);
            if tls {
                tls_files(config, dir.path());
            }
        })
        .await;
        for said in ["", "P", "POST /api/proxy/agent HTTP/1.1\r\nhost: g\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
            let mut client = gateway.client().await;
            client.write(said).await;
            let answer = client.ended().await;
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{said:?}: {answer:?}");
        }
        assert!(gateway.rows().await.is_empty(), "no head, no call");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_between_two_calls_may_rest_longer_than_a_head_may_take() {
    let head = Duration::from_millis(300);
    let (gateway, _agent, _, caller) = scene(|config| config.server.header_timeout = head).await;
    let mut client = gateway.client().await;
    let stream = TcpStream::connect(gateway.gateway.public_address()).await.expect("the gateway listens");
    let mut sender = http2(stream).await;
    for id in 0..3 {
        client.call("/api/proxy/agent", Some(&caller.key), &rpc(id, "SendMessage")).await;
        assert_eq!(client.answer().await.status, 200, "{id}");
        client.send("GET", "/livez", &[], b"").await;
        assert_eq!(client.answer().await.status, 200, "{id}");
        let sent = sender.send_request(http2_call("http", &caller.key, &rpc(id, "SendMessage")));
        assert_eq!(within("an answer", sent).await.expect("an answer").status(), 200);
        // The subject of the test is that time passes.
        tokio::time::sleep(head * 2).await;
    }
    gateway.stop().await;
}
