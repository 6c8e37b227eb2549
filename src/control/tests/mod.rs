//! The API from the outside: requests in, answers out, on a database of its own.

mod admission;
mod agent_limits;
mod agents;
mod call_filters;
mod call_stats;
mod call_stream;
mod calls;
mod connections;
mod ending;
mod health;
mod import;
mod keys;
mod me;
mod metrics;
mod openapi;
mod operators;
mod retention;
mod telling;

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tower_service::Service as _;

use super::*;
use crate::directory::{Builder, Defaults, Directory, Timeouts};
use crate::policy::Policy;
use crate::registry::Registration;
use crate::registry::health::{Calls, Fetch, FetchResponse, HealthSettings};
use crate::registry::network::AllowedNetworks;
use crate::registry::testing::{Bench, admin};
use crate::store::rows::OperatorRole;

pub(super) const PUBLIC_URL: &str = "https://gw.example";

/// The API with everything it works on.
pub(super) struct Api {
    pub(super) bench: Bench,
    pub(super) control: Arc<Control>,
    pub(super) admin: String,
    pub(super) auditor: String,
    builder: Builder,
    pub(super) open_calls: Arc<Mutex<Vec<Intent>>>,
    /// Said when the gateway stops.
    pub(super) close: tokio::sync::watch::Sender<bool>,
    pub(super) is_ready: Arc<AtomicBool>,
    /// The card every agent shows; while it is empty, none does.
    pub(super) card: Arc<Mutex<String>>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    pub(super) text: String,
}

impl Api {
    pub(super) async fn new() -> Self {
        let bench = Bench::new().await;
        let mut tokens = Vec::new();
        for (name, role) in [("root", OperatorRole::Admin), ("eve", OperatorRole::Auditor)] {
            tokens.push(bench.registry.create_operator(&admin(), name, role, None).await.expect("made").1.text);
        }
        let open_calls: Arc<Mutex<Vec<Intent>>> = Arc::default();
        let is_ready = Arc::new(AtomicBool::new(true));
        let (open, ended, ready) = (open_calls.clone(), open_calls.clone(), is_ready.clone());
        let store = bench.store.clone();
        let (close, closing) = tokio::sync::watch::channel(false);
        let limits = Arc::new(Limits::new(bench.clock.clone(), Arc::new(Policy::default()), [0; 32], Vec::new()));
        let second = Duration::from_secs(1);
        let builder = Builder {
            vault: Arc::clone(&bench.vault),
            limits: Arc::clone(&limits),
            defaults: Defaults {
                public_url: PUBLIC_URL.to_owned(),
                allow_networks: AllowedNetworks::default(),
                connect_timeout: second,
                timeouts: Timeouts { first_byte: second, read_first_byte: second, idle: second },
                max_in_flight: 1,
                breaker: crate::vitals::BreakerSettings::default(),
                anonymous_allowed: true,
            },
        };
        let card: Arc<Mutex<String>> = Arc::default();
        let script = Arc::clone(&card);
        let fetch: Fetch = Arc::new(move |request| {
            let card = script.lock().expect("lock").clone();
            let at_card = request.url.path().ends_with("/secret-path/.well-known/agent-card.json") && !card.is_empty();
            let shown = request.headers.contains_key("x-secret");
            let (status, body) = if at_card { (200, card) } else { (if shown { 405 } else { 401 }, String::new()) };
            Box::pin(async move { Ok(FetchResponse { status, headers: HeaderMap::new(), body: body.into() }) })
        });
        let calls = Calls { all: Arc::new(Vec::new), of: Arc::new(|_| None) };
        let health = Arc::new(Health::new(Arc::clone(&bench.registry), fetch, HealthSettings::default(), calls));
        let conditions = Conditions::new(bench.clock.clone());
        let webhooks = telling::webhooks(&bench, &conditions);
        let control = Arc::new(Control {
            registry: Arc::clone(&bench.registry),
            health,
            exports: Exports::new(&store),
            store,
            directory: Arc::default(),
            limits,
            public_url: PUBLIC_URL.to_owned(),
            active_calls: Arc::new(move || open.lock().expect("lock").clone()),
            end_call: Arc::new(move |id| ended.lock().expect("lock").iter().any(|call| call.request_id == id)),
            follow: Arc::new(Follow::until(closing)),
            drain_flush: None,
            meters: vec![Arc::default(), Arc::default()],
            gauges: Arc::new(Gauges::default),
            new_ledger_key: Arc::new(|| {
                Box::pin(async { Err(crate::audit::ledger::seal::NotChanged::Failed("no ledger".to_owned())) })
            }),
            about: About {
                node_id: uuid::Uuid::from_u128(5),
                started_at: bench.clock.wall(),
                public: (Ipv4Addr::LOCALHOST, 1).into(),
                admin: (Ipv4Addr::LOCALHOST, 2).into(),
            },
            readings: Default::default(),
            conditions: conditions.clone(),
            outlets: Vec::new(),
            webhooks,
            retention: RetentionHandle {
                settings: crate::audit::ledger::retention::RetentionSettings::default(),
                view: crate::audit::ledger::retention::RetentionView::default(),
                eraser: crate::audit::ledger::retention::Eraser::new(bench.store.clone(), bench.clock.clone()),
            },
            ready: Arc::new(move || if ready.load(Ordering::SeqCst) { Ok(()) } else { Err("journal down".to_owned()) }),
        });
        let [admin, auditor] = <[String; 2]>::try_from(tokens).expect("two");
        Self { bench, control, admin, auditor, builder, open_calls, close, is_ready, card }
    }

