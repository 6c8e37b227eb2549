//! Rows of the log reach an outlet's destination in order and without a gap, whatever fails on the way.

use std::collections::VecDeque;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::audit::journal::entry::Draft;
use crate::config::{Config, LoadSource};
use crate::outlets::{Post, PostAnswer, PostRequest};
use crate::store::NodeRow;
use crate::store::calls::DrainBatch;
use crate::store::testing::{TestStore, on_each_database};

const NODE: Uuid = Uuid::from_u128(5);
const FORMER: Uuid = Uuid::from_u128(4);

/// What a receiver does with a request, and what becomes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Take,
    /// It has the rows, and the gateway never learns.
    TakeAndBreak,
    Refuse(u16),
}

/// A receiver that acts by a script, and takes everything once that is over.
#[derive(Clone, Default)]
struct Receiver {
    script: Arc<Mutex<VecDeque<Act>>>,
    requests: Arc<Mutex<Vec<PostRequest>>>,
}

impl Receiver {
    fn post(&self) -> Post {
        let receiver = self.clone();
        Arc::new(move |request| {
            let act = receiver.script.lock().expect("lock").pop_front().unwrap_or(Act::Take);
            if act == Act::Take || act == Act::TakeAndBreak {
                receiver.requests.lock().expect("lock").push(request);
            }
            let answer = match act {
                Act::Take => Ok(PostAnswer { status: 200, retry_after: None }),
                Act::TakeAndBreak => Err("broken off".to_owned()),
                Act::Refuse(status) => Ok(PostAnswer { status, retry_after: None }),
            };
            Box::pin(async move { answer })
        })
    }

    fn requests(&self) -> Vec<PostRequest> {
        self.requests.lock().expect("lock").clone()
    }

    /// The `seq` of every row of `node`, as they came.
    fn seqs(&self, node: Uuid) -> Vec<i64> {
        let of = |request: &PostRequest| request.headers["x-trustgateway-node"] == node.to_string();
        let requests = self.requests();
        let lines = requests.iter().filter(|request| of(request)).flat_map(|request| {
            let text = std::str::from_utf8(&request.body).expect("text");
            text.lines().map(|line| line.parse().expect("a seq")).collect::<Vec<i64>>()
        });
        lines.collect()
    }
}

/// An outlet as it is configured with `text`, which sends the `seq` of rows.
fn outlet(text: &str, store: &Store, post: Post, clock: &Clock) -> Outlet {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("gw.toml");
    std::fs::write(&file, format!("[[audit.outlets]]\nname = \"siem\"\n{text}\n")).expect("written");
    let config = Config::load(LoadSource::file(file)).expect("a good file");
    let render: Render =
        Arc::new(|rows| Box::pin(async move { Ok(rows.iter().map(|row| row.seq.to_string()).collect()) }));
    let config = &config.audit.outlets[0];
    Outlet::new(config, NODE, store.clone(), Sink::new(&config.destination, post), render, clock.clone())
}

fn clock() -> Clock {
    Clock::manual(Timestamp(1_000_000))
}

async fn recorded(store: &Store, node: Uuid, seqs: std::ops::RangeInclusive<i64>) {
    let decision = |seq| if seq % 3 == 0 { "refused" } else { "allowed" }.to_owned();
    let row = |seq| CallRow { seq, decision: decision(seq), id: Uuid::now_v7(), ..Draft::new(node).row };
    let batch = DrainBatch { node, rows: seqs.map(row).collect(), ..DrainBatch::default() };
    store.commit_drained(&batch).await.expect("commits");
}

async fn known(store: &Store, node: Uuid) {
    let row = NodeRow { id: node, instance: Some(node), version: None, started_at: None, seen_at: None };
    store.keep_node(&row).await.expect("kept");
}

/// Turns until there is nothing left and nothing fails.
async fn settle(outlet: &Outlet) {
    for _ in 0..1_000 {
        if matches!(outlet.turn().await, Ok(false)) {
            return;
        }
    }
    panic!("it does not come to an end");
}

on_each_database!(
    rows_come_in_order_and_none_is_missing_whatever_fails,
    an_outlet_goes_on_where_it_was_and_another_name_begins_anew,
    only_the_wanted_rows_are_sent,
    a_receiver_that_refuses_is_told_of_and_tried_again,
    how_far_it_is_behind_is_told,
);

mod suite {
    use super::*;

    const HTTP: &str = "url = \"https://siem.example/\"\nbatch = 4";

