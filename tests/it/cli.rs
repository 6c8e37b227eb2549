//! The command line with the real program and a real gateway: what people type, what they read, what scripts get.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::support::agent::Agent;
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::{rpc, within};

struct Said {
    code: i32,
    out: String,
    err: String,
}

/// A person at a shell, with a home of their own.
struct Person<'a> {
    home: &'a Path,
}

impl Person<'_> {
    async fn types(&self, line: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trust-gateway"));
        command.args(line).current_dir(self.home).env_clear().env("XDG_CONFIG_HOME", self.home.join("config"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = within(&line.join(" "), command.output()).await.expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    async fn does(&self, line: &[&str]) -> String {
        let said = self.types(line).await;
        assert_eq!(said.code, 0, "{line:?}: {}{}", said.out, said.err);
        said.out
    }

    async fn fails(&self, code: i32, line: &[&str]) -> String {
        let said = self.types(line).await;
        assert_eq!(said.code, code, "{line:?}: {}{}", said.out, said.err);
        assert!(said.err.starts_with("error: "), "{line:?}: {}", said.err);
        said.err
    }
}

async fn gateway(dir: &Path) -> (Process, String) {
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
