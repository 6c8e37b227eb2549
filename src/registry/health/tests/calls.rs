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
