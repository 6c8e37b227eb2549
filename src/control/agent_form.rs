//! What a registration or a change of an agent says, in any of the shapes it is sent in: OpenAgora's body, a bare agent
//! card of A2A 0.3 or 1.0, or our own with more members.

use serde_json::{Map, Value, json};

use super::agent_limits;
use super::body::Members;
use super::problem::Problem;
use crate::registry::agents::AgentChanges;
use crate::registry::credential::UpstreamCredential;
use crate::registry::names::check_url;
use crate::store::rows::{AdminState, AgentRow, AgentTimeouts, PushMode};

/// Reads the form. `current` is the agent as it is, where it is being changed; what is said in part is completed from it.
pub(super) fn read(members: &Members, current: Option<&AgentRow>, public_url: &str) -> Result<AgentChanges, Problem> {
    let mut avatar_url = members.text("avatar_url")?;
    if avatar_url.is_none() && current.is_none() {
        // A card's icon is a nicety: one that is no address is left out.
        let icon = members.get("iconUrl").and_then(Value::as_str).filter(|url| check_url("iconUrl", url).is_ok());
        avatar_url = icon.map(|url| Some(url.to_owned()));
    }
    Ok(AgentChanges {
        slug: members.plain_text("slug")?,
        name: members.plain_text("name")?,
        description: members.plain_text("description")?,
        provider: provider(members)?,
        avatar_url,
        endpoint_url: endpoint(members, current, public_url)?,
        card_url: members.text("card_url")?,
        subpaths: members.texts("subpaths")?,
        capabilities: capabilities(members)?,
        skills: skills(members)?,
        payment: payment(members, current),
        state: members.word("state", "pending, active or disabled", AdminState::from_word)?,
        listed: members.flag("listed")?,
        auto_accept_connections: members.flag("auto_accept_connections")?,
        push: members.word("push", "refuse or pass", PushMode::from_word)?,
        pass_authorization: members.flag("pass_authorization")?,
        sign_large_bodies: members.flag("sign_large_bodies")?,
        http2: members.flag("http2")?,
        max_in_flight: members.number("max_in_flight")?,
        limits: agent_limits::read(members, current)?,
        health_interval_s: members.number("health_interval_s")?,
        timeouts: timeouts(members, current)?,
        upstream_credential: credential(members)?,
        reason: members.plain_text("reason")?,
    })
}

fn endpoint(
    members: &Members,
    current: Option<&AgentRow>,
    public_url: &str,
) -> Result<Option<Option<String>>, Problem> {
    if let Some(said) = members.text("endpoint_url")? {
        return Ok(Some(said));
    }
    let mut said = members.text("url")?;
    if said.is_none() && current.is_none() {
        said = first_interface(members).map(Some);
    }
    // Rows show the gateway's address as `url`: sent back unchanged it says nothing, and as an endpoint it would be a loop.
    let ours = |url: &String| {
        let below = |prefix: &str| url.starts_with(&format!("{public_url}{prefix}"));
        below("/api/proxy/") || below("/relay/")
    };
    match &said {
        Some(Some(url)) if ours(url) && current.is_some() => Ok(None),
        Some(Some(url)) if ours(url) => {
            Err(Problem::invalid("url", "is an address of this gateway: send the address of the agent itself"))
        }
        _ => Ok(said),
    }
}

/// The address of a card of A2A 1.0: its first JSON-RPC interface, else its first.
fn first_interface(members: &Members) -> Option<String> {
    let list = members.get("supportedInterfaces")?.as_array()?;
    let of = |interface: &Value| interface["url"].as_str().map(str::to_owned);
    let rpc = list.iter().find(|interface| interface["protocolBinding"] == "JSONRPC" && interface["url"].is_string());
    rpc.or_else(|| list.first()).and_then(of)
}

