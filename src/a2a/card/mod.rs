//! The agent card: read at registration, and built anew to be served.
//!
//! The served card promises that every address to call in it is the gateway's, that it names the gateway's credential and
//! nobody else's, that it claims no version the agent does not claim, and that the Python SDKs 0.3 and 1.x and the JavaScript
//! SDK accept it whatever the agent's own card lacks. It is built from what is known, not patched: a member we have never
//! heard of stays only if it holds no address. Signatures over the agent's own card would no longer hold and are left out.
//!
//! Two trailing slashes differ on purpose. The JSON-RPC URL ends in one: JavaScript resolves relative URLs against it, and
//! without the slash would lose the agent's name. The REST URL has none: clients append `/message:send` to it as text, and not
//! all of them take a slash off first.

mod changes;
mod interfaces;
mod read;

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use url::Url;

pub use changes::{CardChanges, changes};
use interfaces::{Carried, declared, interfaces};
pub use read::{CardError, MAX_CARD};
use read::{copy_unknown, holds_address, may_be_shown, member, objects, read, text, texts};

/// The name under which the served card declares the gateway's credential.
pub const SCHEME: &str = "bearer";

/// What the registry and the configuration contribute to a served card.
#[derive(Clone, Debug, PartialEq)]
pub struct CardFacts {
    /// Where the agent is called: `{public_url}/api/proxy/{slug}/`, with the trailing slash.
    pub base_url: String,
    /// The registered name, for a card without one.
    pub name: String,
    /// The registered description, likewise.
    pub description: String,
    /// The registered organisation, for a provider without one.
    pub provider: Option<String>,
    /// The registered skills, a JSON array, for a card without any.
    pub skills_json: String,
    /// The registered endpoint; its host does not appear in the served card.
    pub endpoint: Option<Url>,
    /// Whether the registration says that the agent streams, for a card that says nothing of capabilities.
    pub streaming: bool,
    /// Whether push configurations are passed on.
    pub push_pass: bool,
    /// Whether extended cards are rebuilt like this one; otherwise their existence is not advertised.
    pub extended_card: bool,
    /// Whether calls without a credential may be let through: an empty alternative, after the real one.
    pub anonymous_allowed: bool,
}

/// A card ready to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltCard {
    /// The body, `application/json`.
    pub json: Vec<u8>,
    /// A strong entity tag, with its quotes.
    pub etag: String,
    /// What of the agent's own card could not be kept, for its owner to read.
    pub warnings: Vec<String>,
}

/// What a card says of an agent that is about to be registered.
#[derive(Clone, Debug, PartialEq)]
pub struct CardRegistration {
    /// Its name.
    pub name: String,
    /// Its description; empty if it has none.
    pub description: String,
    /// Where it wants JSON-RPC to be sent, or else REST.
    pub url: Option<String>,
    /// The organisation behind it.
    pub provider: Option<String>,
    /// Its icon.
    pub icon_url: Option<String>,
    /// Its own version.
    pub version: Option<String>,
    /// Its skills as a JSON array of objects with `id`, `name`, `description` and `tags`.
    pub skills_json: String,
    /// Its capabilities that are on: `streaming`, `pushNotifications`, ...
    pub capabilities: Vec<String>,
}

/// Reads a bare card for registration.
///
/// # Errors
/// When it is too large, not sound JSON, no object, or has no name.
pub fn facts_of(card: &[u8]) -> Result<CardRegistration, CardError> {
    let card = read(card)?;
    let name = text(&card, "name").ok_or(CardError::NoName)?.to_owned();
    let declared = declared(&card, &mut Vec::new());
    let wanted = declared.iter().find(|d| d.binding == Carried::JsonRpc).or(declared.first());
    let capabilities = member(&card, "capabilities").and_then(Value::as_object);
    Ok(CardRegistration {
        name,
        description: text(&card, "description").unwrap_or_default().to_owned(),
        url: wanted.map(|d| d.url.clone()),
        provider: member(&card, "provider")
            .and_then(Value::as_object)
            .and_then(|p| text(p, "organization"))
            .map(Into::into),
        icon_url: text(&card, "iconUrl").map(Into::into),
        version: text(&card, "version").map(Into::into),
        skills_json: Value::Array(skills(member(&card, "skills"), None, &mut Vec::new())).to_string(),
        capabilities: capabilities
            .into_iter()
            .flatten()
            .filter(|(_, on)| **on == Value::Bool(true))
            .map(|(key, _)| key.clone())
            .collect(),
    })
}

