//! One probe of one agent: where its card may be, what counts as its card, and what the answers say of its health. Asks
//! through [`Fetch`]; knows no database and no time.
//!
//! Promises: a card counts only where it is the agent's own (a card at the origin counts for a path-mounted agent only if
//! one of its URLs is the registered endpoint); redirects are answers, never followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use serde_json::Value;
use url::Url;

use super::credential::UpstreamCredential;
use super::verdict::Sign;
use crate::store::rows::AgentRow;
use crate::vitals::Ailment;

/// The largest card.
pub const CARD_MAX: usize = 256 * 1024;

/// A GET to be made. Addresses are checked by whoever dials, redirects not followed.
#[derive(Clone, Debug)]
pub struct FetchRequest {
    /// What to get.
    pub url: Url,
    /// Headers to send beyond those of the dialler.
    pub headers: HeaderMap,
    /// Whether the address may be a private one.
    pub private_allowed: bool,
    /// Whether to speak HTTP/2.
    pub http2: bool,
    /// A longer body is [`FetchError::TooLarge`].
    pub max_bytes: usize,
    /// The time everything together may take.
    pub timeout: Duration,
}

/// The answer to it.
#[derive(Clone, Debug)]
pub struct FetchResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The address may not be dialled.
    Forbidden,
    /// No connection: name not found, refused, broken off.
    Connect(String),
    /// TLS failed.
    Tls,
    /// No whole answer in time.
    Timeout,
    /// The body is longer than allowed.
    TooLarge,
}

/// Makes GET requests through the guarded dialler.
pub type Fetch = Arc<dyn Fn(FetchRequest) -> BoxFuture<'static, Result<FetchResponse, FetchError>> + Send + Sync>;

/// What is remembered of the last card: where it was and its validator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validator {
    /// Where the card was.
    pub url: Url,
    /// Its ETag.
    pub etag: Option<String>,
    /// When it was changed, as its server says; asked with only where there is no ETag.
    pub modified: Option<String>,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What it says of the agent's health.
    pub sign: Sign,
    /// Where the agent's card is, known or new.
    pub place: Option<Url>,
    /// A new card; `None`: none found, or the one known is still current.
    pub card: Option<Bytes>,
    /// What to ask with next time.
    pub validator: Option<Validator>,
}

/// The well-known places of a card for this agent, in the order they are asked; `true`: only if it names the endpoint.
pub(super) fn card_places(endpoint: &Url, card_url: Option<&Url>) -> Vec<(Url, bool)> {
    let mut places: Vec<(Url, bool)> = card_url.map(|url| (url.clone(), false)).into_iter().collect();
    let base = endpoint.path().trim_end_matches('/');
    for name in ["agent-card.json", "agent.json"] {
        for prefix in [base, ""] {
            let mut place = endpoint.clone(); // keeps a query string: some servers choose the agent by it
            place.set_path(&format!("{prefix}/.well-known/{name}"));
            if !places.iter().any(|(known, _)| *known == place) {
                places.push((place, prefix != base));
            }
        }
    }
    places
}

