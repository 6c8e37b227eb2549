//! A set of operations, such as the one a connection is agreed for.
//!
//! Promises that whoever may send may also follow what it sent: `SendMessage` and `SendStreamingMessage` bring `GetTask`,
//! `SubscribeToTask` and `CancelTask` with them. Cards are not work: reading them is in every set. Pure.

use std::fmt;

use super::Operation;

/// What can be named in a set. `Unknown` stands for methods and paths that A2A does not have.
const NAMED: [Operation; 11] = [
    Operation::SendMessage,
    Operation::SendStreamingMessage,
    Operation::GetTask,
    Operation::ListTasks,
    Operation::CancelTask,
    Operation::SubscribeToTask,
    Operation::CreateTaskPushNotificationConfig,
    Operation::GetTaskPushNotificationConfig,
    Operation::ListTaskPushNotificationConfigs,
    Operation::DeleteTaskPushNotificationConfig,
    Operation::Unknown,
];

/// A set of operations as somebody named them.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct OperationSet(u16);

/// A name that is no operation's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoOperation(pub String);

impl fmt::Display for NoOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = NAMED.iter().map(|operation| operation.as_str()).collect();
        write!(f, "{:?} is no operation: use the names of A2A 1.0, {}", self.0, names.join(", "))
    }
}

impl std::error::Error for NoOperation {}

impl OperationSet {
    /// The set in which nothing is named.
    pub const EMPTY: Self = Self(0);

    /// The set of the operations with these v1.0 names.
    ///
    /// # Errors
    /// The first name that is none of them.
    pub fn from_names<S: AsRef<str>>(names: &[S]) -> Result<Self, NoOperation> {
        names.iter().try_fold(Self::default(), |set, name| {
            let name = name.as_ref();
            let found = NAMED.into_iter().find(|operation| operation.as_str() == name);
            found.map(|operation| Self(set.0 | bit(operation))).ok_or_else(|| NoOperation(name.to_owned()))
        })
    }

    /// The names in it, in the order of the specification.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMED.into_iter().filter(move |operation| self.0 & bit(*operation) != 0).map(Operation::as_str)
    }

    /// Whether nothing was named.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    /// The set with what its sends bring along.
    #[must_use]
    pub fn with_follow_ups(self) -> Self {
        let sends = bit(Operation::SendMessage) | bit(Operation::SendStreamingMessage);
        let follow = bit(Operation::GetTask) | bit(Operation::SubscribeToTask) | bit(Operation::CancelTask);
        if self.0 & sends == 0 { self } else { Self(self.0 | follow) }
    }

    /// Whether `operation` is allowed by the set.
    #[must_use]
    pub fn allows(self, operation: Operation) -> bool {
        match operation {
            Operation::GetAgentCard | Operation::GetExtendedAgentCard => true,
            other => self.with_follow_ups().0 & bit(other) != 0,
        }
    }

    /// Whether `other` allows all that this set allows.
    #[must_use]
    pub fn is_within(self, other: Self) -> bool {
        self.with_follow_ups().0 & !other.with_follow_ups().0 == 0
    }
}

fn bit(operation: Operation) -> u16 {
    NAMED.iter().position(|named| *named == operation).map_or(0, |place| 1 << place)
}

impl fmt::Display for OperationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Debug for OperationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> OperationSet {
        OperationSet::from_names(names).expect("operations")
    }

    #[test]
    fn who_may_send_may_follow_what_it_sent_and_no_more() {
        for send in ["SendMessage", "SendStreamingMessage"] {
            let allowed: Vec<_> = NAMED.into_iter().filter(|operation| set(&[send]).allows(*operation)).collect();
            let sent = Operation::from_method(send);
            assert_eq!(allowed, [sent, Operation::GetTask, Operation::CancelTask, Operation::SubscribeToTask]);
        }
        assert!(!set(&["GetTask"]).allows(Operation::CancelTask));
        assert!(!set(&["GetTask"]).allows(Operation::Unknown) && set(&["Unknown"]).allows(Operation::Unknown));
    }

    #[test]
    fn cards_are_read_whatever_was_agreed() {
        for card in [Operation::GetAgentCard, Operation::GetExtendedAgentCard] {
            assert!(set(&["ListTasks"]).allows(card));
        }
    }

    #[test]
    fn a_set_is_within_another_by_what_it_allows() {
        assert!(set(&["GetTask"]).is_within(set(&["SendMessage"])), "sending brings reading along");
        assert!(!set(&["SendMessage"]).is_within(set(&["GetTask"])));
        assert!(!set(&["ListTasks"]).is_within(set(&["SendMessage"])));
        assert!(OperationSet::default().is_within(set(&["GetTask"])));
    }

    #[test]
    fn names_are_those_of_the_specification_and_read_back() {
        let names: Vec<&str> = NAMED.iter().map(|operation| operation.as_str()).collect();
        assert_eq!(set(&names).names().collect::<Vec<_>>(), names);
        assert_eq!(set(&["GetTask", "SendMessage"]).to_string(), "SendMessage, GetTask");
        let unknown = OperationSet::from_names(&["message/send"]).expect_err("no name of 1.0");
        assert!(unknown.to_string().contains("\"message/send\" is no operation"), "{unknown}");
    }
}
