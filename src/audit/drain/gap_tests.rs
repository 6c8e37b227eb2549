//! What damage takes: never more than it must, always told, with its number where there is one.

mod numbers;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use uuid::Uuid;

use super::follow::{Follower, step};
use super::tests::Fixture;
use super::*;
use crate::audit::journal::entry::{self, Kind, Next};
use crate::audit::journal::segment::{Header, file_name, parse_file_name};
use crate::audit::journal::tests::{NODE, intent, outcome, refusal};
use crate::audit::journal::{OpenRecord, WorkerJournal};
use crate::audit::record::Ending;
use crate::store::rows::CallRow;
use crate::store::testing::TestStore;

fn gaps(rows: &[CallRow]) -> Vec<(&str, i64)> {
    let gaps = rows.iter().filter(|row| row.decision == "gap");
    gaps.map(|row| (row.reason.as_deref().expect("a cause"), row.calls)).collect()
}

fn sum(rows: &[CallRow]) -> i64 {
    rows.iter().map(|row| row.calls).sum()
}

fn refuse(worker: &Arc<WorkerJournal>, calls: std::ops::Range<u128>, clock: &Clock) {
    for n in calls {
        let (intent, outcome) = refusal(n);
        clock.advance(Duration::from_secs(1));
        let _ = worker.refuse(intent, outcome).expect("refuse");
        worker.flush();
    }
}

/// The directory of a journal that holds these refusals, and whose gateway has died.
fn dead(fixture: &Fixture, calls: std::ops::Range<u128>) -> PathBuf {
    let journal = fixture.journal();
    let worker = journal.worker(0);
    refuse(&worker, calls, &fixture.clock);
    fixture.root().join(journal.instance().to_string())
}