/// Probes `agent`, whose endpoint is `endpoint`.
pub(super) async fn probe(
    fetch: &Fetch,
    agent: &AgentRow,
    endpoint: &Url,
    credential: Option<&UpstreamCredential>,
    known: Option<&Validator>,
    timeout: Duration,
) -> Finding {
    let card_url = agent.card_url.as_deref().and_then(|text| Url::parse(text).ok());
    let mut refused = false;
    for (url, must_name_endpoint) in card_places(endpoint, card_url.as_ref()) {
        // A host that is down need not be asked four times more; the explicit card may be on another.
        let at_endpoint = url.origin() == endpoint.origin();
        let validator = known.filter(|known| known.url == url && agent.card_json.is_some());
        let request = request(agent, &url, credential.filter(|_| at_endpoint), validator, timeout);
        match fetch(request).await {
            Ok(answer) if answer.status == 304 && validator.is_some() => {
                return Finding { sign: Sign::Well(None), place: Some(url), card: None, validator: validator.cloned() };
            }
            Ok(answer) if (200..300).contains(&answer.status) && is_card(&answer.body) => {
                if must_name_endpoint && !names(&answer.body, endpoint) {
                    continue;
                }
                let said = |name| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
                let (etag, modified) = (said(http::header::ETAG), said(http::header::LAST_MODIFIED));
                let validator =
                    (etag.is_some() || modified.is_some()).then(|| Validator { url: url.clone(), etag, modified });
                return Finding { sign: Sign::Well(None), place: Some(url), card: Some(answer.body), validator };
            }
            // Where the card was said to be, it is not shown to the gateway.
            Ok(answer)
                if matches!(answer.status, 401 | 403)
                    && at_endpoint
                    && credential.is_some()
                    && card_url.as_ref() == Some(&url) =>
            {
                refused = true;
            }
            Err(error) if at_endpoint && error != FetchError::TooLarge => return down(agent, &error),
            Ok(_) | Err(_) => {}
        }
    }
    let finding = |sign| Finding { sign, place: None, card: None, validator: None };
    let well = |remark| if refused { Sign::Ill(Ailment::AuthFailed) } else { Sign::Well(Some(remark)) };
    match fetch(request(agent, endpoint, credential, None, timeout)).await {
        Ok(answer) => match answer.status {
            // 501 too: what Python's own server says to a method it was given no code for.
            401 | 403 if credential.is_some() => finding(Sign::Ill(Ailment::AuthFailed)),
            200..=299 | 400 | 401 | 403 | 404 | 405 | 415 | 422 | 501 => finding(well(Ailment::PostOnly)),
            300..=399 => finding(well(Ailment::Redirects)),
            500..=599 => finding(Sign::Down(Ailment::ServerError)),
            _ => finding(well(Ailment::AnswersOddly)),
        },
        // It does answer, at length.
        Err(FetchError::TooLarge) => finding(well(Ailment::PostOnly)),
        Err(error) => down(agent, &error),
    }
}

/// All that fails before an answer looks the same to whoever registered the agent, but for the time it took: a gateway
/// is no port scanner. Operators are told of TLS.
fn down(agent: &AgentRow, error: &FetchError) -> Finding {
    let ailment = match error {
        FetchError::Timeout => Ailment::Timeout,
        FetchError::Tls if agent.registered_by_operator => Ailment::Tls,
        FetchError::Forbidden | FetchError::Connect(_) | FetchError::Tls | FetchError::TooLarge => Ailment::Unreachable,
    };
    Finding { sign: Sign::Down(ailment), place: None, card: None, validator: None }
}

/// What became of the credential the gateway shows an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
    /// Without it the agent does not let the gateway in, with it it does.
    Accepted,
    /// The agent does not let the gateway in with it.
    Refused,
    /// There is none.
    None,
    /// The agent's answer does not depend on it, or there was none.
    Unknown,
}

impl CredentialState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// Tries the credential at the endpoint, and then what happens without it: only the difference proves anything.
pub(super) async fn try_credential(
    fetch: &Fetch,
    agent: &AgentRow,
    endpoint: &Url,
    credential: Option<&UpstreamCredential>,
    timeout: Duration,
) -> CredentialState {
    if credential.is_none() {
        return CredentialState::None;
    }
    let refused = async |shown| match fetch(request(agent, endpoint, shown, None, timeout)).await {
        Ok(answer) => Some(matches!(answer.status, 401 | 403)),
        Err(_) => None,
    };
    match refused(credential).await {
        Some(true) => CredentialState::Refused,
        Some(false) if refused(None).await == Some(true) => CredentialState::Accepted,
        _ => CredentialState::Unknown,
    }
}

