use proptest::prelude::*;
use tokio::sync::Notify;

use super::*;
use crate::store::HealthChange;

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
    register(&bench, "slow", "https://slow.example/").await;
    let running = tokio::spawn(async move { health.run().await });
    slow_reached.await.expect("the slow one is asked");
    register(&bench, "quick", "https://quick.example/").await;
    hear.await.expect("the quick one is asked while the slow one is still being waited for");
    running.abort();
}

#[tokio::test]
async fn agents_registered_together_drift_apart() {
    let bench = Bench::new().await;
    let (fetch, ..) = scripted();
    let health = Health::new(Arc::clone(&bench.registry), fetch, HealthSettings::default(), no_calls());
    registered(&bench, 40).await;
    assert_eq!(health.probe_due().await.expect("probes"), 40);
    bench.clock.advance(Duration::from_secs(300));
    let first = health.probe_due().await.expect("probes");
    assert!((5..=35).contains(&first), "{first} of 40 at the middle of the interval");
    bench.clock.advance(Duration::from_secs(30));
    assert_eq!(health.probe_due().await.expect("probes"), 40 - first);
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
    assert_eq!(scene.row().await.health, HealthStatus::Offline);
    scene.answer("https://a.example/x/.well-known/agent-card.json", Ok((200, CARD, None)));
    scene.bench.clock.advance(Duration::from_secs(330));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
    assert_eq!(scene.row().await.health, HealthStatus::Offline, "one good sign is none");
    scene.bench.clock.advance(Duration::from_secs(11));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
    assert_eq!(scene.row().await.health, HealthStatus::Online);
}

