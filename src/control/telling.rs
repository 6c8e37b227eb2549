//! What the gateway tells others by itself, for operators: in status and `/metrics`.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use super::Control;
use super::metrics::{Families, label};
use super::status::DATABASE_PATIENCE;
use crate::clock::Timestamp;
use crate::outlets::{HookTold, OutletTold};

/// Something that is wrong for as long as it lasts.
#[derive(Serialize, ToSchema)]
pub(super) struct Condition {
    /// Its name, as webhooks are told it.
    name: &'static str,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// What is wrong.
    text: String,
}

/// Where rows of the log are sent.
#[derive(Serialize, ToSchema)]
pub(super) struct Outlet {
    /// Its name in the configuration.
    name: String,
    /// Rows of this node that it has not taken yet.
    behind: i64,
    /// When it last had sent all there was.
    #[schema(value_type = String, format = DateTime)]
    caught_up_at: Timestamp,
    /// Why rows are not taken; null: they are.
    error: Option<String>,
}

/// Who is sent events.
#[derive(Serialize, ToSchema)]
pub(super) struct Webhook {
    /// Its name in the configuration.
    name: String,
    /// Events that wait to be taken.
    waiting: i64,
    /// Those of them that were sent in vain.
    failing: i64,
    /// Since when the oldest of them waits.
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest: Option<Timestamp>,
    /// Why one of them was not taken.
    error: Option<String>,
}

/// How those are who are told something.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    outlets: Vec<OutletTold>,
    hooks: Vec<HookTold>,
}

impl Telling {
    /// Without the database nothing is known of webhooks.
    pub(super) async fn of(control: &Control) -> Self {
        let outlets = control.outlets.iter().map(|outlet| outlet.told()).collect();
        let hooks = tokio::time::timeout(DATABASE_PATIENCE, control.webhooks.told()).await;
        Self { outlets, hooks: hooks.ok().and_then(Result::ok).unwrap_or_default() }
    }

    pub(super) fn warnings(&self, now: Timestamp) -> impl Iterator<Item = String> {
        let outlets = self.outlets.iter().filter_map(move |outlet| outlet.warning(now));
        outlets.chain(self.hooks.iter().filter_map(HookTold::warning))
    }

    pub(super) fn outlets(&self) -> Vec<Outlet> {
        let shown = |OutletTold { name, behind, caught_up_at, error, .. }| Outlet { name, behind, caught_up_at, error };
        self.outlets.iter().cloned().map(shown).collect()
    }

    pub(super) fn webhooks(&self) -> Vec<Webhook> {
        let shown =
            |HookTold { name, waiting, failing, oldest, error }| Webhook { name, waiting, failing, oldest, error };
        self.hooks.iter().cloned().map(shown).collect()
    }

    pub(super) fn families(&self, families: &mut Families<'_>) -> fmt::Result {
        let of = |name: &str| vec![label("outlet", name)];
        let behind = self.outlets.iter().map(|outlet| (of(&outlet.name), outlet.behind));
        families.gauges("outlet_behind", "Rows that were not taken yet", behind)?;
        let failing = self.outlets.iter().map(|outlet| (of(&outlet.name), i64::from(outlet.error.is_some())));
        families.gauges("outlet_failing", "1 while rows are not taken", failing)?;
        let of = |name: &str| vec![label("webhook", name)];
        let waiting = self.hooks.iter().map(|hook| (of(&hook.name), hook.waiting));
        families.gauges("webhook_waiting", "Events that wait to be taken", waiting)?;
        let failing = self.hooks.iter().map(|hook| (of(&hook.name), hook.failing));
        families.gauges("webhook_failing", "Those of them that were sent in vain", failing)
    }
}

/// What is wrong with the gateway now.
pub(super) fn conditions(control: &Control) -> Vec<Condition> {
    let standing = control.conditions.standing();
    standing.into_iter().map(|(name, is)| Condition { name: name.as_str(), since: is.since, text: is.text }).collect()
}
