mod calls;
mod turns;

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderMap;

use super::*;
use crate::registry::agents::AgentChanges;
use crate::registry::credential::UpstreamCredential;
use crate::registry::testing::{Bench, admin};
use crate::store::StoreError;
use crate::store::rows::HealthStatus;

fn no_calls() -> Calls {
    Calls { all: Arc::new(Vec::new), of: Arc::new(|_| None) }
}

type Answers = Arc<Mutex<HashMap<String, Result<(u16, &'static str, Option<&'static str>), FetchError>>>>;

/// Answers by script; what is not in it is 404. Notes what was asked.
fn scripted() -> (Fetch, Answers, Arc<Mutex<Vec<FetchRequest>>>) {
    let answers: Answers = Arc::default();
    let asked: Arc<Mutex<Vec<FetchRequest>>> = Arc::default();
    let (script, log) = (Arc::clone(&answers), Arc::clone(&asked));
    let fetch: Fetch = Arc::new(move |request: FetchRequest| {
        log.lock().expect("lock").push(request.clone());
        let answer = script.lock().expect("lock").get(request.url.as_str()).cloned().unwrap_or(Ok((404, "", None)));
        Box::pin(async move {
            let (status, body, etag) = answer?;
            let mut headers = HeaderMap::new();
            if let Some(etag) = etag {
                headers.insert("etag", etag.parse().expect("a value"));
                if request.headers.get("if-none-match").is_some_and(|given| given == etag) {
                    return Ok(FetchResponse { status: 304, headers, body: Bytes::new() });
                }
            }
            Ok(FetchResponse { status, headers, body: Bytes::from_static(body.as_bytes()) })
        })
    });
    (fetch, answers, asked)
}

impl Health {
    /// Probes those whose turn it is; how many.
    async fn probe_due(&self) -> Result<usize, StoreError> {
        let (mut turns, mut due) = (self.turns(), Vec::new());
        while let Some(agent) = turns.ready().await {
            due.push(agent);
            assert!(due.len() < 1_000, "the same ones again and again");
        }
        let count = due.len();
        let probes = futures_util::stream::iter(due).map(|agent| self.look(agent));
        self.keep(probes.buffer_unordered(self.settings.concurrency).collect().await).await?;
        Ok(count)
    }
}

async fn register(bench: &Bench, name: &str, endpoint: &str) -> Uuid {
    let changes = AgentChanges {
        name: Some(name.to_owned()),
        endpoint_url: Some(Some(endpoint.to_owned())),
        ..AgentChanges::default()
    };
    bench.registry.register(&admin(), changes).await.expect("registers").agent.id
}

/// `count` agents at hosts named after their numbers.
async fn registered(bench: &Bench, count: usize) -> Vec<Uuid> {
    let mut agents = Vec::new();
    for n in 0..count {
        agents.push(register(bench, &format!("a{n}"), &format!("https://a{n}.example/")).await);
    }
    agents
}

struct Scene {
    bench: Bench,
    health: Health,
    answers: Answers,
    asked: Arc<Mutex<Vec<FetchRequest>>>,
    agent: Uuid,
}

impl Scene {
    async fn new(endpoint: &str) -> Self {
        let bench = Bench::new().await;
        let (fetch, answers, asked) = scripted();
        let health = Health::new(Arc::clone(&bench.registry), fetch, HealthSettings::default(), no_calls());
        let agent = register(&bench, "a", endpoint).await;
        Self { bench, health, answers, asked, agent }
    }

    fn answer(&self, url: &str, answer: Result<(u16, &'static str, Option<&'static str>), FetchError>) {
        self.answers.lock().expect("lock").insert(url.to_owned(), answer);
    }

    async fn probed(&self) -> AgentRow {
        self.bench.clock.advance(Duration::from_secs(331));
        assert_eq!(self.health.probe_due().await.expect("probes"), 1);
        self.row().await
    }

