//! The journal's budget while nothing is drained, and after.

use std::collections::BTreeMap;

use super::follow::{Follower, step};
use super::tests::Fixture;
use super::*;
use crate::audit::journal::tests::{NODE, intent, journal_within, outcome, refusal};
use crate::audit::journal::{Durability, JournalDown, JournalHealth, Pressure};
use crate::audit::record::{Ending, Intent};
use crate::trust::TrustLevel;

const SEGMENT: u64 = 32 * 1024;
/// A segment is a hundredth of it.
const BUDGET: u64 = 100 * SEGMENT;

const LEVELS: [TrustLevel; 3] = [TrustLevel::Unverified, TrustLevel::Verified, TrustLevel::Connected];

#[tokio::test]
async fn while_nothing_is_drained_levels_are_refused_in_order_and_let_in_again_by_the_drain() {
    let fixture = Fixture::new().await;
    let journal = journal_within(BUDGET, &fixture.root(), Durability::Process, SEGMENT, &fixture.clock);
    let worker = journal.worker(0);
    let open = worker.open(intent(1), 0).expect("open");
    let mut next = 1_000_u128;
    let mut written = 1;
    // How full it was, in percent, when each level was refused first, and when its refusals were not recorded any more.
    let (mut refused, mut silent) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..100_000 {
        for level in LEVELS {
            let percent = journal.room().used * 100 / BUDGET;
            if worker.admits(level).is_err() {
                refused.entry(level).or_insert(percent);
            }
            fixture.clock.advance(Duration::from_secs(1));
            next += 1;
            let (of, told) = refusal(next);
            match worker.refuse(Intent { trust_level: level, ..of }, told) {
                Ok(refused) => {
                    worker.flush();
                    refused.written.await.expect("written");
                    written += 1;
                }
                Err(JournalDown) => {
                    silent.entry(level).or_insert(percent);
                }
            }
        }
        if silent.len() == 3 {
            break;
        }
    }
    assert_eq!(refused.into_values().collect::<Vec<_>>(), [70, 85, 95]);
    assert_eq!(silent.into_values().collect::<Vec<_>>(), [85, 95, 100]);
    let JournalHealth::Down { why, .. } = journal.health() else { panic!("nothing fits any more") };
    assert!(why.contains("audit.journal_budget"), "{why}");
    assert!(journal.room().used <= BUDGET);
    let closed = open.close(outcome(Ending::Completed));
    worker.flush();
    closed.await.expect("there is room for how an open call ended");

    let mut follower = Follower::living(journal.source(), Frontier::default());
    loop {
        let more;
        (follower, more) = step(follower, &fixture.store, false).await;
        if !more.expect("drained") {
            break;
        }
    }
    assert_eq!(journal.room().pressure, Pressure::None, "{}", journal.room());
    assert_eq!(LEVELS.map(|level| worker.admits(level)), [Ok(()); 3]);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(journal.health(), JournalHealth::Healthy);
    let rows = fixture.rows().await;
    assert_eq!(rows.iter().map(|row| row.calls).sum::<i64>(), written, "every call whose record was taken is a row");
    let on_disk = std::fs::read_dir(journal.source().dir()).expect("the journal");
    let on_disk: u64 = on_disk.map(|file| file.expect("a file").metadata().expect("its size").len()).sum();
    assert_eq!(journal.room().used, on_disk);
}

#[tokio::test]
async fn what_failed_writes_leave_is_given_back() {
    let fixture = Fixture::new().await;
    let journal = journal_within(BUDGET, &fixture.root(), Durability::Process, SEGMENT, &fixture.clock);
    let worker = journal.worker(0);
    let on_disk = || -> u64 {
        let files = std::fs::read_dir(journal.source().dir()).expect("the journal");
        files.map(|file| file.expect("a file").metadata().expect("its size").len()).sum()
    };
    for n in 0..600 {
        let faults = journal.faults();
        // Twice: the second time in a segment of which nothing can be read yet, and which goes again.
        faults.write.store(n % 40 > 37, Ordering::SeqCst);
        faults.create.store(n % 100 > 95, Ordering::SeqCst);
        fixture.clock.advance(Duration::from_secs(1));
        let (of, told) = refusal(n);
        let _ = worker.refuse(of, told);
        worker.flush();
        assert_eq!(journal.room().used, on_disk(), "after {n}");
    }
    let mut numbers: Vec<u64> = journal.source().segments(0).iter().map(|segment| segment.number).collect();
    numbers.dedup();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no number is missing");
}

#[tokio::test]
async fn what_earlier_starts_and_damage_left_counts_until_it_is_gone() {
    let fixture = Fixture::new().await;
    let within = || journal_within(BUDGET, &fixture.root(), Durability::Process, SEGMENT, &fixture.clock);
    drop(within());
    let aside = fixture.root().join("damaged");
    std::fs::create_dir_all(aside.join("a journal")).expect("a directory");
    std::fs::write(aside.join("a journal/w0-1.tgj"), vec![0; 60 * SEGMENT as usize]).expect("a file");
    let journal = within();
    let room = journal.room();
    assert_eq!((room.used, room.aside, room.pressure), (64 * SEGMENT, 60 * SEGMENT, Pressure::Warned));
    assert!(room.to_string().contains("damaged files"), "{room}");
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    std::fs::remove_dir_all(&aside).expect("removed");
    journal.survey().expect("readable");
    assert_eq!(journal.room().used, 2 * SEGMENT);
}
