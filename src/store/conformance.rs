//! What every database behind [`Store`] must do. Each function takes an empty store, so that the same suite runs on any.

mod probes;

use std::sync::Arc;

use uuid::Uuid;

use super::rows::{
    AdminEvent, AdminState, AgentLimits, AgentRow, AgentTimeouts, ConnectionLimits, ConnectionRow, ConnectionStatus,
    HealthStatus, KeyRow, PushMode,
};
use super::testing::{TestStore, on_each_database};
use super::{AgentFilter, AgentPage, ConnectionFilter, EventFilter, EventPage, Store, StoreError};
use crate::a2a::Operation;
use crate::clock::Timestamp;

on_each_database!(
    an_agent_reads_back_as_written,
    two_agents_never_share_a_slug_or_an_endpoint,
    a_former_slug_leads_to_its_agent_and_stays_taken,
    a_deleted_agent_is_gone_and_frees_its_endpoint,
    only_who_may_reclaims_the_slug_of_a_deleted_agent,
    however_many_ask_a_pair_has_one_connection,
    a_refused_change_changes_nothing,
    every_change_leaves_its_event,
    filters_come_before_pages,
    search_text_is_no_pattern,
    the_directory_holds_what_is_alive,
    a_keys_last_use_only_moves_forward,
    a_setting_is_kept_and_replaced,
);

pub(crate) fn agent(slug: &str) -> AgentRow {
    AgentRow {
        id: Uuid::now_v7(),
        slug: slug.to_owned(),
        name: slug.to_uppercase(),
        description: String::new(),
        provider: None,
        avatar_url: None,
        endpoint_url: Some(format!("https://{slug}.example/")),
        card_url: None,
        subpaths: Vec::new(),
        capabilities: Vec::new(),
        skills_json: "[]".to_owned(),
        payment_json: None,
        state: AdminState::Active,
        listed: true,
        auto_accept_connections: false,
        registered_by_operator: true,
        push: PushMode::Refuse,
        pass_authorization: false,
        sign_large_bodies: false,
        http2: false,
        max_in_flight: None,
        limits: AgentLimits::default(),
        timeouts: AgentTimeouts::default(),
        signing_secret: vec![1, 2, 3],
        upstream_credential: None,
        card_json: None,
        card_fetched_at: None,
        held_card: None,
        health_interval_s: None,
        next_signing_secret: None,
        health: HealthStatus::Unknown,
        health_reason: None,
        health_checked_at: None,
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
    }
}

pub(crate) fn key(agent: &AgentRow) -> KeyRow {
    let id = Uuid::now_v7();
    KeyRow {
        id,
        agent_id: agent.id,
        digest: crate::registry::token::digest_of(&id.to_string()),
        hint: None,
        name: "default".to_owned(),
        expires_at: None,
        last_used_at: None,
        created_at: Timestamp(1),
        replaces: None,
    }
}

pub(crate) fn event(action: &str, subject: Uuid) -> AdminEvent {
    AdminEvent {
        id: Uuid::now_v7(),
        at: Timestamp(1),
        actor: "gateway".to_owned(),
        action: action.to_owned(),
        subject: subject.to_string(),
        before: None,
        after: None,
        reason: None,
    }
}

fn connection(requester: Uuid, target: Uuid) -> ConnectionRow {
    ConnectionRow {
        id: Uuid::now_v7(),
        requester_id: requester,
        target_id: target,
        status: ConnectionStatus::Pending,
        blocked_by_requester: false,
        blocked_by_target: false,
        block_locked: false,
        message: None,
        purpose: None,
        operations: None,
        operations_fixed: false,
        limits: ConnectionLimits::default(),
        ends_at: None,
        review_at: None,
        created_at: Timestamp(1),
        resolved_at: None,
    }
}

async fn add(store: &Store, row: &AgentRow) -> Result<(), StoreError> {
    store.add_agent(row, &key(row), false, &event("agent.create", row.id)).await
}

