//! Operators: who may use the operator listener, and how the first one comes to be.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use uuid::Uuid;

use super::names::check_text;
use super::token::{NewToken, OPERATOR_PREFIX};
use super::{Actor, Registry, RegistryError};
use crate::clock::{Clock, Timestamp};
use crate::store::rows::{AdminEvent, OperatorRole, OperatorRow};
use crate::store::{Store, StoreError};

/// Why the first operator could not be made.
#[derive(Debug)]
pub enum FirstOperatorError {
    /// The token's file cannot be written.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The database failed.
    Store(StoreError),
}

impl std::fmt::Display for FirstOperatorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "admin token file {}: {error}", path.display()),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FirstOperatorError {}

/// Makes an admin when there is none, writes its token to `file` (mode 0600) and returns it, to be printed once.
///
/// # Errors
/// When the file or the database cannot be written.
pub async fn ensure_first(store: &Store, clock: &Clock, file: &Path) -> Result<Option<String>, FirstOperatorError> {
    let existing = store.operators().await.map_err(FirstOperatorError::Store)?;
    if existing.iter().any(|operator| operator.role == OperatorRole::Admin && operator.expires_at.is_none()) {
        return Ok(None);
    }
    let token = NewToken::generate(OPERATOR_PREFIX);
    // The file first: a token that nobody knows would lock everybody out.
    write_private(file, &token.text).map_err(|error| FirstOperatorError::File { path: file.to_owned(), error })?;
    let mut name = "admin".to_owned();
    if existing.iter().any(|operator| operator.name == name) {
        name = format!("admin-{}", Uuid::new_v4().simple());
    }
    let operator = row(&token, &name, OperatorRole::Admin, None, clock.wall());
    let event = AdminEvent {
        id: Uuid::now_v7(),
        at: clock.wall(),
        actor: "gateway".to_owned(),
        action: "operator.create".to_owned(),
        subject: operator.id.to_string(),
        before: None,
        after: Some(json!({"name": name, "role": "admin"}).to_string()),
        reason: None,
    };
    if store.add_first_admin(&operator, &event).await.map_err(FirstOperatorError::Store)? {
        return Ok(Some(token.text));
    }
    // Another node that started at the same time made one: this token is nobody's.
    fs::remove_file(file).map_err(|error| FirstOperatorError::File { path: file.to_owned(), error })?;
    Ok(None)
}

fn row(token: &NewToken, name: &str, role: OperatorRole, expires_at: Option<Timestamp>, now: Timestamp) -> OperatorRow {
    OperatorRow {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        role,
        digest: token.digest,
        hint: Some(token.hint.clone()),
        expires_at,
        last_used_at: None,
        created_at: now,
    }
}

