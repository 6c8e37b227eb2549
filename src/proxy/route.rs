//! Path -> what is asked for. Nothing is decoded and nothing is normalised: a path that would need it is refused, so that what
//! was checked here is what the agent sees, and nothing leaves the registered prefix.

use http::{Method, Uri};

use crate::a2a::{Binding, Operation};
use crate::directory::Agent;

/// The prefixes under which calls arrive; what follows is the agent's id or slug.
const PREFIXES: [&str; 2] = ["/api/proxy/", "/relay/"];

/// No slug, but what stands in an agent's place when a client resolves a card's address against a base URL that lacks its
/// trailing slash, as URL resolution replaces the last segment.
pub(super) const WELL_KNOWN: &str = ".well-known";

/// Why a path is refused before anybody looks where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPath;

/// A path split into the agent it names and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// An id or a slug, not yet looked up.
    pub agent: &'a str,
    /// Empty, or starting with a slash.
    pub rest: &'a str,
}

/// What is asked of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface<'a> {
    /// Its card, answered by the gateway.
    Card,
    /// JSON-RPC on the registered URL; the operation is in the body.
    Rpc,
    /// A REST call on a path below the registered URL.
    Rest {
        /// Known from path and method.
        operation: Operation,
        /// The task the path names, as it stands there.
        task_id: Option<&'a str>,
    },
    /// One of the paths that the registration lists.
    Listed,
    /// The path exists, with other methods.
    WrongMethod {
        /// For the `Allow` header.
        allow: &'static str,
    },
    /// Nothing is there.
    Nothing,
}

impl Surface<'_> {
    /// The wire form calls to this surface have.
    #[must_use]
    pub(super) fn binding(&self) -> Binding {
        match self {
            Self::Rpc => Binding::JsonRpc,
            Self::Rest { .. } => Binding::Rest,
            _ => Binding::Http,
        }
    }
}

/// Whether `path` belongs to the proxy at all; everything else is the control plane's.
#[must_use]
pub fn is_call(path: &str) -> bool {
    reference(path).is_some()
}

/// The agent that a proxy path names, and the rest. What OpenAgora calls a test is a call like any other.
fn reference(path: &str) -> Option<Reference<'_>> {
    if let Some(below) = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix)) {
        let (agent, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
        return Some(Reference { agent, rest });
    }
    let agent = path.strip_prefix("/api/agents/")?.strip_suffix("/test")?;
    (!agent.is_empty() && !agent.contains('/')).then_some(Reference { agent, rest: "" })
}

/// Splits a proxy path.
///
/// # Errors
/// For dot segments, backslashes, and encoded slashes, backslashes, dots or control characters anywhere in it.
pub(super) fn split(uri: &Uri) -> Result<Reference<'_>, BadPath> {
    let path = uri.path();
    check(path)?;
    reference(path).ok_or(BadPath)
}

fn check(path: &str) -> Result<(), BadPath> {
    let bytes = path.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\\' | 0..=0x20 | 0x7f.. => return Err(BadPath),
            b'%' => {
                let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
                let decoded = hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(BadPath)?;
                // '.', '/', '\', '%' (double encoding) and control characters
                if matches!(decoded, b'.' | b'/' | b'\\' | b'%' | 0..=0x1f | 0x7f) {
                    return Err(BadPath);
                }
            }
            _ => {}
        }
    }
    // A segment that is dots only, or dots and a path parameter (`..;x`), means another place to some servers.
    for segment in path.split('/') {
        let name = segment.split(';').next().unwrap_or(segment);
        if name == "." || name == ".." {
            return Err(BadPath);
        }
    }
    Ok(())
}

/// What `method` on `rest` asks of `agent`.
#[must_use]
pub(super) fn surface<'a>(method: &Method, rest: &'a str, agent: Option<&Agent>) -> Surface<'a> {
    let reads = method == Method::GET || method == Method::HEAD;
    match rest {
        "" | "/" => match *method {
            Method::POST => Surface::Rpc,
            _ if reads => Surface::Card,
            _ => Surface::WrongMethod { allow: "GET, HEAD, POST" },
        },
        "/.well-known/agent-card.json" | "/.well-known/agent.json" => {
            if reads {
                Surface::Card
            } else {
                Surface::WrongMethod { allow: "GET, HEAD" }
            }
        }
        _ => match rest_operation(method, rest) {
            Surface::Nothing if agent.is_some_and(|agent| agent.subpaths.iter().any(|path| **path == *rest)) => {
                Surface::Listed
            }
            found => found,
        },
    }
}

