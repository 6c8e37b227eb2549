//! Events reach webhooks signed, once each where they are taken, under one id however often they are sent.

use std::collections::HashMap;

use super::*;
use crate::conditions::Condition;
use crate::config::{Config, LoadSource};
use crate::outlets::PostAnswer;
use crate::store::HealthChange;
use crate::store::conformance::{added, event};
use crate::store::rows::{AdminEvent, AgentRow, HealthStatus};
use crate::store::testing::{TestStore, on_each_database};

const NODE: Uuid = Uuid::from_u128(5);

/// Receivers by the host they are at: what each answers, and everything each was sent.
#[derive(Clone)]
struct Receivers {
    answers: Arc<Mutex<HashMap<String, Result<u16, String>>>>,
    sent: Arc<Mutex<Vec<PostRequest>>>,
}

impl Receivers {
    fn answer(&self, host: &str, answer: Result<u16, &str>) {
        let answer = answer.map_err(str::to_owned);
        self.answers.lock().expect("lock").insert(format!("https://{host}/"), answer);
    }

    fn post(&self) -> Post {
        let receivers = self.clone();
        Arc::new(move |request| {
            let answer = receivers.answers.lock().expect("lock").get(&request.url).cloned().unwrap_or(Ok(200));
            receivers.sent.lock().expect("lock").push(request);
            Box::pin(async move { Ok(PostAnswer { status: answer?, retry_after: None }) })
        })
    }

    /// What came since this was last asked: the host, the id, the body.
    fn take(&self) -> Vec<(String, String, Value)> {
        let sent = std::mem::take(&mut *self.sent.lock().expect("lock"));
        let told = |request: PostRequest| {
            let host = request.url.trim_start_matches("https://").trim_end_matches('/').to_owned();
            let id = request.headers["webhook-id"].to_str().expect("text").to_owned();
            (host, id, serde_json::from_slice(&request.body).expect("JSON"))
        };
        sent.into_iter().map(told).collect()
    }

    fn types(&self) -> Vec<String> {
        self.take()
            .into_iter()
            .map(|(host, _, body)| format!("{host} {}", body["type"].as_str().expect("text")))
            .collect()
    }
}

struct World {
    dir: tempfile::TempDir,
    clock: Clock,
    conditions: Conditions,
    receivers: Receivers,
}

impl World {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp(1_700_000_000_000_000));
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("written");
        let receivers = Receivers { answers: Arc::default(), sent: Arc::default() };
        Self { conditions: Conditions::new(clock.clone()), dir, clock, receivers }
    }

    /// A node with these webhooks, each with the events it wants; none: all.
    fn node(&self, store: &Store, hooks: &[(&str, &[&str])]) -> Arc<Webhooks> {
        let secret = self.dir.path().join("secret");
        let mut text = String::new();
        for (name, events) in hooks {
            text += &format!("[[webhooks]]\nname = {name:?}\nurl = \"https://{name}\"\nsecret_file = {secret:?}\n");
            if !events.is_empty() {
                text += &format!("events = {events:?}\n");
            }
        }
        let file = self.dir.path().join("gw.toml");
        std::fs::write(&file, text).expect("written");
        let config = Config::load(LoadSource::file(file)).expect("a good file");
        let hooks = config.webhooks.iter().map(Hook::of).collect();
        Webhooks::new(hooks, NODE, store.clone(), self.conditions.clone(), self.receivers.post(), self.clock.clone())
    }

    /// Has so many deliveries wait for the webhook `pager`; says when each came, counted from 1.
    async fn wait(&self, store: &Store, deliveries: u32) -> impl Fn(u32) -> Timestamp + use<> {
        let first = self.clock.wall().plus_micros(-1_000_000);
        let at = move |n: u32| first.plus_micros(n.into());
        let delivery = |n: u32| Delivery {
            event_id: Uuid::from_u128(n.into()),
            webhook: "pager".to_owned(),
            body: "{}".to_owned(),
            created_at: at(n),
            attempts: 0,
        };
        let deliveries: Vec<_> = (1..=deliveries).map(delivery).collect();
        store.queue_deliveries(&deliveries).await.expect("written");
        at
    }
}

async fn found(store: &Store, agent: &AgentRow, health: HealthStatus) {
    let change = HealthChange {
        probed: agent.clone(),
        found: AgentRow { health, health_checked_at: Some(Timestamp(7)), ..agent.clone() },
        next: Timestamp(9),
        event: None,
    };
    store.set_health(&[change]).await.expect("written");
}