    async fn row(&self) -> AgentRow {
        self.bench.store.agent(self.agent).await.expect("reads").expect("there")
    }
}

const CARD: &str = r#"{"name":"a","url":"http://0.0.0.0:8000","skills":[{"id":"s1","name":"Sum","tags":["math"]}]}"#;

#[tokio::test]
async fn a_card_makes_an_agent_online_and_brings_its_skills() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((200, CARD, None)));
    let reloads = scene.bench.reloads();
    let row = scene.probed().await;
    assert_eq!(scene.bench.reloads(), reloads + 1, "the card is in force");
    assert_eq!((row.health, row.health_reason), (HealthStatus::Online, None));
    assert_eq!(row.card_json.as_deref(), Some(CARD.as_bytes()));
    assert!(row.skills_json.contains("Sum"));
    assert_eq!(scene.asked.lock().expect("lock").len(), 1);
}

#[tokio::test]
async fn an_agent_without_card_that_answers_get_with_405_is_online() {
    for status in [200, 400, 401, 403, 404, 405, 415, 422, 501] {
        let scene = Scene::new("https://a.example/x").await;
        scene.answer("https://a.example/x", Ok((status, "", None)));
        let row = scene.probed().await;
        assert_eq!((row.health, row.health_reason.as_deref()), (HealthStatus::Online, Some("post_only")), "{status}");
    }
}

#[tokio::test]
async fn an_agent_that_sends_callers_elsewhere_is_online_with_a_remark() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((301, "", None)));
    let row = scene.probed().await;
    assert_eq!((row.health, row.health_reason.as_deref()), (HealthStatus::Online, Some("redirects")));
}

#[tokio::test]
async fn unchanged_is_no_answer_to_who_did_not_ask_whether_it_is() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((304, "", None)));
    scene.answer("https://a.example/x", Ok((405, "", None)));
    let row = scene.probed().await;
    assert_eq!((row.health, row.health_reason.as_deref()), (HealthStatus::Online, Some("post_only")));
}

#[tokio::test]
async fn an_agent_that_refuses_the_credential_is_degraded_wherever_it_does() {
    const CARD_URL: &str = "https://a.example/card";
    for refusing in ["https://a.example/x", CARD_URL] {
        for status in [401, 403] {
            let scene = Scene::new("https://a.example/x").await;
            let credential = UpstreamCredential { header: "X-Api-Key".to_owned(), value: "canary".to_owned() };
            let changes = AgentChanges {
                card_url: Some(Some(CARD_URL.to_owned())),
                upstream_credential: Some(Some(credential)),
                ..AgentChanges::default()
            };
            scene.bench.registry.update_agent(&admin(), scene.agent, changes).await.expect("changes");
            scene.answer("https://a.example/x", Ok((405, "", None)));
            scene.answer(refusing, Ok((status, "", None)));
            let row = scene.probed().await;
            assert_eq!((row.health, row.health_reason.as_deref()), (HealthStatus::Degraded, Some("auth_failed")));
        }
    }
}

#[tokio::test]
async fn who_registered_an_agent_decides_where_its_probes_may_go_and_what_is_told_of_them() {
    for (who, private, reason) in [(admin(), true, "tls"), (Actor::Anonymous, false, "unreachable")] {
        let mut scene = Scene::new("https://a.example/x").await;
        scene.bench.registry.set_registration(crate::registry::Registration::Open);
        let endpoint_url = Some(Some("https://b.example/x".to_owned()));
        let changes = AgentChanges { name: Some("b".to_owned()), endpoint_url, ..AgentChanges::default() };
        let theirs = scene.bench.registry.register(&who, changes).await.expect("registers").agent.id;
        scene.answer("https://b.example/x/.well-known/agent-card.json", Err(FetchError::Tls));
        scene.health.probe_due().await.expect("probes");
        scene.agent = theirs;
        assert_eq!(scene.row().await.health_reason.as_deref(), Some(reason));
        let asked = scene.asked.lock().expect("lock");
        let asked = asked.iter().find(|request| request.url.host_str() == Some("b.example")).expect("it was asked");
        assert_eq!(asked.private_allowed, private);
    }
}