/// The REST paths of A2A 1.0 (section 11), of 0.3 (the same under `/v1`), and Agno's, which are 0.3's with
/// `/v1/tasks:get` and `/v1/tasks:cancel` added.
fn rest_operation<'a>(method: &Method, rest: &'a str) -> Surface<'a> {
    let (v1, path) = match rest.strip_prefix("/v1/") {
        Some(path) => (true, path),
        None => (false, rest.strip_prefix('/').unwrap_or(rest)),
    };
    let on = |wanted: &Method, allow: &'static str, operation: Operation, task_id: Option<&'a str>| {
        if method == wanted { Surface::Rest { operation, task_id } } else { Surface::WrongMethod { allow } }
    };
    match path {
        "message:send" => return on(&Method::POST, "POST", Operation::SendMessage, None),
        "message:stream" => return on(&Method::POST, "POST", Operation::SendStreamingMessage, None),
        "tasks" => return on(&Method::GET, "GET", Operation::ListTasks, None),
        "extendedAgentCard" if !v1 => return on(&Method::GET, "GET", Operation::GetExtendedAgentCard, None),
        "card" if v1 => return on(&Method::GET, "GET", Operation::GetExtendedAgentCard, None),
        "tasks:get" if v1 => return on(&Method::POST, "POST", Operation::GetTask, None),
        "tasks:cancel" if v1 => return on(&Method::POST, "POST", Operation::CancelTask, None),
        _ => {}
    }
    let Some(below) = path.strip_prefix("tasks/") else {
        return Surface::Nothing;
    };
    match below.split_once('/') {
        None => task_path(method, below, &on),
        Some((task, configs)) if !task.is_empty() => push_path(method, task, configs),
        Some(_) => Surface::Nothing,
    }
}

fn task_path<'a>(
    method: &Method,
    below: &'a str,
    on: &impl Fn(&Method, &'static str, Operation, Option<&'a str>) -> Surface<'a>,
) -> Surface<'a> {
    match below.rsplit_once(':') {
        Some(("", _)) => Surface::Nothing,
        Some((task, "cancel")) => on(&Method::POST, "POST", Operation::CancelTask, Some(task)),
        // The tables say POST, the proto's annotation says GET: both are in use.
        Some((task, "subscribe")) if method == Method::GET || method == Method::POST => {
            Surface::Rest { operation: Operation::SubscribeToTask, task_id: Some(task) }
        }
        Some((_, "subscribe")) => Surface::WrongMethod { allow: "GET, POST" },
        _ if below.is_empty() => Surface::Nothing,
        _ => on(&Method::GET, "GET", Operation::GetTask, Some(below)),
    }
}

