//! Finding agents: by words, skills, tags, health, provider, page by page.
//!
//! Promises: what is found is what a plain look through every row would find; an index only makes it faster.

use std::collections::HashMap;

use uuid::Uuid;

use super::rows::{AdminState, AgentName, AgentRow, HealthStatus};
use super::sql::{Built, Dialect, Row, among};
use super::{Store, StoreError, agents, columns};
use crate::clock::Timestamp;

/// Which agents a list shows. What is not asked for does not filter.
#[derive(Clone, Debug, Default)]
pub struct AgentFilter {
    /// Words, each of which is part of name, description, slug or a skill's name, id or tags, whatever the case.
    pub text: Option<String>,
    /// A skill's whole name, id or tag, whatever the case.
    pub skill: Option<String>,
    /// A skill's whole tag, whatever the case.
    pub tag: Option<String>,
    /// Health as shown to people; `online` includes degraded ones.
    pub health: Option<HealthStatus>,
    /// The provider's whole name, whatever the case.
    pub provider: Option<String>,
    /// The admin state.
    pub state: Option<AdminState>,
    /// Only what strangers may see: listed, active, with an endpoint.
    pub public_only: bool,
}

/// Which part of the agents that are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentPage {
    /// Past so many.
    Offset(u32),
    /// After the agent registered then, with this id.
    After(Timestamp, Uuid),
}

/// Stands before a tag in `skill_terms`; in no name, id or tag.
const TAG: char = '\u{1}';
/// The index knows no shorter parts of words.
const INDEXED: usize = 3;

/// Names, ids and tags of the skills in lower case, each between newlines, tags once more with a mark before them: what a
/// search for a skill is held against.
pub(super) fn skill_terms(skills_json: &str) -> String {
    let skills: Vec<serde_json::Value> = serde_json::from_str(skills_json).unwrap_or_default();
    let mut terms = String::from("\n");
    for skill in &skills {
        for term in [&skill["name"], &skill["id"]].into_iter().filter_map(|term| term.as_str()) {
            terms.push_str(&one_line(term));
            terms.push('\n');
        }
        for tag in skill["tags"].as_array().into_iter().flatten().filter_map(|tag| tag.as_str()) {
            let tag = one_line(tag);
            terms.push_str(&format!("{tag}\n{TAG}{tag}\n"));
        }
    }
    terms
}

fn one_line(text: &str) -> String {
    text.trim().to_lowercase().replace(char::is_control, " ")
}

/// `text` as a LIKE pattern that finds it anywhere, with `\` as the escape.
fn containing(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{escaped}%")
}

/// The words as SQLite's index is asked for them; `None` when it knows none of them.
fn indexed(words: &[String]) -> Option<String> {
    let known = words.iter().filter(|word| word.chars().count() >= INDEXED && !word.contains('\0'));
    let phrases: Vec<String> = known.map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect();
    (!phrases.is_empty()).then(|| phrases.join(" AND "))
}

/// Adds the conditions of `filter`.
fn narrow(query: &mut Built, filter: &AgentFilter) {
    query.push(" FROM agents WHERE state <> 'deleted'");
    if filter.public_only {
        query.push(" AND state = 'active' AND listed AND endpoint_url IS NOT NULL");
    }
    let words: Vec<String> =
        filter.text.iter().flat_map(|text| text.split_whitespace()).map(str::to_lowercase).collect();
    // PostgreSQL's index, where there is one, is asked by LIKE itself.
    if query.dialect() == Dialect::Sqlite
        && let Some(known) = indexed(&words)
    {
        query.push(
            " AND id IN (SELECT agent_search_rows.agent_id FROM agent_search JOIN agent_search_rows \
             ON agent_search_rows.row = agent_search.rowid WHERE agent_search MATCH ",
        );
        query.push_bind(known).push(")");
    }
    // The index finds candidates, this decides: the short words, and how two databases agree.
    for word in &words {
        let pattern = containing(word);
        query.push(" AND (search_text LIKE ").push_bind(pattern.as_str()).push(" ESCAPE '\\' OR skill_terms LIKE ");
        query.push_bind(pattern.as_str()).push(" ESCAPE '\\')");
    }
    let terms = [
        filter.skill.as_ref().map(|skill| format!("\n{}\n", one_line(skill))),
        filter.tag.as_ref().map(|tag| format!("\n{TAG}{}\n", one_line(tag))),
    ];
    for term in terms.into_iter().flatten() {
        query.push(" AND skill_terms LIKE ").push_bind(containing(&term)).push(" ESCAPE '\\'");
    }
    if let Some(health) = filter.health {
        let also = if health == HealthStatus::Online { HealthStatus::Degraded } else { health };
        query.push(" AND health IN (").push_bind(health.as_str()).push(", ").push_bind(also.as_str()).push(")");
    }
    if let Some(provider) = &filter.provider {
        query.push(" AND lower(provider) = lower(").push_bind(provider).push(")");
    }
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
}