#[tokio::test]
async fn agents_overdue_after_a_pause_are_spread_over_a_part_of_the_interval() {
    let bench = Bench::new().await;
    let (fetch, ..) = scripted();
    let health = Health::new(Arc::clone(&bench.registry), fetch, HealthSettings::default(), no_calls());
    registered(&bench, 40).await;
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
async fn an_agents_own_interval_counts() {
    let scene = Scene::new("https://a.example/x").await;
    scene.answer("https://a.example/x", Ok((405, "", None)));
    let mut slow = scene.row().await;
    for (own, wait) in [(Some(3_600), 3_600), (Some(1), 10), (None, 300)] {
        slow.health_interval_s = own;
        let verdict = Verdict::kept(HealthStatus::Online, None);
        let next = scene.health.next(&slow, &verdict, Timestamp(0)).0;
        assert!((wait * 900_000..=wait * 1_100_000).contains(&next), "{own:?}: {next}");
    }
}

#[tokio::test]
async fn no_two_intervals_of_an_agent_are_the_same_and_none_is_more_than_a_tenth_off() {
    let scene = Scene::new("https://a.example/x").await;
    let (agent, verdict) = (scene.row().await, Verdict::kept(HealthStatus::Online, None));
    let begun = (0..50).map(|n| Timestamp(n * 300_000_000));
    let waits: Vec<i64> = begun.map(|at| scene.health.next(&agent, &verdict, at).0 - at.0).collect();
    assert!(waits.iter().all(|wait| (270_000_000..=330_000_000).contains(wait)), "{waits:?}");
    assert!(waits.iter().collect::<std::collections::HashSet<_>>().len() > 40, "{waits:?}");
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

    let late = HealthChange { probed: before.clone(), found: before, next: Timestamp(i64::MAX / 2), event: None };
    let written = scene.bench.store.set_health(&[late]).await.expect("works");
    assert_eq!(written, [false], "a probe that began before must not set the old interval's turn");
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
    assert_eq!(scene.health.probe_due().await.expect("probes"), 0);
    scene.bench.clock.advance(Duration::from_secs(12));
    assert_eq!(scene.health.probe_due().await.expect("probes"), 1);
}

fn prober(bench: &Bench, concurrency: usize, fetch: Fetch) -> Health {
    let settings = HealthSettings { concurrency, ..HealthSettings::default() };
    Health::new(Arc::clone(&bench.registry), fetch, settings, no_calls())
}

#[tokio::test]
async fn a_new_agent_goes_before_those_that_wait() {
    let bench = Bench::new().await;
    let health = prober(&bench, 1, scripted().0);
    registered(&bench, 4).await;
    health.probe_due().await.expect("probes");
    bench.clock.advance(Duration::from_secs(400));
    let mut turns = health.turns();
    turns.ready().await.expect("one of four");
    let new = register(&bench, "new", "https://new.example/").await;
    assert_eq!(turns.ready().await.expect("another").id, new);
    for _ in 0..3 {
        assert_ne!(turns.ready().await.expect("the others are not forgotten").id, new);
    }
    assert!(turns.ready().await.is_none());
}

#[tokio::test]
async fn an_agent_that_moves_while_it_waits_is_probed_once_where_it_is_now() {
    let bench = Bench::new().await;
    let health = prober(&bench, 1, scripted().0);
    let agents = registered(&bench, 4).await;
    let mut turns = health.turns();
    let first = turns.ready().await.expect("one of four").id;
    let moves = *agents.iter().find(|id| **id != first).expect("another");
    let endpoint = "https://elsewhere.example/";
    let changes = AgentChanges { endpoint_url: Some(Some(endpoint.to_owned())), ..AgentChanges::default() };
    bench.registry.update_agent(&admin(), moves, changes).await.expect("moves");
    let mut rest = Vec::new();
    while let Some(agent) = turns.ready().await {
        rest.push(agent);
    }
    assert_eq!(rest.len(), 3);
    let moved = rest.iter().find(|agent| agent.id == moves).expect("its turn came");
    assert_eq!(moved.endpoint_url.as_deref(), Some(endpoint));
}

/// Two gateways on one database.
#[derive(Clone, Debug)]
enum Step {
    /// One of them asks whose turn it is, and begins a probe.
    Take(usize),
    /// The n-th of the probes under way ends.
    Finish(usize),
    /// One of them dies, and starts anew.
    Die(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2_usize).prop_map(Step::Take),
        3 => (0..8_usize).prop_map(Step::Finish),
        1 => (0..2_usize).prop_map(Step::Die),
        3 => (1..60_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 20, ..ProptestConfig::default() })]
    #[test]
    fn no_agent_is_probed_twice_at_a_time_and_none_is_lost_with_its_gateway(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let bench = Bench::new().await;
            let agents = registered(&bench, 9).await;
            let nodes = [prober(&bench, 2, scripted().0), prober(&bench, 2, scripted().0)];
            let mut turns = [nodes[0].turns(), nodes[1].turns()];
            let longest = nodes[0].settings.timeout * 6;
            // The probes under way: by whom, of whom, over at the latest when.
            let mut running: Vec<(usize, AgentRow, Timestamp)> = Vec::new();
            for step in steps {
                let now = bench.clock.wall();
                match step {
                    Step::Take(node) => {
                        if let Some(agent) = turns[node].ready().await {
                            prop_assert!(running.iter().all(|(_, other, _)| other.id != agent.id));
                            running.push((node, agent, now.plus_micros(micros(longest))));
                        }
                    }
                    Step::Finish(n) if n < running.len() => {
                        let (node, agent, _) = running.swap_remove(n);
                        let found = nodes[node].look(agent).await;
                        nodes[node].keep(vec![found]).await.expect("written");
                    }
                    // What it began nobody sees the end of, but its agents are still being asked.
                    Step::Die(node) => turns[node] = nodes[node].turns(),
                    Step::Wait(seconds) => bench.clock.advance(Duration::from_secs(seconds)),
                    Step::Finish(_) => {}
                }
                let now = bench.clock.wall();
                running.retain(|(.., over)| now < *over);
            }
            // However it went: everybody's turn comes, from the one that is left.
            bench.clock.advance(Duration::from_secs(400));
            let mut seen = Vec::new();
            for _ in &agents {
                seen.extend(turns[0].ready().await.map(|agent| agent.id));
            }
            prop_assert!(turns[0].ready().await.is_none());
            seen.sort();
            seen.dedup();
            prop_assert_eq!(seen.len(), agents.len());
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn never_are_more_probes_under_way_than_configured_and_all_are_kept() {
    const AGENTS: usize = 20;
    let bench = Bench::new().await;
    let agents = registered(&bench, AGENTS).await;
    let under_way = Arc::new(Mutex::new((0, 0)));
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let fetch: Fetch = {
        let (under_way, begun, go_on) = (Arc::clone(&under_way), Arc::clone(&begun), Arc::clone(&go_on));
        Arc::new(move |_| {
            let (under_way, begun, go_on) = (Arc::clone(&under_way), Arc::clone(&begun), Arc::clone(&go_on));
            Box::pin(async move {
                {
                    let mut under_way = locked(&under_way);
                    under_way.0 += 1;
                    under_way.1 = under_way.1.max(under_way.0);
                }
                begun.notify_one();
                go_on.acquire().await.expect("open").forget();
                locked(&under_way).0 -= 1;
                Ok(FetchResponse { status: 200, headers: HeaderMap::new(), body: Bytes::from_static(CARD.as_bytes()) })
            })
        })
    };
    let health = Arc::new(prober(&bench, 3, fetch));
    let reloads = bench.reloads();
    let mut tasks = Vec::new();
    for agent in agents.iter().copied().take(3) {
        let health = Arc::clone(&health);
        tasks.push(tokio::spawn(async move { drop(health.probe_now(&admin(), agent).await) }));
    }
    while locked(&under_way).0 < 3 {
        begun.notified().await;
    }
    tasks.push(tokio::spawn(async move { health.run().await }));
    // Claimed for no time at all: looked at only.
    let now = bench.clock.wall();
    while bench.store.claim_probes(now, now, 99).await.expect("reads").len() == AGENTS {}
    for agent in agents {
        while bench.store.agent(agent).await.expect("reads").expect("there").health != HealthStatus::Online {
            go_on.add_permits(1);
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(locked(&under_way).1, 3);
    assert!(bench.reloads() - reloads < AGENTS / 2, "each card on its own: {}", bench.reloads() - reloads);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_node_goes_on_from_what_another_found() {
    let scene = Scene::new("https://a.example/").await;
    let card = "https://a.example/.well-known/agent-card.json";
    scene.answer(card, Ok((200, r#"{"name":"a"}"#, None)));
    assert_eq!(scene.probed().await.health, HealthStatus::Online);
    let (fetch, answers, _) = scripted();
    let other = Health::new(Arc::clone(&scene.bench.registry), fetch, HealthSettings::default(), no_calls());
    answers.lock().expect("lock").insert("https://a.example/".to_owned(), Err(FetchError::Timeout));
    answers.lock().expect("lock").insert(card.to_owned(), Err(FetchError::Timeout));
    for _ in 0..3 {
        scene.bench.clock.advance(Duration::from_secs(331));
        assert_eq!(other.probe_due().await.expect("probes"), 1);
    }
    assert_eq!(scene.row().await.health, HealthStatus::Offline);
    assert_eq!(
        scene.probed().await.health,
        HealthStatus::Offline,
        "one good sign is not enough, whoever saw the bad ones"
    );
    assert_eq!(scene.probed().await.health, HealthStatus::Online);
}
