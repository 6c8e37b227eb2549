use proptest::prelude::*;

use super::*;

/// Feeds `stream` in the given pieces and says what came of it.
fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (u64, bool, Noticed) {
    let (mut scanner, mut noticed) = (EventScanner::new(), Noticed::default());
    for piece in pieces {
        scanner.feed(piece, &mut noticed);
    }
    (scanner.events(), scanner.at_boundary(), noticed)
}

const STATUS: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"statusUpdate":{"taskId":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}}"#;

#[test]
fn an_event_is_a_block_with_data_that_a_blank_line_has_ended() {
    let cases: [(&str, u64, bool); 13] = [
        ("", 0, true),
        ("data: 1\n\n", 1, true),
        ("data: 1\n", 0, false),
        ("data: 1", 0, false),
        ("data\n\n", 1, true),
        (": ping\n\n", 0, true),
        (": ping", 0, false),
        ("event: error\nid: 3\n\n", 0, true),
        ("event: error\ndata:1\n\ndata:2\r\n\r\n", 2, true),
        ("\n\n\n", 0, true),
        ("datas: 1\n\ndat: 1\n\nDATA: 1\n\n data: 1\n\n", 0, true),
        ("\u{feff}data: 1\n\n", 1, true),
        ("data: 1\n\n\u{feff}data: 1\n\n", 1, true),
    ];
    for (stream, events, boundary) in cases {
        let (found, at_boundary, _) = scan([stream.as_bytes()]);
        assert_eq!((found, at_boundary), (events, boundary), "{stream:?}");
    }
}

#[test]
fn a_lone_carriage_return_ends_lines_but_makes_no_boundary() {
    assert_eq!(scan([&b"data: 1\r\rdata: 2\r\r"[..]]).0, 2);
    assert!(!scan([&b"data: 1\r\n\r"[..]]).1);
    assert!(scan([&b"data: 1\r\n\r"[..], b"\n"]).1);
}

#[test]
fn data_over_several_lines_is_one_text() {
    let (head, tail) = STATUS.split_at(17);
    let stream = format!("event: x\ndata: {head}\ndata:{tail}\n: comment\n\n");
    // A line feed inside a number or string would break it; the cut falls between members.
    let (events, _, noticed) = scan([stream.as_bytes()]);
    assert_eq!(
        (events, noticed.task_id.as_deref(), noticed.task_state.as_deref()),
        (1, Some("t"), Some("TASK_STATE_WORKING"))
    );
}

#[test]
fn lines_of_data_are_joined_by_a_line_feed() {
    let number = |tail: &str| scan([format!("data: {{\"taskId\":\"t\",\"n\":1\n{tail}\n\n").as_bytes()]).2.task_id;
    assert_eq!(number("data:}").as_deref(), Some("t"));
    // A number cannot go on in the next line.
    assert_eq!(number("data:2}"), None);
}

#[test]
fn a_mark_that_breaks_off_spoils_its_line_only() {
    assert_eq!(scan([&b"\xefdata: 1\n\n"[..]]).0, 0);
    assert_eq!(scan([&b"\xef\xbbdata: 1\n\ndata: 2\n\n"[..]]).0, 1);
}

#[test]
fn no_more_than_the_limit_is_held_of_an_endless_event() {
    let (mut scanner, mut noticed) = (EventScanner::new(), Noticed::default());
    scanner.feed(b"data: ", &mut noticed);
    for line in [&[b'x'; 1000][..], b"\ndata: y"].into_iter().cycle().take(1000) {
        scanner.feed(line, &mut noticed);
        assert!(scanner.data.len() <= NOTICE_LIMIT);
    }
}

#[test]
fn an_event_too_large_to_look_at_is_counted_and_the_next_one_is_noticed() {
    let large = format!("data: {{\"taskId\":\"large\",\"x\":\"{}\"}}\n\ndata: {STATUS}\n\n", "x".repeat(NOTICE_LIMIT));
    for size in [usize::MAX, 1000] {
        let (events, _, noticed) = scan(large.as_bytes().chunks(size));
        assert_eq!((events, noticed.task_id.as_deref()), (2, Some("t")));
    }
}

#[test]
fn what_was_noticed_last_wins_and_the_end_is_remembered() {
    let stream = format!(
        "data: {STATUS}\n\ndata: {}\n\ndata: {}\n\n",
        STATUS.replace("WORKING", "COMPLETED"),
        r#"{"jsonrpc":"2.0","id":1,"result":{"artifactUpdate":{"taskId":"t"}}}"#
    );
    let (events, _, noticed) = scan([stream.as_bytes()]);
    assert_eq!((events, noticed.terminal, noticed.task_state.as_deref()), (3, true, Some("TASK_STATE_COMPLETED")));
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(format!("data: {STATUS}")),
        2 => Just("data: {\"taskId\":".to_owned()),
        2 => "[a-z]{1,4}".prop_map(|id| format!("data:\"{id}\"}}")),
        1 => Just("data".to_owned()),
        1 => Just(": ping".to_owned()),
        1 => Just("event: error".to_owned()),
        5 => Just(String::new()),
        1 => "[dat: \u{feff}]{0,8}",
    ]
}

/// A stream as lines with their ends, cut at arbitrary places.
fn cut(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).chain([0, stream.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|w| stream[w[0]..w[1]].to_vec()).collect()
}

/// The events of a stream by the plain reading of the standard, for comparison.
fn events_of(lines: &[String]) -> u64 {
    let (mut events, mut has_data) = (0, false);
    for (i, line) in lines.iter().enumerate() {
        let line = if i == 0 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        match line {
            "" => events += u64::from(std::mem::take(&mut has_data)),
            line => has_data |= line.split(':').next() == Some("data"),
        }
    }
    events
}

proptest! {
    #[test]
    fn cutting_anywhere_changes_nothing(
        lines in prop::collection::vec((line(), prop::sample::select(vec!["\n", "\r\n", "\r"])), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream: Vec<u8> = lines.iter().flat_map(|(l, end)| [l.as_bytes(), end.as_bytes()].concat()).collect();
        let pieces = cut(&stream, &cuts);
        prop_assert_eq!(scan(pieces.iter().map(Vec::as_slice)), scan([stream.as_slice()]));
        prop_assert_eq!(scan(stream.chunks(1)), scan([stream.as_slice()]));
    }

    #[test]
    fn line_ends_of_either_kind_mean_the_same_and_the_count_is_the_standards(lines in prop::collection::vec(line(), 0..20)) {
        let with = |end: &str| lines.iter().fold(String::new(), |s, l| s + l + end);
        let lf = scan([with("\n").as_bytes()]);
        prop_assert_eq!(&scan([with("\r\n").as_bytes()]), &lf);
        let cr = scan([with("\r").as_bytes()]);
        prop_assert_eq!((cr.0, cr.2), (lf.0, lf.2.clone()));
        prop_assert_eq!(lf.0, events_of(&lines));
    }

    #[test]
    fn no_bytes_whatever_upset_it(stream: Vec<u8>, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let pieces = cut(&stream, &cuts);
        prop_assert_eq!(scan(pieces.iter().map(Vec::as_slice)), scan([stream.as_slice()]));
    }
}
