use std::collections::HashMap;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use uuid::Uuid;

use super::follow::{Follower, step};
use super::*;
use crate::audit::canonical;
use crate::audit::journal::segment::parse_file_name;
use crate::audit::journal::tests::{NODE, intent, journal, outcome, refusal};
use crate::audit::journal::{Durability, OpenRecord, Written};
use crate::audit::record::{Ending, Outcome};
use crate::clock::Timestamp;
use crate::store::call_query::{CallFilter, CallPage};
use crate::store::rows::CallRow;
use crate::store::testing::TestStore;

const SEGMENT: u64 = 16 * 1024;

pub(super) struct Fixture {
    dir: tempfile::TempDir,
    pub(super) store: Store,
    _database: TestStore,
    pub(super) clock: Clock,
}

impl Fixture {
    pub(super) async fn new() -> Self {
        Self::on(TestStore::any().await)
    }

    pub(super) fn on(database: TestStore) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self {
            dir,
            store: database.store.clone(),
            _database: database,
            clock: Clock::manual(Timestamp(1_700_000_000_000_000)),
        }
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("journal")
    }

    pub(super) fn journal(&self) -> Journal {
        journal(&self.root(), Durability::Process, SEGMENT, &self.clock)
    }

    pub(super) async fn rows(&self) -> Vec<CallRow> {
        let mut rows = Vec::new();
        let mut page = CallPage { limit: 500, ..CallPage::default() };
        loop {
            let more = self.store.calls(&CallFilter::default(), &page).await.expect("rows");
            let Some(last) = more.last() else { break };
            page.after = Some((last.called_at, last.id));
            rows.extend(more);
        }
        rows.sort_by_key(|row| row.seq);
        for (row, seq) in rows.iter().zip(1..) {
            assert_eq!(row.seq, seq, "gapless");
            assert_eq!(row.leaf_hash, canonical::leaf_hash(row), "the leaf follows from the stored row");
        }
        rows
    }

    pub(super) fn instances(&self) -> usize {
        let entries = std::fs::read_dir(self.root()).expect("the root");
        entries.filter(|file| file.as_ref().expect("a file").file_name().len() == 36).count()
    }
}

#[tokio::test]
async fn a_call_becomes_a_row_with_everything_that_was_known() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let drain = Drain::start(fixture.store.clone(), &journal, fixture.clock.clone());
    let worker = journal.worker(1);
    let flusher = tokio::spawn(Arc::clone(&worker).run_flusher());
    let record = worker.open(intent(5), 10).expect("open");
    record.intent_written().await.expect("written");
    record.close(outcome(Ending::Completed)).await.expect("written");
    drain.flush().await;
    let rows = fixture.rows().await;
    let row = &rows[0];
    assert_eq!((row.id, row.node_id, row.outcome.as_str()), (Uuid::from_u128(5), NODE, "completed"));
    assert_eq!(row.client_ip.as_deref(), Some("203.0.113.0/24"));
    assert!(row.personal_salt.is_some_and(|salt| salt != [0; 16]));
    assert_eq!((row.task_id.as_deref(), row.context_id.as_deref()), (Some("task"), Some("asked")));
    assert_eq!((row.status_code, row.upstream_status, row.rpc_error_code), (200, Some(200), Some(-32_001)));
    assert_eq!((row.request_bytes, row.response_bytes, row.ttfb_ms, row.latency_ms), (10, 20, Some(3), 4));
    assert_eq!((row.method.as_deref(), row.units, row.calls), (Some("xxxxx"), 1, 1));
    for i in 0..2 {
        journal.worker(i).shutdown();
        journal.worker(i).flush();
    }
    flusher.await.expect("the flusher ends");
    drain.finish().await;
    assert_eq!(fixture.instances(), 0, "a journal that ended well leaves nothing behind");
    assert_eq!(fixture.store.journal_positions().await.expect("positions"), []);
}

#[tokio::test]
async fn the_sum_of_calls_is_the_number_of_refusals() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    for n in 0..500 {
        let (intent, outcome) = refusal(n);
        let _ = worker.refuse(intent, outcome).expect("refuse");
        if n % 90 == 0 {
            worker.flush();
        }
    }
    worker.flush();
    drop((journal, worker));
    let recovered = Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    assert!(recovered.rows < 30, "{recovered:?}");
    let refused = CallFilter { decision: Some("refused".to_owned()), ..CallFilter::default() };
    assert_eq!(fixture.store.calls_sum(&refused).await.expect("sum"), 500);
    assert_eq!(fixture.store.limit_state(fixture.clock.wall()).await.expect("limits"), [], "refusals are not charged");
}

