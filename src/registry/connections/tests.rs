//! Whatever two agents and an operator do, in whatever order: nobody gets round a block, nobody is connected who did not agree,
//! and the history tells it all.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::a2a::OperationSet;
use crate::registry::agents::AgentChanges;
use crate::registry::testing::{Bench, admin};
use crate::store::ConnectionFilter;

/// One thing somebody does.
#[derive(Clone, Debug)]
enum Step {
    Ask { by: Who, at_once: Option<Action>, reversed: bool },
    Act { by: Who, action: Action, side_for: Option<bool> },
    AcceptByItself { second: bool, on: bool },
    Wait,
    Delete { second: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    First,
    Second,
    Admin,
}

fn who() -> impl Strategy<Value = Who> {
    prop::sample::select(vec![Who::First, Who::First, Who::Second, Who::Second, Who::Admin])
}

fn step() -> impl Strategy<Value = Step> {
    let at_once = prop::sample::select(vec![None, None, Some(Action::Accept), Some(Action::Block)]);
    let action = prop::sample::select(Action::ALL.to_vec());
    prop_oneof![
        4 => (who(), at_once, any::<bool>()).prop_map(|(by, at_once, reversed)| Step::Ask { by, at_once, reversed }),
        8 => (who(), action, prop::option::weighted(0.3, any::<bool>()))
            .prop_map(|(by, action, side_for)| Step::Act { by, action, side_for }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(second, on)| Step::AcceptByItself { second, on }),
        2 => Just(Step::Wait),
    ]
}

struct Pair {
    bench: Bench,
    ids: [Uuid; 2],
    by_itself: [bool; 2],
}

impl Pair {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let mut ids = Vec::new();
        for name in ["first", "second"] {
            let changes = AgentChanges { name: Some(name.to_owned()), ..AgentChanges::default() };
            ids.push(bench.registry.register(&admin(), changes).await.expect("registers").agent.id);
        }
        Self { bench, ids: <[Uuid; 2]>::try_from(ids).expect("two"), by_itself: [false; 2] }
    }

    fn actor(&self, who: Who) -> Actor {
        match who {
            Who::First => Actor::Agent(self.ids[0]),
            Who::Second => Actor::Agent(self.ids[1]),
            Who::Admin => admin(),
        }
    }

    async fn row(&self) -> Option<ConnectionRow> {
        let rows = self.bench.store.connections(&ConnectionFilter::default(), None, 10, 0).await.expect("reads");
        assert!(rows.len() <= 1, "one row per pair: {rows:?}");
        rows.into_iter().next()
    }

    async fn take(&mut self, step: &Step) {
        let registry = &self.bench.registry;
        match step {
            Step::Ask { by, at_once, reversed } => {
                let first = match by {
                    Who::First => true,
                    Who::Second => false,
                    Who::Admin => !reversed,
                };
                let (requester_id, target_id) =
                    if first { (self.ids[0], self.ids[1]) } else { (self.ids[1], self.ids[0]) };
                let wish = NewConnection {
                    requester_id,
                    target_id,
                    message: None,
                    at_once: *at_once,
                    terms: Terms::default(),
                    reason: None,
                };
                drop(registry.request_connection(&self.actor(*by), wish).await);
            }
            Step::Act { by, action, side_for } => {
                let Some(row) = self.row().await else { return };
                let side_for = side_for.map(|second| self.ids[usize::from(second)]);
                let change = Change { action: Some(*action), side_for, ..Change::default() };
                drop(registry.change_connection(&self.actor(*by), row.id, change).await);
            }
            Step::AcceptByItself { second, on } => {
                let changes = AgentChanges { auto_accept_connections: Some(*on), ..AgentChanges::default() };
                let done = registry.update_agent(&admin(), self.ids[usize::from(*second)], changes).await;
                if done.is_ok() {
                    self.by_itself[usize::from(*second)] = *on;
                }
            }
            Step::Wait => self.bench.clock.advance(Duration::from_secs(1_200)),
            Step::Delete { second } => {
                drop(registry.delete_agent(&admin(), self.ids[usize::from(*second)], None).await);
            }
        }
    }