/// A name, or a card's object with an organization.
fn provider(members: &Members) -> Result<Option<Option<String>>, Problem> {
    match members.get("provider") {
        Some(Value::Object(card)) => {
            Ok(card.get("organization").and_then(Value::as_str).map(|name| Some(name.to_owned())))
        }
        _ => members.text("provider"),
    }
}

/// A list of words, or a card's object of flags.
fn capabilities(members: &Members) -> Result<Option<Vec<String>>, Problem> {
    match members.get("capabilities") {
        Some(Value::Object(card)) => {
            let set = card.iter().filter(|(_, value)| **value == Value::Bool(true));
            Ok(Some(set.map(|(name, _)| name.clone()).collect()))
        }
        _ => members.texts("capabilities"),
    }
}

/// A list of objects; a bare string is a skill with that name.
fn skills(members: &Members) -> Result<Option<Vec<Value>>, Problem> {
    let (name, said) = match members.get("skills") {
        Some(value) => ("skills", value),
        None => match members.get("agent_skills") {
            Some(value) => ("agent_skills", value),
            None => return Ok(None),
        },
    };
    let wrong = || Problem::invalid(name, "must be a list of objects with a name");
    let list = match said {
        Value::Null => return Ok(Some(Vec::new())),
        Value::Array(list) => list,
        _ => return Err(wrong()),
    };
    let each = list.iter().map(|skill| match skill {
        Value::Object(_) => Ok(skill.clone()),
        Value::String(text) => Ok(json!({"name": text})),
        _ => Err(wrong()),
    });
    each.collect::<Result<Vec<_>, _>>().map(Some)
}

fn payment(members: &Members, current: Option<&AgentRow>) -> Option<Option<Value>> {
    const NAMES: [&str; 2] = ["payment_schemes", "payment_address"];
    if NAMES.iter().all(|name| members.get(name).is_none()) {
        return None;
    }
    let kept = current.and_then(|row| row.payment_json.as_deref()).and_then(|text| serde_json::from_str(text).ok());
    let mut payment: Map<String, Value> = kept.unwrap_or_default();
    for name in NAMES {
        if let Some(value) = members.get(name) {
            payment.insert(name.to_owned(), value.clone());
        }
    }
    payment.retain(|_, value| !value.is_null());
    Some(Some(Value::Object(payment)).filter(|value| *value != json!({})))
}

fn timeouts(members: &Members, current: Option<&AgentRow>) -> Result<Option<AgentTimeouts>, Problem> {
    let Some(said) = members.object("timeouts")? else { return Ok(None) };
    let Some(said) = said else { return Ok(Some(AgentTimeouts::default())) };
    let mut timeouts = current.map(|row| row.timeouts).unwrap_or_default();
    for (name, place) in [
        ("connect_ms", &mut timeouts.connect_ms),
        ("first_byte_ms", &mut timeouts.first_byte_ms),
        ("read_first_byte_ms", &mut timeouts.read_first_byte_ms),
        ("idle_ms", &mut timeouts.idle_ms),
    ] {
        if let Some(value) = said.number(name)? {
            *place = value;
        }
    }
    Ok(Some(timeouts))
}

/// `{"header": ..., "value": ...}`, `{"bearer": ...}`, or `null` to take it away.
fn credential(members: &Members) -> Result<Option<Option<UpstreamCredential>>, Problem> {
    let Some(said) = members.object("upstream_credential")? else { return Ok(None) };
    let Some(said) = said else { return Ok(Some(None)) };
    if let Some(token) = said.plain_text("bearer")? {
        let header = "authorization".to_owned();
        return Ok(Some(Some(UpstreamCredential { header, value: format!("Bearer {token}") })));
    }
    match (said.plain_text("header")?, said.plain_text("value")?) {
        (Some(header), Some(value)) => Ok(Some(Some(UpstreamCredential { header, value }))),
        _ => Err(Problem::invalid(
            "upstream_credential",
            "must be {\"header\": ..., \"value\": ...} or {\"bearer\": ...}",
        )),
    }
}
