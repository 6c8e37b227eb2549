//! The part of a card that says where and how to call: which of the agent's declared interfaces a call through the gateway
//! reaches, and what addresses they have there.
//!
//! Promises that no address of the agent's own card gets into the served one. What is kept of a declaration is its binding, its
//! version and its tenant; calls are dialled from the registration only.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use url::Url;

use super::CardFacts;
use super::read::{holds_address, is_own_host, objects, text};

/// The bindings the gateway carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Carried {
    JsonRpc,
    Rest,
}

impl Carried {
    fn of(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "JSONRPC" => Some(Self::JsonRpc),
            "HTTP+JSON" => Some(Self::Rest),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::JsonRpc => "JSONRPC",
            Self::Rest => "HTTP+JSON",
        }
    }
}

/// An interface that the agent's own card declares.
#[derive(Clone, Debug)]
pub(super) struct Declared {
    pub(super) url: String,
    pub(super) binding: Carried,
    version: String,
    tenant: Option<String>,
}

impl Declared {
    fn is_v1(&self) -> bool {
        self.version.split('.').next().is_some_and(|major| major.bytes().any(|digit| digit != b'0'))
    }
}

/// `Major.Minor` or `Major.Minor.Patch`, in digits.
fn is_version(version: &str) -> bool {
    let parts: Vec<_> = version.split('.').collect();
    matches!(parts.len(), 2 | 3)
        && parts.iter().all(|p| !p.is_empty() && p.len() <= 4 && p.bytes().all(|b| b.is_ascii_digit()))
}

/// The interfaces of both families of members, in the agent's order of preference, each binding once per generation.
pub(super) fn declared(own: &Map<String, Value>, warnings: &mut Vec<String>) -> Vec<Declared> {
    let mut found = Vec::new();
    for interface in objects(own, "supportedInterfaces") {
        let (url, binding) = (text(interface, "url"), text(interface, "protocolBinding").unwrap_or("JSONRPC"));
        let version = text(interface, "protocolVersion").unwrap_or("1.0");
        found.push((url, binding, version, text(interface, "tenant")));
    }
    let modern = found.len();
    // A card of the new family may also have `url`, for people; it claims 0.3 only if it says so.
    let old = text(own, "protocolVersion").or(found.is_empty().then_some("0.3.0"));
    if let Some(version) = old {
        found.push((text(own, "url"), text(own, "preferredTransport").unwrap_or("JSONRPC"), version, None));
        for interface in objects(own, "additionalInterfaces") {
            found.push((text(interface, "url"), text(interface, "transport").unwrap_or("JSONRPC"), version, None));
        }
    }
    let mut declared: Vec<Declared> = Vec::new();
    for (nth, (url, binding, version, tenant)) in found.into_iter().enumerate() {
        let is_old = nth >= modern;
        let Some(url) = url else { continue };
        let Some(carried) = Carried::of(binding).filter(|_| is_version(version)) else {
            warnings
                .push(format!("the interface {binding:?} of version {version:?} cannot be carried and was left out"));
            continue;
        };
        let interface =
            Declared { url: url.into(), binding: carried, version: version.into(), tenant: tenant.map(Into::into) };
        // The old members cannot name a tenant: for a binding that is known already they only say again where it is.
        let known = |d: &Declared| {
            d.binding == carried && d.is_v1() == interface.is_v1() && (is_old || d.tenant == interface.tenant)
        };
        if !declared.iter().any(known) {
            declared.push(interface);
        }
    }
    declared
}

