use super::*;
use crate::vitals::{BreakerSettings, BreakerState, Shown, Vitals};

/// A scene whose agent has been called.
fn called(scene: &mut Scene) -> Arc<Vitals> {
    let vitals = Arc::new(Vitals::new(BreakerSettings { failures: 1, ..BreakerSettings::default() }, 0));
    let (all, of, agent) = (Arc::clone(&vitals), Arc::clone(&vitals), scene.agent);
    scene.health.calls =
        Calls { all: Arc::new(move || vec![(agent, Arc::clone(&all))]), of: Arc::new(move |_| Some(Arc::clone(&of))) };
    vitals
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
        seen.push(scene.row().await);
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
async fn a_probe_that_finds_nobody_confirms_what_one_caller_saw() {
    let mut scene = Scene::new("https://a.example/x").await;
    let vitals = called(&mut scene);
    let clock = scene.bench.clock.clone();
    let says = crate::vitals::Sign::SaysItFails { caller: 7, pause: None };
    vitals.breaker.enter(&clock).expect("closed").tell(says, &clock);
    assert_eq!(vitals.breaker.state(), BreakerState::Closed, "one caller alone is not believed");
    scene.answer("https://a.example/x", Ok((503, "", None)));
    scene.probed().await;
    assert_eq!(vitals.breaker.state(), BreakerState::Open);
}

#[tokio::test]
async fn a_probe_that_finds_the_agent_closes_its_breaker() {
    let mut scene = Scene::new("https://a.example/x").await;
    let vitals = called(&mut scene);
    let clock = scene.bench.clock.clone();
    for (status, state) in [(500, BreakerState::Open), (405, BreakerState::Closed)] {
        if let Ok(passage) = vitals.breaker.enter(&clock) {
            passage.tell(crate::vitals::Sign::Fails, &clock);
        }
        scene.answer("https://a.example/x", Ok((status, "", None)));
        scene.probed().await;
        assert_eq!(vitals.breaker.state(), state, "{status}");
    }
}

async fn moved(scene: &Scene) {
    let endpoint_url = Some(Some("https://elsewhere.example/x".to_owned()));
    let changes = AgentChanges { endpoint_url, ..AgentChanges::default() };
    scene.bench.registry.update_agent(&admin(), scene.agent, changes).await.expect("moves");
}

#[tokio::test]
async fn what_calls_showed_of_an_agent_says_nothing_of_it_elsewhere() {
    let mut scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    scene.health.probe_due().await.expect("probes");
    called(&mut scene).note(Shown::Silent(Ailment::Unreachable));
    moved(&scene).await;
    scene.health.look_at_calls().await.expect("looked at");
    assert_eq!(scene.row().await.health, HealthStatus::Unknown);
}

#[tokio::test]
async fn where_an_agent_is_now_the_first_probe_decides_whoever_made_it() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((503, "", None)));
    assert_eq!(scene.probed().await.health, HealthStatus::Offline);
    moved(&scene).await;
    scene.answer("https://elsewhere.example/x", Ok((405, "", None)));
    let fetch = Arc::clone(&scene.health.fetch);
    let other = Health::new(Arc::clone(&scene.bench.registry), fetch, HealthSettings::default(), no_calls());
    assert_eq!(other.probe_due().await.expect("probes"), 1);
    assert_eq!(scene.row().await.health, HealthStatus::Online);
    assert_eq!(scene.probed().await.health, HealthStatus::Online, "of the place before it knows nothing any more");
}

#[tokio::test]
async fn of_an_agent_that_is_back_in_service_the_first_probe_decides() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((503, "", None)));
    assert_eq!(scene.probed().await.health, HealthStatus::Offline);
    for state in [AdminState::Disabled, AdminState::Active] {
        let changes = AgentChanges { state: Some(state), ..AgentChanges::default() };
        scene.bench.registry.update_agent(&admin(), scene.agent, changes).await.expect("changes");
    }
    scene.answer("https://a.example/x", Ok((405, "", None)));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1, "at once");
    assert_eq!(scene.row().await.health, HealthStatus::Online);
}

#[tokio::test]
async fn calls_of_an_agent_that_moved_are_counted_from_its_move_on() {
    let mut scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    scene.health.probe_due().await.expect("probes");
    // Fewer each time: the counts begin anew.
    for (times, health) in [(5, HealthStatus::Degraded), (3, HealthStatus::Degraded), (1, HealthStatus::Offline)] {
        let vitals = called(&mut scene);
        for _ in 0..times {
            vitals.note(Shown::Silent(Ailment::Unreachable));
        }
        scene.health.look_at_calls().await.expect("written");
        assert_eq!(scene.row().await.health, health, "{times}");
    }
}

#[tokio::test]
async fn calls_that_failed_long_ago_are_forgotten() {
    let mut scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    scene.health.probe_due().await.expect("probes");
    let vitals = called(&mut scene);
    for _ in 0..20 {
        vitals.note(Shown::Erred(Ailment::ServerError));
        vitals.note(Shown::Answered);
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        scene.health.look_at_calls().await.expect("written");
        seen.push(scene.row().await.health);
        scene.bench.clock.advance(scene.health.settings.interval);
    }
    assert_eq!(seen, [HealthStatus::Degraded, HealthStatus::Degraded, HealthStatus::Online]);
}

#[tokio::test]
async fn an_agent_that_refuses_the_gateways_credential_again_and_again_is_degraded() {
    let mut scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    scene.health.probe_due().await.expect("probes");
    let vitals = called(&mut scene);
    for (health, reason) in [
        (HealthStatus::Online, "post_only"),
        (HealthStatus::Online, "post_only"),
        (HealthStatus::Degraded, "auth_failed"),
    ] {
        vitals.note(Shown::Unauthorized);
        scene.health.look_at_calls().await.expect("written");
        let row = scene.row().await;
        assert_eq!((row.health, row.health_reason.as_deref()), (health, Some(reason)));
    }
}
