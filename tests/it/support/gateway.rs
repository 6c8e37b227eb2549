//! A gateway of the test's own: real sockets, a directory of its own, a clock the test may hold.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use trust_gateway::clock::Clock;
use trust_gateway::config::Config;
use trust_gateway::gateway::Gateway;

use super::agent::Agent;
use super::client::{Answer, Client};

pub(crate) struct TestGateway {
    pub gateway: Gateway,
    pub operator: String,
    dir: TempDir,
}

/// A registered agent.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub id: String,
    pub key: String,
}

impl TestGateway {
    pub(crate) async fn start() -> Self {
        Self::with(Clock::system(), |_| {}).await
    }

    /// A gateway on a clock of the test's, with settings of its own.
    pub(crate) async fn with(clock: Clock, adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        Self::in_dir(dir, clock, adjust).await
    }

    async fn in_dir(dir: TempDir, clock: Clock, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { data_dir: dir.path().to_path_buf(), ..Config::default() };
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.admin.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.server.workers = 2;
        // Where a test moves the clock, nobody has looked at the database for as long.
        config.directory.max_stale = Duration::MAX;
        adjust(&mut config);
        let gateway = Gateway::start(config, clock).await.expect("the gateway starts");
        let operator = gateway.operator_token().expect("the first start makes one");
        Self { gateway, operator, dir }
    }

    /// Stops and starts again on the same data.
    pub(crate) async fn restart(self, clock: Clock, adjust: impl FnOnce(&mut Config)) -> Self {
        self.gateway.shutdown().await;
        Self::in_dir(self.dir, clock, adjust).await
    }

    /// Stops, lets somebody at its data meanwhile, and starts again.
    pub(crate) async fn restart_after(self, clock: Clock, meddle: impl FnOnce(&Path)) -> Self {
        self.gateway.shutdown().await;
        meddle(self.dir.path());
        Self::in_dir(self.dir, clock, |_| {}).await
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn stop(self) {
        self.gateway.shutdown().await;
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.gateway.public_address()).await
    }

    /// One call on a connection of its own.
    pub(crate) async fn call(&self, agent: &str, key: Option<&str>, body: &Value) -> Answer {
        let mut client = self.client().await;
        client.call(&format!("/api/proxy/{agent}"), key, body).await;
        client.answer().await
    }

    /// A request of the operator's.
    pub(crate) async fn operate(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let mut client = Client::connect(self.gateway.admin_address()).await;
        let token = format!("Bearer {}", self.operator);
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let body = body.map(ToString::to_string).unwrap_or_default();
        client.send(method, path, &headers, body.as_bytes()).await;
        client.answer().await
    }

    /// As [`TestGateway::operate`], for what must succeed.
    pub(crate) async fn operated(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.operate(method, path, (!body.is_null()).then_some(body)).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    pub(crate) async fn register(&self, slug: &str, agent: &Agent) -> Registered {
        self.register_as(json!({"name": slug, "slug": slug, "url": agent.url()})).await
    }

    /// A client: an agent that only calls.
    pub(crate) async fn register_client(&self, slug: &str) -> Registered {
        self.register_as(json!({"name": slug, "slug": slug})).await
    }

    pub(crate) async fn register_as(&self, body: Value) -> Registered {
        let row = self.operated("POST", "/api/agents", &body).await;
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        Registered { id: text("id"), key: text("api_key") }
    }

    pub(crate) async fn connect(&self, caller: &Registered, target: &Registered) -> Value {
        let body = json!({"requester_id": caller.id, "target_id": target.id, "status": "connected"});
        self.operated("POST", "/api/connections", &body).await
    }

    /// Every row so far, oldest first.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut path = "/api/calls?limit=200".to_owned();
        loop {
            let page = self.operated("GET", &path, &Value::Null).await;
            rows.extend(page["calls"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => path = format!("/api/calls?limit=200&next={next}"),
                None => break,
            }
        }
        rows.reverse();
        rows
    }

    /// The rows of calls to `target`, oldest first.
    pub(crate) async fn rows_of(&self, target: &Registered) -> Vec<Value> {
        self.rows().await.into_iter().filter(|row| row["target_agent_id"] == target.id.as_str()).collect()
    }
}
