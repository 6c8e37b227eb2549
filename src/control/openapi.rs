//! `/openapi.json`: the description of the API at this door, made from the handlers and the types they answer with.
//!
//! Promises: every route is in it, and nothing else; what all handlers may answer is added here, once. Must not know what
//! any single route does.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header;
use serde::Serialize;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, Info, OpenApi, OpenApiBuilder, Ref, RefOr, Response as Described, ResponseBuilder,
    Server,
};
use utoipa::{PartialSchema as _, ToSchema};

use super::{Door, Entry};

const ABOUT: &str = "The API of the Trust Gateway for agents with their own keys and for operators. \
    Query parameters and members of bodies that are not described are ignored. Every refusal is a problem document \
    (RFC 9457) with OpenAgora's `error` member in it.";

/// A refusal (RFC 9457), with OpenAgora's `error` in it. Some have more members.
#[derive(Serialize, ToSchema)]
struct ProblemDocument {
    /// `about:blank`: the status says what kind of problem it is.
    r#type: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and what to do about it.
    detail: String,
    /// The same as OpenAgora says it.
    error: String,
    /// The member or parameter that is not acceptable.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    /// Seconds until another try makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// The document that routes are gathered into.
pub(super) fn blank() -> OpenApi {
    OpenApiBuilder::new()
        .info(Info::builder().title("Trust Gateway").version(env!("CARGO_PKG_VERSION")).build())
        .build()
}

/// The document of one door, as it is served.
pub(super) fn finish(mut document: OpenApi, door: Door, public_url: &str) -> Bytes {
    document.info.description = Some(ABOUT.to_owned());
    // The operators' listener has no name of its own: where the document came from is where it holds.
    document.servers = Some(vec![Server::new(match door {
        Door::Public => public_url,
        Door::Operator => "/",
    })]);
    let components = document.components.get_or_insert_with(Components::new);
    components.schemas.insert("Problem".to_owned(), ProblemDocument::schema());
    components
        .security_schemes
        .insert("bearer".to_owned(), SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)).into());
    components
        .security_schemes
        .insert("api_key".to_owned(), SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))).into());
    for (path, item) in &mut document.paths.paths {
        let takes_credentials = ["/api/", "/agents/"].iter().any(|prefix| path.starts_with(prefix));
        for (method, operation) in operations(item) {
            complete(operation, method, path, door, takes_credentials);
        }
    }
    Bytes::from(document.to_json().expect("a document of strings and numbers has a JSON form"))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all = [
        ("get", &mut item.get),
        ("post", &mut item.post),
        ("put", &mut item.put),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, place)| place.as_mut().map(|operation| (method, operation)))
}

/// Adds what every handler may answer, so that the handlers' own words are about what is theirs alone.
fn complete(operation: &mut Operation, method: &str, path: &str, door: Door, takes_credentials: bool) {
    // One handler may serve two methods, and the name of an operation is unique.
    if method == "patch"
        && let Some(id) = &mut operation.operation_id
    {
        id.push_str("_partly");
    }
    let mut refusals = Vec::new();
    if takes_credentials {
        let credential = || [("bearer", Vec::<String>::new()), ("api_key", Vec::new())];
        let needed = credential().into_iter().map(|(name, scopes)| SecurityRequirement::new(name, scopes));
        let open = operation.security.is_some() && door == Door::Public;
        let nobody = open.then(SecurityRequirement::default);
        operation.security = Some(nobody.into_iter().chain(needed).collect());
        refusals.extend([
            ("400", "A parameter, the body or the choice of credentials is not acceptable"),
            ("401", "No credential, or one that is not good here"),
            ("403", "Not for the one who asks"),
            ("429", "Too much of this from one network address"),
            ("500", "The gateway failed; its log says why"),
            ("503", "Not now, but perhaps in a moment"),
        ]);
        if path.contains('{') {
            refusals.push(("404", "Not there, or not for the one who asks to know of"));
        }
        if method != "get" {
            refusals.push(("413", "The body is too large"));
        }
    }
    for (status, meaning) in refusals {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| problem(meaning));
    }
    for (status, response) in &mut operation.responses.responses {
        if let (Some('4' | '5'), RefOr::T(response)) = (status.chars().next(), response)
            && response.content.is_empty()
        {
            *response = described(&response.description);
        }
    }
}

fn problem(meaning: &str) -> RefOr<Described> {
    RefOr::T(described(meaning))
}

fn described(meaning: &str) -> Described {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(meaning).content("application/problem+json", content).build()
}

/// The description of this API.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "gateway", security(()),
    responses((status = 200, description = "This document, OpenAPI 3.1", body = Object)))]
pub(super) async fn document(State(entry): State<Entry>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], entry.openapi).into_response()
}
