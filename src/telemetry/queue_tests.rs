use std::io;
use std::sync::mpsc::{self, Receiver, Sender};

use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A reader that takes a write only when it is told to, and may refuse it.
struct Reader {
    begun: Sender<()>,
    verdict: Receiver<io::Result<()>>,
    read: Arc<Mutex<String>>,
}

/// The test's end of a [`Reader`].
struct Hand {
    begun: Receiver<()>,
    verdict: Sender<io::Result<()>>,
    read: Arc<Mutex<String>>,
}

impl io::Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.begun.send(());
        // Once the test lets go, it reads whatever comes.
        self.verdict.recv().unwrap_or(Ok(()))?;
        self.read.lock().expect("no panic while it is held").push_str(std::str::from_utf8(bytes).expect("text"));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reader() -> (Reader, Hand) {
    let ((begun, begins), (verdict, verdicts)) = (mpsc::channel(), mpsc::channel());
    let read = Arc::<Mutex<String>>::default();
    (Reader { begun, verdict: verdicts, read: Arc::clone(&read) }, Hand { begun: begins, verdict, read })
}

impl Hand {
    /// Waits until a write is being tried.
    fn stuck(&self) {
        self.begun.recv_timeout(PATIENCE).expect("a write");
    }

    fn answer(&self, verdict: io::Result<()>) {
        self.verdict.send(verdict).expect("the reader is there");
    }

    /// Reads on; what there is to read when all is written.
    fn all(self, queue: &Queue) -> String {
        drop(self.verdict);
        queue.finish(PATIENCE);
        self.read.lock().expect("no panic while it is held").clone()
    }
}

fn tell(queue: &Queue, lost: u64) {
    queue.put_in_any_case(format!("({lost} lost)\n").as_bytes());
}

fn queue(room: usize) -> (Queue, Hand) {
    let (reader, hand) = reader();
    (Queue::with_room(room, reader, tell).expect("a thread"), hand)
}

#[test]
fn lines_that_find_no_room_are_counted_and_told_where_they_are_missing() {
    let (queue, hand) = queue(8);
    queue.put(b"one\n");
    hand.stuck();
    for line in ["two\n", "six\n", "lost\n", "ten\n"] {
        queue.put(line.as_bytes());
    }
    assert_eq!(queue.lost(), 2);
    hand.answer(Ok(()));
    hand.stuck();
    queue.put(b"new\n");
    assert_eq!(hand.all(&queue), "one\ntwo\nsix\n(2 lost)\nnew\n");
    assert_eq!(queue.lost(), 2);
}

#[test]
fn what_waits_while_the_reader_is_slow_is_written_at_once() {
    let (queue, hand) = queue(1 << 20);
    queue.put(b"one\n");
    hand.stuck();
    for _ in 0..1000 {
        queue.put(b"line\n");
    }
    hand.answer(Ok(()));
    hand.stuck();
    hand.answer(Ok(()));
    queue.finish(PATIENCE);
    assert!(hand.begun.try_recv().is_err(), "a thousand lines are one write");
    assert_eq!(hand.all(&queue).lines().count(), 1001);
}

#[test]
fn a_reader_that_is_gone_costs_lines_and_is_told_of_them_when_it_is_back() {
    let (queue, hand) = queue(1 << 20);
    queue.put(b"one\ntwo\n");
    hand.stuck();
    hand.answer(Err(io::ErrorKind::BrokenPipe.into()));
    queue.finish(PATIENCE);
    assert_eq!(queue.lost(), 2);
    queue.put(b"three\n");
    hand.stuck();
    hand.answer(Ok(()));
    assert_eq!(hand.all(&queue), "three\n(2 lost)\n");
}

#[test]
fn a_write_that_was_interrupted_or_would_wait_is_tried_again() {
    let (queue, hand) = queue(1 << 20);
    queue.put(b"one\n");
    for error in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
        hand.stuck();
        hand.answer(Err(error.into()));
    }
    assert_eq!(hand.all(&queue), "one\n");
    assert_eq!(queue.lost(), 0);
}

#[test]
fn the_end_does_not_wait_for_a_reader_that_reads_no_more() {
    let (queue, hand) = queue(1 << 20);
    queue.put(b"one\n");
    hand.stuck();
    let (ended, end) = mpsc::channel();
    let ending = queue.clone();
    thread::spawn(move || {
        ending.finish(Duration::from_millis(1));
        ended.send(()).expect("the test waits");
    });
    end.recv_timeout(PATIENCE).expect("the end comes although nobody reads");
    assert_eq!(*hand.read.lock().expect("no panic while it is held"), "");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    /// However the reader stumbles and whatever finds room: lines come in order, and with those told as lost none is missing.
    #[test]
    fn every_line_is_read_in_its_order_or_told_as_lost(room in 8_usize..200, reads in prop::collection::vec(any::<bool>(), 0..40)) {
        let (queue, hand) = queue(room);
        let mut put = 0;
        for read in reads {
            if read {
                // As many verdicts as there may be writes; those not needed wait for later ones.
                hand.answer(Ok(()));
            } else {
                queue.put(format!("{put}\n").as_bytes());
                put += 1;
            }
        }
        let lost_before = queue.lost();
        let read = hand.all(&queue);
        let (mut next, mut lost) = (0_u64, 0_u64);
        for line in read.lines() {
            match line.strip_prefix('(').and_then(|rest| rest.split(' ').next()).map(str::parse::<u64>) {
                Some(told) => lost += told.expect("a number"),
                None => {
                    let number = line.parse::<u64>().expect("a number");
                    prop_assert!(number >= next, "{read}");
                    next = number + 1;
                }
            }
        }
        prop_assert_eq!(lost, lost_before);
        let whole = read.lines().filter(|line| !line.starts_with('(')).count() as u64;
        prop_assert_eq!(whole + lost, put, "{}", read);
    }
}
