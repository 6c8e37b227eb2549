//! The operations of A2A under their v1.0 names, whichever dialect or binding carried them (A2A 1.0 section 3, 0.3 section 7).

use std::fmt;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    /// The operation of a JSON-RPC method name, 1.0 or 0.3. Legacy (`tasks/send`) and foreign names are `Unknown`.
    #[must_use]
    pub fn from_method(method: &str) -> Self {
        match method {
            "SendMessage" | "message/send" => Self::SendMessage,
            "SendStreamingMessage" | "message/stream" => Self::SendStreamingMessage,
            "GetTask" | "tasks/get" => Self::GetTask,
            "ListTasks" | "tasks/list" => Self::ListTasks,
            "CancelTask" | "tasks/cancel" => Self::CancelTask,
            "SubscribeToTask" | "tasks/resubscribe" => Self::SubscribeToTask,
            "CreateTaskPushNotificationConfig" | "tasks/pushNotificationConfig/set" => {
                Self::CreateTaskPushNotificationConfig
            }
            "GetTaskPushNotificationConfig" | "tasks/pushNotificationConfig/get" => Self::GetTaskPushNotificationConfig,
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