/// The members built here, in any spelling; what the agent's card has under these names is never copied as it is.
const BUILT: [&str; 21] = [
    "name",
    "description",
    "version",
    "url",
    "preferredTransport",
    "protocolVersion",
    "additionalInterfaces",
    "supportedInterfaces",
    "provider",
    "documentationUrl",
    "iconUrl",
    "capabilities",
    "securitySchemes",
    "security",
    "securityRequirements",
    "authentication", // 0.1
    "defaultInputModes",
    "defaultOutputModes",
    "skills",
    "signatures",
    "supportsAuthenticatedExtendedCard",
];

/// Builds the card to serve for an agent whose own card is `own`, if it has one.
#[must_use]
pub fn build(own: Option<&[u8]>, reg: &CardFacts) -> BuiltCard {
    let mut warnings = Vec::new();
    let own = own.and_then(|bytes| read(bytes).map_err(|e| warnings.push(format!("{e}; a card was made up"))).ok());
    let own = own.unwrap_or_default();
    let mut card = Map::new();
    for key in copy_unknown(&own, &mut card, &BUILT, reg.endpoint.as_ref()) {
        warnings.push(format!("the member {key:?} holds an address and was left out"));
    }
    describe(&own, reg, &mut card, &mut warnings);
    capabilities(&own, reg, &mut card, &mut warnings);
    interfaces(&own, reg, &mut card, &mut warnings);
    credential(reg, &mut card);
    if member(&own, "signatures").is_some() {
        warnings.push("the card was rebuilt, so its signatures were left out".to_owned());
    }
    let json = Value::Object(card).to_string().into_bytes();
    let etag = etag(&json);
    BuiltCard { json, etag, warnings }
}

fn etag(json: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, json);
    let hex = digest.as_ref().iter().take(16).fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("\"{hex}\"")
}

/// What people read: name, description, version, modes, skills, provider and links.
fn describe(own: &Map<String, Value>, reg: &CardFacts, card: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    let endpoint = reg.endpoint.as_ref();
    let name = text(own, "name").unwrap_or(&reg.name);
    let registered = (!reg.description.trim().is_empty()).then_some(reg.description.as_str());
    card.insert("name".into(), name.into());
    card.insert("description".into(), text(own, "description").or(registered).unwrap_or(name).into());
    card.insert("version".into(), text(own, "version").unwrap_or("0.0.0").into());
    for modes in ["defaultInputModes", "defaultOutputModes"] {
        card.insert(modes.into(), texts(own, modes).unwrap_or_else(|| vec!["text/plain".into()]).into());
    }
    let mut built = skills(member(own, "skills"), endpoint, warnings);
    if built.is_empty() {
        built = skills(serde_json::from_str(&reg.skills_json).ok().as_ref(), endpoint, warnings);
    }
    card.insert("skills".into(), built.into());
    for link in ["documentationUrl", "iconUrl"] {
        match text(own, link) {
            Some(url) if may_be_shown(url, endpoint) => _ = card.insert(link.into(), url.into()),
            Some(_) => warnings.push(format!("{link} is no public web address of its own and was left out")),
            None => {}
        }
    }
    // The SDKs refuse a provider without a URL.
    if let Some(provider) = member(own, "provider").and_then(Value::as_object) {
        let organization = text(provider, "organization").or(reg.provider.as_deref());
        match (organization, text(provider, "url")) {
            (Some(organization), Some(url)) if may_be_shown(url, endpoint) => {
                card.insert("provider".into(), json!({"organization": organization, "url": url}));
            }
            _ => warnings.push("the provider lacks a name or a public web address and was left out".to_owned()),
        }
    }
}