    pub(super) async fn rows_come_in_order_and_none_is_missing_whatever_fails(test: &TestStore) {
        let (store, receiver) = (&test.store, Receiver::default());
        known(store, NODE).await;
        recorded(store, NODE, 1..=10).await;
        let script =
            [Act::Refuse(500), Act::Take, Act::TakeAndBreak, Act::TakeAndBreak, Act::Refuse(404), Act::Refuse(429)];
        receiver.script.lock().expect("lock").extend(script);
        settle(&outlet(HTTP, store, receiver.post(), &clock())).await;
        assert_eq!(receiver.seqs(NODE), [1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8, 9, 10]);
        let last = receiver.requests().pop().expect("sent");
        let header = |name: &str| last.headers[name].to_str().expect("text").to_owned();
        assert_eq!(
            ["x-trustgateway-first-seq", "x-trustgateway-last-seq", "content-type"].map(header),
            ["9", "10", "application/x-ndjson"]
        );
    }

    pub(super) async fn an_outlet_goes_on_where_it_was_and_another_name_begins_anew(test: &TestStore) {
        let (store, receiver) = (&test.store, Receiver::default());
        known(store, NODE).await;
        recorded(store, NODE, 1..=5).await;
        settle(&outlet(HTTP, store, receiver.post(), &clock())).await;
        recorded(store, NODE, 6..=7).await;
        settle(&outlet(HTTP, store, receiver.post(), &clock())).await;
        assert_eq!(receiver.seqs(NODE), [1, 2, 3, 4, 5, 6, 7]);
        let other = Receiver::default();
        let mut outlet = outlet(HTTP, store, other.post(), &clock());
        outlet.name = "other".to_owned();
        settle(&outlet).await;
        assert_eq!(other.seqs(NODE), [1, 2, 3, 4, 5, 6, 7]);
    }

    pub(super) async fn only_the_wanted_rows_are_sent(test: &TestStore) {
        let store = &test.store;
        known(store, NODE).await;
        recorded(store, NODE, 1..=7).await;
        for (name, wanted) in [("refused", vec![3, 6]), ("allowed", vec![1, 2, 4, 5, 7])] {
            let receiver = Receiver::default();
            let mut outlet = outlet(&format!("{HTTP}\nrows = {name:?}"), store, receiver.post(), &clock());
            outlet.name = name.to_owned();
            settle(&outlet).await;
            assert_eq!(receiver.seqs(NODE), wanted);
            assert_eq!(store.outlet_position(name, NODE).await.expect("read"), 7);
        }
    }

    pub(super) async fn a_receiver_that_refuses_is_told_of_and_tried_again(test: &TestStore) {
        let (store, receiver, clock) = (&test.store, Receiver::default(), clock());
        known(store, NODE).await;
        recorded(store, NODE, 1..=2).await;
        let outlet = outlet(HTTP, store, receiver.post(), &clock);
        for (act, lasting) in [
            (Act::Refuse(403), true),
            (Act::Refuse(301), true),
            (Act::Refuse(408), false),
            (Act::Refuse(429), false),
            (Act::Refuse(503), false),
            (Act::TakeAndBreak, false),
        ] {
            receiver.script.lock().expect("lock").push_back(act);
            let failure = outlet.turn().await.expect_err("not taken");
            assert_eq!(failure.lasting, lasting, "{act:?}");
            let told = outlet.told();
            assert_eq!(
                (told.behind, told.refused, told.warning(clock.wall()).is_some()),
                (2, lasting, lasting),
                "{act:?}"
            );
        }
        settle(&outlet).await;
        assert_eq!((outlet.told().behind, outlet.told().error), (0, None));
    }

    pub(super) async fn how_far_it_is_behind_is_told(test: &TestStore) {
        let (store, receiver, clock) = (&test.store, Receiver::default(), clock());
        known(store, NODE).await;
        recorded(store, NODE, 1..=10).await;
        let outlet = outlet(HTTP, store, receiver.post(), &clock);
        assert_eq!((outlet.turn().await, outlet.told().behind), (Ok(true), 6));
        assert_eq!(outlet.told().warning(clock.wall()), None);
        clock.advance(Duration::from_secs(300));
        let warning = outlet.told().warning(clock.wall()).expect("late");
        assert_eq!(warning, "the outlet siem is 6 rows behind since 1970-01-01T00:00:01.000000Z");
        settle(&outlet).await;
        assert_eq!(outlet.told().warning(clock.wall()), None);
        assert_eq!(outlet.told().caught_up_at, clock.wall());
    }
}

