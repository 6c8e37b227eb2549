//! The table itself, and that what is written about it for people is what it does.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::store::rows::ConnectionLimits;

const SIDES: [Side; 3] = [Side::Requester, Side::Target, Side::Operator];

fn row(status: ConnectionStatus) -> ConnectionRow {
    ConnectionRow {
        id: Uuid::nil(),
        requester_id: Uuid::from_u128(1),
        target_id: Uuid::from_u128(2),
        status,
        blocked_by_requester: false,
        blocked_by_target: false,
        block_locked: false,
        message: None,
        purpose: None,
        operations: None,
        operations_fixed: false,
        limits: ConnectionLimits::default(),
        ends_at: None,
        review_at: None,
        created_at: Timestamp(0),
        resolved_at: None,
    }
}

#[test]
fn only_the_asked_side_or_an_operator_accepts_and_declines() {
    for (action, becomes) in
        [(Action::Accept, ConnectionStatus::Connected), (Action::Decline, ConnectionStatus::Declined)]
    {
        let pending = row(ConnectionStatus::Pending);
        assert!(matches!(apply(&pending, action, Side::Requester), Err(RegistryError::Forbidden(_))));
        for side in [Side::Target, Side::Operator] {
            assert_eq!(apply(&pending, action, side).expect("allowed").status, becomes);
        }
    }
}

#[test]
fn what_is_answered_is_not_answered_again() {
    for status in [ConnectionStatus::Connected, ConnectionStatus::Declined, ConnectionStatus::Ended] {
        for action in [Action::Accept, Action::Decline] {
            let refused = apply(&row(status), action, Side::Target);
            assert!(matches!(refused, Err(RegistryError::Connection { .. })), "{status:?} {action:?}");
        }
    }
}

#[test]
fn pausing_is_the_operators() {
    let connected = row(ConnectionStatus::Connected);
    for side in [Side::Requester, Side::Target] {
        assert!(matches!(apply(&connected, Action::Pause, side), Err(RegistryError::Forbidden(_))));
    }
    let paused = apply(&connected, Action::Pause, Side::Operator).expect("allowed");
    assert_eq!(paused.status, ConnectionStatus::Paused);
    assert!(apply(&paused, Action::Resume, Side::Requester).is_err());
    assert_eq!(apply(&paused, Action::Resume, Side::Operator).expect("allowed").status, ConnectionStatus::Connected);
}

#[test]
fn blocking_works_from_every_state_and_for_every_side() {
    for status in [
        ConnectionStatus::Pending,
        ConnectionStatus::Connected,
        ConnectionStatus::Declined,
        ConnectionStatus::Paused,
        ConnectionStatus::Ended,
    ] {
        for side in SIDES {
            let next = apply(&row(status), Action::Block, side).expect("allowed");
            assert!(next.blocked_by_requester || next.blocked_by_target, "{status:?} {side:?}");
            assert_ne!(next.status, ConnectionStatus::Pending);
        }
    }
}

#[test]
fn an_operators_block_is_the_operators_to_lift() {
    let blocked = apply(&row(ConnectionStatus::Connected), Action::Block, Side::Operator).expect("allowed");
    for side in [Side::Requester, Side::Target] {
        assert!(matches!(apply(&blocked, Action::Unblock, side), Err(RegistryError::Forbidden(_))));
    }
    let free = apply(&blocked, Action::Unblock, Side::Operator).expect("allowed");
    assert_eq!(free, row(ConnectionStatus::Connected));
}

proptest! {
    #[test]
    fn a_blocked_side_never_undoes_the_block(
        start in 0_usize..5,
        steps in prop::collection::vec((0_usize..7, prop::bool::ANY), 0..40),
        blocker_asks in prop::bool::ANY,
    ) {
        let statuses = [ConnectionStatus::Pending, ConnectionStatus::Connected, ConnectionStatus::Declined,
            ConnectionStatus::Paused, ConnectionStatus::Ended];
        let blocker = if blocker_asks { Side::Requester } else { Side::Target };
        let other = if blocker_asks { Side::Target } else { Side::Requester };
        let mut now = apply(&row(statuses[start]), Action::Block, blocker).expect("blocking is always allowed");
        for (action, by_blocker) in steps {
            let action = Action::ALL[action];
            let side = if by_blocker { blocker } else { other };
            if side == blocker && action == Action::Unblock {
                continue;
            }
            if let Ok(next) = apply(&now, action, side) {
                now = next;
            }
            let held = if blocker_asks { now.blocked_by_requester } else { now.blocked_by_target };
            prop_assert!(held, "{:?} by {:?}", action, side);
        }
    }
}

const STATUSES: [ConnectionStatus; 5] = [
    ConnectionStatus::Pending,
    ConnectionStatus::Connected,
    ConnectionStatus::Paused,
    ConnectionStatus::Declined,
    ConnectionStatus::Ended,
];

/// Why something is not possible, numbered as it comes up.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn number(&mut self, error: &RegistryError) -> String {
        let status = match error {
            RegistryError::Forbidden(_) => 403,
            RegistryError::Connection { .. } => 409,
            other => panic!("{other}"),
        };
        // The hour is told as a time.
        let text = error.to_string().replace(&Timestamp(DECLINED_REST_US).to_string(), "*an hour has passed*");
        let place = self.0.iter().position(|note| *note == text).unwrap_or_else(|| {
            self.0.push(text);
            self.0.len() - 1
        });
        format!("{status} ({})", place + 1)
    }
}

