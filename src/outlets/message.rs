//! What a webhook is sent, as Standard Webhooks has it: a JSON body of `type`, `timestamp` and `data`, and three headers.
//!
//! `webhook-id` names the event however often it is sent; `webhook-timestamp` is when it was sent, in seconds since 1970;
//! `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`, one such for each secret.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::json;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::WebhookEvent;

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// The secrets one webhook's messages are signed with: one, or two while it is changed.
pub struct Secret(Vec<hmac::Key>);

/// Why a file holds no secret.
#[derive(Debug, PartialEq, Eq)]
pub struct SecretError(String);

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SecretError {}

impl Secret {
    /// Reads them out of a file, one on each line; anew for each message, so that it can be changed at any time.
    ///
    /// # Errors
    /// When it cannot be read, or holds something else.
    pub fn read(file: &Path) -> Result<Self, SecretError> {
        let wrong = |why: String| SecretError(format!("{}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let keys: Option<Vec<hmac::Key>> = lines.iter().map(|line| key(line)).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys)),
            _ => Err(wrong(format!(
                "this is no secret of a webhook: write {PREFIX} and 24 to 64 bytes in base64, such as of: \
                 echo {PREFIX}$(openssl rand -base64 32)"
            ))),
        }
    }

    /// The headers of a message.
    pub(super) fn headers(&self, id: Uuid, at: Timestamp, body: &str) -> HeaderMap {
        let seconds = at.0.div_euclid(1_000_000);
        let signed = format!("{id}.{seconds}.{body}");
        let signature = |key| format!("v1,{}", STANDARD.encode(hmac::sign(key, signed.as_bytes())));
        let signatures: Vec<String> = self.0.iter().map(signature).collect();
        let values = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (HeaderName::from_static("webhook-id"), id.to_string()),
            (HeaderName::from_static("webhook-timestamp"), seconds.to_string()),
            (HeaderName::from_static("webhook-signature"), signatures.join(" ")),
        ];
        // Ids, digits and base64 always can.
        values.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?))).collect()
    }
}

fn key(line: &str) -> Option<hmac::Key> {
    let bytes = STANDARD.decode(line.strip_prefix(PREFIX)?).ok()?;
    (24..=64).contains(&bytes.len()).then(|| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// The body that tells of an event.
pub(super) fn body(event: &WebhookEvent) -> String {
    json!({"type": event.kind, "timestamp": event.at, "data": event.data}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Secret, SecretError> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("secret");
        std::fs::write(&file, text).expect("written");
        Secret::read(&file)
    }

    /// Computed with Python's hmac, apart from this program.
    #[test]
    fn a_message_is_signed_as_standard_webhooks_has_it() {
        let secret = read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a secret");
        let headers = secret.headers(Uuid::from_u128(1), Timestamp(1_614_265_330_999_999), r#"{"test": 2432232314}"#);
        assert_eq!(headers["webhook-id"], "00000000-0000-0000-0000-000000000001");
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-signature"], "v1,iCxWDzOB1td6pu5wFuJotaWTEKkcYodMae2NqIIaffg=");
    }

    #[test]
    fn while_a_secret_is_changed_messages_are_signed_with_both() {
        let (one, other) =
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let signature = |text: &str| {
            let headers = read(text).expect("secrets").headers(Uuid::from_u128(1), Timestamp(0), "{}");
            headers["webhook-signature"].to_str().expect("text").to_owned()
        };
        assert_eq!(signature(&format!("{one}\n\n {other} \n")), format!("{} {}", signature(one), signature(other)));
    }

    #[test]
    fn what_is_no_secret_is_told_with_how_to_make_one() {
        for text in ["", "\n", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_!", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            let error = read(text).err().expect("no secret").to_string();
            assert!(error.contains("openssl rand -base64 32"), "{error}");
        }
        assert!(Secret::read(Path::new("no/such")).err().expect("none").to_string().contains("cannot be read"));
    }
}
