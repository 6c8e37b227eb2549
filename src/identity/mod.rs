//! Credential -> caller, and connection -> source address.
//!
//! A wrong credential is refused, never downgraded to anonymous. Credentials are read from headers only, exactly one, and never
//! leave this module: what goes on is the caller.

mod source;

use std::sync::Arc;

use aws_lc_rs::digest;
use http::{HeaderMap, header};
use uuid::Uuid;

use crate::audit::record::AuthMethod;
use crate::clock::Timestamp;
use crate::directory::{Directory, Key};
use crate::store::rows::AdminState;

pub use source::{TrustedProxies, source_address};

/// The header besides `Authorization` that carries an API key.
pub const API_KEY_HEADER: &str = "x-api-key";

/// Who makes a call.
#[derive(Clone)]
pub enum Caller {
    /// A registered agent, known by its key.
    Agent(Arc<Key>),
    /// Known by its network address only.
    Anonymous,
}

impl Caller {
    /// The calling agent's id.
    #[must_use]
    pub fn agent_id(&self) -> Option<Uuid> {
        match self {
            Self::Agent(key) => Some(key.agent.id),
            Self::Anonymous => None,
        }
    }

    /// The id of the key used.
    #[must_use]
    pub fn credential_id(&self) -> Option<Uuid> {
        match self {
            Self::Agent(key) => Some(key.id),
            Self::Anonymous => None,
        }
    }

    /// How the caller proved who it is.
    #[must_use]
    pub fn auth_method(&self) -> AuthMethod {
        match self {
            Self::Agent(_) => AuthMethod::ApiKey,
            Self::Anonymous => AuthMethod::None,
        }
    }
}

/// Why a credential was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// Two credentials, or one given twice: which one counts is not for us to guess.
    Ambiguous,
    /// `Authorization` is there but is not `Bearer` and a key.
    Malformed,
    /// No such key, or it has expired, or its agent is gone.
    Unknown,
    /// The agent has been taken out of service: it calls nobody.
    Disabled,
    /// The agent waits for an operator's approval: until then it calls nobody.
    Pending,
}

/// The one credential in `headers`, or none.
///
/// # Errors
/// When there are several, or it cannot be read.
pub fn credential(headers: &HeaderMap) -> Result<Option<&str>, CredentialError> {
    let mut found = None;
    for value in headers.get_all(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| CredentialError::Malformed)?;
        let (scheme, token) = text.split_once(' ').ok_or(CredentialError::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(CredentialError::Malformed);
        }
        if found.replace(token.trim()).is_some() {
            return Err(CredentialError::Ambiguous);
        }
    }
    for value in headers.get_all(API_KEY_HEADER) {
        let text = value.to_str().map_err(|_| CredentialError::Malformed)?;
        if found.replace(text.trim()).is_some() {
            return Err(CredentialError::Ambiguous);
        }
    }
    match found {
        Some("") => Err(CredentialError::Malformed),
        found => Ok(found),
    }
}

/// Who the headers prove the caller to be at `now`.
///
/// # Errors
/// When they hold a credential that proves nobody, or an agent that is not in service.
pub fn identify(headers: &HeaderMap, directory: &Directory, now: Timestamp) -> Result<Caller, CredentialError> {
    match prove(headers, directory, now)? {
        Caller::Agent(key) if key.agent.state == AdminState::Disabled => Err(CredentialError::Disabled),
        Caller::Agent(key) if key.agent.state == AdminState::Pending => Err(CredentialError::Pending),
        caller => Ok(caller),
    }
}

/// As [`identify`], whatever the state of the agent.
///
/// # Errors
/// When they hold a credential that proves nobody.
pub fn prove(headers: &HeaderMap, directory: &Directory, now: Timestamp) -> Result<Caller, CredentialError> {
    let Some(token) = credential(headers)? else {
        return Ok(Caller::Anonymous);
    };
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    let hash: &[u8; 32] = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
    match directory.key(hash) {
        Some(key) if key.expires_at.is_some_and(|end| end <= now) => Err(CredentialError::Unknown),
        Some(key) => {
            key.last_use.note(now);
            Ok(Caller::Agent(Arc::clone(key)))
        }
        None => Err(CredentialError::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn exactly_one_credential_is_accepted_in_either_header() {
        assert_eq!(credential(&headers(&[])), Ok(None));
        assert_eq!(credential(&headers(&[("authorization", "bearer oag_x")])), Ok(Some("oag_x")));
        assert_eq!(credential(&headers(&[("x-api-key", "oag_x")])), Ok(Some("oag_x")));
        let both = headers(&[("authorization", "Bearer oag_x"), ("x-api-key", "oag_x")]);
        assert_eq!(credential(&both), Err(CredentialError::Ambiguous));
        let twice = headers(&[("x-api-key", "a"), ("x-api-key", "b")]);
        assert_eq!(credential(&twice), Err(CredentialError::Ambiguous));
    }

    #[test]
    fn what_is_not_a_bearer_token_is_refused_and_not_ignored() {
        for value in ["Basic dXNlcg==", "Bearer", "Bearer ", "oag_x"] {
            let map = headers(&[("authorization", value)]);
            assert_eq!(credential(&map), Err(CredentialError::Malformed), "{value}");
        }
    }
}
