//! Cards are answered here, from the directory: they cost the agent nothing and are there while it is away.

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::reason::Reason;
use super::refusal::Refusal;
use super::{Body, Call, Settings, Worker, holder};
use crate::audit::record::{Decision, Ending};
use crate::directory::Agent;
use crate::limit::Abuse;

impl Worker {
    pub(super) async fn card(
        &self,
        call: &mut Call,
        target: &Agent,
        settings: &Settings,
        head: &Parts,
    ) -> Result<Response<Body>, Refusal> {
        let left = self.shared.limits.abuse(call.source(), Abuse::Card)?;
        let card = target.card.as_ref().ok_or(Reason::AgentNotFound)?;
        let last_modified = HeaderValue::try_from(card.last_modified.to_http_date()).ok();
        let unchanged = unchanged(head, &card.etag, last_modified.as_ref());
        let status = if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let sent = if unchanged || head.method == Method::HEAD { bytes::Bytes::new() } else { card.json.clone() };
        call.intent.decision = Decision::Allowed;
        let recorded = call.answered_here(Ending::Completed, status.as_u16(), sent.len())?;
        recorded.written.await?;

        let mut response = Response::new(Body::Whole(sent));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::ETAG, card.etag.clone());
        if let Some(value) = last_modified {
            headers.insert(header::LAST_MODIFIED, value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"));
        if !unchanged {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(card.json.len()));
        }
        if let Ok(value) = HeaderValue::try_from(recorded.request_id.hyphenated().to_string()) {
            headers.insert("x-openagora-request-id", value);
        }
        headers.insert("x-openagora-trust-level", HeaderValue::from_static(call.intent.trust_level.as_str()));
        holder::tell(headers, &left, settings);
        Ok(response)
    }
}

/// RFC 9110 section 13: a list of tags or `*`, compared weakly; without one, the date, which is one we gave or no validator
/// of ours.
fn unchanged(head: &Parts, etag: &HeaderValue, last_modified: Option<&HeaderValue>) -> bool {
    if !head.headers.contains_key(header::IF_NONE_MATCH) {
        return last_modified.is_some() && head.headers.get(header::IF_MODIFIED_SINCE) == last_modified;
    }
    head.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value
            .split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.trim_start_matches("W/").as_bytes() == etag.as_bytes())
    })
}
