//! Signing secrets: made, and changed over at a time the agent knows beforehand.
//!
//! Promises: a new secret is told once and signs from its time on, not before; nothing of it is in the log of changes.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::vault::{Purpose, VaultError};
use super::{Actor, Registry, RegistryError};
use crate::clock::Timestamp;
use crate::store::StoreError;

/// 30 days: nobody keeps a secret at hand for longer before it counts.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// A signing secret that will take over, or has.
#[derive(Debug)]
pub struct NewSecret {
    /// In hex, as an agent's configuration holds it.
    pub signing_secret: String,
    /// It signs from then on.
    pub active_from: Timestamp,
}

/// 256 random bits in hex.
pub(super) fn random_secret() -> Result<String, VaultError> {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| VaultError::Failed)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Registry {
    /// Gives an agent a new signing secret, which takes over after `wait`; one that was still waiting is dropped.
    ///
    /// # Errors
    /// [`RegistryError::Forbidden`] to all but its owner and admins, [`RegistryError::Invalid`] for a wait over 30 days.
    pub async fn rotate_signing_secret(
        &self,
        who: &Actor,
        id: Uuid,
        wait: Duration,
    ) -> Result<NewSecret, RegistryError> {
        if !who.owns(id) {
            return Err(RegistryError::Forbidden("only the agent itself or an admin can change its secret".to_owned()));
        }
        if wait > LONGEST_WAIT {
            return Err(RegistryError::invalid("activate_after", "must be at most \"30d\""));
        }
        let signing_secret = random_secret()?;
        let sealed = self.vault.seal(Purpose::SigningSecret, id, signing_secret.as_bytes())?;
        let now = self.clock.wall();
        let active_from = now.plus_micros(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
        let done = self
            .store
            .change_agent(id, |row| {
                // One whose time has come signs already, or is about to: it must not be lost with its successor's arrival.
                if let Some((due, _)) = row.next_signing_secret.take_if(|(_, from)| *from <= now) {
                    row.signing_secret = due;
                }
                if wait.is_zero() {
                    (row.signing_secret, row.next_signing_secret) = (sealed, None);
                } else {
                    row.next_signing_secret = Some((sealed, active_from));
                }
                row.updated_at = now;
                let after = json!({"signing_secret": "***", "active_from": active_from});
                Ok::<_, RegistryError>(self.event(who, "agent.signing_secret", id, None, Some(after)))
            })
            .await;
        match done {
            Err(RegistryError::Store(StoreError::NotFound)) => return Err(RegistryError::NotFound("agent")),
            other => other?,
        };
        self.reload().await;
        Ok(NewSecret { signing_secret, active_from })
    }

    /// Puts into force the signing secrets whose time has come. To be called every second or so.
    ///
    /// # Errors
    /// When the database fails; they are put into force at the next call then.
    pub async fn activate_due_secrets(&self) -> Result<(), RegistryError> {
        if self.store.activate_signing_secrets(self.clock.wall()).await? > 0 {
            self.reload().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::agents::AgentChanges;
    use crate::registry::testing::{Bench, admin};

    #[tokio::test]
    async fn a_new_secret_signs_from_its_time_on_and_not_before() {
        let bench = Bench::new().await;
        let named = AgentChanges { name: Some("a".to_owned()), ..AgentChanges::default() };
        let made = bench.registry.register(&admin(), named).await.expect("registers");
        let id = made.agent.id;
        let signs = async || {
            bench.registry.activate_due_secrets().await.expect("looks");
            let row = bench.store.agent(id).await.expect("reads").expect("there");
            let secret = bench.registry.signing_secret(&row).expect("opens");
            (String::from_utf8(secret).expect("hex"), row.next_signing_secret.is_some())
        };
        let minute = Duration::from_secs(60);
        let next = bench.registry.rotate_signing_secret(&admin(), id, minute).await.expect("rotates");
        assert_eq!(signs().await, (made.signing_secret.clone(), true));
        bench.clock.advance(minute - Duration::from_micros(1));
        let reloads = bench.reloads();
        assert_eq!(signs().await, (made.signing_secret, true));
        assert_eq!(bench.reloads(), reloads, "nothing was due");
        bench.clock.advance(Duration::from_micros(1));
        assert_eq!(signs().await, (next.signing_secret.clone(), false));
        assert_eq!(bench.reloads(), reloads + 1, "in force at once");

        // A successor that arrives after the time came, before anybody looked, does not bring back the first.
        let second = bench.registry.rotate_signing_secret(&admin(), id, minute).await.expect("rotates");
        bench.clock.advance(minute);
        let third = bench.registry.rotate_signing_secret(&admin(), id, minute).await.expect("rotates");
        assert_eq!(signs().await, (second.signing_secret, true));
        let at_once = bench.registry.rotate_signing_secret(&admin(), id, Duration::ZERO).await.expect("rotates");
        assert_eq!(signs().await, (at_once.signing_secret.clone(), false));

        bench.registry.check_vault().await.expect("all of them open");
        let events = format!("{:?}", bench.events_of(&id.to_string()).await.expect("reads"));
        assert!(events.contains("agent.signing_secret") && events.contains("active_from"), "{events}");
        for secret in [next.signing_secret, third.signing_secret, at_once.signing_secret] {
            assert!(!events.contains(&secret));
        }
        let day = Duration::from_secs(86_400);
        let late = bench.registry.rotate_signing_secret(&admin(), id, 31 * day).await;
        assert!(matches!(late, Err(RegistryError::Invalid { .. })));
    }
}