#[tokio::test]
async fn recovery_leaves_the_living_alone_and_ends_the_dead() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    let open = worker.open(intent(1), 77).expect("open");
    worker.flush();
    let recovered = Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    assert_eq!(recovered, Recovered { left_alone: 1, ..Recovered::default() });
    drop((open, journal, worker)); // what the drop appends is never flushed
    let recovered = Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    assert_eq!(recovered, Recovered { journals: 1, rows: 1, left_alone: 0 });
    let rows = fixture.rows().await;
    assert_eq!((rows[0].outcome.as_str(), rows[0].request_bytes, rows[0].status_code), ("interrupted", 77, 0));
    assert_eq!(fixture.instances(), 0);
    let limits = fixture.store.limit_state(rows[0].called_at).await.expect("limits");
    assert_eq!((limits[0].used, limits[0].tat_us), (1, rows[0].called_at.0 + 1_000_000));
}

#[tokio::test]
async fn a_drain_that_ends_before_its_workers_leaves_the_journal_for_the_next_start() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let drain = Drain::start(fixture.store.clone(), &journal, fixture.clock.clone());
    let worker = journal.worker(0);
    let (first, outcome) = refusal(1);
    let _ = worker.refuse(first, outcome).expect("refuse");
    worker.flush();
    drain.finish().await;
    assert_eq!((fixture.rows().await.len(), fixture.instances()), (1, 1));
    let (second, outcome) = refusal(2);
    let _ = worker.refuse(second, outcome).expect("refuse");
    worker.flush();
    drop((journal, worker));
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    assert_eq!((fixture.rows().await.len(), fixture.instances()), (2, 0));
}

#[tokio::test]
async fn a_damaged_middle_is_kept_aside_and_later_segments_are_read() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    for n in 0..60 {
        let (intent, outcome) = refusal(n);
        fixture.clock.advance(Duration::from_secs(1));
        let _ = worker.refuse(intent, outcome).expect("refuse");
        worker.flush();
    }
    let first = fixture.root().join(journal.instance().to_string()).join("w0-1.tgj");
    drop((journal, worker));
    let file = File::options().write(true).open(&first).expect("the segment");
    file.write_all_at(&[0x55; 4], 2_000).expect("damage");
    let recovered = Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    assert!(recovered.rows > 10 && recovered.rows < 60, "{recovered:?}");
    let rows = fixture.rows().await;
    assert!(rows.iter().any(|row| row.id == Uuid::from_u128(59)));
    assert_eq!(rows.iter().map(|row| row.calls).sum::<i64>(), 60, "calls and gap");
    assert_eq!(std::fs::read_dir(fixture.root().join("damaged")).expect("kept").count(), 1);
}

#[tokio::test]
async fn a_database_that_fails_after_a_commit_took_effect_gets_nothing_twice() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    let (intent, outcome) = refusal(1);
    let _ = worker.refuse(intent, outcome).expect("refuse");
    worker.flush();
    let mut follower = Follower::living(journal.source(), Frontier::default());
    follower.gather(false).expect("read");
    follower.commit(&fixture.store).await.expect("commit");
    follower.commit(&fixture.store).await.expect("the same batch again");
    assert_eq!(fixture.rows().await.len(), 1);
}

/// Copies the journal of one process start, as a backup does.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for file in std::fs::read_dir(from).expect("reads") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

#[tokio::test]
async fn a_copy_of_a_journal_from_before_the_database_adds_only_what_that_does_not_have() {
    // What the database says of the journal: how far it is in there, or nothing any more.
    for ended in [false, true] {
        let fixture = Fixture::new().await;
        let journal = fixture.journal();
        let worker = journal.worker(0);
        let (whole, told) = refusal(1);
        let _ = worker.refuse(whole, told).expect("refuse");
        let [closed, lost] = [2, 3].map(|n| worker.open(intent(n), 0).expect("open"));
        worker.flush();
        let dir = fixture.root().join(journal.instance().to_string());
        let aside = fixture.dir.path().join("aside");
        copy(&dir, &aside);
        let written = closed.close(outcome(Ending::Completed));
        worker.flush();
        written.await.expect("written");
        let mut follower = Follower::living(journal.source(), Frontier::default());
        follower.gather(false).expect("read");
        follower.commit_and_clear(&fixture.store).await.expect("commit");
        if ended {
            fixture.store.forget_journal(journal.instance()).await.expect("forgotten");
        }
        drop((lost, worker, journal, follower));
        std::fs::remove_dir_all(&dir).expect("removed");
        copy(&aside, &dir);
        Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
        let rows = fixture.rows().await;
        let outcomes: Vec<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
        assert_eq!(outcomes, ["refused", "completed", "interrupted"], "ended: {ended}");
        let limits = fixture.store.limit_state(rows[1].called_at).await.expect("limits");
        assert_eq!(limits[0].used, 2, "nothing is charged twice");
    }
}

