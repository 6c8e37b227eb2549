use std::collections::HashMap;

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::registry::agents::AgentChanges;
use crate::registry::credential::UpstreamCredential;
use crate::registry::testing::{Bench, admin};
use crate::vitals::{BreakerSettings, BreakerState, Shown};

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
        let changes = AgentChanges {
            name: Some("a".to_owned()),
            endpoint_url: Some(Some(endpoint.to_owned())),
            ..AgentChanges::default()
        };
        let agent = bench.registry.register(&admin(), changes).await.expect("registers").agent.id;
        Self { bench, health, answers, asked, agent }
    }

    fn answer(&self, url: &str, answer: Result<(u16, &'static str, Option<&'static str>), FetchError>) {
        self.answers.lock().expect("lock").insert(url.to_owned(), answer);
    }

    async fn probed(&self) -> AgentRow {
        self.bench.clock.advance(Duration::from_secs(331));
        assert_eq!(self.health.probe_due().await.expect("probes"), 1);
        self.bench.store.agent(self.agent).await.expect("reads").expect("there")
    }
}

const CARD: &str = r#"{"name":"a","url":"http://0.0.0.0:8000","skills":[{"id":"s1","name":"Sum","tags":["math"]}]}"#;

#[tokio::test]
async fn a_card_makes_an_agent_online_and_brings_its_skills() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((200, CARD, None)));
    let row = scene.probed().await;
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
    assert_eq!(row.health, HealthStatus::Online);
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
async fn nobody_is_probed_before_its_turn() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    scene.probed().await;
    assert_eq!(scene.health.probe_due().await.expect("probes"), 0);
    scene.bench.clock.advance(Duration::from_secs(269));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 0);
    scene.bench.clock.advance(Duration::from_secs(61));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
}

#[tokio::test]
async fn a_new_agent_is_probed_at_once_although_another_lets_us_wait() {
    let bench = Bench::new().await;
    let (answered, hear) = tokio::sync::oneshot::channel();
    let answered = Mutex::new(Some(answered));
    let (reached, slow_reached) = tokio::sync::oneshot::channel();
    let reached = Mutex::new(Some(reached));
    let fetch: Fetch = Arc::new(move |request: FetchRequest| {
        if request.url.host_str() == Some("slow.example") {
            if let Some(reached) = reached.lock().expect("lock").take() {
                reached.send(()).expect("heard");
            }
            return Box::pin(std::future::pending());
        }
        if let Some(answered) = answered.lock().expect("lock").take() {
            answered.send(()).expect("heard");
        }
        Box::pin(async { Err(FetchError::Timeout) })
    });
    // An interval so long that only being woken helps.
    let settings = HealthSettings { interval: Duration::from_secs(1_000_000), ..HealthSettings::default() };
    let health = Health::new(Arc::clone(&bench.registry), fetch, settings, no_calls());
    let register = |name: &str| {
        let changes = AgentChanges {
            name: Some(name.to_owned()),
            endpoint_url: Some(Some(format!("https://{name}.example/"))),
            ..AgentChanges::default()
        };
        let registry = Arc::clone(&bench.registry);
        async move { registry.register(&admin(), changes).await.expect("registers") }
    };
    register("slow").await;
    let running = tokio::spawn(async move { health.run().await });
    slow_reached.await.expect("the slow one is asked");
    register("quick").await;
    hear.await.expect("the quick one is asked while the slow one is still being waited for");
    running.abort();
}

#[tokio::test]
async fn agents_registered_together_drift_apart() {
    let bench = Bench::new().await;
    let (fetch, ..) = scripted();
    let health = Health::new(Arc::clone(&bench.registry), fetch, HealthSettings::default(), no_calls());
    for n in 0..40 {
        let changes = AgentChanges {
            name: Some(format!("a{n}")),
            endpoint_url: Some(Some(format!("https://a{n}.example/"))),
            ..AgentChanges::default()
        };
        bench.registry.register(&admin(), changes).await.expect("registers");
    }
    assert_eq!(health.probe_due().await.expect("probes"), 40);
    bench.clock.advance(Duration::from_secs(300));
    let first = health.probe_due().await.expect("probes");
    assert!((5..=35).contains(&first), "{first} of 40 at the middle of the interval");
    bench.clock.advance(Duration::from_secs(30));
    assert_eq!(health.probe_due().await.expect("probes"), 40 - first);
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

/// A scene whose agent has been called.
fn called(scene: &mut Scene) -> Arc<Vitals> {
    let vitals = Arc::new(Vitals::new(BreakerSettings { failures: 1, ..BreakerSettings::default() }, 0));
    let (all, of, agent) = (Arc::clone(&vitals), Arc::clone(&vitals), scene.agent);
    scene.health.calls =
        Calls { all: Arc::new(move || vec![(agent, Arc::clone(&all))]), of: Arc::new(move |_| Some(Arc::clone(&of))) };
    vitals
}

async fn row(scene: &Scene) -> AgentRow {
    scene.bench.store.agent(scene.agent).await.expect("reads").expect("there")
}

#[tokio::test]
async fn an_agent_that_fails_is_probed_sooner_and_less_and_less_so() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x/.well-known/agent-card.json", Err(FetchError::Timeout));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
    for wait in [10, 20, 40, 80, 160, 300, 300] {
        scene.bench.clock.advance(Duration::from_secs(wait * 8 / 10));
        assert_eq!(scene.health.probe_due().await.expect("probes"), 0, "{wait}");
        scene.bench.clock.advance(Duration::from_secs(wait * 4 / 10));
        assert_eq!(scene.health.probe_due().await.expect("probes"), 1, "{wait}");
    }
    assert_eq!(row(&scene).await.health, HealthStatus::Offline);
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((200, CARD, None)));
    scene.bench.clock.advance(Duration::from_secs(330));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
    assert_eq!(row(&scene).await.health, HealthStatus::Offline, "one good sign is none");
    scene.bench.clock.advance(Duration::from_secs(11));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
    assert_eq!(row(&scene).await.health, HealthStatus::Online);
}

