//! What a new card of an agent changes, in words, and which of it somebody should look at before it is served.
//!
//! Grave is what an intruder at the agent would change: an interface on a host nobody has heard of, security that asks for
//! less, a plain address where there was an encrypted one. All else (skills, texts, versions) is the agent's own business.
//! Security schemes are known by what they are, not by their names. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use url::Url;

use super::read::{is_own_host, member, objects, read, text};

/// What differs between two cards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardChanges {
    /// What should be looked at first, each in a sentence.
    pub grave: Vec<String>,
    /// The rest.
    pub harmless: Vec<String>,
}

/// Compares the card in force with a new one of the agent registered at `endpoint`. A card that was there first cannot be judged
/// by one that cannot be read: then nothing is grave.
#[must_use]
pub fn changes(old: &[u8], new: &[u8], endpoint: Option<&Url>) -> CardChanges {
    let mut found = CardChanges::default();
    let Ok(old) = read(old) else { return found };
    let new = match read(new) {
        Ok(new) => new,
        Err(why) => {
            found.grave.push(format!("it cannot be read: {why}"));
            return found;
        }
    };
    addresses(&old, &new, endpoint, &mut found.grave);
    security(&old, &new, &mut found.grave);
    for what in ["name", "description", "version", "documentationUrl", "iconUrl"] {
        if member(&old, what) != member(&new, what) {
            found.harmless.push(format!("{what} is now {}", short(member(&new, what))));
        }
    }
    for what in ["provider", "capabilities", "defaultInputModes", "defaultOutputModes"] {
        if member(&old, what) != member(&new, what) {
            found.harmless.push(format!("{what} changed"));
        }
    }
    let (before, after) = (skills(&old), skills(&new));
    found.harmless.extend(after.difference(&before).map(|skill| format!("skill {skill} is new")));
    found.harmless.extend(before.difference(&after).map(|skill| format!("skill {skill} is gone")));
    found
}

fn short(value: Option<&Value>) -> String {
    let Some(value) = value else { return "gone".to_owned() };
    let text = value.to_string();
    if text.chars().count() > 80 { text.chars().take(80).chain(['…']).collect() } else { text }
}

fn skills(card: &Map<String, Value>) -> BTreeSet<String> {
    objects(card, "skills")
        .filter_map(|skill| text(skill, "id").or_else(|| text(skill, "name")))
        .map(short_text)
        .collect()
}

fn short_text(text: &str) -> String {
    short(Some(&text.into()))
}

/// Every address to call in a card, whatever the binding.
fn urls(card: &Map<String, Value>) -> Vec<Url> {
    let listed = ["supportedInterfaces", "additionalInterfaces"].into_iter().flat_map(|list| objects(card, list));
    let texts = text(card, "url").into_iter().chain(listed.filter_map(|interface| text(interface, "url")));
    // A gRPC address is a bare `host:port`.
    texts
        .filter_map(|at| Url::parse(at).ok().filter(Url::has_host).or_else(|| Url::parse(&format!("grpc://{at}")).ok()))
        .collect()
}

fn addresses(old: &Map<String, Value>, new: &Map<String, Value>, endpoint: Option<&Url>, grave: &mut Vec<String>) {
    let before = urls(old);
    let own = |url: &Url| endpoint.is_some_and(|endpoint| is_own_host(url, endpoint));
    let plain = |url: &Url| url.scheme() == "http";
    let mut told = BTreeSet::new();
    for url in urls(new) {
        let host = url.host_str().unwrap_or_default();
        let known: Vec<&Url> = before.iter().filter(|old| old.host() == url.host()).collect();
        let text = if known.is_empty() && !own(&url) {
            format!("an interface is on {host}, which is neither the registered endpoint's host nor in the card before")
        } else if plain(&url) && known.iter().any(|old| old.scheme() == "https") && !known.iter().any(|old| plain(old))
        {
            format!("an interface on {host} is no longer encrypted (https became http)")
        } else {
            continue;
        };
        if told.insert(text.clone()) {
            grave.push(text);
        }
    }
}