    /// The directory as the registry has it rebuilt after every change.
    async fn rebuild(&self) {
        let Ok(rows) = self.bench.store.directory_rows().await else { return };
        let next: Directory = self.builder.build(rows, &self.control.directory.load());
        self.control.directory.store(Arc::new(next));
    }

    async fn send(&self, mut router: Router, mut request: Request<Body>) -> Answer {
        self.rebuild().await;
        if request.extensions().get::<Source>().is_none() {
            request.extensions_mut().insert(Source(Ipv4Addr::LOCALHOST.into()));
        }
        let response = router.call(request).await.expect("infallible");
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("whole");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: head.status, headers: head.headers, body, text }
    }

    fn request(method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(body.map_or_else(Body::empty, |body| Body::from(body.to_string()))).expect("a request")
    }

    /// On the public listener.
    pub(super) async fn public(&self, method: Method, path: &str, key: Option<&str>, body: Option<Value>) -> Answer {
        self.send(public(self.control.clone()), Self::request(method, path, key, body.as_ref())).await
    }

    /// On the operator listener.
    pub(super) async fn operator(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Answer {
        self.send(operator(self.control.clone()), Self::request(method, path, token, body.as_ref())).await
    }

    /// On the operator listener, as admin.
    pub(super) async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.operator(method, path, Some(&self.admin), body).await
    }

    pub(super) async fn raw(&self, request: Request<Body>) -> Answer {
        self.send(public(self.control.clone()), request).await
    }

    /// An agent with an endpoint, registered by an admin: its id and key.
    pub(super) async fn agent(&self, slug: &str) -> (String, String) {
        let body = json!({"name": slug, "slug": slug, "url": format!("https://{slug}.example/secret-path")});
        let made = self.admin(Method::POST, "/api/agents", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let text = |member: &str| made.body[member].as_str().expect("text").to_owned();
        (text("id"), text("api_key"))
    }
}

impl Answer {
    /// A problem document that says the same to all its readers.
    pub(super) fn is_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        assert_eq!(self.body["status"], status);
        for member in ["type", "title", "detail", "error"] {
            assert!(self.body[member].is_string(), "{member}: {}", self.text);
        }
    }
}

#[tokio::test]
async fn each_listener_takes_credentials_of_its_own_kind_only() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    assert_eq!(api.public(Method::GET, "/api/keys", Some(&key), None).await.status, 200);
    assert_eq!(api.operator(Method::GET, "/api/agents", Some(&api.admin), None).await.status, 200);
    api.public(Method::GET, "/api/agents", Some(&api.admin), None).await.is_problem(401);
    api.operator(Method::GET, "/api/agents", Some(&key), None).await.is_problem(401);
    api.operator(Method::GET, "/api/agents", None, None).await.is_problem(401);
}

