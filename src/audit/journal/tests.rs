use std::future::Future as _;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::flush::Chunk;
use super::*;
use crate::a2a::{Binding, Operation};
use crate::audit::record::{AuthMethod, Charge, Decision, Ending, Outcome};
use crate::trust::TrustLevel;

/// What goes wrong, while it is set.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) create: AtomicBool,
    pub(crate) write: AtomicBool,
    /// Once.
    pub(crate) sync: AtomicBool,
    /// Syncs wait as long as a test holds it.
    pub(crate) gate: Mutex<()>,
    /// How many syncs have begun.
    pub(crate) begun: AtomicUsize,
    pub(crate) repair: AtomicBool,
}

fn fail(fault: &AtomicBool) -> io::Result<()> {
    if fault.load(Ordering::SeqCst) { Err(io::Error::other("injected")) } else { Ok(()) }
}

impl Faults {
    pub(super) fn on_create(&self) -> io::Result<()> {
        fail(&self.create)
    }

    /// A failing write leaves half of its bytes.
    pub(super) fn on_write(&self, chunk: &Chunk) -> io::Result<()> {
        if self.write.load(Ordering::SeqCst) {
            chunk.segment.write(&chunk.bytes[..chunk.bytes.len() / 2], chunk.offset)?;
        }
        fail(&self.write)
    }

    pub(super) fn on_sync(&self) -> io::Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock().expect("the gate"));
        if self.sync.swap(false, Ordering::SeqCst) { Err(io::Error::other("injected")) } else { Ok(()) }
    }

    pub(super) fn on_repair(&self) -> io::Result<()> {
        fail(&self.repair)
    }
}

pub(crate) const NODE: Uuid = Uuid::from_u128(0x4e6f_6465);

pub(crate) fn journal(dir: &Path, durability: Durability, segment_bytes: u64, clock: &Clock) -> Journal {
    journal_within(u64::MAX, dir, durability, segment_bytes, clock)
}

/// As [`journal`], with a budget.
pub(crate) fn journal_within(
    budget: u64,
    dir: &Path,
    durability: Durability,
    segment_bytes: u64,
    clock: &Clock,
) -> Journal {
    let dir = dir.to_owned();
    let config = JournalConfig { dir, durability, segment_bytes, budget, full_addresses: false, node_id: NODE };
    Journal::create(config, 2, clock.clone()).expect("a journal")
}

pub(crate) fn intent(n: u128) -> Intent {
    Intent {
        request_id: Uuid::from_u128(n),
        called_at: Timestamp(1_700_000_000_000_000 + n as i64),
        target_agent_id: Some(Uuid::from_u128(1)),
        caller_agent_id: None,
        credential_id: None,
        auth_method: AuthMethod::None,
        trust_level: TrustLevel::Unverified,
        connection_id: None,
        client_ip: Some("203.0.113.77".parse().expect("an address")),
        binding: Binding::JsonRpc,
        protocol_version: Some("1.0".into()),
        method: Some("x".repeat(n as usize % 300).into()),
        operation: Operation::SendMessage,
        rpc_id: Some("\"1\"".into()),
        task_id: None,
        context_id: Some("asked".into()),
        message_id: None,
        decision: Decision::Allowed,
        reason: None,
        policy_rule: Some("tier.unverified".into()),
        policy_digest: None,
        units: 1,
        limit: None,
        trace_id: None,
        charge: Some(Charge { key: [7; 16], refill_us: 1_000_000, units: 1 }),
    }
}

pub(crate) fn outcome(ending: Ending) -> Outcome {
    Outcome {
        ending,
        reason: None,
        status_code: 200,
        upstream_status: Some(200),
        rpc_error_code: Some(-32_001),
        task_state: Some("TASK_STATE_WORKING".into()),
        task_id: Some("task".into()),
        context_id: None,
        request_bytes: 10,
        response_bytes: 20,
        stream_events: None,
        ttfb_ms: Some(3),
        latency_ms: 4,
        calls: 1,
    }
}

pub(crate) fn refusal(n: u128) -> (Intent, Outcome) {
    let refused = Intent { decision: Decision::Refused, reason: Some("rate_limited"), units: 0, ..intent(n) };
    (refused, Outcome { status_code: 429, upstream_status: None, ..outcome(Ending::Refused) })
}