    /// What must hold of one step from `before` to `after`.
    fn check(&self, step: &Step, before: Option<&ConnectionRow>, after: Option<&ConnectionRow>, now: i64) {
        let Some(after) = after else { return };
        let by = match step {
            Step::Ask { by, .. } | Step::Act { by, .. } => Some(*by),
            _ => None,
        };
        let said = format!("{step:?}: {before:?} -> {after:?}");
        let marked = |row: &ConnectionRow, agent: Uuid| {
            if agent == row.requester_id { row.blocked_by_requester } else { row.blocked_by_target }
        };
        if let Some(before) = before {
            for (place, own) in [(0, Who::First), (1, Who::Second)] {
                if marked(before, self.ids[place]) && !marked(after, self.ids[place]) {
                    assert!(by == Some(Who::Admin) || (by == Some(own) && !before.block_locked), "{said}");
                }
            }
            if before.blocked_by_requester || before.blocked_by_target {
                assert!(!matches!(after.status, ConnectionStatus::Pending), "{said}");
            }
            if before.status == ConnectionStatus::Paused && after.status != ConnectionStatus::Paused {
                assert!(by == Some(Who::Admin) || by.is_none(), "{said}");
            }
            let open = matches!(after.status, ConnectionStatus::Pending | ConnectionStatus::Connected);
            let again = matches!(step, Step::Ask { .. }) && open && after.requester_id == before.requester_id;
            if before.status == ConnectionStatus::Declined && again && by != Some(Who::Admin) {
                assert!(now >= before.resolved_at.expect("declined then").0 + 3_600_000_000, "{said}");
            }
        }
        let was = before.is_some_and(|row| row.status == ConnectionStatus::Connected);
        if after.status == ConnectionStatus::Connected && !was {
            let target = usize::from(after.target_id == self.ids[1]);
            let consents = match step {
                Step::Act { action: Action::Accept, .. } => by == Some([Who::First, Who::Second][target]),
                Step::Ask { .. } => self.by_itself[target],
                _ => false,
            };
            assert!(consents || by == Some(Who::Admin), "{said}");
            assert!(!after.blocked_by_requester && !after.blocked_by_target || by == Some(Who::Admin), "{said}");
        }
    }

