use super::*;
use crate::registry::testing::{Bench, admin};

fn named(name: &str) -> AgentChanges {
    AgentChanges { name: Some(name.to_owned()), ..AgentChanges::default() }
}

#[tokio::test]
async fn however_many_agents_have_one_name_each_gets_a_slug() {
    let bench = Bench::new().await;
    let mut slugs = std::collections::HashSet::new();
    for _ in 0..53 {
        slugs.insert(bench.registry.register(&admin(), named("Same")).await.expect("registers").agent.slug);
    }
    assert_eq!(slugs.len(), 53);
    assert!(slugs.contains("same") && slugs.contains("same-50"));
}

#[tokio::test]
async fn secrets_come_back_from_the_store() {
    let bench = Bench::new().await;
    let credential = UpstreamCredential { header: "X-Key".to_owned(), value: "a: b".to_owned() };
    let changes = AgentChanges {
        endpoint_url: Some(Some("https://a.example".to_owned())),
        upstream_credential: Some(Some(credential)),
        ..named("a")
    };
    let made = bench.registry.register(&admin(), changes).await.expect("registers");
    let row = bench.store.agent(made.agent.id).await.expect("reads").expect("there");
    assert_eq!(bench.registry.signing_secret(&row).expect("opens"), made.signing_secret.as_bytes());
    let opened = bench.registry.upstream_credential(&row).expect("opens").expect("there");
    assert_eq!((opened.header.as_str(), opened.value.as_str()), ("x-key", "a: b"));
    bench.registry.check_vault().await.expect("this is the key file");
}

#[tokio::test]
async fn a_key_file_of_another_database_is_noticed_at_start() {
    let bench = Bench::new().await;
    bench.registry.register(&admin(), named("a")).await.expect("registers");
    let other = Bench::new().await;
    let reload: crate::registry::Reload = std::sync::Arc::new(|| Box::pin(async {}));
    let vault = std::sync::Arc::clone(&other.registry.vault);
    let mixed = Registry::new(bench.store.clone(), vault, bench.clock.clone(), Default::default(), reload);
    assert!(matches!(mixed.check_vault().await, Err(RegistryError::Vault(_))));
}

#[tokio::test]
async fn each_kind_of_secret_is_held_against_the_key_file() {
    let credential = UpstreamCredential { header: "X-Key".to_owned(), value: "a".to_owned() };
    let shown = AgentChanges { upstream_credential: Some(Some(credential)), ..AgentChanges::default() };
    for kind in ["next signing secret", "upstream credential"] {
        let (bench, other) = (Bench::new().await, Bench::new().await);
        let changes = AgentChanges { endpoint_url: Some(Some("https://a.example".to_owned())), ..named("a") };
        let id = bench.registry.register(&admin(), changes).await.expect("registers").agent.id;
        let reload: crate::registry::Reload = std::sync::Arc::new(|| Box::pin(async {}));
        let vault = std::sync::Arc::clone(&other.registry.vault);
        let mixed = Registry::new(bench.store.clone(), vault, bench.clock.clone(), Default::default(), reload);
        if kind == "upstream credential" {
            mixed.update_agent(&admin(), id, shown.clone()).await.expect("changes");
        } else {
            let minute = std::time::Duration::from_secs(60);
            mixed.rotate_signing_secret(&admin(), id, minute).await.expect("rotates");
        }
        assert!(matches!(bench.registry.check_vault().await, Err(RegistryError::Vault(_))), "{kind}");
    }
}

#[tokio::test]
async fn auditors_register_nothing_however_open_registration_is() {
    use super::super::Registration;
    let bench = Bench::new().await;
    let auditor = Actor::Operator { name: "auditor".to_owned(), role: crate::store::rows::OperatorRole::Auditor };
    for registration in [Registration::Closed, Registration::Approval { max_pending: 9 }, Registration::Open] {
        bench.registry.set_registration(registration);
        let refused = bench.registry.register(&auditor, named("a")).await;
        assert!(matches!(refused, Err(RegistryError::Forbidden(why)) if why.contains("auditors")));
    }
}

#[tokio::test]
async fn what_is_registered_is_probed_at_once_if_there_is_something_to_probe() {
    let bench = Bench::new().await;
    let wanted = bench.registry.probe_wanted();
    bench.registry.set_registration(super::super::Registration::Approval { max_pending: 9 });
    let at = |name: &str| AgentChanges { endpoint_url: Some(Some(format!("https://{name}.example"))), ..named(name) };
    for (who, changes, probed) in
        [(admin(), named("client"), false), (Actor::Anonymous, at("asks"), false), (admin(), at("agent"), true)]
    {
        bench.registry.register(&who, changes).await.expect("registers");
        assert_eq!(futures_util::FutureExt::now_or_never(wanted.notified()).is_some(), probed);
    }
}

#[tokio::test]
async fn an_agent_cannot_collect_slugs_without_end() {
    let bench = Bench::new().await;
    let id = bench.registry.register(&admin(), named("first")).await.expect("registers").agent.id;
    let registry = &bench.registry;
    let rename = |n: u32| async move {
        let changes = AgentChanges { slug: Some(format!("slug-{n}")), ..AgentChanges::default() };
        registry.update_agent(&admin(), id, changes).await
    };
    for n in 1..10 {
        rename(n).await.expect("renames");
    }
    assert!(matches!(rename(10).await, Err(RegistryError::Taken(_))));
}