/// The segments of a worker, oldest first.
fn segments(dir: &Path, worker: u32) -> Vec<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = std::fs::read_dir(dir)
        .expect("the journal")
        .filter_map(|file| {
            let path = file.expect("a file").path();
            let (of, number) = parse_file_name(path.file_name()?.to_str()?)?;
            (of == worker).then_some((number, path))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

fn flip(path: &Path, offset: u64, with: u8) {
    let file = File::options().read(true).write(true).open(path).expect("the segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("within the file");
    file.write_all_at(&[byte[0] ^ with], offset).expect("flipped");
}

/// Reads and commits until there is nothing more.
async fn drained(mut follower: Follower, fixture: &Fixture) -> Follower {
    loop {
        let result;
        (follower, result) = step(follower, &fixture.store, false).await;
        if !result.expect("drained") {
            return follower;
        }
    }
}

#[tokio::test]
async fn a_segment_that_is_gone_is_a_gap_with_its_number() {
    let fixture = Fixture::new().await;
    let dir = dead(&fixture, 0..150);
    let segments = segments(&dir, 0);
    assert!(segments.len() > 3, "{segments:?}");
    for gone in &segments[1..3] {
        std::fs::remove_file(gone).expect("removed");
    }
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    let rows = fixture.rows().await;
    let [("segment_missing", missing)] = gaps(&rows)[..] else { panic!("{:?}", gaps(&rows)) };
    assert_eq!((sum(&rows), missing), (150, 150 - (rows.len() as i64 - 1)));
    let gap = rows.iter().find(|row| row.decision == "gap").expect("just counted");
    let place = gap.method.as_deref().expect("a place");
    assert!(place.starts_with("w0-2.tgj to w0-3.tgj are missing"), "{place}");
    let words = [&gap.outcome, &gap.operation, &gap.trust_level, &gap.binding, &gap.auth_method];
    assert_eq!(words, ["gap", "Gap", "none", "none", "none"]);
    assert_eq!(gap.called_at, fixture.clock.wall());
}

#[tokio::test]
async fn a_living_journal_that_is_damaged_is_left_for_a_fresh_segment_and_its_gap_is_told_at_once() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    let open = worker.open(intent(1_000), 0).expect("open");
    refuse(&worker, 0..20, &fixture.clock);
    let segment = fixture.root().join(journal.instance().to_string()).join("w0-1.tgj");
    // In the middle of what was written.
    flip(&segment, 3_000, 1);
    let mut follower = Follower::living(journal.source(), Frontier::default());
    for _ in 0..4 {
        let result;
        (follower, result) = step(follower, &fixture.store, false).await;
        result.expect("drained");
        worker.flush();
    }
    let rows = fixture.rows().await;
    let [("segment_damaged", lost)] = gaps(&rows)[..] else { panic!("{:?}", gaps(&rows)) };
    assert!(lost > 0 && sum(&rows) == 20, "{lost}: the open call is carried on, and not missing");
    assert_eq!(std::fs::read_dir(fixture.root().join("damaged")).expect("kept").count(), 1);
    refuse(&worker, 20..40, &fixture.clock);
    let closed = open.close(outcome(Ending::Completed));
    worker.flush();
    closed.await.expect("written");
    drop((follower, worker, journal));
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    let rows = fixture.rows().await;
    assert_eq!((sum(&rows), gaps(&rows).len()), (41, 1));
    assert!(rows.iter().any(|row| row.id == Uuid::from_u128(1_000) && row.outcome == "completed"));
}

#[tokio::test]
async fn a_first_segment_that_is_gone_is_a_gap_with_its_number() {
    let fixture = Fixture::new().await;
    let dir = dead(&fixture, 0..150);
    std::fs::remove_file(&segments(&dir, 0)[0]).expect("removed");
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    let rows = fixture.rows().await;
    let [("segment_missing", missing)] = gaps(&rows)[..] else { panic!("{:?}", gaps(&rows)) };
    assert!(missing > 0 && sum(&rows) == 150, "{missing}");
}

#[tokio::test]
async fn a_segment_that_is_full_but_for_a_few_bytes_is_no_damage() {
    for left in 0..16 {
        let fixture = Fixture::new().await;
        let dir = dead(&fixture, 0..100);
        let segments = segments(&dir, 0);
        assert!(segments.len() > 1, "{segments:?}");
        let first = written(segments[0].clone());
        File::options().write(true).open(&first.path).expect("the segment").set_len(first.end + left).expect("cut");
        Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
        let rows = fixture.rows().await;
        assert_eq!((gaps(&rows), sum(&rows)), (vec![], 100), "{left} bytes left");
    }
}

#[tokio::test]
async fn a_segment_without_rows_is_not_taken_for_missing_once_it_was_read() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    refuse(&worker, 0..1, &fixture.clock);
    let follower = drained(Follower::living(journal.source(), Frontier::default()), &fixture).await;
    // From here to the next segment, and a little on, there are only calls that go on.
    let dir = fixture.root().join(journal.instance().to_string());
    let mut open = Vec::new();
    while segments(&dir, 0).len() < 2 {
        open.push(worker.open(intent(100 + open.len() as u128), 0).expect("open"));
        worker.flush();
    }
    let follower = drained(follower, &fixture).await;
    assert_eq!(segments(&dir, 0).len(), 1, "what was read is gone");
    let calls = 1 + open.len() as i64;
    drop((open, follower, worker, journal));
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    let rows = fixture.rows().await;
    assert_eq!((gaps(&rows), sum(&rows)), (vec![], calls));
}

#[tokio::test]
async fn a_journal_of_which_nothing_can_be_read_is_one_gap_however_often_it_is_tried() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    refuse(&worker, 0..5, &fixture.clock);
    let instance = journal.instance();
    let dir = fixture.root().join(instance.to_string());
    drop((journal, worker));
    for worker in 0..2 {
        flip(&segments(&dir, worker)[0], 20, 1);
    }
    // Its place among the damaged is taken: it cannot be put aside, as if the process had died before it did that.
    let taken = fixture.root().join("damaged").join(instance.to_string());
    std::fs::create_dir_all(taken.join("something")).expect("a directory");
    for _ in 0..2 {
        Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect_err("in the way");
    }
    std::fs::remove_dir_all(&taken).expect("removed");
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    let rows = fixture.rows().await;
    assert_eq!(gaps(&rows), [("journal_unreadable", 0)]);
    assert!(rows[0].method.as_deref().is_some_and(|place| place.contains(&instance.to_string())));
    assert!(taken.join("w0-1.tgj").exists(), "kept aside");
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    assert_eq!(fixture.store.journal_positions().await.expect("positions"), [], "nothing of it is remembered");
}

