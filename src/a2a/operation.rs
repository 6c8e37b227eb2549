//! The operations of A2A under their v1.0 names, whichever dialect or binding carried them (A2A 1.0 section 3, 0.3 section 7).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The wire form of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binding {
    /// A JSON-RPC 2.0 request on the agent's RPC URL.
    JsonRpc,
    /// A REST request (`HTTP+JSON`): 1.0 paths, 0.3 paths under `/v1`, and Agno's `/v1/message:send`.
    Rest,
    /// Anything else under the proxy path: cards and registered sub-paths.
    Http,
}

impl Binding {
    /// The name used in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JsonRpc => "jsonrpc",
            Self::Rest => "rest",
            Self::Http => "http",
        }
    }
}

/// The generation of A2A a caller speaks; it decides how an error inside a stream is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// 0.3 and everything before it: `message/send`, `/v1/message:send`.
    V03,
    /// 1.0: `SendMessage`, `/message:send`.
    V10,
}

impl Dialect {
    /// The dialect of a JSON-RPC method name: the two name sets are disjoint, names with a slash are the old ones. Foreign
    /// names without a slash count as new.
    #[must_use]
    pub fn of_method(method: &str) -> Self {
        if method.contains('/') { Self::V03 } else { Self::V10 }
    }

    /// The dialect of a REST path below the agent's prefix, with or without its leading slash.
    #[must_use]
    pub fn of_rest_path(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        if path == "v1" || path.starts_with("v1/") { Self::V03 } else { Self::V10 }
    }
}

/// What an operation does to the agent, which decides what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Asks the agent to do or change something: costs a unit.
    Work,
    /// Reads a result or state: drawn from the read allowance.
    Read,
    /// Answered by the gateway or harmless: costs nothing, but has an abuse limit per source.
    Free,
}

/// An A2A operation, or [`Operation::Unknown`] for legacy and foreign methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of A2A 1.0
pub enum Operation {
    SendMessage,
    SendStreamingMessage,
    GetTask,
    ListTasks,
    CancelTask,
    SubscribeToTask,
    CreateTaskPushNotificationConfig,
    GetTaskPushNotificationConfig,
    ListTaskPushNotificationConfigs,
    DeleteTaskPushNotificationConfig,
    GetExtendedAgentCard,
    GetAgentCard,
    /// A method the gateway does not know: forwarded as it is, and it costs a unit.
    Unknown,
}

impl Operation {
    /// The operation of a JSON-RPC method name, 1.0 or 0.3. Legacy (`tasks/send`) and foreign names are `Unknown`, but for
    /// the two push methods of 0.1 and 0.2.0: they make an agent POST wherever the caller likes, so they may not pass as unknown.
    #[must_use]
    pub fn from_method(method: &str) -> Self {
        match method {
            "SendMessage" | "message/send" => Self::SendMessage,
            "SendStreamingMessage" | "message/stream" => Self::SendStreamingMessage,
            "GetTask" | "tasks/get" => Self::GetTask,
            "ListTasks" | "tasks/list" => Self::ListTasks,
            "CancelTask" | "tasks/cancel" => Self::CancelTask,
            "SubscribeToTask" | "tasks/resubscribe" => Self::SubscribeToTask,
            "CreateTaskPushNotificationConfig" | "tasks/pushNotificationConfig/set" | "tasks/pushNotification/set" => {
                Self::CreateTaskPushNotificationConfig
            }
            "GetTaskPushNotificationConfig" | "tasks/pushNotificationConfig/get" | "tasks/pushNotification/get" => {
                Self::GetTaskPushNotificationConfig
            }
            "ListTaskPushNotificationConfigs" | "tasks/pushNotificationConfig/list" => {
                Self::ListTaskPushNotificationConfigs
            }
            "DeleteTaskPushNotificationConfig" | "tasks/pushNotificationConfig/delete" => {
                Self::DeleteTaskPushNotificationConfig
            }
            "GetExtendedAgentCard" | "agent/getAuthenticatedExtendedCard" => Self::GetExtendedAgentCard,
            _ => Self::Unknown,
        }
    }

