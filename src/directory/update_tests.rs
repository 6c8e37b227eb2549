//! A snapshot that was only updated is the one that would be built anew, whatever was changed.

use proptest::prelude::*;

use super::*;
use crate::policy::Policy;
use crate::registry::Actor;
use crate::registry::agents::AgentChanges;
use crate::registry::connections::{NewConnection, Terms};
use crate::registry::testing::{Bench, admin};
use crate::registry::transition::Action;
use crate::store::HealthChange;
use crate::store::rows::HealthStatus;

fn builder(bench: &Bench) -> Builder {
    let second = Duration::from_secs(1);
    Builder {
        vault: Arc::clone(&bench.vault),
        limits: Arc::new(Limits::new(bench.clock.clone(), Arc::new(Policy::default()), [0; 32], Vec::new())),
        defaults: Defaults {
            public_url: "https://gw.example".to_owned(),
            allow_networks: AllowedNetworks::default(),
            connect_timeout: second,
            timeouts: Timeouts { first_byte: second, read_first_byte: second, idle: second },
            max_in_flight: 1,
            breaker: crate::vitals::BreakerSettings::default(),
            anonymous_allowed: true,
        },
    }
}

/// Everything in a snapshot that came from the database, in order.
fn told(directory: &Directory) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for agent in directory.agents.values() {
        let endpoint = agent.endpoint.as_ref().map(|endpoint| endpoint.url.to_string());
        let card = agent.card.as_ref().map(|card| String::from_utf8_lossy(&card.json).into_owned());
        let Agent { id, slug, name, state, listed, .. } = &**agent;
        lines.push(format!("{id} {slug} {name:?} {state:?} {listed} {endpoint:?} {card:?}"));
    }
    lines.extend(directory.slugs.iter().map(|(slug, agent)| format!("{slug} -> {} {:?}", agent.id, agent.name)));
    for (digest, key) in &directory.keys {
        lines.push(format!("{digest:?} {} of {} {:?} {:?}", key.id, key.agent.id, key.agent.name, key.expires_at));
    }
    lines.extend(directory.key_ends.iter().map(|(id, end)| format!("key {id} until {end:?}")));
    lines.extend(directory.successors.iter().map(|key| format!("successor {}", key.id)));
    for ((one, other), tie) in &directory.connections {
        lines.push(format!(
            "{one} {other} {} {:?} {} {:?} {:?}",
            tie.id, tie.status, tie.blocked, tie.ends_at, tie.operations
        ));
    }
    lines.sort();
    lines.push(directory.revision.to_string());
    lines
}

