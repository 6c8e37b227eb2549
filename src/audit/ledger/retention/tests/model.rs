//! Any history of calls, checkpoints, holds and looks: what is left is proved, nothing that is held is gone, nor anything younger,
//! and on SQLite nothing is left that may go.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Calls by and to agents, so many days old.
    Record(Vec<(i64, u8)>),
    Sign,
    Hold {
        agent: Option<u8>,
        since: i64,
        length: i64,
    },
    Release,
    Erase(u8),
    Look {
        days_later: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((0..6_i64, 0..4_u8), 1..30).prop_map(Step::Record),
        3 => Just(Step::Sign),
        2 => (prop::option::of(0..4_u8), 0..40_i64, 1..20_i64)
            .prop_map(|(agent, since, length)| Step::Hold { agent, since, length }),
        1 => Just(Step::Release),
        1 => (0..4_u8).prop_map(Step::Erase),
        4 => (0..8_i64).prop_map(|days_later| Step::Look { days_later }),
    ]
}

const SETTINGS: RetentionSettings = RetentionSettings {
    keep: Some(Duration::from_secs(10 * 86_400)),
    addresses: Some(Duration::from_secs(4 * 86_400)),
    refused: Some(Duration::from_secs(3 * 86_400)),
};

fn agent(n: u8) -> Uuid {
    Uuid::from_u128(200 + u128::from(n))
}

async fn play(test: &TestStore, steps: Vec<Step>) {
    let store = &test.store;
    let (mut now, mut all, mut signed, mut number) = (10, Vec::<CallRow>::new(), 0, 0);
    recorded_on(test, day(now)).await;
    for step in steps {
        let grows = matches!(step, Step::Record(_) | Step::Sign);
        match step {
            Step::Record(calls) => {
                let made = calls.into_iter().map(|(age, by)| {
                    number += 1;
                    CallRow { caller_agent_id: Some(agent(by)), ..row_of_day(number, now - age) }
                });
                record_rows(store, NODE, made).await;
                all.extend(store.rows_after(NODE, all.len() as u64, 1_000).await.expect("rows"));
            }
            Step::Sign if all.is_empty() => {}
            Step::Sign => {
                sign(store, NODE).await;
                signed = all.len();
            }
            Step::Hold { agent: of, since, length } => {
                hold(store, of.map(agent), Some(day(since)), Some(day(since + length))).await;
            }
            Step::Release => {
                if let Some(first) = store.holds_in_force().await.expect("holds").first() {
                    store.release_hold(first.id, day(now), &event()).await.expect("released");
                }
            }
            Step::Erase(by) => drop(erase(store, agent(by)).await),
            Step::Look { days_later } => {
                now += days_later;
                let gone = store.ledger_dropped(NODE).await.expect("reads").size() as usize;
                turn(store, day(now), SETTINGS).await;
                let after = store.ledger_dropped(NODE).await.expect("reads").size() as usize;
                let holds = store.holds_in_force().await.expect("holds");
                let held = |row: &CallRow| {
                    holds.iter().any(|hold| hold.covers(row.caller_agent_id, row.target_agent_id, row.called_at))
                };
                let may_go = |row: &CallRow| row.called_at < day(now - 10) && !held(row);
                assert!(all[gone..after].iter().all(may_go), "{gone} to {after} on day {now}");
                assert!(after <= signed);
                let expected = all[..signed].iter().skip(gone).take_while(|row| may_go(row)).count();
                if !store.is_shared() {
                    assert_eq!(after, gone + expected);
                }
                recorded_on(test, day(now)).await;
            }
        }
        if grows {
            continue;
        }
        let left = rows(store, NODE).await;
        for (now, before) in left.iter().zip(&all[all.len() - left.len()..]) {
            let kept = |row: &CallRow| {
                (row.id, row.seq, row.called_at, row.caller_agent_id, row.decision.clone(), row.leaf_hash)
            };
            assert_eq!(kept(now), kept(before));
        }
        proved(store, NODE, &all.iter().map(|row| row.leaf_hash).collect::<Vec<_>>()).await;
    }
    proved(store, NODE, &all.iter().map(|row| row.leaf_hash).collect::<Vec<_>>()).await;
}

fn property(cases: u32, open: impl AsyncFn() -> TestStore) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let steps = prop::collection::vec(step(), 1..24);
    let played = runner.run(&steps, |steps| {
        runtime.block_on(async {
            let test = open().await;
            play(&test, steps).await;
            test.end().await;
        });
        Ok(())
    });
    played.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn whatever_happens_what_is_left_is_proved_and_nothing_is_gone_that_must_stay() {
    property(Config::default().cases / 12, TestStore::sqlite);
}

#[test]
fn the_same_holds_on_postgresql() {
    property(Config::default().cases / 32, TestStore::postgres);
}
