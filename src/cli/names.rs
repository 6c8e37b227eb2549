//! Names of agents by id: the log and the history know ids only, people want slugs. Each is asked for once.

use std::collections::BTreeMap;

use serde_json::Value;

use super::client::path;
use super::session::Session;

#[derive(Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// The slug; the id where the agent is gone or not to be seen, `-` where there is none.
    pub(super) async fn of(&mut self, id: &Value, session: &Session) -> String {
        let Some(id) = id.as_str() else { return "-".to_owned() };
        if let Some(name) = self.0.get(id) {
            return name.clone();
        }
        let found = session.client.get(&path(&["agents", id])).await.ok();
        let slug = found.and_then(|answer| answer.json["slug"].as_str().map(str::to_owned));
        let name = slug.unwrap_or_else(|| id.to_owned());
        self.0.insert(id.to_owned(), name.clone());
        name
    }
}
