//! The command line with the real program and a real gateway: what people type, what they read, what scripts get.

use std::io::Read as _;

use serde_json::Value;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::person::{Person, at_work};
use crate::support::process::Process;
use crate::support::{rpc, within};

async fn gateway(dir: &std::path::Path) -> (Process, String) {
    let gateway = Process::start(dir, &[("AGENTS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")]).await;
    let url = format!("http://{}", gateway.admin);
    (gateway, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_registers_connects_reads_and_blocks_with_the_command_line_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, url) = gateway(dir.path()).await;
    let agent = Agent::echo().await;
    let person = Person { home: dir.path() };
    let login = person.does(&["login", "--url", &url, "--token-file", "data/admin-token"]).await;
    assert!(login.starts_with(&format!("Logged in to {url}")), "{login}");

    assert!(person.does(&["agents", "list"]).await.contains("agents register SLUG"));
    let secrets = person.does(&["agents", "register", "weather", "--endpoint", &agent.url()]).await;
    assert_eq!(secrets.lines().count(), 2, "{secrets}");
    let key = person.does(&["agents", "register", "planner"]).await;
    let key = key.trim();
    assert!(!key.contains(char::is_whitespace) && key.len() > 20, "{key}");

    person.does(&["connections", "request", "planner", "weather", "--message", "may I?"]).await;
    let inbox = person.does(&["connections", "pending"]).await;
    assert!(inbox.contains("planner asks for weather") && inbox.contains("may I?"), "{inbox}");
    assert!(inbox.contains("trust-gateway connections accept planner:weather"), "{inbox}");
    person.does(&["connections", "accept", "planner:weather"]).await;

    let mut client = Client::connect(gateway.public).await;
    client.call("/api/proxy/weather", Some(key), &rpc(1, "SendMessage")).await;
    assert_eq!(client.answer().await.status, 200);

    let calls = person.does(&["calls", "list", "--caller", "planner", "--since", "10m"]).await;
    assert!(calls.contains("planner") && calls.contains("weather") && calls.contains("200"), "{calls}");
    assert!(calls.lines().all(|line| line.chars().count() <= 80), "{calls}");
    let json: Value =
        serde_json::from_str(&person.does(&["calls", "list", "--json"]).await).expect("the API's JSON, nothing else");
    assert_eq!(json["calls"][0]["trust_level"], "connected");

    let refused = person.fails(2, &["connections", "block", "planner:weather"]).await;
    assert!(refused.contains("trust-gateway connections block planner:weather --yes"), "{refused}");
    person.does(&["connections", "block", "planner:weather", "--yes"]).await;
    let mut client = Client::connect(gateway.public).await;
    client.call("/api/proxy/weather", Some(key), &rpc(2, "SendMessage")).await;
    assert_eq!(client.answer().await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_has_its_exit_code_and_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, url) = gateway(dir.path()).await;
    let person = Person { home: dir.path() };
    let with = ["--url", url.as_str(), "--token-file", "data/admin-token"];
    let and =
        |line: &[&'static str]| [line, &with[..]].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let fails = async |code, line: &[&'static str]| {
        let line = and(line);
        person.fails(code, &line.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let nobody = person.fails(1, &["agents", "list", "--url", "http://127.0.0.1:1"]).await;
    assert!(nobody.contains("connection refused") && nobody.contains("trust-gateway serve"), "{nobody}");
    let secret = person.types(&["agents", "list", "--token", "oag_secret"]).await;
    assert!(secret.code == 2 && secret.err.contains("--token-file"), "{}", secret.err);
    fails(3, &["agents", "show", "nobody"]).await;
    assert!(fails(3, &["connections", "show", "a:b"]).await.contains("connections request a b"));
    assert!(fails(2, &["connections", "show", "a"]).await.contains("REQUESTER:TARGET"));
    let stranger = person.fails(4, &["calls", "list", "--url", &url]).await;
    assert!(stranger.contains("trust-gateway login"), "{stranger}");
    let file = dir.path().join("wrong");
    std::fs::write(&file, "not-a-token").expect("writable");
    let wrong = person.fails(4, &["login", "--url", &url, "--token-file", "wrong"]).await;
    assert!(wrong.contains("--token-file") && !wrong.contains("not-a-token"), "{wrong}");
    gateway.register("twice", None).await;
    fails(5, &["agents", "register", "twice"]).await;
    fails(2, &["agents", "delete", "twice"]).await;
    assert_eq!(person.types(&["completions", "bash"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_reads_and_may_not_write_and_who_asks_too_often_is_told_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_gateway, person) = at_work(dir.path(), &[]).await;
    let token = person.does(&["operators", "create", "eve", "--role", "auditor"]).await;
    std::fs::write(dir.path().join("eve"), token).expect("writable");
    assert_eq!(person.does(&["me", "--token-file", "eve"]).await, "operator eve (auditor)\n");
    person.does(&["agents", "list", "--token-file", "eve"]).await;
    person.fails(4, &["agents", "register", "planner", "--token-file", "eve"]).await;
    assert!(person.does(&["agents", "list"]).await.contains("No agents yet"));

    let agent = Agent::echo().await;
    person.does(&["agents", "register", "weather", "--endpoint", &agent.url()]).await;
    let often = within("probes are refused when they come one after the other", async {
        loop {
            let said = person.types(&["agents", "probe", "weather"]).await;
            if said.code != 0 {
                return said;
            }
        }
    });
    let often = often.await;
    assert_eq!(often.code, 6, "{}", often.err);
    assert_eq!(often.err.to_lowercase().matches("try again").count(), 1, "{}", often.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_destroys_needs_a_yes_and_without_a_terminal_it_needs_it_in_the_command() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_gateway, person) = at_work(dir.path(), &[]).await;
    for name in ["planner", "weather"] {
        person.does(&["agents", "register", name]).await;
    }
    person.does(&["connections", "request", "planner", "weather", "--accept"]).await;
    person.does(&["operators", "create", "eve"]).await;
    let key = person.reads(&["keys", "list", "planner"]).await["keys"][0]["id"].as_str().expect("an id").to_owned();
    for line in [
        &["connections", "end", "planner:weather"][..],
        &["connections", "block", "planner:weather"],
        &["keys", "rotate", &key, "--grace", "0s"],
        &["keys", "revoke", &key],
        &["operators", "rotate", "eve"],
        &["operators", "remove", "eve"],
        &["agents", "rotate-secret", "weather"],
        &["agents", "credential", "clear", "weather"],
        &["agents", "card", "reject", "weather"],
        &["agents", "reject", "weather"],
        &["agents", "delete", "weather"],
    ] {
        let said = person.fails(2, line).await;
        assert!(said.contains(&format!("trust-gateway {} --yes\n", line.join(" "))), "{line:?}: {said}");
    }
    let connection = person.reads(&["connections", "show", "planner:weather"]).await;
    assert_eq!(
        (&connection["status"], person.reads(&["keys", "list", "planner"]).await["keys"][0]["id"] == *key),
        (&"connected".into(), true)
    );
    person.does(&["keys", "revoke", &key, "--yes"]).await;
    person.does(&["agents", "delete", "weather", "-y"]).await;
    assert_eq!(person.reads(&["agents", "list"]).await["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_json_the_answer_of_the_api_is_printed_as_it_came_and_nothing_beside_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[]).await;
    gateway.register("planner", None).await;
    for (line, path) in [
        (&["agents", "list", "--limit", "20"][..], "/api/agents?limit=20"),
        (&["agents", "show", "planner"], "/api/agents/planner"),
        (&["keys", "list", "planner"], "/api/keys?agent_id=planner"),
        (&["connections", "pending"], "/api/connections?status=pending"),
        (&["notifications"], "/api/notifications"),
        (&["me"], "/api/me"),
    ] {
        let said = person.types(&[line, &["--json"]].concat()).await;
        let answer = gateway.operate("GET", path, &Value::Null).await;
        assert_eq!((said.out.trim_end(), said.err.as_str()), (answer.text().trim_end(), ""), "{line:?}");
    }
    // Of what is made, too: the secret is in it, once.
    let said = person.types(&["keys", "create", "planner", "--json"]).await;
    let made: Value = serde_json::from_str(&said.out).expect("the API's JSON");
    assert!(made["key"].as_str().is_some_and(|key| key.starts_with("oag_")) && said.err.is_empty(), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_stands_alone_on_standard_output_and_words_beside_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_gateway, person) = at_work(dir.path(), &[]).await;
    for (line, beginning) in [
        (&["agents", "register", "planner"][..], "oag_"),
        (&["keys", "create", "planner", "--name", "laptop", "--expires", "90d"], "oag_"),
        (&["keys", "rotate", "laptop", "--agent", "planner", "--name", "next"], "oag_"),
        (&["operators", "create", "eve"], "tgo_"),
        (&["operators", "rotate", "eve", "--yes"], "tgo_"),
    ] {
        let said = person.types(line).await;
        let secret = said.out.strip_suffix('\n').unwrap_or_default();
        assert!(secret.starts_with(beginning) && !secret.contains(char::is_whitespace), "{line:?}: {}", said.out);
        assert!(!said.err.contains(secret) && said.err.contains("shown this once"), "{line:?}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_closes_the_pipe_has_read_enough() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_gateway, person) = at_work(dir.path(), &[]).await;
    for line in [&["agents", "list"][..], &["agents", "list", "--json"], &["me"], &["status"], &["completions", "bash"]]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = person.command(line);
        let started = command.stdout(writer).stderr(std::process::Stdio::piped()).spawn().expect("the program starts");
        let ended = within("it ends", started.wait_with_output()).await.expect("it can be waited for");
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &[][..]), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_token_goes_to_the_gateway_it_was_stored_for_and_to_no_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (gateway, person) = at_work(dir.path(), &[]).await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", other.local_addr().expect("bound"));
    let heard = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = other.accept().expect("somebody comes");
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("readable") == 1 {
            head.extend(byte);
        }
        String::from_utf8(head).expect("text").to_lowercase()
    });
    person.fails(1, &["agents", "list", "--url", &url]).await;
    let heard = within("the other one is asked", heard).await.expect("no panic");
    assert!(heard.starts_with("get /api/agents") && !heard.contains("authorization"), "{heard}");
    // Logged out, it is gone from the file as well.
    person.does(&["logout"]).await;
    let file = std::fs::read_to_string(dir.path().join("config/trust-gateway/profile.toml")).expect("there");
    assert!(!file.contains("tgo_"), "{file}");
    person.fails(4, &["calls", "list", "--url", &format!("http://{}", gateway.admin)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_behind_a_private_authority_is_reached_with_its_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("writable");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writable");
    let path = |path: &std::path::Path| path.to_str().expect("a plain path").to_owned();
    let (cert, key) = (path(&cert), path(&key));
    let gateway = Process::start(dir.path(), &[("ADMIN__TLS__CERT", cert.as_str()), ("ADMIN__TLS__KEY", &key)]).await;
    let url = format!("https://localhost:{}", gateway.admin.port());
    let person = Person { home: dir.path() };
    let login = ["login", "--url", &url, "--token-file", "data/admin-token"];
    assert!(person.fails(1, &login).await.contains("--ca-file"));
    person.does(&[&login[..], &["--ca-file", "cert.pem"]].concat()).await;
    // The profile keeps the file, wherever one is.
    assert_eq!(person.does(&["me"]).await, "operator admin (admin)\n");
    let plain = person.fails(1, &["agents", "list", "--url", &url.replace("https", "http")]).await;
    assert!(plain.contains("https"), "{plain}");
}
