//! Whether the key files here are those that the database was written with.
//!
//! Nodes that share a database share their keys. A node that made keys of its own would seal secrets that no other can open, and
//! count limits under names that no other knows: it must not start.

use aws_lc_rs::digest;

use crate::store::{Store, StoreError};

/// What tells one key from another and nothing about it.
#[must_use]
pub fn fingerprint(key: &[u8; 32]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"trust-gateway key fingerprint");
    context.update(key);
    context.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The setting that holds the fingerprint of the newest key of a kind.
fn setting(kind: &str) -> String {
    format!("key.{kind}")
}

/// Whether the database knows one of `fingerprints`, the newest last, as its key of this kind. The first that asks decides.
///
/// # Errors
/// When the database cannot be used.
pub async fn matches(store: &Store, kind: &str, fingerprints: &[String]) -> Result<bool, StoreError> {
    let Some(newest) = fingerprints.last() else { return Ok(false) };
    let known = store.setting_or(&setting(kind), newest).await?;
    Ok(fingerprints.contains(&known))
}

/// Notes that a newer key has taken over.
///
/// # Errors
/// When the database cannot be written.
pub async fn change(store: &Store, kind: &str, fingerprint: &str) -> Result<(), StoreError> {
    store.set_setting(&setting(kind), fingerprint).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::TestStore;

    #[tokio::test]
    async fn the_first_key_decides_and_a_change_over_may_be_half_done() {
        let test = TestStore::any().await;
        let store = &test.store;
        let [old, new, foreign] = [1, 2, 3].map(|byte| fingerprint(&[byte; 32]));
        let asked = async |keys: &[&String]| {
            let keys: Vec<String> = keys.iter().map(|key| (*key).clone()).collect();
            matches(store, "secrets", &keys).await.expect("asked")
        };
        assert!(asked(&[&old]).await, "the first to come");
        assert!(!asked(&[&foreign]).await);
        assert!(asked(&[&old, &new]).await, "a change-over that was cut off");
        change(store, "secrets", &new).await.expect("changed");
        assert!(asked(&[&old, &new]).await && asked(&[&new]).await);
        assert!(!asked(&[&old]).await, "a node that was left out of the change-over");
        assert!(matches(store, "limits", &[foreign]).await.expect("asked"), "another kind");
        test.end().await;
    }
}