/// What a scheme is, apart from its name and what people read of it: the same in the words of both families.
fn kind(scheme: &Map<String, Value>) -> String {
    let wrapped = [
        ("apiKeySecurityScheme", "apiKey"),
        ("httpAuthSecurityScheme", "http"),
        ("oauth2SecurityScheme", "oauth2"),
        ("openIdConnectSecurityScheme", "openIdConnect"),
        ("mtlsSecurityScheme", "mutualTLS"),
    ];
    let found = wrapped.iter().find_map(|(name, kind)| Some((*kind, member(scheme, name)?.as_object()?)));
    let (kind, inner) = found.unwrap_or((text(scheme, "type").unwrap_or("unknown"), scheme));
    let scheme = text(inner, "scheme").unwrap_or_default().to_ascii_lowercase();
    let place = text(inner, "in").or_else(|| text(inner, "location")).unwrap_or_default();
    format!("{kind} {scheme}{place}").trim_end().to_owned()
}

/// The schemes of a card by name.
fn schemes(card: &Map<String, Value>) -> Vec<(String, String)> {
    let declared = member(card, "securitySchemes").and_then(Value::as_object).into_iter().flatten();
    declared.filter_map(|(name, scheme)| Some((name.clone(), kind(scheme.as_object()?)))).collect()
}

/// The ways in: each a set of schemes that are all needed. None where nothing is asked for.
fn ways_in(card: &Map<String, Value>, schemes: &[(String, String)]) -> Vec<BTreeSet<String>> {
    let named = |name: &String| {
        let found = schemes.iter().find(|(known, _)| known == name);
        found.map_or_else(|| name.clone(), |(_, kind)| kind.clone())
    };
    let way = |requirement: &Map<String, Value>| {
        let schemes = member(requirement, "schemes").and_then(Value::as_object).unwrap_or(requirement);
        schemes.keys().map(named).collect::<BTreeSet<_>>()
    };
    let listed = |list| objects(card, list).map(way).collect::<Vec<_>>();
    let modern = listed("securityRequirements");
    if modern.is_empty() { listed("security") } else { modern }
}