#[tokio::test]
async fn every_bad_credential_gets_the_same_answer() {
    let api = Api::new().await;
    let (id, key) = api.agent("one").await;
    let soon = json!({"agent_id": id, "expires_at": "2026-01-01T00:01:00Z"});
    let expiring = api.admin(Method::POST, "/api/keys", Some(soon)).await.body["key"].as_str().expect("key").to_owned();
    assert_eq!(api.public(Method::GET, "/api/keys", Some(&expiring), None).await.status, 200);
    api.bench.clock.advance(std::time::Duration::from_secs(60));
    let mut seen = std::collections::HashSet::new();
    for bad in ["oag_x", &key[..key.len() - 1], "Ünsinn", "x".repeat(9_000).as_str(), &expiring] {
        // On an open path, too: a wrong credential is never taken for none.
        let answer = api.public(Method::GET, "/api/agents", Some(bad), None).await;
        answer.is_problem(401);
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"trust-gateway\"");
        assert_eq!(answer.body["error"], "Unauthorized");
        seen.insert(answer.text);
    }
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn exactly_one_credential_is_taken_from_either_header() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let bearer = format!("bearer {key}");
    let ask = |headers: &[(&str, &str)]| {
        let mut request = Request::builder().uri("/api/keys");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        api.raw(request.body(Body::empty()).expect("a request"))
    };
    assert_eq!(ask(&[("x-api-key", &key)]).await.status, 200);
    assert_eq!(ask(&[("authorization", &bearer)]).await.status, 200, "the scheme's case does not matter");
    ask(&[("authorization", &bearer), ("x-api-key", &key)]).await.is_problem(400);
    ask(&[("x-api-key", &key), ("x-api-key", &key)]).await.is_problem(400);
    ask(&[("authorization", &bearer), ("authorization", &bearer)]).await.is_problem(400);
    ask(&[("authorization", "Basic eDp5")]).await.is_problem(401);
    ask(&[("authorization", "Bearer ")]).await.is_problem(401);
    ask(&[]).await.is_problem(401);
}