#[tokio::test]
async fn in_a_database_of_its_own_a_node_sends_the_rows_of_its_former_selves_and_in_a_shared_one_only_its_own() {
    for (test, expected) in [(TestStore::sqlite().await, vec![1, 2]), (TestStore::postgres().await, vec![])] {
        let receiver = Receiver::default();
        for node in [FORMER, NODE] {
            known(&test.store, node).await;
            recorded(&test.store, node, 1..=2).await;
        }
        settle(&outlet("url = \"https://siem.example/\"", &test.store, receiver.post(), &clock())).await;
        assert_eq!((receiver.seqs(NODE), receiver.seqs(FORMER)), (vec![1, 2], expected));
        test.end().await;
    }
}

#[tokio::test]
async fn a_token_is_read_for_every_batch_and_without_one_nothing_is_sent() {
    let (test, receiver) = (TestStore::sqlite().await, Receiver::default());
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    known(&test.store, NODE).await;
    recorded(&test.store, NODE, 1..=1).await;
    let text = format!("url = \"https://siem.example/\"\ntoken_file = {token:?}");
    let outlet = outlet(&text, &test.store, receiver.post(), &clock());
    let failure = outlet.turn().await.expect_err("no token");
    assert!(failure.lasting && failure.text.contains("cannot be read"), "{failure:?}");
    for (seq, text) in [(1, "one\n"), (2, "two\n")] {
        std::fs::write(&token, text).expect("written");
        if seq == 2 {
            recorded(&test.store, NODE, 2..=2).await;
        }
        settle(&outlet).await;
        let sent = receiver.requests().pop().expect("sent");
        assert_eq!(sent.headers["authorization"], format!("Bearer {}", text.trim()));
    }
    test.end().await;
}

/// Appends, and is told otherwise: what a kill between the file and the position looks like afterwards.
async fn lose_position(store: &Store, seq: i64) {
    store.move_outlet("siem", NODE, seq, Timestamp(0)).await.expect("written");
}

fn lines(file: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(file).expect("readable");
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[tokio::test]
async fn a_file_has_every_row_after_a_kill_between_it_and_the_position() {
    let test = TestStore::sqlite().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("calls.jsonl");
    known(&test.store, NODE).await;
    recorded(&test.store, NODE, 1..=12).await;
    let text = format!("file = {file:?}\nbatch = 5");
    let post = Receiver::default().post();
    settle(&outlet(&text, &test.store, Arc::clone(&post), &clock())).await;
    lose_position(&test.store, 5).await;
    std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"torn"))
        .expect("written");
    settle(&outlet(&text, &test.store, post, &clock())).await;
    let expected: Vec<i64> = (1..=12).chain(6..=12).collect();
    assert_eq!(lines(&file), expected);
    test.end().await;
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Take),
        2 => Just(Act::TakeAndBreak),
        1 => prop::sample::select(vec![400_u16, 404, 408, 429, 500, 503]).prop_map(Act::Refuse),
    ]
}

/// Some rows are recorded, some turns are made, some outlets die.
#[derive(Clone, Debug)]
enum Step {
    Record(i64),
    Turn(Act),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..9_i64).prop_map(Step::Record),
        act().prop_map(Step::Turn),
        act().prop_map(Step::Turn),
        Just(Step::Restart),
    ];
    prop::collection::vec(step, 0..24)
}

async fn play(steps: Vec<Step>, batch: usize) {
    let (test, receiver) = (TestStore::sqlite().await, Receiver::default());
    known(&test.store, NODE).await;
    let text = format!("url = \"https://siem.example/\"\nbatch = {batch}");
    let begin = || outlet(&text, &test.store, receiver.post(), &clock());
    let (mut following, mut newest) = (begin(), 0);
    for step in steps {
        match step {
            Step::Record(n) => {
                recorded(&test.store, NODE, newest + 1..=newest + n).await;
                newest += n;
            }
            Step::Turn(act) => {
                *receiver.script.lock().expect("lock") = VecDeque::from([act]);
                let _ = following.turn().await;
            }
            Step::Restart => following = begin(),
        }
    }
    receiver.script.lock().expect("lock").clear();
    settle(&following).await;
    // Each row comes after the one before it, or again; the first time in order, and all of them.
    let mut seen = 0;
    for seq in receiver.seqs(NODE) {
        assert!(seq <= seen + 1, "{seq} came after {seen}");
        seen = seen.max(seq);
    }
    assert_eq!(seen, newest);
    test.end().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

    #[test]
    fn every_row_arrives_and_none_before_the_one_before_it(steps in steps(), batch in 1..6_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(steps, batch));
    }
}