pub(crate) async fn added(store: &Store, slug: &str) -> AgentRow {
    let row = agent(slug);
    add(store, &row).await.expect("adds");
    row
}

pub(crate) async fn connect(store: &Store, from: Uuid, to: Uuid, status: ConnectionStatus) {
    let row = ConnectionRow { status, ..connection(from, to) };
    let settle = |_| Ok::<_, StoreError>((row, event("connection.request", from)));
    store.settle_pair(from, to, settle).await.expect("settles");
}

async fn delete(store: &Store, row: &AgentRow) -> Result<(), StoreError> {
    let end = |tie: &ConnectionRow| {
        let ended = ConnectionRow { status: ConnectionStatus::Ended, ..tie.clone() };
        (ended, event("connection.end", tie.id))
    };
    store.delete_agent(row.id, Timestamp(9), &event("agent.delete", row.id), end).await
}

mod suite {
    use super::*;

    pub(super) async fn an_agent_reads_back_as_written(test: &TestStore) {
        let store = &test.store;
        let mut row = agent("full");
        row.description = "line one\nline two".to_owned();
        row.provider = Some("ACME".to_owned());
        row.avatar_url = Some("https://a.example/x.png".to_owned());
        row.card_url = Some("https://a.example/card".to_owned());
        row.subpaths = vec!["/chat".to_owned(), "/status".to_owned()];
        row.capabilities = vec!["streaming".to_owned()];
        row.skills_json = r#"[{"name":"Sum"}]"#.to_owned();
        row.payment_json = Some("{}".to_owned());
        row.state = AdminState::Disabled;
        (row.listed, row.auto_accept_connections, row.registered_by_operator) = (false, true, false);
        row.push = PushMode::Pass;
        (row.pass_authorization, row.sign_large_bodies, row.http2) = (true, true, true);
        row.max_in_flight = Some(u32::MAX);
        row.limits.costs.insert(Operation::SendMessage, 5);
        row.limits.verified.shared = ConnectionLimits { rate: Some(3), period_ms: Some(60_000), ..Default::default() };
        row.limits.unverified.in_flight = Some(1);
        row.timeouts = AgentTimeouts {
            connect_ms: Some(1),
            first_byte_ms: Some(2),
            read_first_byte_ms: Some(3),
            idle_ms: Some(4),
        };
        row.upstream_credential = Some(vec![0, 255]);
        row.card_json = Some(b"{\"a\": 1}".to_vec());
        row.card_fetched_at = Some(Timestamp(2));
        (row.health, row.health_reason) = (HealthStatus::Degraded, Some("x".to_owned()));
        row.health_checked_at = Some(Timestamp(1_700_000_000_000_001));
        add(store, &row).await.expect("adds");
        assert_eq!(store.agent(row.id).await.expect("reads").as_ref(), Some(&row));
        assert_eq!(store.agent_by_slug("full").await.expect("reads").as_ref(), Some(&row));
        let mut changed = row.clone();
        changed.name = "other".to_owned();
        changed.timeouts.idle_ms = None;
        changed.limits = AgentLimits::default();
        let wanted = changed.clone();
        let done = store
            .change_agent(row.id, |row| {
                *row = wanted;
                Ok::<_, StoreError>(event("agent.update", row.id))
            })
            .await;
        assert_eq!(done.expect("changes"), changed);
        assert_eq!(store.agent(row.id).await.expect("reads"), Some(changed));
    }

