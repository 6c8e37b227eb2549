//! What the gateway tells others by itself: its outlets and webhooks, as the configuration has them.

use std::sync::Arc;

use super::path::CallPath;
use super::state::State;
use crate::clock::Clock;
use crate::conditions::Conditions;
use crate::config::{self, Config};
use crate::control;
use crate::gateway::post;
use crate::outlets::{Hook, Outlet, Render, Sink, Webhooks};

/// Those of this node.
pub(super) struct Outlets {
    /// What webhooks are told of this gateway itself.
    pub(super) conditions: Conditions,
    pub(super) rows: Vec<Arc<Outlet>>,
    pub(super) webhooks: Arc<Webhooks>,
}

impl Outlets {
    /// Makes them; nothing is sent yet.
    pub(super) fn build(
        config: &Config,
        clock: &Clock,
        conditions: &Conditions,
        state: &State,
        path: &CallPath,
    ) -> Self {
        let post = post::poster(&path.upstream_tls);
        let names = state.store.clone();
        let render: Render = Arc::new(move |rows| {
            let store = names.clone();
            Box::pin(async move { control::call_lines(&store, &rows).await })
        });
        let outlet = |outlet: &config::Outlet| {
            let sink = Sink::new(&outlet.destination, Arc::clone(&post));
            let (store, render) = (state.store.clone(), Arc::clone(&render));
            Arc::new(Outlet::new(outlet, state.node_id, store, sink, render, clock.clone()))
        };
        let rows = config.audit.outlets.iter().map(outlet).collect();
        let hooks = config.webhooks.iter().map(Hook::of).collect();
        let store = state.store.clone();
        let webhooks = Webhooks::new(hooks, state.node_id, store, conditions.clone(), post.clone(), clock.clone());
        Self { conditions: conditions.clone(), rows, webhooks }
    }
}