#[tokio::test]
async fn an_entry_that_makes_no_sense_is_a_gap_of_its_own() {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    refuse(&worker, 0..3, &fixture.clock);
    let end = journal.source().segments(0)[0].end;
    let dir = fixture.root().join(journal.instance().to_string());
    drop((journal, worker));
    let mut bytes = Vec::new();
    let (of, told) = refusal(3);
    entry::write_whole(&mut bytes, &entry::Opened::new(of, 0, false), &told);
    // The first byte of the request id's length, and a checksum that says it is right.
    bytes[10] = 15;
    entry::set_calls(&mut bytes, 7);
    let file = File::options().write(true).open(&segments(&dir, 0)[0]).expect("the segment");
    file.write_all_at(&bytes, end).expect("written");
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    let rows = fixture.rows().await;
    assert_eq!((gaps(&rows), rows.len()), (vec![("entry_unreadable", 7)], 4));
    assert_eq!(std::fs::read_dir(fixture.root().join("damaged")).expect("kept").count(), 1);
}

#[tokio::test]
async fn a_database_that_is_too_slow_for_a_batch_is_given_half_of_it_until_it_is_done_in_time() {
    let database = TestStore::postgres().await;
    // Takes three rows at most, and says what a server says that was told to give up after 30 s.
    database
        .by_hand(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF (SELECT count(*) FROM added) > 3 THEN RAISE EXCEPTION 'slow' USING ERRCODE = '57014'; END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER slow AFTER INSERT ON proxy_calls REFERENCING NEW TABLE AS added
                 FOR EACH STATEMENT EXECUTE FUNCTION slow()",
        )
        .await;
    let fixture = Fixture::on(database);
    let journal = fixture.journal();
    let worker = journal.worker(0);
    refuse(&worker, 0..40, &fixture.clock);
    let mut follower = Follower::living(journal.source(), Frontier::default());
    let (mut failed, mut committed) = (0, 0);
    loop {
        let result;
        (follower, result) = step(follower, &fixture.store, false).await;
        match result {
            Ok(true) => committed += 1,
            Ok(false) => break,
            Err(_) => failed += 1,
        }
    }
    assert_eq!(sum(&fixture.rows().await), 40);
    assert!(committed >= 14 && failed < committed * 2, "{committed} committed, {failed} failed");
    refuse(&worker, 40..60, &fixture.clock);
    drop((follower, journal, worker));
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    assert_eq!(sum(&fixture.rows().await), 60);
}

/// What is done before the damage: calls of one worker, most of them over.
#[derive(Clone, Debug)]
enum Act {
    Open,
    Close(usize),
    Refuse(u8),
    Flood,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => Just(Act::Open),
        5 => any::<usize>().prop_map(Act::Close),
        4 => (1..4_u8).prop_map(Act::Refuse),
        1 => Just(Act::Flood),
    ];
    prop::collection::vec(act, 100..400)
}

/// What one segment holds: where its header and its entries end, and which calls those begin.
struct Written {
    path: PathBuf,
    begins: Vec<(u64, Uuid)>,
    end: u64,
    calls: i64,
}

fn written(path: PathBuf) -> Written {
    let bytes = std::fs::read(&path).expect("readable");
    let (_, mut at) = Header::from_bytes(&bytes).expect("a header");
    let mut found = Written { path, begins: Vec::new(), end: 0, calls: 0 };
    while let Next::Entry { kind, payload, len } = entry::next(&bytes[at..]) {
        at += len;
        found.calls += entry::begun(kind, payload).cast_signed();
        if matches!(kind, Kind::Intent | Kind::Whole) {
            found.begins.push((at as u64, entry::request_id(payload).expect("an id")));
        }
    }
    found.end = at as u64;
    found
}

/// A byte: which segment, where in what is written of it, which bits.
type Flip = (prop::sample::Index, prop::sample::Index, u8);