#[tokio::test]
async fn no_answer_and_a_server_error_are_offline_with_a_reason() {
    for (answer, reason) in [
        (Err(FetchError::Connect("refused".to_owned())), "unreachable"),
        (Err(FetchError::Forbidden), "unreachable"),
        (Err(FetchError::Timeout), "timeout"),
        (Ok((503, "", None)), "server_error"),
    ] {
        let scene = Scene::new("https://a.example/x").await;
        scene.answer("https://a.example/x", answer.clone());
        if answer.is_err() {
            scene.answer("https://a.example/x/.well-known/agent-card.json", answer);
        }
        let row = scene.probed().await;
        assert_eq!((row.health, row.health_reason.as_deref()), (HealthStatus::Offline, Some(reason)));
    }
}

#[tokio::test]
async fn a_neighbours_card_at_the_origin_does_not_count() {
    let scene = Scene::new("https://api.example/deploy/x").await;
    scene.answer(
        "https://api.example/.well-known/agent-card.json",
        Ok((200, r#"{"name":"other","url":"https://api.example/deploy/y"}"#, None)),
    );
    assert_eq!(scene.probed().await.card_json, None);
    scene.answer(
        "https://api.example/.well-known/agent-card.json",
        Ok((200, r#"{"name":"me","url":"https://api.example/deploy/x/"}"#, None)),
    );
    assert!(scene.probed().await.card_json.is_some());
}

#[tokio::test]
async fn a_page_that_is_no_card_does_not_count() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((200, "<html>", None)));
    scene.answer("https://a.example/x/.well-known/agent.json", Ok((200, CARD, None)));
    assert_eq!(scene.probed().await.card_json.as_deref(), Some(CARD.as_bytes()));
}

#[tokio::test]
async fn an_unchanged_card_is_asked_for_conditionally_and_rebuilds_nothing() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((200, CARD, Some("\"1\""))));
    scene.probed().await;
    let reloads = scene.bench.reloads();
    let row = scene.probed().await;
    assert_eq!((row.health, row.health_reason), (HealthStatus::Online, None));
    assert_eq!(row.card_json.as_deref(), Some(CARD.as_bytes()));
    assert_eq!(scene.bench.reloads(), reloads);
    let asked = scene.asked.lock().expect("lock");
    assert_eq!(asked[1].headers.get("if-none-match").expect("conditional"), "\"1\"");
}

#[tokio::test]
async fn a_card_that_could_not_be_kept_is_asked_for_whole_again() {
    let mut scene = Scene::new("https://a.example/x").await;
    let place = "https://a.example/x/.well-known/agent-card.json";
    scene.answer(place, Ok((200, CARD, Some("\"1\""))));
    scene.probed().await;

    let meddled: Arc<Mutex<Option<Uuid>>> = Arc::new(Mutex::new(Some(scene.agent)));
    let (fetch, registry) = (Arc::clone(&scene.health.fetch), Arc::clone(&scene.bench.registry));
    scene.health.fetch = Arc::new(move |request: FetchRequest| {
        let (answer, registry, meddled) = (fetch(request), Arc::clone(&registry), Arc::clone(&meddled));
        Box::pin(async move {
            let agent = meddled.lock().expect("lock").take();
            if let Some(agent) = agent {
                let changes = AgentChanges { health_interval_s: Some(Some(300)), ..AgentChanges::default() };
                registry.update_agent(&admin(), agent, changes).await.expect("changed while it is probed");
            }
            answer.await
        })
    });
    const NEXT: &str = r#"{"name":"a","url":"http://0.0.0.0:8000","skills":[{"id":"s2","name":"Product"}]}"#;
    scene.answer(place, Ok((200, NEXT, Some("\"2\""))));
    assert_eq!(scene.probed().await.card_json.as_deref(), Some(CARD.as_bytes()), "it was changed meanwhile");
    assert_eq!(scene.probed().await.card_json.as_deref(), Some(NEXT.as_bytes()));
}