#[tokio::test]
async fn calls_alone_make_an_agent_offline_and_bring_it_back_without_rebuilding_anything() {
    let mut scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((200, CARD, None)));
    scene.health.probe_due().await.expect("probes");
    let vitals = called(&mut scene);
    let reloads = scene.bench.reloads();
    let revision = scene.bench.store.directory_rows().await.expect("reads").revision;
    let mut seen = Vec::new();
    let (down, up) = (Shown::Silent(Ailment::Unreachable), Shown::Answered);
    for shown in [down, down, down, up, up] {
        // Any number within a second is one sign.
        vitals.note(shown);
        vitals.note(shown);
        scene.health.look_at_calls().await.expect("written");
        scene.health.look_at_calls().await.expect("nothing new");
        seen.push(row(&scene).await);
    }
    let health: Vec<_> = seen.iter().map(|row| row.health.as_str()).collect();
    assert_eq!(health, ["degraded", "degraded", "offline", "offline", "online"]);
    assert_eq!(seen[2].health_reason.as_deref(), Some("unreachable"));
    assert_eq!(seen[4].card_json.as_deref(), Some(CARD.as_bytes()));
    assert_eq!(scene.bench.reloads(), reloads);
    assert_eq!(scene.bench.store.directory_rows().await.expect("reads").revision, revision);
}

#[tokio::test]
async fn an_agent_whose_calls_fail_is_probed_soon() {
    let mut scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    scene.health.probe_due().await.expect("probes");
    called(&mut scene).note(Shown::Silent(Ailment::BrokeOff));
    scene.health.look_at_calls().await.expect("written");
    scene.bench.clock.advance(Duration::from_secs(11));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
}

#[tokio::test]
async fn a_probe_that_finds_the_agent_closes_its_breaker() {
    let mut scene = Scene::new("https://a.example/x").await;
    let vitals = called(&mut scene);
    let clock = scene.bench.clock.clone();
    for (status, state) in [(500, BreakerState::Open), (405, BreakerState::Closed)] {
        if let Ok(passage) = vitals.breaker.enter(&clock) {
            passage.tell(crate::vitals::Sign::Fails(None), &clock);
        }
        scene.answer("https://a.example/x", Ok((status, "", None)));
        scene.probed().await;
        assert_eq!(vitals.breaker.state(), state, "{status}");
    }
}

#[tokio::test]
async fn agents_overdue_after_a_pause_are_spread_over_a_part_of_the_interval() {
    let bench = Bench::new().await;
    let (fetch, ..) = scripted();
    let health = Health::new(Arc::clone(&bench.registry), fetch, HealthSettings::default(), no_calls());
    for n in 0..40 {
        let changes = AgentChanges {
            name: Some(format!("a{n}")),
            endpoint_url: Some(Some(format!("https://a{n}.example/"))),
            ..AgentChanges::default()
        };
        bench.registry.register(&admin(), changes).await.expect("registers");
    }
    assert_eq!(health.probe_due().await.expect("probes"), 40);
    bench.clock.advance(Duration::from_secs(86_400));
    health.spread().await.expect("spread");
    assert!(health.probe_due().await.expect("probes") <= 4);
    let mut probed = 0;
    for _ in 0..6 {
        bench.clock.advance(Duration::from_secs(10));
        let now = health.probe_due().await.expect("probes");
        assert!(now <= 20, "{now} of 40 within ten seconds");
        probed += now;
    }
    assert!(probed >= 36, "{probed}");
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

#[tokio::test]
async fn an_agents_own_interval_counts() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    let mut slow = row(&scene).await;
    for (own, wait) in [(Some(3_600), 3_600), (Some(1), 10), (None, 300)] {
        slow.health_interval_s = own;
        let verdict = Verdict::kept(HealthStatus::Online, None);
        let next = scene.health.next(&slow, &verdict, Timestamp(0)).0;
        assert!((wait * 900_000..=wait * 1_100_000).contains(&next), "{own:?}: {next}");
    }
}

#[tokio::test]
async fn a_changed_interval_counts_at_once_also_where_a_probe_is_under_way() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    let before = scene.probed().await;
    assert_eq!(scene.health.probe_due().await.expect("probes"), 0);
    let revision = scene.bench.store.directory_rows().await.expect("reads").revision;
    let changes = AgentChanges { http2: Some(true), health_interval_s: Some(Some(10)), ..AgentChanges::default() };
    scene.bench.registry.update_agent(&Actor::Agent(scene.agent), scene.agent, changes).await.expect("changes");
    let changes = scene.bench.store.directory_changes(revision).await.expect("reads").expect("few");
    assert_eq!(changes.agents, [scene.agent], "what else was changed is in the directory");

    let late = scene.bench.store.set_health(&before, &before, Timestamp(i64::MAX / 2), None).await.expect("works");
    assert!(!late, "a probe that began before must not set the old interval's turn");
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
    assert_eq!(scene.health.probe_due().await.expect("probes"), 0);
    scene.bench.clock.advance(Duration::from_secs(12));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
}