fn happened(action: &str, after: Value) -> AdminEvent {
    AdminEvent { after: Some(after.to_string()), ..event(action, Uuid::from_u128(1)) }
}

on_each_database!(
    what_happens_is_told_to_those_who_want_it,
    an_event_that_is_not_taken_is_sent_again_under_its_id_for_a_day,
    of_two_nodes_one_sends_and_another_takes_over_from_one_that_dies,
    what_waits_is_bounded_and_the_newest_of_it,
    conditions_that_come_and_go_are_bounded_as_well,
    what_waits_for_a_webhook_that_is_nowhere_any_more_is_forgotten,
    events_that_nobody_wants_are_forgotten,
    while_the_database_is_away_conditions_are_told_from_memory,
);

mod suite {
    use super::*;

    pub(super) async fn what_happens_is_told_to_those_who_want_it(test: &TestStore) {
        let (store, world) = (&test.store, World::new());
        let webhooks = world.node(store, &[("all", &[]), ("some", &["agent.offline", "database.away"])]);
        let row = added(&test.store, "one").await;
        for health in [
            HealthStatus::Online,
            HealthStatus::Degraded,
            HealthStatus::Offline,
            HealthStatus::Offline,
            HealthStatus::Online,
        ] {
            found(store, &row, health).await;
        }
        for event in [
            happened("connection.request", json!({"status": "pending", "requester_id": "r", "target_id": "t"})),
            happened("connection.request", json!({"status": "connected"})),
            happened("agent.create", json!({"state": "pending", "slug": "s"})),
            happened("agent.create", json!({"state": "active"})),
            happened("agent.update", json!({})),
            happened("agent.card_held", json!({})),
        ] {
            store.add_event(&event).await.expect("written");
        }
        webhooks.settle().await;
        let mut types = world.receivers.types();
        types.sort();
        let expected = [
            "all agent.card_held",
            "all agent.offline",
            "all agent.online",
            "all agent.pending",
            "all connection.requested",
            "some agent.offline",
        ];
        assert_eq!(types, expected);
        world.conditions.set(Condition::DatabaseAway, Some("away".to_owned()));
        world.conditions.set(Condition::DatabaseAway, None);
        webhooks.settle().await;
        let told = world.receivers.take();
        let states: Vec<_> = told.iter().map(|(host, _, body)| format!("{host} {}", body["data"]["state"])).collect();
        assert_eq!(states, ["all \"begun\"", "all \"ended\"", "some \"begun\"", "some \"ended\""]);
        assert_eq!(told[0].2["data"]["node_id"], NODE.to_string());
        assert!(store.waiting_deliveries().await.expect("read").is_empty());
    }

    pub(super) async fn an_event_that_is_not_taken_is_sent_again_under_its_id_for_a_day(test: &TestStore) {
        let (store, world) = (&test.store, World::new());
        world.receivers.answer("pager", Err("no connection"));
        world.conditions.set(Condition::Unwitnessed, Some("long".to_owned()));
        let mut sent = Vec::new();
        for _ in 0..40 {
            // A node of its own each time: nothing is remembered but what is in the database.
            world.node(store, &[("pager", &[])]).settle().await;
            sent.extend(world.receivers.take());
            world.clock.advance(Duration::from_secs(3_600));
        }
        // The last one was sent when a day had passed.
        assert!((20..=26).contains(&sent.len()), "{}", sent.len());
        assert!(sent.iter().all(|(_, id, body)| (id, body) == (&sent[0].1, &sent[0].2)));
        assert!(store.waiting_deliveries().await.expect("read").is_empty());
    }

    pub(super) async fn of_two_nodes_one_sends_and_another_takes_over_from_one_that_dies(test: &TestStore) {
        let world = World::new();
        let other = test.again().await;
        let nodes = [world.node(&test.store, &[("pager", &[])]), world.node(&other, &[("pager", &[])])];
        let hook = &nodes[0].hooks[0];
        let row = added(&test.store, "one").await;
        for n in 0..20 {
            found(&test.store, &row, if n % 2 == 0 { HealthStatus::Offline } else { HealthStatus::Online }).await;
        }
        tokio::join!(nodes[0].settle(), nodes[1].settle());
        let ids: std::collections::HashSet<_> = world.receivers.take().into_iter().map(|(_, id, _)| id).collect();
        assert_eq!(ids.len(), 20);
        assert!(world.receivers.take().is_empty());

        found(&test.store, &row, HealthStatus::Offline).await;
        while nodes[0].gather_once().await.expect("gathered") {}
        // The first claims it and dies.
        let now = world.clock.wall();
        let lease = now.plus_micros(LEASE_US);
        assert_eq!(test.store.claim_deliveries(&hook.name, now, lease, 1).await.expect("claimed").len(), 1);
        assert_eq!(nodes[1].send_next(hook).await.expect("asked"), None);
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(nodes[1].send_next(hook).await.expect("asked"), Some(Ok(())));
        other.close().await;
    }