#[tokio::test]
async fn a_card_that_came_without_an_etag_leaves_nothing_older_to_ask_with() {
    let scene = Scene::new("https://a.example/x").await;
    let place = "https://a.example/x/.well-known/agent-card.json";
    const NEXT: &str = r#"{"name":"a","url":"http://0.0.0.0:8000","skills":[{"id":"s2","name":"Product"}]}"#;
    for (card, etag) in [(CARD, Some("\"1\"")), (NEXT, None), (CARD, Some("\"1\""))] {
        scene.answer(place, Ok((200, card, etag)));
        assert_eq!(scene.probed().await.card_json.as_deref(), Some(card.as_bytes()));
    }
}

#[tokio::test]
async fn an_agent_that_answers_slowly_is_degraded() {
    for (seconds, health) in [(4, HealthStatus::Online), (5, HealthStatus::Degraded)] {
        let mut scene = Scene::new("https://a.example/x").await;
        scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((200, CARD, None)));
        let (fetch, clock) = (Arc::clone(&scene.health.fetch), scene.bench.clock.clone());
        scene.health.fetch = Arc::new(move |request| {
            clock.advance(Duration::from_secs(seconds));
            fetch(request)
        });
        assert_eq!(scene.probed().await.health, health, "{seconds} of 8 seconds");
    }
}

#[tokio::test]
async fn a_card_that_goes_away_is_kept_while_the_agent_is_down() {
    let scene = Scene::new("https://a.example/x").await;
    let place = "https://a.example/x/.well-known/agent-card.json";
    scene.answer(place, Ok((200, CARD, None)));
    scene.probed().await;
    scene.answer(place, Err(FetchError::Timeout));
    for health in [HealthStatus::Degraded, HealthStatus::Degraded, HealthStatus::Offline] {
        assert_eq!(scene.probed().await.health, health);
    }
    let row = scene.probed().await;
    assert!(row.card_json.is_some());
}

#[tokio::test]
async fn the_agents_credential_is_shown_to_its_own_origin_only() {
    let scene = Scene::new("https://a.example/x").await;
    let changes = AgentChanges {
        card_url: Some(Some("https://cards.example/a".to_owned())),
        upstream_credential: Some(Some(UpstreamCredential {
            header: "X-Api-Key".to_owned(),
            value: "canary".to_owned(),
        })),
        ..AgentChanges::default()
    };
    scene.bench.registry.update_agent(&admin(), scene.agent, changes).await.expect("changes");
    scene.probed().await;
    for request in &*scene.asked.lock().expect("lock") {
        let shown = request.headers.contains_key("x-api-key");
        assert_eq!(shown, request.url.host_str() == Some("a.example"), "{}", request.url);
    }
}

#[tokio::test]
async fn a_card_without_an_etag_is_asked_for_by_its_date() {
    let known = Validator {
        url: Url::parse("https://a.example/x/.well-known/agent-card.json").expect("a URL"),
        etag: None,
        modified: Some("Fri, 31 Dec 1999 23:59:59 GMT".to_owned()),
    };
    let scene = Scene::new("https://a.example/x").await;
    scene.answer(known.url.as_str(), Ok((200, CARD, None)));
    scene.probed().await;
    scene.health.validators.lock().expect("lock").insert(scene.agent, known);
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((304, "", None)));
    let row = scene.probed().await;
    assert_eq!((row.health, row.card_json.as_deref()), (HealthStatus::Online, Some(CARD.as_bytes())));
    let asked = scene.asked.lock().expect("lock");
    assert_eq!(asked[1].headers["if-modified-since"], "Fri, 31 Dec 1999 23:59:59 GMT");
}