fn marks(row: &ConnectionRow) -> &'static str {
    match (row.block_locked, row.blocked_by_requester, row.blocked_by_target) {
        (true, ..) => "an operator's",
        (_, true, true) => "both sides'",
        (_, true, false) => "the requester's",
        (_, false, true) => "the target's",
        _ => "none",
    }
}

fn cell(row: &ConnectionRow, done: Result<ConnectionRow, RegistryError>, notes: &mut Notes) -> String {
    let next = match done {
        Ok(next) => next,
        Err(error) => return notes.number(&error),
    };
    let mut says = Vec::new();
    if next.status != row.status {
        says.push(format!("**{}**", next.status.as_str()));
    }
    if marks(&next) != marks(row) {
        says.push(format!("block: {}", marks(&next)));
    }
    if says.is_empty() { "stays".to_owned() } else { says.join(", ") }
}

fn ask_cell(row: &ConnectionRow, side: Side, notes: &mut Notes) -> String {
    let outcome = |now| match ask(row, side, now) {
        Ok(()) => Ok(ConnectionRow { status: ConnectionStatus::Pending, ..row.clone() }),
        Err(error) => Err(error),
    };
    let now = cell(row, outcome(Timestamp(0)), notes);
    let later = cell(row, outcome(Timestamp(DECLINED_REST_US)), notes);
    if now == later { now } else { format!("{now}, then {later}") }
}

fn lines(of: &ConnectionRow, name: &str, actions: &[Action], table: &mut String, notes: &mut Notes) {
    let mut line = |action: &str, cells: [String; 3]| {
        table.push_str(&format!("| {name} | {action} | {} |\n", cells.join(" | ")));
    };
    for action in actions {
        line(action.as_str(), SIDES.map(|side| cell(of, apply(of, *action, side), notes)));
    }
    line("ask (again)", SIDES.map(|side| ask_cell(of, side, notes)));
}

/// The table as it is written in `docs/connections.md`.
fn rendered() -> String {
    let mut notes = Notes::default();
    let mut table = "| status | action | requester | target | operator |\n|---|---|---|---|---|\n".to_owned();
    for status in STATUSES {
        let row = ConnectionRow { resolved_at: Some(Timestamp(0)), ..row(status) };
        lines(&row, status.as_str(), &Action::ALL, &mut table, &mut notes);
    }
    table.push_str("\nWhat block marks change, shown for a connection that is `connected` beside them:\n\n");
    table.push_str("| block | action | requester | target | operator |\n|---|---|---|---|---|\n");
    for blockers in [&[Side::Requester][..], &[Side::Target], &[Side::Requester, Side::Target], &[Side::Operator]] {
        let blocked = blockers.iter().fold(row(ConnectionStatus::Connected), |row, side| {
            apply(&row, Action::Block, *side).expect("blocking is always allowed")
        });
        lines(&blocked, marks(&blocked), &[Action::Accept, Action::Block, Action::Unblock], &mut table, &mut notes);
    }
    table.push('\n');
    for (place, note) in notes.0.iter().enumerate() {
        table.push_str(&format!("{}. {note}\n", place + 1));
    }
    table
}

#[test]
fn the_table_in_the_documentation_is_the_one_in_the_code() {
    let page = include_str!("../../../docs/connections.md");
    let (begin, end) = ("<!-- transitions: begin -->\n", "<!-- transitions: end -->");
    let written = page.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(table, _)| table);
    let right = rendered();
    assert!(written == Some(&*right), "docs/connections.md should say, between its two marks:\n\n{right}");
}

#[test]
fn a_declined_requester_waits_an_hour_unless_the_other_asks_and_ending_is_no_way_round() {
    let declined = ConnectionRow { resolved_at: Some(Timestamp(5)), ..row(ConnectionStatus::Declined) };
    let early = Timestamp(5 + DECLINED_REST_US - 1);
    assert!(matches!(ask(&declined, Side::Requester, early), Err(RegistryError::Connection { .. })));
    assert!(ask(&declined, Side::Requester, Timestamp(early.0 + 1)).is_ok());
    assert!(ask(&declined, Side::Target, early).is_ok() && ask(&declined, Side::Operator, early).is_ok());
    let ended = apply(&declined, Action::End, Side::Requester).expect("allowed");
    assert!(ask(&ended, Side::Requester, early).is_err());
}

#[test]
fn what_an_operator_paused_is_not_ended_to_be_asked_for_anew() {
    let paused = row(ConnectionStatus::Paused);
    for side in [Side::Requester, Side::Target] {
        assert!(matches!(apply(&paused, Action::End, side), Err(RegistryError::Forbidden(_))));
        assert!(ask(&paused, side, Timestamp(i64::MAX)).is_err());
        assert!(apply(&paused, Action::Block, side).is_ok());
    }
    assert_eq!(apply(&paused, Action::End, Side::Operator).expect("allowed").status, ConnectionStatus::Ended);
}