    /// The operation with this v1.0 name, where calls of it reach agents.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(Self::from_method(name)).filter(|operation| operation.as_str() == name)
    }

    /// The v1.0 name, used in rows, metrics and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SendMessage => "SendMessage",
            Self::SendStreamingMessage => "SendStreamingMessage",
            Self::GetTask => "GetTask",
            Self::ListTasks => "ListTasks",
            Self::CancelTask => "CancelTask",
            Self::SubscribeToTask => "SubscribeToTask",
            Self::CreateTaskPushNotificationConfig => "CreateTaskPushNotificationConfig",
            Self::GetTaskPushNotificationConfig => "GetTaskPushNotificationConfig",
            Self::ListTaskPushNotificationConfigs => "ListTaskPushNotificationConfigs",
            Self::DeleteTaskPushNotificationConfig => "DeleteTaskPushNotificationConfig",
            Self::GetExtendedAgentCard => "GetExtendedAgentCard",
            Self::GetAgentCard => "GetAgentCard",
            Self::Unknown => "Unknown",
        }
    }

    /// What the operation does to the agent.
    #[must_use]
    pub fn effect(self) -> Effect {
        match self {
            Self::GetTask
            | Self::ListTasks
            | Self::SubscribeToTask
            | Self::GetTaskPushNotificationConfig
            | Self::ListTaskPushNotificationConfigs
            | Self::GetExtendedAgentCard => Effect::Read,
            Self::GetAgentCard => Effect::Free,
            Self::SendMessage
            | Self::SendStreamingMessage
            | Self::CancelTask
            | Self::CreateTaskPushNotificationConfig
            | Self::DeleteTaskPushNotificationConfig
            | Self::Unknown => Effect::Work,
        }
    }

    /// Whether it hands the agent a message; only then does the message name the task, the context and itself.
    #[must_use]
    pub fn is_send(self) -> bool {
        matches!(self, Self::SendMessage | Self::SendStreamingMessage)
    }

    /// Whether the answer is expected to be an event stream, which takes a stream slot.
    #[must_use]
    pub fn streams(self) -> bool {
        matches!(self, Self::SendStreamingMessage | Self::SubscribeToTask)
    }

    /// Whether it reads or writes push configurations (refused unless the agent's registration passes them).
    #[must_use]
    pub fn is_push_config(self) -> bool {
        matches!(
            self,
            Self::CreateTaskPushNotificationConfig
                | Self::GetTaskPushNotificationConfig
                | Self::ListTaskPushNotificationConfigs
                | Self::DeleteTaskPushNotificationConfig
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(&str, &str); 11] = [
        ("SendMessage", "message/send"),
        ("SendStreamingMessage", "message/stream"),
        ("GetTask", "tasks/get"),
        ("ListTasks", "tasks/list"),
        ("CancelTask", "tasks/cancel"),
        ("SubscribeToTask", "tasks/resubscribe"),
        ("CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set"),
        ("GetTaskPushNotificationConfig", "tasks/pushNotificationConfig/get"),
        ("ListTaskPushNotificationConfigs", "tasks/pushNotificationConfig/list"),
        ("DeleteTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete"),
        ("GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"),
    ];

    #[test]
    fn both_dialects_name_the_same_operations_and_rows_carry_the_new_name() {
        for (new, old) in PAIRS {
            assert_eq!(Operation::from_method(new), Operation::from_method(old));
            assert_eq!(Operation::from_method(old).as_str(), new);
            assert_eq!((Dialect::of_method(new), Dialect::of_method(old)), (Dialect::V10, Dialect::V03));
        }
    }

    #[test]
    fn legacy_foreign_and_misspelt_methods_are_unknown_and_cost_a_unit() {
        for method in
            ["tasks/send", "tasks/sendSubscribe", "sendMessage", "SENDMESSAGE", "GetTask ", "", "GetAgentCard", "x"]
        {
            assert_eq!(Operation::from_method(method), Operation::Unknown, "{method:?}");
        }
        assert_eq!(Operation::Unknown.effect(), Effect::Work);
    }

    #[test]
    fn the_oldest_push_methods_do_not_slip_through_as_unknown() {
        assert!(Operation::from_method("tasks/pushNotification/set").is_push_config());
        assert!(Operation::from_method("tasks/pushNotification/get").is_push_config());
    }

    #[test]
    fn only_what_changes_something_costs_a_unit() {
        let work: Vec<_> =
            PAIRS.iter().filter(|(n, _)| Operation::from_method(n).effect() == Effect::Work).map(|p| p.0).collect();
        assert_eq!(
            work,
            [
                "SendMessage",
                "SendStreamingMessage",
                "CancelTask",
                "CreateTaskPushNotificationConfig",
                "DeleteTaskPushNotificationConfig"
            ]
        );
        assert_eq!(Operation::GetAgentCard.effect(), Effect::Free);
    }

    #[test]
    fn the_prefix_v1_marks_the_old_rest_paths() {
        assert_eq!(Dialect::of_rest_path("/v1/message:send"), Dialect::V03);
        assert_eq!(Dialect::of_rest_path("v1/tasks/7"), Dialect::V03);
        assert_eq!(Dialect::of_rest_path("/message:send"), Dialect::V10);
        assert_eq!(Dialect::of_rest_path("/v10/message:send"), Dialect::V10);
    }
}