fn write_private(file: &Path, token: &str) -> io::Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    // A new file moved into place: an old one may be open to others, and its mode would stay.
    let draft = file.with_extension(format!("new-{}", Uuid::new_v4()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut out| writeln!(out, "{token}").and_then(|()| out.sync_all()))
        .and_then(|()| fs::rename(&draft, file));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

impl Registry {
    /// Makes an operator; its token is in the second value and nowhere else.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but admins, [`RegistryError::Taken`] when the name is.
    pub async fn create_operator(
        &self,
        who: &Actor,
        name: &str,
        role: OperatorRole,
        expires_at: Option<Timestamp>,
    ) -> Result<(OperatorRow, NewToken), RegistryError> {
        require_admin(who)?;
        let name = check_text("name", name, 100, false)?;
        if name.is_empty() {
            return Err(RegistryError::invalid("name", "is empty"));
        }
        if Uuid::parse_str(&name).is_ok() {
            return Err(RegistryError::invalid("name", "looks like an id, and operators are called by either"));
        }
        if expires_at.is_some_and(|at| at <= self.clock.wall()) {
            return Err(RegistryError::invalid("expires_at", "is in the past"));
        }
        let token = NewToken::generate(OPERATOR_PREFIX);
        let operator = row(&token, &name, role, expires_at, self.clock.wall());
        let event = self.event(who, "operator.create", operator.id, None, Some(snapshot(&operator)));
        match self.store.add_operator(&operator, &event).await {
            Err(StoreError::Conflict(_)) => Err(RegistryError::Taken(format!("an operator named {name:?} exists"))),
            other => Ok(other.map(|()| (operator, token))?),
        }
    }

    /// Every operator, by name.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but operators.
    pub async fn operators(&self, who: &Actor) -> Result<Vec<OperatorRow>, RegistryError> {
        if !who.is_operator() {
            return Err(RegistryError::Forbidden("only operators see operators".to_owned()));
        }
        Ok(self.store.operators().await?)
    }

    async fn operator(&self, who: &Actor, id: Uuid) -> Result<OperatorRow, RegistryError> {
        let found = self.operators(who).await?.into_iter().find(|operator| operator.id == id);
        found.ok_or(RegistryError::NotFound("operator"))
    }

    /// Gives an operator a new token, which is in the second value and nowhere else; the one it had stops working.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but admins, [`RegistryError::NotFound`].
    pub async fn rotate_operator(&self, who: &Actor, id: Uuid) -> Result<(OperatorRow, NewToken), RegistryError> {
        require_admin(who)?;
        let before = self.operator(who, id).await?;
        let token = NewToken::generate(OPERATOR_PREFIX);
        let after = OperatorRow { hint: Some(token.hint.clone()), ..before.clone() };
        let event = self.event(who, "operator.rotate", id, Some(snapshot(&before)), Some(snapshot(&after)));
        match self.store.change_operator_token(id, &token.digest, &token.hint, &event).await {
            Err(StoreError::NotFound) => Err(RegistryError::NotFound("operator")),
            other => Ok((other?, token)),
        }
    }

    /// Takes an operator away; the last admin stays.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but admins, [`RegistryError::NotFound`], [`RegistryError::Taken`].
    pub async fn remove_operator(&self, who: &Actor, id: Uuid) -> Result<(), RegistryError> {
        require_admin(who)?;
        let operator = self.operator(who, id).await?;
        let event = self.event(who, "operator.remove", id, Some(snapshot(&operator)), None);
        match self.store.remove_operator(id, &event).await {
            Err(StoreError::NotFound) => Err(RegistryError::NotFound("operator")),
            Err(StoreError::Conflict(why)) => Err(RegistryError::Taken(why)),
            other => Ok(other?),
        }
    }
}

/// The row as the log of changes keeps it: no secret in it.
fn snapshot(row: &OperatorRow) -> serde_json::Value {
    json!({"name": row.name, "role": row.role.as_str(), "hint": row.hint, "expires_at": row.expires_at})
}

pub(super) fn require_admin(who: &Actor) -> Result<(), RegistryError> {
    if who.is_admin() { Ok(()) } else { Err(RegistryError::Forbidden("only an admin can change operators".to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::registry::testing::{Bench, admin, auditor};
    use crate::registry::token::{digest_of, is_well_formed};

    #[tokio::test]
    async fn the_first_start_makes_one_admin_and_the_second_none() {
        let bench = Bench::new().await;
        let file = bench.dir.path().join("admin-token");
        let token = ensure_first(&bench.store, &bench.clock, &file).await.expect("works").expect("made");
        assert!(is_well_formed(OPERATOR_PREFIX, &token));
        assert_eq!(fs::read_to_string(&file).expect("written").trim(), token);
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
        let row = bench.store.operator_by_digest(&digest_of(&token)).await.expect("reads").expect("there");
        assert_eq!((row.role, row.name.as_str()), (OperatorRole::Admin, "admin"));
        assert_eq!(ensure_first(&bench.store, &bench.clock, &file).await.expect("works"), None);
        assert_eq!(fs::read_to_string(&file).expect("untouched").trim(), token);
    }

    #[tokio::test]
    async fn the_last_admin_cannot_be_removed() {
        let bench = Bench::new().await;
        let (first, _) = bench.registry.create_operator(&admin(), "a", OperatorRole::Admin, None).await.expect("made");
        let (eve, _) = bench.registry.create_operator(&admin(), "e", OperatorRole::Auditor, None).await.expect("made");
        assert!(matches!(bench.registry.remove_operator(&admin(), first.id).await, Err(RegistryError::Taken(_))));
        bench.registry.remove_operator(&admin(), eve.id).await.expect("an auditor goes");
        bench.registry.create_operator(&admin(), "b", OperatorRole::Admin, None).await.expect("made");
        bench.registry.remove_operator(&admin(), first.id).await.expect("not the last any more");
    }

    #[tokio::test]
    async fn auditors_make_no_operators() {
        let bench = Bench::new().await;
        let refused = bench.registry.create_operator(&auditor(), "x", OperatorRole::Admin, None).await;
        assert!(matches!(refused, Err(RegistryError::Forbidden(_))));
    }
}
