use super::*;

const DAY_US: i64 = 86_400_000_000;
const NOW: Now = Now { nanos: 1_000, wall: Timestamp(10 * DAY_US) };

#[test]
fn a_day_that_is_over_gives_its_units_back_and_never_comes_again() {
    let account = Account::default();
    assert_eq!(account.take_daily(10, 2, Some(3), Parts::WHOLE), Ok(Daily { day: 10, used: 2 }));
    assert_eq!(account.take_daily(10, 2, Some(3), Parts::WHOLE), Err(Daily { day: 10, used: 2 }));
    assert_eq!(account.take_daily(11, 3, Some(3), Parts::WHOLE), Ok(Daily { day: 11, used: 3 }));
    // A thread that read the clock just before midnight finds the new day's count.
    assert_eq!(account.take_daily(10, 1, Some(3), Parts::WHOLE), Err(Daily { day: 11, used: 3 }));
    assert_eq!(account.take_daily(11, 1, Some(3), Parts::WHOLE), Err(Daily { day: 11, used: 3 }));
}

#[test]
fn a_wall_clock_that_is_set_back_hands_nothing_out() {
    let account = Account::default();
    account.take_daily(100, 3, Some(3), Parts::WHOLE).expect("three of three");
    assert_eq!(account.take_daily(50, 1, Some(3), Parts::WHOLE), Err(Daily { day: 50, used: 3 }));
    assert_eq!(account.daily(50), Daily { day: 50, used: 3 });
}

#[test]
fn units_are_given_back_to_their_own_day_only() {
    let account = Account::default();
    account.take_daily(10, 2, None, Parts::WHOLE).expect("no limit");
    account.give_daily_back(9, 2);
    assert_eq!(account.daily(10).used, 2);
    account.give_daily_back(10, 1);
    assert_eq!(account.daily(10).used, 1);
}

#[test]
fn an_account_is_idle_only_when_a_new_one_would_say_the_same() {
    let now = Now { nanos: 1_000, wall: Timestamp(10 * DAY_US) };
    let tomorrow = Now { nanos: 1_000, wall: Timestamp(11 * DAY_US) };
    let account = Account::default();
    assert!(account.is_idle(now));
    account.take_daily(10, 1, None, Parts::WHOLE).expect("no limit");
    assert!(!account.is_idle(now), "used today");
    assert!(account.is_idle(tomorrow));
    account.set_cell(Draws::Reads, 1_001);
    assert!(!account.is_idle(tomorrow), "a bucket is not full");
    account.set_cell(Draws::Reads, 1_000);
    assert!(account.is_idle(tomorrow));
    assert!(account.take_stream(Some(1), now).is_some());
    assert!(!account.is_idle(tomorrow), "a stream is open");
    account.give_stream_back();
    assert!(account.take_in_flight(None));
    assert!(!account.is_idle(tomorrow), "a call is in flight");
}

#[test]
fn slots_are_as_many_as_the_limit_says() {
    let account = Account::default();
    assert_eq!(account.take_stream(Some(0), NOW), None);
    let take = || account.take_stream(Some(2), NOW).map(|slots| slots.count);
    assert_eq!([take(), take(), take()], [Some(1), Some(2), None]);
    account.give_stream_back();
    assert_eq!(take(), Some(2));
}

#[test]
fn every_change_of_the_open_streams_has_a_larger_number_also_after_the_account_was_forgotten() {
    let account = Account::default();
    let first = account.take_stream(None, NOW).expect("no limit");
    account.give_stream_back();
    let given_back = account.slots();
    assert!(given_back.version > first.version && given_back.count == 0, "{given_back:?}");
    let later = Now { nanos: NOW.nanos + 1_000_000, ..NOW };
    let anew = Account::default().take_stream(None, later).expect("no limit");
    assert!(anew.version > given_back.version, "{anew:?}");
}

#[test]
fn a_day_that_is_known_better_elsewhere_is_learnt_and_never_unlearnt() {
    let account = Account::default();
    account.raise_daily(10, 5);
    account.raise_daily(10, 3);
    account.raise_daily(9, 100);
    assert_eq!(account.daily(10), Daily { day: 10, used: 5 });
    account.raise_daily(11, 1);
    assert_eq!(account.daily(11), Daily { day: 11, used: 1 });
}

#[test]
fn a_node_that_decides_alone_takes_its_part_of_the_day_and_at_least_one_unit() {
    let halves = Parts::new(2);
    let admitted = |limit| {
        let account = Account::default();
        std::iter::repeat_with(|| account.take_daily(10, 1, Some(limit), halves)).take_while(Result::is_ok).count()
    };
    assert_eq!([admitted(0), admitted(1), admitted(2), admitted(10), admitted(11)], [0, 1, 1, 5, 5]);
}

#[test]
fn what_is_owed_is_told_once() {
    let account = Account::default();
    assert!(!account.take_owed(Draws::Work));
    account.owe(Draws::Work);
    assert!(!account.take_owed(Draws::Reads));
    assert!(account.take_owed(Draws::Work) && !account.take_owed(Draws::Work));
}

#[test]
fn what_is_charged_alone_while_it_is_told_is_told_then_or_owed() {
    let shape = Shape::new(1_000, NonZeroU32::MAX);
    let (account, begun, drawn) = (Account::default(), AtomicU32::new(0), AtomicU32::new(0));
    let (mut told, mut lost) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=2_000 {
                while begun.load(Ordering::Acquire) < round {
                    std::hint::spin_loop();
                }
                let _ = account.draw_part(Draws::Work, shape, NonZeroU32::MIN, Parts::WHOLE, NOW);
                drawn.store(round, Ordering::Release);
            }
        });
        for round in 1..=2_000 {
            begun.store(round, Ordering::Release);
            let mut last = false;
            while !last {
                last = drawn.load(Ordering::Acquire) == round;
                if let (true, cell) = account.tell(Draws::Work) {
                    told = cell;
                }
            }
            lost += u32::from(told != account.cell(Draws::Work));
        }
    });
    assert_eq!(lost, 0);
}

#[test]
fn the_last_slot_is_taken_by_one_of_many_that_reach_for_it() {
    let slots = AtomicU32::new(0);
    let holders = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    if take_slot(&slots, Some(1)) {
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
                        holders.fetch_sub(1, Ordering::SeqCst);
                        slots.fetch_sub(1, Ordering::AcqRel);
                    }
                }
            });
        }
    });
}
