//! Where limits are shared, as the configuration says.

use std::sync::Arc;

use super::StartError;
use crate::clock::Clock;
use crate::config;
use crate::limit::shared::{Node, Server, Settings, Tls};
use crate::proxy;

/// This node among those that share limits; `None` where its limits are its own.
pub(super) fn node(limits: &config::Limits, workers: usize, clock: &Clock) -> Result<Option<Arc<Node>>, StartError> {
    let Some(shared) = &limits.shared else { return Ok(None) };
    let tls = match shared.tls {
        true => Some(proxy::roots::client_config(&limits.roots).map_err(|error| StartError::Other(error.to_string()))?),
        false => None,
    };
    let server = Server {
        host: shared.host.clone(),
        port: shared.port,
        tls: tls.map(Tls),
        user: shared.user.clone(),
        password: shared.password.clone(),
        database: i64::from(shared.database),
    };
    let settings =
        Settings { server, namespace: limits.namespace.clone(), patience: limits.shared_timeout, links: workers };
    Ok(Some(Arc::new(Node::new(settings, clock.clone()))))
}