fn request(
    agent: &AgentRow,
    url: &Url,
    credential: Option<&UpstreamCredential>,
    validator: Option<&Validator>,
    timeout: Duration,
) -> FetchRequest {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
    let condition = validator.and_then(|known| match (&known.etag, &known.modified) {
        (Some(etag), _) => Some((http::header::IF_NONE_MATCH, etag)),
        (None, Some(modified)) => Some((http::header::IF_MODIFIED_SINCE, modified)),
        (None, None) => None,
    });
    if let Some((name, value)) = condition
        && let Ok(value) = http::HeaderValue::from_str(value)
    {
        headers.insert(name, value);
    }
    if let Some(credential) = credential {
        let pair = (
            http::HeaderName::from_bytes(credential.header.as_bytes()),
            http::HeaderValue::from_str(&credential.value),
        );
        if let (Ok(name), Ok(mut value)) = pair {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    FetchRequest {
        url: url.clone(),
        headers,
        private_allowed: agent.registered_by_operator,
        http2: agent.http2,
        max_bytes: CARD_MAX,
        timeout,
    }
}

/// A page that answers everything with 200 is no card.
fn is_card(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|card| card["name"].as_str().is_some_and(|name| !name.is_empty()))
}

/// Whether one of the card's call URLs is `endpoint`, a slash at the end aside.
fn names(card: &[u8], endpoint: &Url) -> bool {
    let Ok(card) = serde_json::from_slice::<Value>(card) else { return false };
    let interfaces = [&card["additionalInterfaces"], &card["supportedInterfaces"]];
    let listed = interfaces.into_iter().filter_map(Value::as_array).flatten().map(|interface| &interface["url"]);
    let plain = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
    std::iter::once(&card["url"])
        .chain(listed)
        .filter_map(Value::as_str)
        .filter_map(|text| Url::parse(text).ok())
        .any(|url| plain(&url) == plain(endpoint))
}

/// The skills a card lists, as JSON text; `None` when it lists none that can be kept.
pub(super) fn skills_of(card: &[u8]) -> Option<String> {
    let card: Value = serde_json::from_slice(card).ok()?;
    let skills = card["skills"].as_array().filter(|skills| !skills.is_empty() && skills.len() <= 200)?;
    let text = Value::from(skills.clone()).to_string();
    (text.len() <= 65_536 && skills.iter().all(Value::is_object)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(endpoint: &str, card_url: Option<&str>) -> Vec<String> {
        let parse = |text: &str| Url::parse(text).expect("a URL");
        let places = card_places(&parse(endpoint), card_url.map(parse).as_ref());
        places.into_iter().map(|(url, strict)| format!("{}{url}", if strict { "?" } else { "" })).collect()
    }

    #[test]
    fn a_path_mounted_agent_is_looked_for_below_its_path_first() {
        assert_eq!(
            places("https://api.example/deploy/x/", None),
            [
                "https://api.example/deploy/x/.well-known/agent-card.json",
                "?https://api.example/.well-known/agent-card.json",
                "https://api.example/deploy/x/.well-known/agent.json",
                "?https://api.example/.well-known/agent.json",
            ]
        );
    }

    #[test]
    fn an_explicit_card_address_wins_and_the_root_is_asked_once() {
        assert_eq!(
            places("https://a.example", Some("https://b.example/card")),
            [
                "https://b.example/card",
                "https://a.example/.well-known/agent-card.json",
                "https://a.example/.well-known/agent.json",
            ]
        );
    }

    #[test]
    fn a_query_string_is_kept() {
        assert_eq!(
            places("http://a.example/a2a/x?assistant_id=1", None)[0],
            "http://a.example/a2a/x/.well-known/agent-card.json?assistant_id=1"
        );
    }

    #[test]
    fn a_card_at_the_origin_must_name_the_endpoint() {
        let endpoint = Url::parse("https://api.example/x").expect("a URL");
        assert!(names(br#"{"name":"a","url":"https://api.example/x/"}"#, &endpoint));
        assert!(names(br#"{"name":"a","url":"z","supportedInterfaces":[{"url":"https://api.example/x"}]}"#, &endpoint));
        assert!(!names(br#"{"name":"a","url":"https://api.example/y"}"#, &endpoint));
        assert!(!names(br#"{"name":"a","supportedInterfaces":7}"#, &endpoint));
    }
}