/// One change of the registry, or an attempt at one: what is not possible changes nothing.
async fn change(bench: &Bench, what: u8, one: usize, other: usize) {
    let registry = &bench.registry;
    let rows = bench.store.directory_rows().await.expect("reads");
    let pick = |at: usize| rows.agents.get(at % rows.agents.len().max(1)).map(|row| row.id);
    let update = async |id: Uuid, changes: AgentChanges| drop(registry.update_agent(&admin(), id, changes).await);
    match (what % 11, pick(one), pick(other)) {
        (1, Some(id), _) => {
            update(id, AgentChanges { slug: Some(format!("renamed-{other}")), ..AgentChanges::default() }).await;
        }
        (2, Some(id), _) => {
            update(id, AgentChanges { name: Some(format!("n{other}")), ..AgentChanges::default() }).await
        }
        (3, Some(id), _) => {
            update(id, AgentChanges { state: Some(AdminState::Disabled), ..AgentChanges::default() }).await;
        }
        (4, Some(id), _) => drop(registry.delete_agent(&admin(), id, None).await),
        (5, Some(id), _) => drop(registry.create_key(&admin(), id, "more", None).await),
        (6, ..) => {
            if let Some(key) = rows.keys.get(one % rows.keys.len().max(1)) {
                drop(registry.revoke_key(&admin(), key.id).await);
            }
        }
        (7, Some(requester_id), Some(target_id)) => {
            let terms = Terms::default();
            let wish = NewConnection { requester_id, target_id, message: None, at_once: None, terms, reason: None };
            drop(registry.request_connection(&Actor::Agent(requester_id), wish).await);
        }
        (8, ..) => {
            if let Some(row) = rows.connections.get(one % rows.connections.len().max(1)) {
                let action = Action::ALL[other % Action::ALL.len()];
                drop(registry.change_connection(&admin(), row.id, action).await);
            }
        }
        (9, ..) => {
            let Some(row) = rows.agents.get(one % rows.agents.len().max(1)) else { return };
            let mut found = row.clone();
            found.health = HealthStatus::Online;
            found.card_json = Some(format!(r#"{{"name":"card {other}"}}"#).into_bytes());
            let change = HealthChange { probed: row.clone(), found, next: bench.clock.wall(), event: None };
            bench.store.set_health(&[change]).await.expect("writes");
        }
        (10, ..) => {
            let used: Vec<_> = rows.keys.iter().map(|key| (key.id, bench.clock.wall())).collect();
            bench.store.touch_keys(&used).await.expect("writes");
        }
        _ => {
            let changes = AgentChanges {
                name: Some(format!("agent {one}")),
                slug: other.is_multiple_of(3).then(|| format!("renamed-{other}")),
                endpoint_url: Some(other.is_multiple_of(2).then(|| format!("https://{one}-{other}.example/"))),
                ..AgentChanges::default()
            };
            drop(registry.register(&admin(), changes).await);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 10, ..ProptestConfig::default() })]

    #[test]
    fn an_updated_snapshot_is_the_one_built_anew(
        steps in prop::collection::vec((any::<u8>(), 0_usize..12, 0_usize..12, any::<bool>()), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let bench = Bench::new().await;
            let builder = builder(&bench);
            let mut now = builder.build(bench.store.directory_rows().await.expect("reads"), &Directory::default());
            for (what, one, other, look) in steps {
                change(&bench, what, one, other).await;
                if look {
                    let changes = bench.store.directory_changes(now.revision).await.expect("reads").expect("few");
                    now = builder.update(&changes, &now);
                    let anew = builder.build(bench.store.directory_rows().await.expect("reads"), &Directory::default());
                    prop_assert_eq!(told(&now), told(&anew));
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn what_is_unchanged_is_the_same_value_in_the_next_snapshot() {
    let bench = Bench::new().await;
    let builder = builder(&bench);
    let named = |name: &str| AgentChanges { name: Some(name.to_owned()), ..AgentChanges::default() };
    let one = bench.registry.register(&admin(), named("one")).await.expect("registers").agent.id;
    let two = bench.registry.register(&admin(), named("two")).await.expect("registers").agent.id;
    let before = builder.build(bench.store.directory_rows().await.expect("reads"), &Directory::default());
    bench.registry.update_agent(&admin(), one, named("other")).await.expect("changes");
    let changes = bench.store.directory_changes(before.revision).await.expect("reads").expect("few");
    assert_eq!(changes.agents, [one]);
    let after = builder.update(&changes, &before);
    assert!(!Arc::ptr_eq(&after.agents[&one], &before.agents[&one]));
    assert!(Arc::ptr_eq(&after.agents[&two], &before.agents[&two]));
}

#[tokio::test]
async fn connections_go_with_their_row_and_with_their_agents() {
    let bench = Bench::new().await;
    let builder = builder(&bench);
    let named = |name: &str| AgentChanges { name: Some(name.to_owned()), ..AgentChanges::default() };
    let one = bench.registry.register(&admin(), named("one")).await.expect("registers").agent.id;
    let two = bench.registry.register(&admin(), named("two")).await.expect("registers").agent.id;
    let wish = NewConnection {
        requester_id: one,
        target_id: two,
        message: None,
        at_once: Some(Action::Accept),
        terms: Terms::default(),
        reason: None,
    };
    let tie = bench.registry.request_connection(&admin(), wish).await.expect("connects").id;
    let built = builder.build(bench.store.directory_rows().await.expect("reads"), &Directory::default());
    assert!(built.connection(one, two).is_some());

    let gone = DirectoryChanges { connections: vec![tie], ..DirectoryChanges::default() };
    assert!(builder.update(&gone, &built).connection(one, two).is_none(), "its row is gone");

    // An ended connection is not changed by the end of one of its agents.
    bench.registry.change_connection(&admin(), tie, Action::End).await.expect("ends");
    let ended = builder.build(bench.store.directory_rows().await.expect("reads"), &built);
    bench.registry.delete_agent(&admin(), two, None).await.expect("deletes");
    let changes = bench.store.directory_changes(ended.revision).await.expect("reads").expect("few");
    assert!(builder.update(&changes, &ended).connection(one, two).is_none(), "its agent is gone");
}