fn resolved(written: Written) -> Poll<Result<(), JournalDown>> {
    pin!(written).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_entry_never_exceeds_its_bound() {
    let long: Box<str> = "é".repeat(5_000).into();
    let longest = Outcome {
        task_state: Some(long.clone()),
        task_id: Some(long.clone()),
        context_id: Some(long.clone()),
        reason: Some(Box::leak(long.clone())),
        stream_events: Some(u64::MAX),
        ..outcome(Ending::Interrupted)
    };
    let mut bytes = Vec::new();
    entry::write_outcome(&mut bytes, Uuid::max(), &longest);
    assert!(bytes.len() <= entry::OUTCOME_MAX, "{}", bytes.len());
    let intent = Intent {
        method: Some(long.clone()),
        rpc_id: Some(long.clone()),
        task_id: Some(long.clone()),
        context_id: Some(long.clone()),
        message_id: Some(long.clone()),
        policy_rule: Some(long.clone()),
        policy_digest: Some(long.clone()),
        trace_id: Some(long.clone()),
        protocol_version: Some(long.clone()),
        target_agent_id: Some(Uuid::max()),
        ..intent(1)
    };
    bytes.clear();
    entry::write_whole(&mut bytes, &entry::Opened::new(intent, 1, true), &longest);
    assert!(bytes.len() <= entry::ENTRY_MAX, "{}", bytes.len());
    assert!(matches!(entry::next(&bytes), entry::Next::Entry { len, .. } if len == bytes.len()));
}

#[test]
fn nothing_is_written_before_its_turn_and_everything_of_a_turn_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = journal(dir.path(), Durability::Process, 1 << 16, &Clock::manual(Timestamp(0)));
    let worker = journal.worker(0);
    let first = worker.open(intent(1), 0).expect("open");
    let second = worker.open(intent(2), 0).expect("open");
    assert!(resolved(first.intent_written()).is_pending());
    assert_eq!(journal.active().len(), 2);
    worker.flush();
    assert_eq!(resolved(second.intent_written()), Poll::Ready(Ok(())));
    let closed = first.close(outcome(Ending::Completed));
    assert!(resolved(second.intent_written()).is_ready(), "an earlier turn stays written");
    assert_eq!(closed.now(), None);
    worker.flush();
    assert_eq!(closed.now(), Some(Ok(())));
    assert_eq!(journal.active(), [intent(2)]);
}

#[test]
fn a_full_disk_refuses_calls_but_takes_the_outcomes_of_open_ones_and_recovers() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(Timestamp(5));
    let journal = journal(dir.path(), Durability::Process, 1 << 14, &clock);
    let worker = journal.worker(0);
    journal.faults().create.store(true, Ordering::SeqCst);
    let mut open = Vec::new();
    while let Ok(record) = worker.open(intent(open.len() as u128), 0) {
        open.push(record);
    }
    assert!(open.len() > 5);
    assert!(matches!(journal.health(), JournalHealth::Down { since: Timestamp(5), .. }));
    let longest = || Outcome {
        task_id: Some("t".repeat(500).into()),
        context_id: Some("c".repeat(500).into()),
        stream_events: Some(1),
        ..outcome(Ending::Completed)
    };
    let closed: Vec<_> = open.drain(..).map(|record| record.close(longest())).collect();
    worker.flush();
    assert!(worker.segments()[0].end <= 1 << 14, "outcomes stay inside the room that was reserved");
    assert!(closed.iter().all(|written| written.now() == Some(Ok(()))));
    journal.faults().create.store(false, Ordering::SeqCst);
    let more = |n| worker.open(Intent { method: Some("y".repeat(200).into()), ..intent(n) }, 0);
    let held: Vec<_> = (0..100).map_while(|n| more(n).ok()).collect();
    assert!(held.len() < 100, "not tried again so soon");
    clock.advance(Duration::from_millis(250));
    assert!(more(1).is_ok());
    assert_eq!(journal.health(), JournalHealth::Healthy);
}

#[test]
fn after_a_failed_write_everything_under_way_fails_and_a_fresh_segment_takes_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(Timestamp(5));
    let journal = journal(dir.path(), Durability::Process, 1 << 16, &clock);
    let worker = journal.worker(0);
    let kept = worker.open(intent(1), 0).expect("open");
    worker.flush();
    let before = worker.segments();
    journal.faults().write.store(true, Ordering::SeqCst);
    let failed = worker.open(intent(2), 0).expect("open");
    worker.flush();
    assert_eq!(failed.intent_written().now(), Some(Err(JournalDown)));
    assert_eq!(worker.open(intent(3), 0).map(drop), Err(JournalDown));
    let file = std::fs::metadata(journal.common.dir.join(segment::file_name(0, 1))).expect("the segment");
    assert_eq!(file.len(), before[0].end, "what failed is cut off");
    journal.faults().write.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_millis(250));
    let fresh = worker.open(intent(4), 0).expect("open");
    let closed = kept.close(outcome(Ending::Completed));
    worker.flush();
    assert_eq!((fresh.intent_written().now(), closed.now()), (Some(Ok(())), Some(Ok(()))));
}

#[test]
fn nothing_is_written_again_while_a_failed_write_cannot_be_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(Timestamp(5));
    let journal = journal(dir.path(), Durability::Process, 1 << 16, &clock);
    let worker = journal.worker(0);
    let faults = journal.faults();
    faults.write.store(true, Ordering::SeqCst);
    faults.repair.store(true, Ordering::SeqCst);
    let _open = worker.open(intent(1), 0).expect("open");
    worker.flush();
    faults.write.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(1));
    assert!(worker.open(intent(2), 0).is_err());
    faults.repair.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(1));
    assert!(worker.open(intent(3), 0).is_ok());
}

