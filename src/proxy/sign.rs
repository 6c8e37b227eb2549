//! Who is calling, told to the agent in headers that it can check.
//!
//! `X-OpenAgora-Signature` is OpenAgora's: hex HMAC-SHA256 of `requestId.timestamp.callerId`, keyed with the agent's own signing
//! secret (the bytes of the text it was given at registration). It does not say for whom or for what it was made, so a second one
//! does: `X-TrustGateway-Signature: v1;body=sha256;sig=<hex>` over these lines, joined by `\n`:
//!
//! ```text
//! v1, request id, timestamp, caller id, target id, trust level, HTTP method, method, SHA-256 of the body in hex or "-"
//! ```
//!
//! `body=none` and `-` stand for a body over 64 KiB, unless the registration asks for those as well. The method is the JSON-RPC
//! method, or the HTTP method and path of a REST call, and is repeated in `X-TrustGateway-Method`.

use aws_lc_rs::{digest, hmac};
use http::{HeaderMap, HeaderValue, Method};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::directory::Agent;
use crate::identity::Caller;
use crate::trust::TrustLevel;

/// Bodies up to this size always enter the second signature.
const SIGNED_BODY: usize = 64 * 1024;

/// What the signatures speak of.
pub struct Statement<'a> {
    /// The call's id.
    pub request_id: Uuid,
    /// Arrival.
    pub at: Timestamp,
    /// Who calls.
    pub caller: &'a Caller,
    /// What the caller is to the target.
    pub level: TrustLevel,
    /// The HTTP method.
    pub http_method: &'a Method,
    /// The JSON-RPC method, or `METHOD /path`.
    pub method: &'a str,
    /// The body as it will be sent.
    pub body: &'a [u8],
}

/// Adds the identity headers and both signatures.
pub fn add_identity(headers: &mut HeaderMap, target: &Agent, statement: &Statement<'_>) {
    let request_id = statement.request_id.hyphenated().to_string();
    let timestamp = statement.at.to_millis_text();
    let caller_id = match statement.caller {
        Caller::Agent(key) => {
            headers.insert("x-openagora-caller-id", key.agent.id_value.clone());
            headers.insert("x-openagora-caller-name", key.agent.name.clone());
            key.agent.id_value.to_str().unwrap_or_default()
        }
        Caller::Anonymous => "",
    };
    let first = sign(&target.signing_key, &[&request_id, ".", &timestamp, ".", caller_id]);

    let covered = statement.body.len() <= SIGNED_BODY || target.sign_large_bodies;
    let body = if covered { hex(digest::digest(&digest::SHA256, statement.body).as_ref()) } else { "-".to_owned() };
    let method = method_text(statement.method);
    let second = sign(
        &target.signing_key,
        &[
            "v1\n",
            &request_id,
            "\n",
            &timestamp,
            "\n",
            caller_id,
            "\n",
            target.id_value.to_str().unwrap_or_default(),
            "\n",
            statement.level.as_str(),
            "\n",
            statement.http_method.as_str(),
            "\n",
            &method,
            "\n",
            &body,
        ],
    );
    let coverage = if covered { "sha256" } else { "none" };

    headers.insert("x-openagora-trust-level", HeaderValue::from_static(statement.level.as_str()));
    headers.insert("x-openagora-request-id", ascii(request_id));
    headers.insert("x-openagora-timestamp", ascii(timestamp));
    headers.insert("x-openagora-signature", ascii(first));
    headers.insert("x-trustgateway-method", ascii(method));
    headers.insert("x-trustgateway-signature", ascii(format!("v1;body={coverage};sig={second}")));
}

/// A method name as it can stand in a header: whatever is not printable ASCII becomes `?`.
fn method_text(method: &str) -> String {
    method.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect::<String>().trim().to_owned()
}

fn sign(key: &hmac::Key, parts: &[&str]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part.as_bytes());
    }
    hex(context.sign().as_ref())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("only printable ASCII is put together here")
}
