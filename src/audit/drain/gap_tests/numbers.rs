//! Which losses have a number, and which cannot.

use super::*;
use crate::audit::journal::segment::HEADER;

#[tokio::test]
async fn an_end_of_a_segment_that_is_not_there_is_a_gap_though_nothing_shows_it_but_the_next() {
    let fixture = Fixture::new().await;
    let dir = dead(&fixture, 0..100);
    let first = written(segments(&dir, 0)[0].clone());
    // As if it had never been written, from the second call on.
    let (begin, _) = first.begins[0];
    let file = File::options().write(true).open(&first.path).expect("the segment");
    file.write_all_at(&vec![0; (first.end - begin) as usize], begin).expect("cleared");
    Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
    let rows = fixture.rows().await;
    assert_eq!((gaps(&rows), sum(&rows)), (vec![("segment_damaged", first.calls - 1)], 100));
    let places: Vec<_> =
        rows.iter().filter(|row| row.decision == "gap").filter_map(|row| row.method.as_deref()).collect();
    assert!(places[0].starts_with("the end of w0-1.tgj"), "{places:?}");
}

#[tokio::test]
async fn what_is_lost_where_the_database_stands_has_a_number_only_behind_that() {
    for what in ["before", "behind", "all of it"] {
        let fixture = Fixture::new().await;
        let journal = fixture.journal();
        let worker = journal.worker(0);
        let dir = fixture.root().join(journal.instance().to_string());
        refuse(&worker, 0..60, &fixture.clock);
        let follower = drained(Follower::living(journal.source(), Frontier::default()), &fixture).await;
        let stands = segments(&dir, 0)[0].clone();
        let positions = fixture.store.journal_positions().await.expect("positions");
        let offset = positions.iter().find(|position| position.worker == 0).expect("one").offset;
        assert!(!stands.ends_with("w0-1.tgj") && offset > 100, "{stands:?} {offset}");
        refuse(&worker, 60..150, &fixture.clock);
        drop((follower, worker, journal));
        match what {
            // In the first entry, which is a row.
            "before" => flip(&stands, 100, 1),
            "behind" => flip(&stands, offset, 1),
            _ => std::fs::remove_file(&stands).expect("removed"),
        }
        Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
        let rows = fixture.rows().await;
        let [(cause, calls)] = gaps(&rows)[..] else { panic!("{what}: {:?}", gaps(&rows)) };
        let expected = if what == "all of it" { "segment_missing" } else { "segment_damaged" };
        assert_eq!((cause, calls > 0), (expected, what == "behind"), "{what}");
        assert!(sum(&rows) == 150 || what == "all of it", "{what}: {}", sum(&rows));
    }
}

#[tokio::test]
async fn of_segments_of_version_1_numbers_that_are_left_out_are_no_gap_and_lost_calls_have_no_number() {
    for (damaged, expected) in [(false, vec![]), (true, vec![("segment_damaged", 0)])] {
        let fixture = Fixture::new().await;
        let dir = dead(&fixture, 0..100);
        let mut first = 0;
        for (n, path) in segments(&dir, 0).into_iter().enumerate().rev() {
            first = written(path.clone()).calls;
            let bytes = std::fs::read(&path).expect("readable");
            let mut old = bytes[..60].to_vec();
            old[8] = 1;
            old.extend(crc32fast::hash(&old).to_le_bytes());
            old.extend(&bytes[HEADER..]);
            std::fs::remove_file(&path).expect("removed");
            std::fs::write(dir.join(file_name(0, 1 + 2 * n as u64)), old).expect("written");
        }
        if damaged {
            flip(&segments(&dir, 0)[0], 100, 1);
        }
        Drain::recover(&fixture.store, NODE, &fixture.root(), &fixture.clock).await.expect("recover");
        let rows = fixture.rows().await;
        assert_eq!((gaps(&rows), sum(&rows)), (expected, 100 - if damaged { first } else { 0 }));
    }
}