fn push_path<'a>(method: &Method, task: &'a str, configs: &str) -> Surface<'a> {
    let rest = |operation| Surface::Rest { operation, task_id: Some(task) };
    match configs.split_once('/') {
        None if configs == "pushNotificationConfigs" => match *method {
            Method::POST => rest(Operation::CreateTaskPushNotificationConfig),
            Method::GET => rest(Operation::ListTaskPushNotificationConfigs),
            _ => Surface::WrongMethod { allow: "GET, POST" },
        },
        Some(("pushNotificationConfigs", id)) if !id.is_empty() && !id.contains('/') => match *method {
            Method::GET => rest(Operation::GetTaskPushNotificationConfig),
            Method::DELETE => rest(Operation::DeleteTaskPushNotificationConfig),
            _ => Surface::WrongMethod { allow: "DELETE, GET" },
        },
        _ => Surface::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().expect("a request target")
    }

    fn operation(method: &str, rest: &str) -> Option<Operation> {
        match surface(&method.parse().expect("a method"), rest, None) {
            Surface::Rest { operation, .. } => Some(operation),
            _ => None,
        }
    }

    #[test]
    fn a_proxy_path_names_an_agent_and_the_rest() {
        let target = uri("/api/proxy/weather/tasks/7:cancel?x=1");
        assert_eq!(split(&target), Ok(Reference { agent: "weather", rest: "/tasks/7:cancel" }));
        assert_eq!(split(&uri("/relay/weather")), Ok(Reference { agent: "weather", rest: "" }));
        assert_eq!(split(&uri("/api/proxy/weather/")), Ok(Reference { agent: "weather", rest: "/" }));
    }

    #[test]
    fn a_test_of_an_agent_is_a_call_to_it_and_nothing_else_below_the_api_is() {
        assert_eq!(split(&uri("/api/agents/weather/test?x=1")), Ok(Reference { agent: "weather", rest: "" }));
        assert!(is_call("/api/agents/weather/test") && is_call("/api/proxy/test") && is_call("/relay/x/test"));
        for path in
            ["/api/agents/test", "/api/agents//test", "/api/agents/a/b/test", "/api/agents/a/test/", "/api/agents"]
        {
            assert!(!is_call(path), "{path}");
        }
    }

    #[test]
    fn paths_that_mean_another_place_to_somebody_are_refused() {
        for path in [
            "/api/proxy/a/../b",
            "/api/proxy/a/./b",
            "/api/proxy/a/%2e%2e/b",
            "/api/proxy/a/..%2fb",
            "/api/proxy/a/..;/b",
            "/api/proxy/a/%5cb",
            "/api/proxy/a/%00",
            "/api/proxy/a/%252e",
            "/api/proxy/a/%zz",
            "/api/proxy/a/%2",
        ] {
            assert_eq!(split(&uri(path)), Err(BadPath), "{path}");
        }
        assert!(split(&uri("/api/proxy/a/tasks/x%20y")).is_ok());
    }

    #[test]
    fn rest_paths_of_both_versions_and_of_agno_are_known() {
        use Operation as O;
        for (method, path, expected) in [
            ("POST", "/message:send", O::SendMessage),
            ("POST", "/v1/message:send", O::SendMessage),
            ("POST", "/message:stream", O::SendStreamingMessage),
            ("GET", "/tasks", O::ListTasks),
            ("GET", "/tasks/1", O::GetTask),
            ("GET", "/v1/tasks/a:b", O::GetTask),
            ("POST", "/tasks/1:cancel", O::CancelTask),
            ("GET", "/tasks/1:subscribe", O::SubscribeToTask),
            ("POST", "/v1/tasks/1:subscribe", O::SubscribeToTask),
            ("POST", "/v1/tasks:get", O::GetTask),
            ("POST", "/v1/tasks:cancel", O::CancelTask),
            ("POST", "/tasks/1/pushNotificationConfigs", O::CreateTaskPushNotificationConfig),
            ("GET", "/tasks/1/pushNotificationConfigs", O::ListTaskPushNotificationConfigs),
            ("GET", "/tasks/1/pushNotificationConfigs/2", O::GetTaskPushNotificationConfig),
            ("DELETE", "/tasks/1/pushNotificationConfigs/2", O::DeleteTaskPushNotificationConfig),
            ("GET", "/extendedAgentCard", O::GetExtendedAgentCard),
            ("GET", "/v1/card", O::GetExtendedAgentCard),
        ] {
            assert_eq!(operation(method, path), Some(expected), "{method} {path}");
        }
    }

    #[test]
    fn everything_else_below_an_agent_is_nothing() {
        for path in
            ["/chat", "/tasks/", "/tasks//x", "/message:sendx", "/tasks/1/x", "/v2/message:send", "/tasks/:cancel"]
        {
            assert_eq!(surface(&Method::GET, path, None), Surface::Nothing, "{path}");
        }
        assert_eq!(surface(&Method::PUT, "", None), Surface::WrongMethod { allow: "GET, HEAD, POST" });
        assert_eq!(surface(&Method::HEAD, "/", None), Surface::Card);
    }
}
