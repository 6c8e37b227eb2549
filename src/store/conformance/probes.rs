//! Probes: who is given which agent, and what becomes of what they find.

use super::*;
use crate::store::HealthChange;

on_each_database!(
    a_probe_of_a_moved_agent_is_dropped,
    what_is_found_of_one_agent_does_not_hang_on_the_others,
    who_waits_longest_for_a_probe_is_given_first,
    an_agent_claimed_for_a_probe_is_given_to_nobody_else,
    a_change_of_where_or_whether_an_agent_is_probed_ends_its_claim,
);

mod suite {
    use super::*;

    pub(super) async fn a_probe_of_a_moved_agent_is_dropped(test: &TestStore) {
        let store = &test.store;
        let row = added(store, "mover").await;
        let mut found = row.clone();
        (found.health, found.health_checked_at) = (HealthStatus::Online, Some(Timestamp(5)));
        let change = HealthChange { probed: row.clone(), found, next: Timestamp(9), event: None };
        let (one, none) = (std::slice::from_ref(&change), Vec::<bool>::new());
        assert_eq!(store.set_health(one).await.expect("writes"), [true]);
        assert_eq!(store.set_health(&[]).await.expect("nothing to do"), none);
        let moved = store
            .change_agent(row.id, |row| {
                row.endpoint_url = Some("https://elsewhere.example/".to_owned());
                row.health = HealthStatus::Unknown;
                Ok::<_, StoreError>(event("agent.update", row.id))
            })
            .await
            .expect("moves");
        assert_eq!(store.set_health(one).await.expect("writes"), [false]);
        assert_eq!(store.agent(row.id).await.expect("reads"), Some(moved));
    }

    pub(super) async fn what_is_found_of_one_agent_does_not_hang_on_the_others(test: &TestStore) {
        let store = &test.store;
        let rows = [added(store, "one").await, added(store, "moved").await, added(store, "three").await];
        let changes = rows.clone().map(|probed| {
            let found = AgentRow { health: HealthStatus::Online, ..probed.clone() };
            let event = Some(event("agent.card_held", probed.id));
            HealthChange { probed, found, next: Timestamp(9), event }
        });
        store
            .change_agent(rows[1].id, |row| {
                row.endpoint_url = Some("https://elsewhere.example/".to_owned());
                Ok::<_, StoreError>(event("agent.update", row.id))
            })
            .await
            .expect("moves");
        assert_eq!(store.set_health(&changes).await.expect("writes"), [true, false, true]);
        for (row, written) in rows.iter().zip([true, false, true]) {
            let health = store.agent(row.id).await.expect("reads").expect("there").health;
            assert_eq!(health == HealthStatus::Online, written, "{}", row.slug);
            let filter = EventFilter {
                subject: Some(row.id.to_string()),
                action: Some("agent.card_held".to_owned()),
                ..EventFilter::default()
            };
            let events = store.admin_events(&filter, &EventPage::newest(9)).await.expect("reads");
            assert_eq!(events.len(), usize::from(written), "{}", row.slug);
        }
    }

    pub(super) async fn who_waits_longest_for_a_probe_is_given_first(test: &TestStore) {
        let store = &test.store;
        let (later, sooner, never) = (added(store, "aaa").await, added(store, "bbb").await, added(store, "ccc").await);
        let turns = [(later.id, Timestamp(5)), (sooner.id, Timestamp(3)), (Uuid::nil(), Timestamp(1))];
        store.set_next_probes(&turns).await.expect("writes");
        for row in [never, sooner, later] {
            assert_eq!(store.claim_probes(Timestamp(10), Timestamp(20), 1).await.expect("claims"), [row]);
        }
    }

    pub(super) async fn an_agent_claimed_for_a_probe_is_given_to_nobody_else(test: &TestStore) {
        let store = &test.store;
        for n in 0..12 {
            added(store, &format!("agent-{n}")).await;
        }
        let mut client = agent("client");
        client.endpoint_url = None;
        let mut disabled = agent("disabled");
        disabled.state = AdminState::Disabled;
        for row in [client, disabled] {
            add(store, &row).await.expect("adds");
        }
        let claims = (0..8).map(|_| store.claim_probes(Timestamp(10), Timestamp(20), 2));
        let claimed = futures_util::future::try_join_all(claims).await.expect("claims");
        assert!(claimed.iter().all(|some| some.len() <= 2));
        let mut ids: Vec<Uuid> = claimed.concat().iter().map(|row| row.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!((claimed.concat().len(), ids.len()), (12, 12));
        assert_eq!(store.claim_probes(Timestamp(19), Timestamp(30), 99).await.expect("claims"), []);
        assert_eq!(store.claim_probes(Timestamp(20), Timestamp(30), 99).await.expect("claims").len(), 12);
    }

    pub(super) async fn a_change_of_where_or_whether_an_agent_is_probed_ends_its_claim(test: &TestStore) {
        let store = &test.store;
        let row = added(store, "one").await;
        type Change = (&'static str, fn(&mut AgentRow), usize);
        let changes: [Change; 5] = [
            ("description", |row| row.description = "another".to_owned(), 0),
            ("endpoint", |row| row.endpoint_url = Some("https://elsewhere.example/".to_owned()), 1),
            ("card", |row| row.card_url = Some("https://elsewhere.example/card".to_owned()), 1),
            ("interval", |row| row.health_interval_s = Some(60), 1),
            ("state", |row| row.state = AdminState::Disabled, 0),
        ];
        assert_eq!(store.claim_probes(Timestamp(10), Timestamp(20), 9).await.expect("claims").len(), 1);
        let change = async |change: fn(&mut AgentRow)| {
            let changed = store.change_agent(row.id, |row| {
                change(row);
                Ok::<_, StoreError>(event("agent.update", row.id))
            });
            changed.await.expect("changes");
            store.claim_probes(Timestamp(11), Timestamp(20), 9).await.expect("claims").len()
        };
        for (what, how, claimed) in changes {
            assert_eq!(change(how).await, claimed, "{what}");
        }
        assert_eq!(change(|row| row.state = AdminState::Active).await, 1, "enabled again");
    }
}