#[tokio::test]
async fn the_journal_of_a_node_that_serves_elsewhere_is_left_to_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let database = TestStore::postgres().await;
    let clock = Clock::manual(Timestamp(1_700_000_000_000_000));
    let journal = journal(dir.path(), Durability::Process, SEGMENT, &clock);
    let worker = journal.worker(0);
    let open = worker.open(intent(1), 0).expect("open");
    worker.flush();
    drop((open, worker, journal));
    let (store, copy) = (&database.store, Uuid::from_u128(2));
    let serving = store.listen(NODE).await.expect("nobody is");
    let recovered = Drain::recover(store, copy, dir.path(), &clock).await.expect("recover");
    assert_eq!(recovered, Recovered { left_alone: 1, ..Recovered::default() });
    drop(serving);
    let recovered = async {
        while Drain::recover(store, copy, dir.path(), &clock).await.expect("recover").rows == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), recovered).await.expect("once nobody is, it is recovered");
    database.end().await;
}

#[derive(Clone, Debug)]
enum Act {
    Open,
    Close(usize),
    Drop(usize),
    Refuse,
    Flush,
    Drain,
    FailWrite,
    FullDisk,
}

fn acts() -> impl Strategy<Value = Vec<(u8, Act)>> {
    let act = prop_oneof![
        8 => Just(Act::Open),
        6 => any::<usize>().prop_map(Act::Close),
        1 => any::<usize>().prop_map(Act::Drop),
        2 => Just(Act::Refuse),
        6 => Just(Act::Flush),
        2 => Just(Act::Drain),
        1 => Just(Act::FailWrite),
        1 => Just(Act::FullDisk),
    ];
    prop::collection::vec((0..2_u8, act), 1..160)
}

/// What callers were told.
#[derive(Default)]
struct Told {
    /// Of each call, by the number in its request id: the intent, and the outcome where there is one.
    calls: HashMap<u128, (Written, Option<Closed>)>,
    refused: Vec<(Uuid, Written)>,
}

/// An outcome; not told to anybody if it comes from a drop.
type Closed = (Ending, Option<Written>);

fn ok(written: &Written) -> bool {
    written.now() == Some(Ok(()))
}

async fn play(acts: Vec<(u8, Act)>, tail: Vec<u8>, cut_recovery: usize) {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let mut follower = Follower::living(journal.source(), Frontier::default());
    let mut told = Told::default();
    let mut open: Vec<(u128, OpenRecord)> = Vec::new();
    for (n, (worker, act)) in acts.into_iter().enumerate() {
        let n = n as u128 + 1;
        let worker = journal.worker(worker.into());
        let faults = journal.faults();
        match act {
            Act::Open => {
                if let Ok(record) = worker.open(intent(n), 0) {
                    told.calls.insert(n, (record.intent_written(), None));
                    open.push((n, record));
                }
            }
            Act::Close(at) if !open.is_empty() => {
                let (id, record) = open.swap_remove(at % open.len());
                let written = record.close(outcome(Ending::AgentError));
                told.calls.get_mut(&id).expect("opened").1 = Some((Ending::AgentError, Some(written)));
            }
            Act::Drop(at) if !open.is_empty() => {
                let (id, record) = open.swap_remove(at % open.len());
                drop(record);
                told.calls.get_mut(&id).expect("opened").1 = Some((Ending::Interrupted, None));
            }
            Act::Refuse => {
                for k in 0..20 {
                    let (intent, outcome) = refusal(n * 1_000_000 + k);
                    if let Ok(refused) = worker.refuse(intent, outcome) {
                        told.refused.push((refused.request_id, refused.written));
                    }
                }
            }
            Act::Flush => worker.flush(),
            Act::FailWrite => {
                faults.write.store(true, Ordering::SeqCst);
                worker.flush();
                faults.write.store(false, Ordering::SeqCst);
            }
            Act::FullDisk => {
                faults.create.store(true, Ordering::SeqCst);
                for k in 0..8 {
                    let id = n * 1_000_000 + k;
                    if let Ok(record) = worker.open(intent(id), 0) {
                        told.calls.insert(id, (record.intent_written(), None));
                        open.push((id, record));
                    }
                }
                faults.create.store(false, Ordering::SeqCst);
            }
            Act::Drain => {
                let result;
                (follower, result) = step(follower, &fixture.store, false).await;
                result.expect("drained");
            }
            Act::Close(_) | Act::Drop(_) => {}
        }
        fixture.clock.advance(Duration::from_millis(100));
    }

    // The process dies: what was not flushed is gone, and half of a write may be behind the last one.
    let instance = journal.instance();
    let dir = fixture.root().join(instance.to_string());
    let last = journal.source().segments(0).last().copied();
    drop((open, follower, journal));
    if let Some(last) = last {
        let name = dir.join(crate::audit::journal::segment::file_name(0, last.number));
        let file = File::options().write(true).open(name).expect("the last segment");
        file.write_all_at(&tail, last.end).expect("a torn tail");
    }

    // Recoveries that are cut after some commits, before anything is deleted; the later ones come less far than the first.
    for cut_after in [cut_recovery, cut_recovery / 2, 1] {
        let positions = fixture.store.journal_positions().await.expect("positions");
        if fixture.store.finished_journals().await.expect("finished").contains(&instance) {
            break;
        }
        let tree = tree_of(&fixture.store, NODE).await.expect("the tree");
        let mut cut = Follower::dead(instance, &dir, NODE, tree, &positions, &fixture.clock).expect("a dead journal");
        for _ in 0..cut_after {
            cut.gather(true).expect("read");
            if cut.commit_and_clear(&fixture.store).await.expect("commit") {
                break;
            }
        }
    }
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    check(&fixture, &told).await;
    assert_eq!(fixture.instances(), 0);
    assert!(!fixture.root().join("damaged").exists(), "a torn tail is no damage");
}