fn security(old: &Map<String, Value>, new: &Map<String, Value>, grave: &mut Vec<String>) {
    let (before, after) = (schemes(old), schemes(new));
    let kinds = |schemes: &[(String, String)]| schemes.iter().map(|(_, kind)| kind.clone()).collect::<BTreeSet<_>>();
    for gone in kinds(&before).difference(&kinds(&after)) {
        grave.push(format!("the security scheme \"{gone}\" is gone"));
    }
    let (before, after) = (ways_in(old, &before), ways_in(new, &after));
    let open = |ways: &[BTreeSet<String>]| ways.is_empty() || ways.iter().any(BTreeSet::is_empty);
    if !open(&before) && open(&after) {
        grave.push("it no longer asks for any security".to_owned());
    } else if !open(&before)
        && after.iter().any(|way| before.iter().any(|old| way.is_subset(old) && way != old) && !before.contains(way))
    {
        grave.push("it asks for less security than before".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn grave(old: &Value, new: &Value) -> usize {
        let endpoint = Url::parse("https://a.example/x").expect("a URL");
        changes(old.to_string().as_bytes(), new.to_string().as_bytes(), Some(&endpoint)).grave.len()
    }

    fn with(members: &Value) -> Value {
        let mut card = json!({"name": "a", "url": "https://a.example/x",
            "securitySchemes": {"b": {"type": "http", "scheme": "bearer"}, "k": {"type": "apiKey", "in": "header"}},
            "security": [{"b": [], "k": []}]});
        for (name, value) in members.as_object().expect("an object") {
            card[name] = value.clone();
        }
        card
    }

    #[test]
    fn a_new_host_is_grave_and_the_agents_own_or_a_known_one_is_not() {
        let old = with(&json!({"additionalInterfaces": [{"url": "https://b.example/", "transport": "JSONRPC"}]}));
        for (url, count) in [
            ("https://a.example/elsewhere", 0),
            ("https://b.example/other", 0),
            ("http://localhost:9000/", 0),
            ("https://evil.example/x", 1),
            ("evil.example:443", 1),
            ("https://a.example.evil.example/", 1),
        ] {
            for list in ["supportedInterfaces", "additionalInterfaces"] {
                assert_eq!(grave(&old, &with(&json!({list: [{"url": url}]}))), count, "{list} {url}");
            }
            assert_eq!(grave(&old, &with(&json!({"url": url}))), count, "{url}");
        }
    }

    #[test]
    fn losing_encryption_is_grave() {
        assert_eq!(grave(&with(&json!({})), &with(&json!({"url": "http://a.example/x"}))), 1);
        assert_eq!(grave(&with(&json!({"url": "http://a.example/x"})), &with(&json!({}))), 0);
    }

    #[test]
    fn asking_for_less_security_is_grave_and_asking_for_more_is_not() {
        let old = with(&json!({}));
        for (new, held) in [
            (json!({"security": []}), true),
            (json!({"security": [{}]}), true),
            (json!({"security": [{"b": []}]}), true),
            (json!({"security": [{"b": [], "k": []}, {}]}), true),
            (json!({"securitySchemes": {"b": {"type": "http", "scheme": "bearer"}}}), true),
            (
                json!({"securitySchemes": {"b": {"type": "http", "scheme": "basic"}, "k": {"type": "apiKey", "in": "header"}}}),
                true,
            ),
            (
                json!({"securitySchemes": {"other": {"type": "http", "scheme": "Bearer"}, "name": {"type": "apiKey", "in": "header"}},
                "security": [{"other": [], "name": []}]}),
                false,
            ),
            (
                json!({"securitySchemes": {"b": {"httpAuthSecurityScheme": {"scheme": "bearer"}},
                "k": {"apiKeySecurityScheme": {"location": "header"}}},
                "securityRequirements": [{"schemes": {"b": {"list": []}, "k": {"list": []}}}]}),
                false,
            ),
        ] {
            assert_eq!(grave(&old, &with(&new)) > 0, held, "{new}");
        }
        assert_eq!(grave(&with(&json!({"security": []})), &old), 0);
    }

    #[test]
    fn what_people_read_is_told_and_held_nobody_up() {
        let old = with(&json!({"version": "1", "skills": [{"id": "s"}]}));
        let new = with(&json!({"version": "2", "skills": [{"id": "t"}], "name": "b"}));
        let found = changes(old.to_string().as_bytes(), new.to_string().as_bytes(), None);
        assert_eq!(
            found.grave,
            ["an interface is on a.example, which is neither the registered endpoint's host nor in the card before"; 0]
        );
        assert_eq!(
            found.harmless,
            [r#"name is now "b""#, r#"version is now "2""#, r#"skill "t" is new"#, r#"skill "s" is gone"#]
        );
    }

    #[test]
    fn a_new_card_that_cannot_be_read_is_grave_and_an_old_one_is_no_measure() {
        let good = with(&json!({})).to_string();
        assert_eq!(changes(good.as_bytes(), br#"{"name":"a","name":"b"}"#, None).grave.len(), 1);
        assert_eq!(changes(b"nonsense", good.as_bytes(), None), CardChanges::default());
    }

    fn card() -> impl Strategy<Value = Value> {
        let url = prop_oneof![
            Just("https://a.example/"),
            Just("http://a.example/"),
            Just("https://b.example/"),
            Just("c:1"),
            Just("")
        ];
        let urls = prop::collection::vec(url, 0..4);
        let schemes = prop::collection::vec(0..4_usize, 0..4);
        let ways = prop::collection::vec(prop::collection::vec(0..4_usize, 0..3), 0..3);
        (urls, schemes, ways).prop_map(|(urls, declared, ways)| {
            let kinds = [
                json!({"type": "http", "scheme": "bearer"}),
                json!({"type": "apiKey", "in": "header"}),
                json!({"type": "oauth2"}),
                json!({"type": "mutualTLS"}),
            ];
            let schemes: Map<String, Value> = declared.iter().map(|n| (format!("s{n}"), kinds[*n].clone())).collect();
            let way = |way: &Vec<usize>| Value::Object(way.iter().map(|n| (format!("s{n}"), json!([]))).collect());
            json!({"name": "a", "securitySchemes": schemes, "security": ways.iter().map(way).collect::<Vec<_>>(),
                "supportedInterfaces": urls.iter().map(|url| json!({"url": url})).collect::<Vec<_>>()})
        })
    }

    proptest! {
        #[test]
        fn a_card_does_not_differ_from_itself(card in card()) {
            let bytes = card.to_string();
            prop_assert_eq!(changes(bytes.as_bytes(), bytes.as_bytes(), None), CardChanges::default());
        }

        #[test]
        fn a_host_never_seen_before_is_grave_whatever_else_the_card_says(old in card(), new in card()) {
            let mut new = new;
            new["supportedInterfaces"].as_array_mut().expect("a list").push(json!({"url": "https://evil.example/"}));
            prop_assert!(grave(&old, &new) > 0);
        }

        #[test]
        fn no_bytes_break_it(old in prop::collection::vec(any::<u8>(), 0..64), new in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = changes(&old, &new, None);
        }
    }
}