    /// Every event begins where the one before ended, and the last ends where the connection is.
    async fn check_history(&self) {
        let Some(row) = self.row().await else { return };
        let mut events = self.bench.store.history(row.id, None, 1_000).await.expect("reads");
        events.reverse();
        let mut told = None;
        for event in events {
            assert_eq!(event.before, told, "{}", event.action);
            told = event.after;
        }
        assert_eq!(told, Some(snapshot(&row).to_string()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn whatever_three_people_do_consent_blocks_and_history_hold(
        steps in prop::collection::vec(step(), 1..40),
        goes in prop::option::weighted(0.3, any::<bool>()),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut pair = Pair::new().await;
            let end = goes.map(|second| Step::Delete { second });
            for step in steps.iter().chain(&end) {
                let before = pair.row().await;
                pair.take(step).await;
                let now = pair.bench.clock.wall().0;
                pair.check(step, before.as_ref(), pair.row().await.as_ref(), now);
            }
            pair.check_history().await;
        });
    }
}

#[tokio::test]
async fn a_request_that_is_answered_by_a_block_is_answered_then() {
    let mut pair = Pair::new().await;
    pair.take(&Step::Ask { by: Who::Second, at_once: None, reversed: false }).await;
    pair.take(&Step::Wait).await;
    pair.take(&Step::Ask { by: Who::First, at_once: Some(Action::Block), reversed: false }).await;
    let row = pair.row().await.expect("there");
    assert_eq!((row.status, row.resolved_at), (ConnectionStatus::Declined, Some(pair.bench.clock.wall())));
}

fn set(names: &[&str]) -> Option<OperationSet> {
    Some(OperationSet::from_names(names).expect("operations"))
}

fn operations(wanted: Option<OperationSet>) -> Terms {
    Terms { operations: Some(wanted), ..Terms::default() }
}

#[tokio::test]
async fn operations_are_wanted_by_one_narrowed_by_the_other_and_widened_by_operators_only() {
    let pair = Pair::new().await;
    let registry = &pair.bench.registry;
    let [first, second] = pair.ids;
    let ask = async |terms: Terms| {
        let wish =
            NewConnection { requester_id: first, target_id: second, message: None, at_once: None, terms, reason: None };
        registry.request_connection(&Actor::Agent(first), wish).await
    };
    let tie = ask(operations(set(&["SendMessage", "ListTasks"]))).await.expect("asks");
    let change = async |who: &Actor, action: Option<Action>, wanted: Option<OperationSet>| {
        let change = Change { action, terms: operations(wanted), ..Change::default() };
        registry.change_connection(who, tie.id, change).await
    };
    let [asker, asked] = pair.ids.map(Actor::Agent);
    let forbidden = |done: Result<ConnectionRow, RegistryError>| matches!(done, Err(RegistryError::Forbidden(_)));
    assert!(forbidden(change(&asked, Some(Action::Accept), set(&["SendStreamingMessage"])).await), "wider");
    assert!(forbidden(change(&asker, None, set(&["SendMessage"])).await), "not the requester's any more");
    let done = change(&asked, Some(Action::Accept), set(&["SendMessage"])).await.expect("narrower");
    assert_eq!((done.status, done.operations), (ConnectionStatus::Connected, set(&["SendMessage"])));
    assert!(forbidden(change(&asked, None, None).await), "all is wider");
    assert!(matches!(change(&admin(), None, set(&[])).await, Err(RegistryError::Invalid { .. })));

    // What an operator fixed outlives the agreement, also where the other accepts whatever comes.
    let fixed = change(&admin(), None, set(&["GetTask"])).await.expect("the operator's word");
    assert!(fixed.operations_fixed);
    let open = AgentChanges { auto_accept_connections: Some(true), ..AgentChanges::default() };
    for id in pair.ids {
        registry.update_agent(&admin(), id, open.clone()).await.expect("changes");
    }
    registry.change_connection(&asker, tie.id, Action::End).await.expect("ends");
    let round = NewConnection {
        requester_id: second,
        target_id: first,
        message: None,
        at_once: None,
        terms: Terms::default(),
        reason: None,
    };
    assert!(forbidden(registry.request_connection(&asked, round).await), "turned round it would bind nobody");
    assert!(forbidden(ask(operations(set(&["SendMessage"]))).await));
    let again = ask(operations(None)).await.expect("asks");
    assert_eq!((again.status, again.operations), (ConnectionStatus::Connected, set(&["GetTask"])));
}

#[tokio::test]
async fn accepting_by_itself_lifts_no_block_no_decline_and_no_pause() {
    let pair = Pair::new().await;
    let registry = &pair.bench.registry;
    let [first, second] = pair.ids;
    let ask = async || {
        let terms = Terms::default();
        let wish =
            NewConnection { requester_id: first, target_id: second, message: None, at_once: None, terms, reason: None };
        registry.request_connection(&Actor::Agent(first), wish).await
    };
    let tie = ask().await.expect("asks").id;
    let open = AgentChanges { auto_accept_connections: Some(true), ..AgentChanges::default() };
    registry.update_agent(&admin(), second, open).await.expect("changes");
    let [asker, asked] = pair.ids.map(Actor::Agent);
    registry.change_connection(&asked, tie, Action::Decline).await.expect("declines");
    registry.change_connection(&asker, tie, Action::End).await.expect("nothing to end");
    let refused = ask().await.expect_err("declined a moment ago").to_string();
    assert_eq!(
        refused,
        "the request was declined: ask again after 2026-01-01T01:00:00.000000Z, or let the other agent ask"
    );
    pair.bench.clock.advance(Duration::from_secs(3_600));
    assert_eq!(ask().await.expect("an hour later").status, ConnectionStatus::Connected);
    registry.change_connection(&admin(), tie, Action::Pause).await.expect("pauses");
    assert!(registry.change_connection(&asker, tie, Action::End).await.is_err());
    assert!(ask().await.is_err());
    registry.change_connection(&asked, tie, Action::Block).await.expect("blocks");
    assert!(matches!(ask().await, Err(RegistryError::Forbidden(_))));
}