    pub(super) async fn two_agents_never_share_a_slug_or_an_endpoint(test: &TestStore) {
        let store = &test.store;
        let first = added(store, "one").await;
        let mut same_slug = agent("one");
        same_slug.endpoint_url = None;
        let refused = add(store, &same_slug).await;
        assert!(matches!(&refused, Err(StoreError::Conflict(what)) if what.contains("slug")), "{refused:?}");
        let mut same_endpoint = agent("two");
        same_endpoint.endpoint_url = first.endpoint_url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
        let refused = add(store, &same_endpoint).await;
        assert!(matches!(&refused, Err(StoreError::Conflict(what)) if what.contains("endpoint")), "{refused:?}");
        // Clients have none to share.
        for slug in ["client-a", "client-b"] {
            let mut client = agent(slug);
            client.endpoint_url = None;
            add(store, &client).await.expect("adds");
        }
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..20 {
            let store = store.clone();
            tasks.spawn(async move {
                let mut row = agent("race");
                row.endpoint_url = Some(format!("https://{n}.example/"));
                add(&store, &row).await.is_ok()
            });
        }
        assert_eq!(tasks.join_all().await.into_iter().filter(|won| *won).count(), 1);
    }

    pub(super) async fn a_former_slug_leads_to_its_agent_and_stays_taken(test: &TestStore) {
        let store = &test.store;
        let row = added(store, "old").await;
        let rename = |slug: &'static str| {
            store.change_agent(row.id, move |row| {
                row.slug = slug.to_owned();
                Ok::<_, StoreError>(event("agent.update", row.id))
            })
        };
        rename("new").await.expect("renames");
        for slug in ["old", "new"] {
            assert_eq!(store.agent_by_slug(slug).await.expect("reads").map(|row| row.slug).as_deref(), Some("new"));
        }
        assert_eq!(store.directory_rows().await.expect("reads").slug_aliases, [("old".to_owned(), row.id)]);
        let mut other = agent("old");
        other.endpoint_url = None;
        assert!(matches!(add(store, &other).await, Err(StoreError::Conflict(_))));
        rename("old").await.expect("renames back");
        assert_eq!(store.directory_rows().await.expect("reads").slug_aliases, [("new".to_owned(), row.id)]);
        assert_eq!(store.slug_count(row.id).await.expect("reads"), 2);
    }

    pub(super) async fn a_deleted_agent_is_gone_and_frees_its_endpoint(test: &TestStore) {
        let store = &test.store;
        let row = added(store, "gone").await;
        let peer = added(store, "peer").await;
        let wish = connection(row.id, peer.id);
        let tie = store
            .settle_pair(row.id, peer.id, |_| Ok::<_, StoreError>((wish, event("connection.request", row.id))))
            .await
            .expect("settles");
        delete(store, &row).await.expect("deletes");
        let again = delete(store, &row).await;
        assert!(matches!(again, Err(StoreError::NotFound)));
        assert_eq!(store.agent(row.id).await.expect("reads"), None);
        assert_eq!(store.agent_by_slug("gone").await.expect("reads"), None);
        assert_eq!(store.keys_of(row.id).await.expect("reads"), []);
        let status = store.connection(tie.id).await.expect("reads").expect("kept").status;
        assert_eq!(status, ConnectionStatus::Ended);
        let mut heir = agent("heir");
        heir.endpoint_url = row.endpoint_url.clone();
        add(store, &heir).await.expect("the endpoint is free");
    }

    pub(super) async fn only_who_may_reclaims_the_slug_of_a_deleted_agent(test: &TestStore) {
        let store = &test.store;
        let row = added(store, "name").await;
        let mut heir = agent("name");
        heir.endpoint_url = None;
        let live = store.add_agent(&heir, &key(&heir), true, &event("agent.create", heir.id)).await;
        assert!(matches!(live, Err(StoreError::Conflict(_))), "a living agent keeps its slug");
        delete(store, &row).await.expect("deletes");
        assert!(matches!(add(store, &heir).await, Err(StoreError::Conflict(_))));
        store.add_agent(&heir, &key(&heir), true, &event("agent.create", heir.id)).await.expect("reclaims");
        assert_eq!(store.agent_by_slug("name").await.expect("reads").map(|row| row.id), Some(heir.id));
    }

    pub(super) async fn however_many_ask_a_pair_has_one_connection(test: &TestStore) {
        let store = &test.store;
        let (a, b) = (added(store, "aaa").await.id, added(store, "bbb").await.id);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..20 {
            let store = store.clone();
            let (from, to) = if n % 2 == 0 { (a, b) } else { (b, a) };
            tasks.spawn(async move {
                let created = Arc::new(std::sync::atomic::AtomicBool::new(false));
                let note = Arc::clone(&created);
                let done = store
                    .settle_pair(from, to, move |current| match current {
                        Some(_) => Err(StoreError::Conflict("exists".to_owned())),
                        None => {
                            note.store(true, std::sync::atomic::Ordering::SeqCst);
                            Ok((connection(from, to), event("connection.request", from)))
                        }
                    })
                    .await;
                assert_eq!(done.is_ok(), created.load(std::sync::atomic::Ordering::SeqCst));
                done.is_ok()
            });
        }
        assert_eq!(tasks.join_all().await.into_iter().filter(|made| *made).count(), 1);
        assert_eq!(store.connections(&ConnectionFilter::default(), None, 100, 0).await.expect("reads").len(), 1);
        // And the database itself refuses a second row, should the code ever forget to look.
        for (id, from, to) in [(Uuid::now_v7(), a, b), (Uuid::now_v7(), b, a)] {
            let second = format!(
                "INSERT INTO connections (id, requester_id, target_id, status, blocked_by_requester, blocked_by_target, \
                 block_locked, created_at) VALUES ('{id}', '{from}', '{to}', 'pending', false, false, false, '2026-01-01')"
            );
            let refused = test.try_by_hand(&second).await.expect_err("a second one");
            assert!(refused.as_database_error().is_some_and(|error| error.is_unique_violation()), "{refused}");
        }
    }

    pub(super) async fn a_refused_change_changes_nothing(test: &TestStore) {
        let store = &test.store;
        let row = added(store, "same").await;
        let refused = store
            .change_agent(row.id, |row| {
                row.name = "other".to_owned();
                Err::<AdminEvent, _>(StoreError::Conflict("no".to_owned()))
            })
            .await;
        assert!(refused.is_err());
        assert_eq!(store.agent(row.id).await.expect("reads"), Some(row.clone()));
        assert_eq!(store.admin_events(&EventFilter::default(), &EventPage::newest(10)).await.expect("reads").len(), 1);
        // The write connection is usable afterwards.
        added(store, "next").await;
    }

    pub(super) async fn every_change_leaves_its_event(test: &TestStore) {
        let store = &test.store;
        let row = added(store, "one").await;
        let more = key(&row);
        store.add_key(&more, 5, &event("key.create", more.id)).await.expect("adds");
        store.remove_key(more.id, &event("key.revoke", more.id)).await.expect("removes");
        delete(store, &row).await.expect("deletes");
        let seen: Vec<String> = store
            .admin_events(&EventFilter::default(), &EventPage::newest(10))
            .await
            .expect("reads")
            .into_iter()
            .map(|event| event.action)
            .collect();
        assert_eq!(seen, ["agent.delete", "key.revoke", "key.create", "agent.create"]);
        let own = store
            .admin_events(
                &EventFilter { subject: Some(row.id.to_string()), ..EventFilter::default() },
                &EventPage::newest(10),
            )
            .await
            .expect("reads");
        assert_eq!(own.len(), 2);
    }

    pub(super) async fn filters_come_before_pages(test: &TestStore) {
        let store = &test.store;
        for n in 0..30 {
            let mut row = agent(&format!("agent-{n:02}"));
            row.created_at = Timestamp(n);
            if n % 3 == 0 {
                row.skills_json = r#"[{"id":"calc","name":"Sums","tags":["Maths"]}]"#.to_owned();
            }
            row.health = if n % 2 == 0 { HealthStatus::Online } else { HealthStatus::Degraded };
            row.listed = n != 0;
            add(store, &row).await.expect("adds");
        }
        for skill in ["sums", "CALC", "maths"] {
            let filter = AgentFilter { skill: Some(skill.to_owned()), ..AgentFilter::default() };
            let (page, total) = store.agents(&filter, 4, AgentPage::Offset(4)).await.expect("reads");
            assert_eq!(total, 10, "{skill}");
            let slugs: Vec<&str> = page.iter().map(|row| row.slug.as_str()).collect();
            assert_eq!(slugs, ["agent-15", "agent-12", "agent-09", "agent-06"]);
        }
        let part = AgentFilter { skill: Some("sum".to_owned()), ..AgentFilter::default() };
        assert_eq!(store.agents(&part, 9, AgentPage::Offset(0)).await.expect("reads").1, 0);
        let online = AgentFilter { health: Some(HealthStatus::Online), public_only: true, ..AgentFilter::default() };
        assert_eq!(
            store.agents(&online, 1, AgentPage::Offset(0)).await.expect("reads").1,
            29,
            "degraded is online, unlisted is not shown"
        );
        let text = AgentFilter { text: Some("NT-2".to_owned()), ..AgentFilter::default() };
        assert_eq!(store.agents(&text, 1, AgentPage::Offset(0)).await.expect("reads").1, 10);
    }

    pub(super) async fn search_text_is_no_pattern(test: &TestStore) {
        let store = &test.store;
        added(store, "abc").await;
        for hostile in ["%", "_", "a%c", "\\", "' OR 1=1 --"] {
            let filter = AgentFilter { text: Some(hostile.to_owned()), ..AgentFilter::default() };
            assert_eq!(store.agents(&filter, 9, AgentPage::Offset(0)).await.expect("reads").1, 0, "{hostile}");
            let filter = AgentFilter { skill: Some(hostile.to_owned()), ..AgentFilter::default() };
            assert_eq!(store.agents(&filter, 9, AgentPage::Offset(0)).await.expect("reads").1, 0, "{hostile}");
        }
    }

    pub(super) async fn the_directory_holds_what_is_alive(test: &TestStore) {
        let store = &test.store;
        let (a, b, c) = (added(store, "aaa").await, added(store, "bbb").await, added(store, "ccc").await);
        for (from, to) in [(&a, &b), (&b, &c)] {
            let wish = connection(from.id, to.id);
            let settled = store
                .settle_pair(from.id, to.id, |_| Ok::<_, StoreError>((wish, event("connection.request", from.id))))
                .await;
            settled.expect("settles");
        }
        delete(store, &c).await.expect("deletes");
        let rows = store.directory_rows().await.expect("reads");
        assert_eq!(rows.agents.len(), 2);
        assert_eq!(rows.keys.len(), 2);
        assert_eq!(rows.connections.len(), 1);
        assert_eq!(rows.slug_aliases, []);
    }

    pub(super) async fn a_keys_last_use_only_moves_forward(test: &TestStore) {
        let store = &test.store;
        let row = added(store, "one").await;
        let key = store.keys_of(row.id).await.expect("reads").remove(0);
        for (used, seen) in [(5, 5), (9, 9), (7, 9)] {
            store.touch_keys(&[(key.id, Timestamp(used)), (Uuid::nil(), Timestamp(used))]).await.expect("writes");
            let found = store.key_by_digest(&key.digest).await.expect("reads").expect("there");
            assert_eq!(found.last_used_at, Some(Timestamp(seen)));
        }
    }

    pub(super) async fn a_setting_is_kept_and_replaced(test: &TestStore) {
        let store = &test.store;
        assert_eq!(store.setting("x").await.expect("reads"), None);
        for value in ["one", "two"] {
            store.set_setting("x", value).await.expect("writes");
            assert_eq!(store.setting("x").await.expect("reads").as_deref(), Some(value));
        }
    }
}