async fn play(acts: Vec<Act>, flips: Vec<Flip>, gone: Option<prop::sample::Index>, cuts: [usize; 3]) {
    let fixture = Fixture::new().await;
    let journal = fixture.journal();
    let worker = journal.worker(0);
    let mut open: Vec<OpenRecord> = Vec::new();
    for (n, act) in acts.into_iter().enumerate() {
        let n = n as u128 * 1_000;
        match act {
            Act::Open => open.push(worker.open(intent(n), 0).expect("open")),
            Act::Close(at) if !open.is_empty() => {
                drop(open.swap_remove(at % open.len()).close(outcome(Ending::Completed)));
            }
            Act::Close(_) => {}
            Act::Refuse(calls) => refuse(&worker, n..n + u128::from(calls), &fixture.clock),
            Act::Flood => {
                for k in 0..30 {
                    let (intent, outcome) = refusal(n + k);
                    let _ = worker.refuse(intent, outcome).expect("refuse");
                }
            }
        }
        worker.flush();
    }
    let instance = journal.instance();
    let dir = fixture.root().join(instance.to_string());
    drop((open, worker, journal));

    let segments: Vec<Written> = segments(&dir, 0).into_iter().map(written).collect();
    let all: i64 = segments.iter().map(|segment| segment.calls).sum();
    let mut damage: BTreeMap<usize, u64> = BTreeMap::new();
    for (segment, at, bits) in flips {
        let number = segment.index(segments.len());
        let offset = at.index(usize::try_from(segments[number].end).expect("small")) as u64;
        flip(&segments[number].path, offset, bits);
        damage.entry(number).and_modify(|first| *first = offset.min(*first)).or_insert(offset);
    }
    if let Some(gone) = gone.filter(|_| segments.len() > 1).map(|at| at.index(segments.len() - 1)) {
        std::fs::remove_file(&segments[gone].path).expect("removed");
        damage.insert(gone, 0);
    }
    let intact = |(number, segment): (usize, &Written)| -> Vec<Uuid> {
        let until = damage.get(&number).copied().unwrap_or(u64::MAX);
        let header = written_header(&segment.path);
        segment.begins.iter().filter(|(end, _)| header && *end <= until).map(|(_, id)| *id).collect()
    };
    let readable: Vec<Uuid> = segments.iter().enumerate().flat_map(intact).collect();

    for cut_after in cuts {
        if fixture.store.finished_journals().await.expect("finished").contains(&instance) {
            break;
        }
        let positions = fixture.store.journal_positions().await.expect("positions");
        let tree = tree_of(&fixture.store, NODE).await.expect("the tree");
        let mut cut = Follower::dead(instance, &dir, NODE, tree, &positions, &fixture.clock).expect("dead");
        for _ in 0..cut_after {
            cut.gather(true).expect("read");
            if cut.commit_and_clear(&fixture.store).await.expect("commit") {
                break;
            }
        }
    }
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");

    let rows = fixture.rows().await;
    let ids: BTreeSet<Uuid> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows.len(), "none is there twice");
    let lost: Vec<_> = readable.iter().filter(|id| !ids.contains(id)).collect();
    assert!(lost.is_empty(), "intact and not in the log: {lost:?}");
    if damage.is_empty() {
        assert_eq!(gaps(&rows), []);
    }
    // Behind the last segment there is no header that would tell what is missing of it.
    let last = segments.len() - 1;
    assert!(sum(&rows) <= all, "{} of {all}: {:?}", sum(&rows), gaps(&rows));
    if !damage.contains_key(&last) {
        assert_eq!(sum(&rows), all, "{:?}", gaps(&rows));
    } else {
        // Its last entry may look as if it had never been written whole.
        let torn = segments[last].begins.last().is_some_and(|(end, _)| damage[&last] < *end);
        assert!(torn || sum(&rows) == all || !gaps(&rows).is_empty());
    }
}

fn written_header(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| Header::from_bytes(&bytes).is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 5, ..ProptestConfig::default() })]

    #[test]
    fn damage_takes_what_it_must_and_the_log_counts_the_rest(
        acts in acts(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..=255_u8), 0..4),
        gone in prop::option::weighted(0.3, any::<prop::sample::Index>()),
        cuts in prop::array::uniform3(0..8_usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(acts, flips, gone, cuts));
    }
}

#[test]
fn the_names_of_many_places_are_cut_and_the_words_stay() {
    let mut losses = losses::Losses::default();
    losses.begin();
    for number in 1..100 {
        losses.note(crate::audit::gap::Cause::SegmentDamaged, number, &file_name(0, number));
    }
    let row = losses.settle(Some(7), None).expect("a gap").row(NODE, fixture_time());
    let place = row.method.expect("a place");
    assert!(place.len() <= 200 && place.ends_with(": counted by the segment behind it"), "{place}");
    assert_eq!(row.calls, 7);
}

fn fixture_time() -> crate::clock::Timestamp {
    crate::clock::Timestamp(1)
}