const SKILL: [&str; 9] =
    ["id", "name", "description", "tags", "examples", "inputModes", "outputModes", "security", "securityRequirements"];

/// Skills with everything the SDKs demand. Their security requirements would name schemes that are not served.
fn skills(list: Option<&Value>, endpoint: Option<&Url>, warnings: &mut Vec<String>) -> Vec<Value> {
    let mut built = Vec::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        let bare = Map::from_iter([("name".to_owned(), item.clone())]);
        let skill = item.as_object().unwrap_or(&bare);
        let Some(name) = text(skill, "name").or_else(|| text(skill, "id")) else {
            warnings.push("a skill without a name was left out".to_owned());
            continue;
        };
        let mut out = Map::new();
        copy_unknown(skill, &mut out, &SKILL, endpoint);
        out.insert("id".into(), text(skill, "id").unwrap_or(name).into());
        out.insert("name".into(), name.into());
        out.insert("description".into(), text(skill, "description").unwrap_or(name).into());
        out.insert("tags".into(), texts(skill, "tags").unwrap_or_default().into());
        for key in ["examples", "inputModes", "outputModes"] {
            if let Some(list) = texts(skill, key) {
                out.insert(key.into(), list.into());
            }
        }
        built.push(Value::Object(out));
    }
    built
}

/// Capabilities, at most those the gateway can carry.
fn capabilities(own: &Map<String, Value>, reg: &CardFacts, card: &mut Map<String, Value>, warnings: &mut Vec<String>) {
    let none = Map::new();
    let said = member(own, "capabilities").and_then(Value::as_object);
    let on = |name| said.and_then(|c| member(c, name)).and_then(Value::as_bool);
    let mut out = Map::new();
    out.insert("streaming".into(), if said.is_some() { on("streaming") == Some(true) } else { reg.streaming }.into());
    out.insert("pushNotifications".into(), (reg.push_pass && on("pushNotifications") == Some(true)).into());
    if let Some(history) = on("stateTransitionHistory") {
        out.insert("stateTransitionHistory".into(), history.into());
    }
    let extended =
        on("extendedAgentCard").or(member(own, "supportsAuthenticatedExtendedCard").and_then(Value::as_bool));
    if reg.extended_card && extended == Some(true) {
        out.insert("extendedAgentCard".into(), true.into());
        card.insert("supportsAuthenticatedExtendedCard".into(), true.into());
    }
    let mut extensions = Vec::new();
    for extension in objects(said.unwrap_or(&none), "extensions") {
        let Some(uri) = text(extension, "uri") else { continue };
        let mut kept = Map::from_iter([("uri".to_owned(), uri.into())]);
        if let Some(description) = text(extension, "description") {
            kept.insert("description".into(), description.into());
        }
        if let Some(required) = member(extension, "required").and_then(Value::as_bool) {
            kept.insert("required".into(), required.into());
        }
        if let Some(params) = member(extension, "params").filter(|p| p.is_object()) {
            if holds_address(params, reg.endpoint.as_ref()) {
                warnings.push(format!("the parameters of the extension {uri:?} hold an address and were left out"));
            } else {
                kept.insert("params".into(), params.clone());
            }
        }
        extensions.push(Value::Object(kept));
    }
    if !extensions.is_empty() {
        out.insert("extensions".into(), extensions.into());
    }
    card.insert("capabilities".into(), out.into());
}

/// The gateway's own credential, in the shapes of both families at once. It comes first: one client looks no further.
fn credential(reg: &CardFacts, card: &mut Map<String, Value>) {
    let about = "An API key of the gateway that this agent is called through.";
    card.insert(
        "securitySchemes".into(),
        json!({SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": about,
            "httpAuthSecurityScheme": {"scheme": "bearer", "description": about},
        }}),
    );
    let mut old = vec![json!({SCHEME: []})];
    let mut new = vec![json!({"schemes": {SCHEME: {"list": []}}})];
    if reg.anonymous_allowed {
        old.push(json!({}));
        new.push(json!({"schemes": {}}));
    }
    card.insert("security".into(), old.into());
    card.insert("securityRequirements".into(), new.into());
}

#[cfg(test)]
mod tests;
