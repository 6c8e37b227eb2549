//! Header hygiene, both ways: what a message must look like to be looked at, what goes to the agent, what goes to the caller.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Uri, Version};

use crate::identity::API_KEY_HEADER;

/// Carries a caller's credential for the agent itself.
pub(super) const AGENT_AUTHORIZATION: &str = "x-agent-authorization";

/// Why a request head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHead {
    /// No `Host`, several, or one that is not `host[:port]`, or one that disagrees with the request target.
    Host,
    /// `Transfer-Encoding` other than one `chunked`.
    TransferEncoding,
    /// A body in a coding the gateway cannot look into.
    ContentEncoding,
}

/// Checks what hyper leaves to its users (RFC 9112 sections 3.2 and 6.1).
///
/// # Errors
/// The first thing wrong.
pub fn check(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), BadHead> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version >= Version::HTTP_2 && uri.authority().is_some() => {}
        (Some(host), None) => {
            let authority: http::uri::Authority =
                host.to_str().ok().and_then(|text| text.parse().ok()).ok_or(BadHead::Host)?;
            if authority.as_str().contains('@') || uri.authority().is_some_and(|target| *target != authority) {
                return Err(BadHead::Host);
            }
        }
        _ => return Err(BadHead::Host),
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => {}
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        _ => return Err(BadHead::TransferEncoding),
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(BadHead::ContentEncoding),
        _ => Ok(()),
    }
}

/// Hop-by-hop fields (RFC 9110 section 7.6.1 and history), in either direction.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Whether a name is one of the gateway's own, which nobody else may speak with.
fn is_ours(name: &str) -> bool {
    name.starts_with("x-openagora-") || name.starts_with("x-trustgateway-")
}

/// The names that `Connection` makes hop-by-hop for this message.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

/// How a request reached us; told to the agent.
#[derive(Clone, Debug)]
pub struct Hop<'a> {
    /// The caller's address.
    pub source: IpAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The name the caller used for us.
    pub host: Option<&'a str>,
    /// Our pseudonym in `Via`.
    pub pseudonym: &'a str,
    /// The protocol the request came in.
    pub version: Version,
    /// Whether the caller's `Accept-Encoding` reaches the agent.
    pub pass_accept_encoding: bool,
}

/// What of the caller's headers goes to the agent, with the fields of this hop added.
#[must_use]
pub fn to_agent(from: &HeaderMap, hop: &Hop<'_>) -> HeaderMap {
    let named = named_by_connection(from);
    let mut to = HeaderMap::with_capacity(from.len() + 16);
    for (name, value) in from {
        if !is_hop_by_hop(name) && !named.contains(name) && passes_to_agent(name, hop.pass_accept_encoding) {
            to.append(name, value.clone());
        }
    }
    append_via(&mut to, from, hop);
    let source = hop.source.to_string();
    to.insert("x-forwarded-for", HeaderValue::try_from(source).expect("an address is printable"));
    to.insert("x-forwarded-proto", HeaderValue::from_static(hop.scheme));
    if let Some(host) = hop.host.and_then(|host| HeaderValue::from_str(host).ok()) {
        to.insert("x-forwarded-host", host);
    }
    to
}

fn passes_to_agent(name: &HeaderName, pass_accept_encoding: bool) -> bool {
    match name.as_str() {
        // Replaced by the forwarding connection's own.
        "host" | "content-length" | "expect" => false,
        // Gateway credentials, and what agents believe about callers.
        "authorization" | API_KEY_HEADER | AGENT_AUTHORIZATION | "x-user-id" => false,
        // Added anew.
        "via" => false,
        // What agents and their frameworks believe about where a caller is.
        "forwarded"
        | "x-real-ip"
        | "x-client-ip"
        | "x-cluster-client-ip"
        | "x-original-forwarded-for"
        | "true-client-ip"
        | "cf-connecting-ip"
        | "fastly-client-ip"
        | "x-envoy-external-address" => false,
        // What is not compressed can be noticed.
        "accept-encoding" => pass_accept_encoding,
        other => {
            // `x_user_id`, and to some `x.user.id`, is `X-User-ID` to servers that read headers the CGI way.
            let plain = other.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            plain && !other.starts_with("x-forwarded-") && !is_ours(other)
        }
    }
}

fn append_via(to: &mut HeaderMap, from: &HeaderMap, hop: &Hop<'_>) {
    for value in from.get_all(header::VIA) {
        to.append(header::VIA, value.clone());
    }
    let protocol = match hop.version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    };
    if let Ok(value) = HeaderValue::try_from(format!("{protocol} {}", hop.pseudonym)) {
        to.append(header::VIA, value);
    }
}

/// Whether a request has been through the node called `pseudonym` before.
#[must_use]
pub fn loops(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers
        .get_all(header::VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|hop| hop.split_whitespace().nth(1) == Some(pseudonym))
}

