//! What places are brought that cannot be reached for a while.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::publish::{Place, PlaceState, Publisher};
use super::testing::{NODE, record, sign};
use crate::clock::{Clock, Timestamp};
use crate::store::ledger::{CheckpointRow, WitnessRow};
use crate::store::testing::TestStore;

/// A place that takes nothing while it is told not to.
#[derive(Default)]
struct Peer {
    away: AtomicBool,
    tries: AtomicU32,
    notes: Mutex<Vec<String>>,
}

async fn until(mut is: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it does not happen");
}

#[tokio::test]
async fn a_place_that_was_away_is_brought_what_it_is_owed() {
    let test = TestStore::sqlite().await;
    let store = test.store.clone();
    record(&store, NODE, 0..3).await;
    sign(&store, NODE).await;
    // One that names a key: it is brought again to a place of which no more is known than its size.
    let last = store.last_checkpoint(NODE).await.expect("reads").expect("signed");
    store.keep_checkpoint(&CheckpointRow { announces: true, ..last }).await.expect("kept");
    let began = Timestamp(1_700_000_000_000_000);
    // What another place has had is not this one's.
    let other = WitnessRow { place: "there".to_owned(), size: 99, sent_at: began };
    store.keep_witness(NODE, &other).await.expect("kept");
    let (clock, peer) = (Clock::manual(began), Arc::new(Peer::default()));
    peer.away.store(true, Ordering::SeqCst);
    let send = Arc::clone(&peer);
    let place = Place {
        name: "here".to_owned(),
        send: Arc::new(move |note| {
            send.tries.fetch_add(1, Ordering::SeqCst);
            let away = send.away.load(Ordering::SeqCst);
            if !away {
                send.notes.lock().expect("whole").push(note);
            }
            Box::pin(async move { if away { Err("away".to_owned()) } else { Ok(()) } })
        }),
    };
    let publisher = Publisher { store: store.clone(), node: NODE, clock: clock.clone(), places: vec![place] };
    let (view, sealed) = (publisher.view(), watch::Sender::new(3));
    let running = tokio::spawn(publisher.run(sealed.subscribe(), view.clone()));
    until(|| peer.tries.load(Ordering::SeqCst) > 0).await;
    clock.advance(Duration::from_secs(60));
    let tried = peer.tries.load(Ordering::SeqCst);
    until(|| peer.tries.load(Ordering::SeqCst) > tried + 1).await;
    let failing = |since| Some(("away".to_owned(), since));
    assert_eq!(view.now(), [PlaceState { place: "here".to_owned(), sent: None, failing: failing(began) }]);
    peer.away.store(false, Ordering::SeqCst);
    until(|| view.now()[0].failing.is_none()).await;
    assert_eq!((view.now()[0].sent, peer.notes.lock().expect("whole").len()), (Some((3, clock.wall())), 1));
    peer.away.store(true, Ordering::SeqCst);
    record(&store, NODE, 3..5).await;
    sign(&store, NODE).await;
    sealed.send_replace(5);
    let tried = peer.tries.load(Ordering::SeqCst);
    until(|| peer.tries.load(Ordering::SeqCst) > tried + 5).await;
    // At the end it is tried once more, however long the pause would be. The first is not brought again.
    peer.away.store(false, Ordering::SeqCst);
    drop(sealed);
    running.await.expect("it ends");
    assert_eq!((view.now()[0].sent, peer.notes.lock().expect("whole").len()), (Some((5, clock.wall())), 2));
    assert_eq!(store.witnesses(NODE).await.expect("witnesses")[0].size, 5);
    test.end().await;
}