impl Store {
    /// Agents that pass `filter`, newest first, and how many there are in all.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn agents(
        &self,
        filter: &AgentFilter,
        limit: u32,
        page: AgentPage,
    ) -> Result<(Vec<AgentRow>, i64), StoreError> {
        let dialect = self.reader.dialect();
        let mut rows = Built::new(dialect, "SELECT *");
        narrow(&mut rows, filter);
        if let AgentPage::After(at, id) = page {
            rows.push(" AND (created_at, id) < (").push_bind(at).push(", ");
            rows.push_bind(id).push(")");
        }
        rows.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(limit);
        if let AgentPage::Offset(offset) = page {
            rows.push(" OFFSET ").push_bind(offset);
        }
        let mut total = Built::new(dialect, "SELECT COUNT(*)");
        narrow(&mut total, filter);
        // Page and total of one moment.
        let mut tx = self.snapshot().await?;
        let rows = rows.build().fetch_all(&mut tx).await?;
        let total = total.build().number(&mut tx).await?;
        Ok((rows.iter().map(agents::read).collect::<Result<_, _>>()?, total))
    }

    /// How many connections in force each of these agents has.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn connected_counts(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, i64>, StoreError> {
        let rows = among!(
            "SELECT id, (SELECT COUNT(*) FROM connections WHERE connections.status = 'connected' \
             AND (requester_id = agents.id OR target_id = agents.id)) AS count FROM agents WHERE ",
            "id"
        )
        .bind(ids)
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(|row| Ok((columns::id(row, "id")?, columns::number(row, "count")?))).collect()
    }

    /// The names of those of these agents that there are or were.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn agent_names(&self, ids: &[Uuid]) -> Result<Vec<AgentName>, StoreError> {
        let rows = among!("SELECT id, slug, name FROM agents WHERE ", "id").bind(ids).fetch_all(&self.reader).await?;
        let name = |row: &Row| {
            let (mut slug, name) = (columns::text(row, "slug")?, columns::text(row, "name")?);
            // What a dot follows was added when somebody else took the slug over.
            slug.truncate(slug.find('.').unwrap_or(slug.len()));
            Ok(AgentName { id: columns::id(row, "id")?, slug, name })
        };
        rows.iter().map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::conformance::{agent, event, key};
    use super::super::rows::ConnectionStatus;
    use super::super::testing::TestStore;
    use super::*;

    /// What a look through every row finds.
    fn plain(rows: &[AgentRow], text: &str) -> Vec<Uuid> {
        let haystack = |row: &AgentRow| {
            let all = [&row.name, &row.description, &row.slug].map(|part| part.to_lowercase()).join("\n");
            format!("{all}\n{}", skill_terms(&row.skills_json))
        };
        let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
        let found = rows.iter().filter(|row| words.iter().all(|word| haystack(row).contains(word.as_str())));
        found.map(|row| row.id).collect()
    }

    async fn found(store: &Store, text: &str) -> Vec<Uuid> {
        let filter = AgentFilter { text: Some(text.to_owned()), ..AgentFilter::default() };
        let (rows, total) = store.agents(&filter, 100, AgentPage::Offset(0)).await.expect("reads");
        assert_eq!(i64::try_from(rows.len()), Ok(total));
        let mut ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids
    }

    const TEXT: &str = "[aAbBäÄßİσΣ日本🚀%_\"'*(){}:^.\\\\ -]{0,12}";

    proptest! {
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 10, ..ProptestConfig::default() })]

        #[test]
        fn the_index_finds_what_a_look_through_every_row_finds(
            texts in prop::collection::vec((TEXT, TEXT, TEXT), 1..8),
            queries in prop::collection::vec(TEXT, 1..12),
            renamed in TEXT,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let test = TestStore::any().await;
                let store = &test.store;
                let mut rows = Vec::new();
                for (n, (name, description, skill)) in texts.into_iter().enumerate() {
                    let mut row = agent(&format!("slug-{n}"));
                    (row.name, row.description) = (name, description);
                    row.skills_json = serde_json::json!([{"name": skill.clone(), "tags": [skill, "Tag"]}]).to_string();
                    store.add_agent(&row, &key(&row), false, &event("agent.create", row.id)).await.expect("adds");
                    rows.push(row);
                }
                let change = |row: &mut AgentRow| {
                    row.name = renamed;
                    Ok::<_, StoreError>(event("agent.update", row.id))
                };
                rows[0] = store.change_agent(rows[0].id, change).await.expect("changes");
                rows.sort_unstable_by_key(|row| row.id);
                let parts: Vec<String> =
                    rows.iter().map(|row| row.name.chars().skip(1).take(4).collect()).collect();
                for query in queries.iter().chain(&parts) {
                    assert_eq!(found(store, query).await, plain(&rows, query), "{query:?} in {rows:#?}");
                }
                test.end().await;
            });
        }
    }

    #[tokio::test]
    async fn a_connection_in_force_counts_for_both_sides() {
        use crate::store::conformance::{added, connect};
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open_sqlite(&dir.path().join("gateway.db")).await.expect("opens");
        let ids = [added(&store, "one").await.id, added(&store, "two").await.id, added(&store, "three").await.id];
        connect(&store, ids[0], ids[1], ConnectionStatus::Connected).await;
        connect(&store, ids[2], ids[0], ConnectionStatus::Connected).await;
        connect(&store, ids[1], ids[2], ConnectionStatus::Paused).await;
        let counts = store.connected_counts(&ids).await.expect("reads");
        assert_eq!(ids.map(|id| counts[&id]), [2, 1, 1]);
        store.close().await;
    }

    #[tokio::test]
    async fn the_index_is_asked_for_words_it_can_know() {
        assert_eq!(indexed(&["ab".to_owned()]), None);
        assert_eq!(indexed(&["ab".to_owned(), "a\"bc".to_owned()]).as_deref(), Some("\"a\"\"bc\""));
        assert_eq!(indexed(&["abc".to_owned(), "日本語".to_owned()]).as_deref(), Some("\"abc\" AND \"日本語\""));
    }
}