/// Takes out of an agent's headers what is not for the caller: hop-by-hop fields, cookies, what would act on our origin, and
/// names that are ours.
pub fn clean_answer(headers: &mut HeaderMap) {
    let named = named_by_connection(headers);
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name) || named.contains(name) || acts_on_origin(name) || is_ours(name.as_str()))
        .cloned()
        .collect();
    for name in doomed {
        headers.remove(name);
    }
}

fn acts_on_origin(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "set-cookie"
            | "clear-site-data"
            | "service-worker-allowed"
            | "strict-transport-security"
            | "public-key-pins"
            | "alt-svc"
            | "nel"
            | "report-to"
            | "reporting-endpoints"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn hop() -> Hop<'static> {
        Hop {
            source: "203.0.113.7".parse().expect("an address"),
            scheme: "https",
            host: Some("gw.example"),
            pseudonym: "tg-1",
            version: Version::HTTP_11,
            pass_accept_encoding: false,
        }
    }

    #[test]
    fn the_agent_sees_the_call_but_no_credential_and_no_forged_identity() {
        let from = map(&[
            ("authorization", "Bearer oag_secret"),
            ("x-api-key", "oag_secret"),
            ("x-agent-authorization", "Bearer agent"),
            ("x-openagora-trust-level", "connected"),
            ("x-trustgateway-signature", "forged"),
            ("x-user-id", "root"),
            ("x_openagora_trust_level", "connected"),
            ("x.openagora.trust.level", "connected"),
            ("true-client-ip", "6.6.6.6"),
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("connection", "keep-alive, x-secret-hop"),
            ("x-secret-hop", "1"),
            ("te", "trailers"),
            ("a2a-version", "1.0"),
            ("accept", "text/event-stream"),
            ("accept-encoding", "gzip"),
            ("content-type", "application/json"),
            ("via", "1.1 edge"),
        ]);
        let to = to_agent(&from, &hop());
        let mut names: Vec<&str> = to.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "a2a-version",
            "accept",
            "content-type",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
        ];
        assert_eq!(names, expected);
        assert_eq!(to["x-forwarded-for"], "203.0.113.7");
        let via: Vec<_> = to.get_all("via").iter().collect();
        assert_eq!(via, ["1.1 edge", "1.1 tg-1"]);
        assert!(loops(&to, "tg-1") && !loops(&from, "tg-1"));
    }

    #[test]
    fn connection_cannot_name_away_what_the_gateway_adds() {
        let from = map(&[("connection", "x-openagora-caller-id, via, x-forwarded-for")]);
        let to = to_agent(&from, &hop());
        assert!(to.contains_key("via") && to.contains_key("x-forwarded-for"));
    }

    #[test]
    fn an_answer_loses_what_would_act_on_our_origin() {
        let mut answer = map(&[
            ("set-cookie", "a=b"),
            ("strict-transport-security", "max-age=1"),
            ("x-openagora-trust-level", "connected"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("retry-after", "7"),
            ("content-type", "text/plain"),
        ]);
        clean_answer(&mut answer);
        let mut names: Vec<&str> = answer.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "retry-after"]);
    }

    #[test]
    fn one_valid_host_is_demanded() {
        let uri: Uri = "/api/proxy/a".parse().expect("a target");
        let check11 = |headers: &HeaderMap| check(Version::HTTP_11, &uri, headers);
        assert_eq!(check11(&map(&[("host", "gw.example:8080")])), Ok(()));
        assert_eq!(check11(&map(&[])), Err(BadHead::Host));
        assert_eq!(check11(&map(&[("host", "a"), ("host", "a")])), Err(BadHead::Host));
        for bad in ["a b", "user@a", "a/b", ""] {
            assert_eq!(check11(&map(&[("host", bad)])), Err(BadHead::Host), "{bad:?}");
        }
        let absolute: Uri = "http://other/api/proxy/a".parse().expect("a target");
        assert_eq!(check(Version::HTTP_11, &absolute, &map(&[("host", "gw")])), Err(BadHead::Host));
    }

    #[test]
    fn only_plain_chunked_is_understood() {
        let uri: Uri = "/".parse().expect("a target");
        let te = |value: &str| check(Version::HTTP_11, &uri, &map(&[("host", "a"), ("transfer-encoding", value)]));
        assert_eq!(te("Chunked"), Ok(()));
        for bad in ["gzip, chunked", ",chunked", "chunked, chunked", "identity"] {
            assert_eq!(te(bad), Err(BadHead::TransferEncoding), "{bad}");
        }
        let gzip = map(&[("host", "a"), ("content-encoding", "gzip")]);
        assert_eq!(check(Version::HTTP_11, &uri, &gzip), Err(BadHead::ContentEncoding));
    }
}