/// Those of the declared interfaces that a call through the gateway reaches.
fn carried(own: &Map<String, Value>, reg: &CardFacts, warnings: &mut Vec<String>) -> Vec<Declared> {
    let declared = declared(own, warnings);
    let path = |url: &Url| url.path().trim_end_matches('/').to_owned();
    let reaches = |d: &Declared, warnings: &mut Vec<String>| {
        let Some(endpoint) = &reg.endpoint else { return true };
        let (what, at) = (d.binding.as_str(), &d.url);
        let url = Url::parse(at).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            warnings.push(format!("the {what} interface has no web address ({at:?}) and was left out"));
            return false;
        };
        if !is_own_host(&url, endpoint) {
            warnings.push(format!(
                "the {what} interface at {at} is on another host than the registered endpoint and was left out"
            ));
            return false;
        }
        let same = path(&url) == path(endpoint);
        match d.binding {
            // Calls go to the registered endpoint, whatever the card says; it may be right and the card wrong.
            Carried::JsonRpc if !same => {
                warnings.push(format!("the card places JSON-RPC at {at}, but calls go to the registered endpoint"));
            }
            Carried::Rest if !same => {
                warnings
                    .push(format!("the REST interface at {at} is not below the registered endpoint and was left out"));
            }
            Carried::Rest if d.tenant.is_some() => {
                warnings.push(format!("the REST interface at {at} has a tenant in its paths and was left out"));
            }
            _ => {}
        }
        d.binding == Carried::JsonRpc || (same && d.tenant.is_none())
    };
    let kept: Vec<_> = declared.iter().filter(|d| reaches(d, warnings)).cloned().collect();
    if !kept.is_empty() {
        return kept;
    }
    // The card knows the agent under another address than its registration does. Its addresses are of no use, but what it
    // says of versions is said of the same program.
    let binding = if declared.iter().any(|d| d.binding == Carried::JsonRpc) { Carried::JsonRpc } else { Carried::Rest };
    let assumed: Vec<_> = declared.into_iter().filter(|d| d.binding == binding).collect();
    if !assumed.is_empty() {
        warnings.push(
            "none of the card's interfaces is at the registered endpoint: its versions were kept, its addresses not"
                .into(),
        );
        return assumed;
    }
    vec![Declared { url: String::new(), binding: Carried::JsonRpc, version: "0.3.0".into(), tenant: None }]
}

/// The addresses to call, in the members of both families.
pub(super) fn interfaces(
    own: &Map<String, Value>,
    reg: &CardFacts,
    card: &mut Map<String, Value>,
    warnings: &mut Vec<String>,
) {
    let carried = carried(own, reg, warnings);
    let url = |binding| match binding {
        Carried::JsonRpc => reg.base_url.as_str(),
        Carried::Rest => reg.base_url.trim_end_matches('/'),
    };
    // `url` is always there: the 0.3 SDK refuses cards without it, and simple callers read nothing else. For an agent that
    // speaks only 1.0 the version beside it says so.
    let main = carried.iter().find(|d| !d.is_v1()).or(carried.first());
    let Some(main) = main else { return };
    card.insert("url".into(), url(main.binding).into());
    card.insert("preferredTransport".into(), main.binding.as_str().into());
    card.insert("protocolVersion".into(), main.version.as_str().into());
    let (mut additional, mut seen) = (Vec::new(), BTreeSet::new());
    for d in carried.iter().filter(|d| d.is_v1() == main.is_v1()) {
        if seen.insert(d.binding) {
            additional.push(json!({"url": url(d.binding), "transport": d.binding.as_str()}));
        }
    }
    card.insert("additionalInterfaces".into(), additional.into());
    if !carried.iter().any(Declared::is_v1) {
        return;
    }
    let supported = carried.iter().map(|d| {
        let mut interface = json!({
            "url": url(d.binding), "protocolBinding": d.binding.as_str(), "protocolVersion": d.version,
        });
        // Clients echo the tenant and agents may demand it; one that looks like an address is no tenant.
        if let Some(tenant) = d.tenant.as_deref().filter(|t| !holds_address(&Value::from(*t), reg.endpoint.as_ref())) {
            interface["tenant"] = tenant.into();
        }
        interface
    });
    card.insert("supportedInterfaces".into(), supported.collect());
}