    pub(super) async fn what_waits_is_bounded_and_the_newest_of_it(test: &TestStore) {
        let (store, world) = (&test.store, World::new());
        let webhooks = world.node(store, &[("pager", &[])]);
        let at = world.wait(store, WAITING_MAX + 2).await;
        store.add_event(&happened("agent.card_held", json!({}))).await.expect("written");
        while webhooks.gather_once().await.expect("gathered") {}
        let waiting = store.waiting_deliveries().await.expect("read");
        assert_eq!((waiting[0].deliveries, waiting[0].oldest), (i64::from(WAITING_MAX), at(4)));
    }

    pub(super) async fn conditions_that_come_and_go_are_bounded_as_well(test: &TestStore) {
        let (store, world) = (&test.store, World::new());
        let webhooks = world.node(store, &[("pager", &[])]);
        let at = world.wait(store, WAITING_MAX).await;
        world.conditions.set(Condition::JournalBudgetLow, Some("low".to_owned()));
        world.conditions.set(Condition::JournalBudgetLow, None);
        webhooks.gather_once().await.expect("gathered");
        let waiting = store.waiting_deliveries().await.expect("read");
        assert_eq!((waiting[0].deliveries, waiting[0].oldest), (i64::from(WAITING_MAX), at(3)));
    }

    pub(super) async fn what_waits_for_a_webhook_that_is_nowhere_any_more_is_forgotten(test: &TestStore) {
        let (store, world) = (&test.store, World::new());
        let (before, after) = (world.node(store, &[("old", &[])]), world.node(store, &[("new", &[])]));
        world.conditions.set(Condition::DatabaseAway, Some("away".to_owned()));
        before.gather_once().await.expect("gathered");
        for (later, node, waiting) in [(172_800, &after, 1), (1, &before, 1), (0, &after, 0)] {
            world.clock.advance(Duration::from_secs(later));
            node.gather_once().await.expect("gathered");
            assert_eq!(store.waiting_deliveries().await.expect("read").len(), waiting);
        }
    }

    pub(super) async fn events_that_nobody_wants_are_forgotten(test: &TestStore) {
        let (store, world) = (&test.store, World::new());
        let (nobody, somebody) = (world.node(store, &[]), world.node(store, &[("pager", &[])]));
        let held = AdminEvent { at: world.clock.wall(), ..happened("agent.card_held", json!({})) };
        store.add_event(&held).await.expect("written");
        nobody.settle().await;
        somebody.settle().await;
        assert_eq!(world.receivers.types(), ["pager agent.card_held"]);
        store.add_event(&AdminEvent { id: Uuid::from_u128(9), ..held }).await.expect("written");
        world.clock.advance(Duration::from_secs(3_601));
        nobody.settle().await;
        somebody.settle().await;
        assert_eq!(world.receivers.types(), Vec::<String>::new());
    }

    pub(super) async fn while_the_database_is_away_conditions_are_told_from_memory(test: &TestStore) {
        let (store, world) = (&test.store, World::new());
        let webhooks = world.node(store, &[("pager", &[]), ("broken", &[])]);
        world.receivers.answer("broken", Ok(500));
        test.by_hand("ALTER TABLE webhook_deliveries RENAME TO hidden").await;
        world.conditions.set(Condition::DatabaseAway, Some("away".to_owned()));
        for _ in 0..3 {
            let _ = webhooks.gather_once().await;
        }
        assert_eq!(world.receivers.types(), ["pager database.away", "broken database.away"]);
        test.by_hand("ALTER TABLE hidden RENAME TO webhook_deliveries").await;
        world.receivers.answer("broken", Ok(200));
        webhooks.settle().await;
        assert_eq!(world.receivers.types(), ["broken database.away"]);
        assert_eq!(webhooks.held().len(), 0);
    }
}
