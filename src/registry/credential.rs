//! The credential the gateway shows to an agent: one header, checked when it is given, encrypted where it is kept, and
//! never shown again.

use uuid::Uuid;

use super::RegistryError;
use super::vault::{Purpose, Vault, VaultError};
use crate::store::rows::AgentRow;

/// Headers that frame a message or say where it came from.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// A header the gateway adds to what it sends to an agent.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamCredential {
    /// The header's name in lower case.
    pub header: String,
    /// Its value.
    pub value: String,
}

impl std::fmt::Debug for UpstreamCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UpstreamCredential({}: ***)", self.header)
    }
}

impl UpstreamCredential {
    /// Checks that the header is the agent's to have, and encrypts it.
    pub(super) fn seal(&self, vault: &Vault, agent: Uuid) -> Result<Vec<u8>, RegistryError> {
        let header = self.header.to_ascii_lowercase();
        let invalid = |problem: &str| Err(RegistryError::invalid("upstream_credential", problem));
        if http::HeaderName::from_bytes(header.as_bytes()).is_err() {
            return invalid("the header's name is not one of HTTP");
        }
        let value = http::HeaderValue::from_str(&self.value);
        if self.value.is_empty() || self.value.len() > 8_192 || value.is_err() {
            return invalid("the header's value must be 1 to 8192 printable ASCII characters");
        }
        let ours = ["x-openagora-", "x-forwarded-", "proxy-"].iter().any(|prefix| header.starts_with(prefix));
        if ours || FRAMING.contains(&header.as_str()) {
            return invalid(
                "this header belongs to the gateway or to HTTP itself: use authorization or a header of the agent's own",
            );
        }
        Ok(vault.seal(Purpose::UpstreamCredential, agent, format!("{header}: {}", self.value).as_bytes())?)
    }

    /// The credential of `agent`, where it has one.
    pub fn open(vault: &Vault, agent: &AgentRow) -> Result<Option<UpstreamCredential>, RegistryError> {
        let Some(sealed) = &agent.upstream_credential else { return Ok(None) };
        let unreadable = || RegistryError::Vault(VaultError::Unreadable);
        let text = vault.open_secret(Purpose::UpstreamCredential, agent.id, sealed)?;
        let text = String::from_utf8(text).map_err(|_| unreadable())?;
        let (header, value) = text.split_once(": ").ok_or_else(unreadable)?;
        Ok(Some(UpstreamCredential { header: header.to_owned(), value: value.to_owned() }))
    }
}