async fn check(fixture: &Fixture, told: &Told) {
    let rows = fixture.rows().await;
    let mut by_id: HashMap<Uuid, &CallRow> = HashMap::new();
    for row in &rows {
        assert!(by_id.insert(row.id, row).is_none(), "{} twice", row.id);
    }
    for (id, (begun, ended)) in &told.calls {
        let row = by_id.get(&Uuid::from_u128(*id));
        let outcome = row.map(|row| row.outcome.as_str());
        match (begun, ended) {
            (_, Some((ending, Some(written)))) if ok(written) => assert_eq!(outcome, Some(ending.as_str()), "{id}"),
            (written, _) if ok(written) => assert_eq!(outcome, Some("interrupted"), "{id}"),
            _ => assert!(matches!(outcome, None | Some("interrupted")), "{id}: {outcome:?}"),
        }
    }
    let mut refused: HashMap<Uuid, i64> = HashMap::new();
    for (id, written) in &told.refused {
        if ok(written) {
            *refused.entry(*id).or_default() += 1;
        }
    }
    for row in rows.iter().filter(|row| row.outcome == "refused") {
        assert_eq!(refused.remove(&row.id), Some(row.calls), "{}", row.id);
    }
    assert_eq!(refused, HashMap::new(), "every refusal that was answered has its row");
}

/// A tail as a dying write leaves it: the beginning of an entry, or anything else that does not hold a whole one.
fn tail() -> impl Strategy<Value = Vec<u8>> {
    let torn = (1..200_usize, any::<u8>()).prop_map(|(len, flip)| {
        let mut bytes = Vec::new();
        let opened = crate::audit::journal::entry::Opened::new(intent(999_999_999_999), 0, true);
        crate::audit::journal::entry::write_intent(&mut bytes, crate::audit::journal::entry::Kind::Intent, &opened);
        bytes.truncate(len);
        if let Some(last) = bytes.last_mut() {
            *last ^= flip;
        }
        bytes
    });
    prop_oneof![torn, prop::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 5, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_answered_has_one_row_after_any_crash(acts in acts(), tail in tail(), cut in 0..6_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(acts, tail, cut));
    }

    #[test]
    fn reading_entries_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::audit::journal::entry::next(&bytes);
        let _ = crate::audit::journal::entry::Draft::new(NODE).apply(&bytes);
        let _ = parse_file_name(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn an_outcome_says_how_many_calls_it_stands_for() {
    let mut bytes = Vec::new();
    let (intent, outcome) = refusal(1);
    let opened = crate::audit::journal::entry::Opened::new(intent, 0, false);
    crate::audit::journal::entry::write_whole(&mut bytes, &opened, &Outcome { calls: 1, ..outcome });
    crate::audit::journal::entry::set_calls(&mut bytes, 70_000);
    let crate::audit::journal::entry::Next::Entry { payload, .. } = crate::audit::journal::entry::next(&bytes) else {
        panic!("not an entry");
    };
    let mut draft = crate::audit::journal::entry::Draft::new(NODE);
    draft.apply(payload).expect("readable");
    assert_eq!(draft.row.calls, 70_000);
}