#[test]
fn a_flood_of_refusals_shares_entries_and_answers_with_their_ids() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = journal(dir.path(), Durability::Process, 1 << 20, &Clock::manual(Timestamp(5)));
    let worker = journal.worker(0);
    let ids: std::collections::BTreeSet<_> = (0..1_000)
        .map(|n| {
            let (intent, outcome) = refusal(n);
            worker.refuse(intent, outcome).expect("refuse").request_id
        })
        .collect();
    assert_eq!(ids.len(), 9);
}

/// Waits until both workers have synced the beginning of their first segment, so that a fault meets what comes behind it.
fn all_have_begun(journal: &Journal) {
    while (0..2).any(|worker| journal.source().segments(worker).is_empty()) {
        std::thread::yield_now();
    }
}

#[test]
fn with_disk_durability_nothing_counts_before_its_sync() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(Timestamp(5));
    let journal = journal(dir.path(), Durability::Disk, 1 << 16, &clock);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let worker = journal.worker(0);
        let flusher = tokio::spawn(std::sync::Arc::clone(&worker).run_flusher());
        let record = worker.open(intent(1), 0).expect("open");
        assert_eq!(record.intent_written().await, Ok(()));
        all_have_begun(&journal);
        journal.faults().sync.store(true, Ordering::SeqCst);
        assert_eq!(record.close(outcome(Ending::Completed)).await, Err(JournalDown));
        clock.advance(Duration::from_secs(1));
        let record = worker.open(intent(2), 0).expect("the journal has recovered");
        assert_eq!(record.intent_written().await, Ok(()));
        worker.shutdown();
        flusher.await.expect("the flusher ends");
        assert!(worker.open(intent(3), 0).is_err());
        assert_eq!(record.close(outcome(Ending::Completed)).await, Ok(()), "open calls can still be closed");
    });
}

#[test]
fn when_a_sync_fails_what_was_written_and_gathered_meanwhile_fails_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(Timestamp(5));
    let journal = journal(dir.path(), Durability::Disk, 1 << 16, &clock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let worker = journal.worker(0);
        let opened = worker.open(intent(1), 0).expect("open");
        worker.flush();
        opened.intent_written().await.expect("written");
        all_have_begun(&journal);
        let gate = journal.faults().gate.lock().expect("the gate");
        journal.faults().sync.store(true, Ordering::SeqCst);
        let begun = journal.faults().begun.load(Ordering::SeqCst);
        let syncing = opened.close(outcome(Ending::Completed));
        worker.flush();
        while journal.faults().begun.load(Ordering::SeqCst) == begun {
            std::thread::yield_now();
        }
        let written = worker.open(intent(2), 0).expect("open");
        worker.flush();
        let gathered = worker.open(intent(3), 0).expect("open");
        drop(gate);
        for waiting in [syncing, written.intent_written(), gathered.intent_written()] {
            let told = tokio::time::timeout(Duration::from_secs(30), waiting).await;
            assert_eq!(told, Ok(Err(JournalDown)));
        }
        clock.advance(Duration::from_secs(1));
        // The failed turns may not all have come back from the thread that syncs: until then nothing is written.
        let fresh = loop {
            match worker.open(intent(4), 0) {
                Ok(record) => break record,
                Err(JournalDown) => clock.advance(Duration::from_secs(1)),
            }
        };
        worker.flush();
        assert_eq!(fresh.intent_written().await, Ok(()));
    });
}

#[test]
#[expect(clippy::await_holding_lock, reason = "the disk hangs as long as it is held")]
fn a_worker_goes_on_while_the_disk_hangs() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Clock::manual(Timestamp(5));
    let journal = journal(dir.path(), Durability::Disk, 1 << 16, &clock);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let worker = journal.worker(0);
        let flusher = tokio::spawn(std::sync::Arc::clone(&worker).run_flusher());
        let gate = journal.faults().gate.lock().expect("the gate");
        let begun = journal.faults().begun.load(Ordering::SeqCst);
        let first = worker.open(intent(1), 0).expect("open");
        // The only thread of this runtime is the worker's: were it held by the sync, none of this would be reached.
        while journal.faults().begun.load(Ordering::SeqCst) == begun {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (2..50).map(|n| worker.open(intent(n), 0).expect("open")).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let waiting = std::iter::once(&first).chain(&later);
        assert!(
            waiting.clone().all(|record| record.intent_written().now().is_none()),
            "nothing counts before its sync"
        );
        drop(gate);
        for record in waiting {
            let written = tokio::time::timeout(Duration::from_secs(30), record.intent_written()).await;
            assert_eq!(written, Ok(Ok(())));
        }
        worker.shutdown();
        flusher.await.expect("the flusher ends");
    });
}