#[tokio::test]
async fn auditors_read_everything_and_change_nothing() {
    let api = Api::new().await;
    let (id, _) = api.agent("one").await;
    for path in ["/api/agents", "/api/connections", "/api/calls", &format!("/api/keys?agent_id={id}")] {
        assert_eq!(api.operator(Method::GET, path, Some(&api.auditor), None).await.status, 200, "{path}");
    }
    for (method, path) in [
        (Method::POST, "/api/agents".to_owned()),
        (Method::PUT, format!("/api/agents/{id}")),
        (Method::DELETE, format!("/api/agents/{id}")),
        (Method::POST, "/api/keys".to_owned()),
        (Method::POST, "/api/connections".to_owned()),
    ] {
        api.operator(method, &path, Some(&api.auditor), Some(json!({"name": "x"}))).await.is_problem(403);
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_read_are_refused_with_the_reason() {
    let api = Api::new().await;
    for (body, reason) in [("", "empty"), ("{", "not JSON"), ("[]", "object"), ("\"x\"", "object")] {
        let request = Request::post("/api/agents").header("x-api-key", "x");
        api.raw(request.body(Body::from(body)).expect("a request")).await.is_problem(401);
        let request = Request::post("/api/agents").header("x-api-key", &api.admin);
        let answer = api.send(operator(api.control.clone()), request.body(Body::from(body)).expect("a request")).await;
        answer.is_problem(400);
        assert!(answer.text.contains(reason), "{}", answer.text);
    }
    let request = Request::post("/api/agents").header("x-api-key", &api.admin);
    let huge = request.body(Body::from(vec![b' '; BODY_MAX + 1])).expect("a request");
    api.send(operator(api.control.clone()), huge).await.is_problem(413);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let api = Api::new().await;
    api.public(Method::GET, "/api/nothing", None, None).await.is_problem(404);
    api.public(Method::DELETE, "/api/agents", None, None).await.is_problem(405);
}

#[tokio::test]
async fn liveness_asks_nothing_and_readiness_tells_operators_why_not() {
    let api = Api::new().await;
    assert_eq!(api.public(Method::GET, "/livez", None, None).await.status, 200);
    assert_eq!(api.public(Method::GET, "/readyz", None, None).await.status, 200);
    api.is_ready.store(false, Ordering::SeqCst);
    let outside = api.public(Method::GET, "/readyz", None, None).await;
    outside.is_problem(503);
    assert!(!outside.text.contains("journal"));
    let inside = api.operator(Method::GET, "/readyz", None, None).await;
    inside.is_problem(503);
    assert_eq!(inside.body["detail"], "journal down");
    assert_eq!(inside.headers["retry-after"], "1");
}

#[tokio::test]
async fn without_the_database_calls_are_served_and_operators_are_told_what_is_wrong() {
    let api = Api::new().await;
    assert_eq!(api.public(Method::GET, "/readyz", None, None).await.body, json!({"status": "ready"}));
    api.bench.store.close().await;
    let outside = api.public(Method::GET, "/readyz", None, None).await;
    assert_eq!((outside.status, &outside.body), (StatusCode::OK, &json!({"status": "degraded"})));
    let inside = api.operator(Method::GET, "/readyz", None, None).await;
    assert_eq!((inside.status, &inside.body["status"]), (StatusCode::OK, &json!("degraded")));
    let database = inside.body["checks"]["database"].as_str().unwrap_or_default();
    assert!(database.starts_with("the database cannot be read"), "{}", inside.text);
    assert_eq!(api.public(Method::GET, "/livez", None, None).await.status, 200);
}

/// A request with this key from this address.
fn from(address: [u8; 4], method: Method, path: &str, token: Option<&str>, body: Option<&Value>) -> Request<Body> {
    let mut request = Api::request(method, path, token, body);
    request.extensions_mut().insert(Source(address.into()));
    request
}

#[tokio::test]
async fn guessing_credentials_ends_in_waiting_at_both_doors() {
    let api = Api::new().await;
    let (_, key) = api.agent("one").await;
    let guess = |token| from([192, 0, 2, 1], Method::GET, "/api/agents", Some(token), None);
    for n in 0..20 {
        let answer = match n % 2 {
            0 => api.send(public(api.control.clone()), guess("oag_guess")).await,
            _ => api.send(operator(api.control.clone()), guess("tgo_guess")).await,
        };
        answer.is_problem(401);
    }
    for router in [public(api.control.clone()), operator(api.control.clone())] {
        let answer = api.send(router, guess("oag_guess")).await;
        answer.is_problem(429);
        assert_eq!(answer.headers["retry-after"], "3");
        assert_eq!((&answer.body["retry_after"], &answer.body["error"]), (&json!(3), &json!("Too Many Requests")));
    }
    // Who has a right one is none the worse for it, nor is anybody elsewhere.
    assert_eq!(api.send(public(api.control.clone()), guess(&key)).await.status, 200);
    let elsewhere = from([198, 51, 100, 1], Method::GET, "/api/agents", Some("oag_guess"), None);
    api.send(public(api.control.clone()), elsewhere).await.is_problem(401);
    api.bench.clock.advance(Duration::from_secs(3));
    api.send(public(api.control.clone()), guess("oag_guess")).await.is_problem(401);
}

#[tokio::test]
async fn one_source_cannot_fill_an_open_registry() {
    let api = Api::new().await;
    api.control.registry.set_registration(Registration::Open);
    let register = |n: usize| {
        let body = json!({"name": format!("agent {n}")});
        from([192, 0, 2, 1], Method::POST, "/api/agents", None, Some(&body))
    };
    for n in 0..20 {
        assert_eq!(api.send(public(api.control.clone()), register(n)).await.status, 201);
    }
    api.send(public(api.control.clone()), register(20)).await.is_problem(429);
    assert_eq!(api.admin(Method::POST, "/api/agents", Some(json!({"name": "by an operator"}))).await.status, 201);
}

#[tokio::test]
async fn status_is_for_operators_and_says_what_to_act_on() {
    let api = Api::new().await;
    api.agent("one").await;
    api.public(Method::GET, "/api/status", None, None).await.is_problem(404);
    api.operator(Method::GET, "/api/status", None, None).await.is_problem(401);
    let seen = api.operator(Method::GET, "/api/status", Some(&api.auditor), None).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    assert_eq!(seen.body["agents"]["by_state"], json!({"active": 1}));
    assert_eq!(seen.body["warnings"], json!([]), "{}", seen.text);
    assert_eq!(
        seen.body["checks"],
        json!({"journal": "ok", "journal_budget": "ok", "database": "ok", "drain": "ok", "directory": "ok"})
    );
    assert!(seen.body["database_bytes"].as_i64().is_some_and(|bytes| bytes > 0), "{}", seen.text);
    api.is_ready.store(false, Ordering::SeqCst);
    let seen = api.admin(Method::GET, "/api/status", None).await;
    assert_eq!(seen.body["warnings"], json!(["journal down"]));
    let ready = api.operator(Method::GET, "/readyz", None, None).await;
    assert_eq!(
        ready.body["checks"],
        json!({"journal": "journal down", "journal_budget": "ok", "database": "ok", "drain": "ok", "directory": "ok"})
    );
}
