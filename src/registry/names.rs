//! What names, slugs and addresses may look like. Pure.

use url::{Host, Url};
use uuid::Uuid;

use super::RegistryError;
use super::network::{self, NetworkRules};

/// Slugs that would be taken for something else: paths of the API, and hosts where agents have host names of their own.
const RESERVED: &[&str] = &["admin", "agents", "api", "find", "proxy", "relay", "www"];

/// The longest slug.
pub const SLUG_MAX: usize = 50;

/// Whether `slug` may name an agent: `^[a-z0-9][a-z0-9-]{1,48}[a-z0-9]$`, not reserved, and not readable as an id, or an
/// agent could take the name that another is called by.
///
/// # Errors
/// What is wrong, naming the member `slug`.
pub fn check_slug(slug: &str) -> Result<(), RegistryError> {
    let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = slug.as_bytes();
    let inner = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if !(3..=SLUG_MAX).contains(&bytes.len()) || !inner || !edge(bytes.first().copied()) || !edge(bytes.last().copied())
    {
        return Err(RegistryError::invalid(
            "slug",
            "must be 3 to 50 characters a-z, 0-9 and -, beginning and ending with a letter or digit",
        ));
    }
    if RESERVED.contains(&slug) || Uuid::parse_str(slug).is_ok() {
        return Err(RegistryError::invalid("slug", "is reserved: choose another one"));
    }
    Ok(())
}

/// A slug made from a name; `nth` above 1 is put behind it to make it unique.
#[must_use]
pub fn slug_from(name: &str, nth: u32) -> String {
    let mut slug = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let ending = if nth > 1 { format!("-{nth}") } else { String::new() };
    slug.truncate(SLUG_MAX - ending.len());
    let stem = slug.trim_end_matches('-');
    let slug = format!("{stem}{ending}");
    if stem.is_empty() || check_slug(&slug).is_err() {
        let stem: String = stem.chars().take(SLUG_MAX - ending.len() - "agent-".len()).collect();
        return format!("agent-{}{ending}", stem.trim_end_matches('-'))
            .replace("--", "-")
            .trim_end_matches('-')
            .to_owned();
    }
    slug
}

/// Text for people: at most `max` characters, no control characters (line breaks only where `lines`), none that turn the
/// direction of writing. Outer white space goes.
///
/// # Errors
/// What is wrong, naming `member`.
pub fn check_text(member: &str, text: &str, max: usize, lines: bool) -> Result<String, RegistryError> {
    let text = text.trim();
    if text.chars().count() > max {
        return Err(RegistryError::invalid(member, format!("is longer than {max} characters")));
    }
    let bad = |c: char| match c {
        '\n' | '\r' | '\t' => !lines,
        '\u{2028}'
        | '\u{2029}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => true,
        _ => c.is_control(),
    };
    if let Some(c) = text.chars().find(|c| bad(*c)) {
        return Err(RegistryError::invalid(member, format!("must not hold the character U+{:04X}", u32::from(c))));
    }
    Ok(text.to_owned())
}

/// An address an agent, its card or its picture is found at: http or https, with a host, no user name, no fragment.
///
/// # Errors
/// What is wrong, naming `member`.
pub fn check_url(member: &str, text: &str) -> Result<Url, RegistryError> {
    if text.len() > 2_000 {
        return Err(RegistryError::invalid(member, "is longer than 2000 characters"));
    }
    let url = Url::parse(text.trim())
        .map_err(|error| RegistryError::invalid(member, format!("is not a URL ({error}): write https://host/path")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(RegistryError::invalid(member, "must begin with https:// or http://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(RegistryError::invalid(member, "has no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RegistryError::invalid(
            member,
            "must not hold a user name or password: register the credential as upstream_credential",
        ));
    }
    if url.fragment().is_some() {
        return Err(RegistryError::invalid(member, "must not have a fragment (#...)"));
    }
    // One parser, one meaning: what changes when read again could mean two hosts.
    if Url::parse(url.as_str()).ok().as_ref() != Some(&url) {
        return Err(RegistryError::invalid(member, "does not read the same twice: write it in its plain form"));
    }
    Ok(url)
}

/// As [`check_url`], for an address that the gateway will dial: what its host alone tells is held against `rules`. The
/// dialler checks again, with the address the name leads to.
///
/// # Errors
/// What is wrong, naming `member`.
pub fn check_dialled_url(member: &str, text: &str, rules: &NetworkRules) -> Result<Url, RegistryError> {
    let url = check_url(member, text)?;
    let addr = match url.host() {
        Some(Host::Ipv4(v4)) => Some(v4.into()),
        Some(Host::Ipv6(v6)) => Some(v6.into()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            (name == "localhost" || name.ends_with(".localhost")).then_some(std::net::Ipv4Addr::LOCALHOST.into())
        }
        None => None,
    };
    if let Some(addr) = addr {
        network::check(addr, rules).map_err(|forbidden| RegistryError::invalid(member, forbidden.to_string()))?;
    }
    Ok(url)
}

/// A path below an agent's endpoint that is public: `/chat`.
///
/// # Errors
/// What is wrong, naming the member `subpaths`.
pub fn check_subpath(path: &str) -> Result<(), RegistryError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b':');
    let segments = path.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>()).unwrap_or_default();
    let sound = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(plain);
    if path.len() > 200 || segments.is_empty() || !segments.iter().all(|s| sound(s)) {
        return Err(RegistryError::invalid(
            "subpaths",
            format!("{path:?} must begin with / and consist of letters, digits and - _ . ~ : between single slashes"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slugs_have_a_fixed_form() {
        for good in ["abc", "a-b", "0x0", &"a".repeat(50)] {
            assert!(check_slug(good).is_ok(), "{good}");
        }
        for bad in ["", "ab", "-ab", "ab-", "Abc", "a_b", "a.b", "äbc", "a b", &"a".repeat(51), "find", "www"] {
            assert!(check_slug(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slug_that_reads_as_an_id_is_refused() {
        let id = Uuid::now_v7();
        assert!(check_slug(&id.to_string()).is_err());
        assert!(check_slug(&id.simple().to_string()).is_err());
    }

    #[test]
    fn slugs_come_from_names() {
        assert_eq!(slug_from("My  Agent (v2)!", 1), "my-agent-v2");
        assert_eq!(slug_from("My Agent", 2), "my-agent-2");
        assert_eq!(slug_from("日本", 1), "agent");
        assert_eq!(slug_from("日本", 3), "agent-3");
        assert_eq!(slug_from("x", 1), "agent-x");
        assert_eq!(slug_from("find", 1), "agent-find");
        assert_eq!(slug_from(&"a".repeat(60), 12), format!("{}-12", "a".repeat(47)));
    }

    #[test]
    fn endpoint_addresses_hold_no_credentials_and_no_fragment() {
        for good in ["https://a.example", "http://a.example:8080/x/?assistant_id=1", "https://xn--bcher-kva.example/"] {
            assert!(check_url("url", good).is_ok(), "{good}");
        }
        for bad in [
            "ftp://a.example",
            "a.example",
            "/x",
            "https://",
            "https://u@a.example",
            "https://u:p@a.example",
            "https://a.example/#x",
            "javascript:alert(1)",
            "file:///etc/passwd",
        ] {
            assert!(check_url("url", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn private_hosts_are_refused_in_every_spelling() {
        let strangers = NetworkRules::default();
        let operators = NetworkRules { private_allowed: true, ..NetworkRules::default() };
        for url in [
            "http://127.0.0.1:1",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://x.localhost/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://10.0.0.1/",
            "http://127。0。0。1/",
            "http://%31%32%37.0.0.1/",
        ] {
            assert!(check_dialled_url("url", url, &strangers).is_err(), "{url}");
            assert!(check_dialled_url("url", url, &operators).is_ok(), "{url}");
        }
        assert!(check_dialled_url("url", "http://169.254.169.254/latest", &operators).is_err());
    }

    #[test]
    fn text_for_people_holds_nothing_that_acts_on_a_terminal() {
        assert_eq!(check_text("name", "  Zoë 🚀 ", 10, false).expect("good"), "Zoë 🚀");
        for bad in ["a\u{1b}[31m", "a\nb", "a\u{202e}b", "a\u{2028}b", "a\u{0}", "a\u{85}b"] {
            assert!(check_text("name", bad, 10, false).is_err(), "{bad:?}");
        }
        assert!(check_text("description", "a\nb", 10, true).is_ok());
        assert!(check_text("name", &"ä".repeat(11), 10, false).is_err());
    }

    #[test]
    fn subpaths_cannot_leave_the_endpoint() {
        for good in ["/chat", "/v1/status", "/a.b:c"] {
            assert!(check_subpath(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "chat", "/a/", "//a", "/..", "/a/../b", "/%2e%2e", "/a?b", "/a#b", "/a b"] {
            assert!(check_subpath(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_slug_made_from_any_name_is_a_slug(name in any::<String>(), nth in 1_u32..100_000) {
            let slug = slug_from(&name, nth);
            prop_assert!(check_slug(&slug).is_ok(), "{:?} -> {:?}", name, slug);
        }

        #[test]
        fn a_slug_made_from_a_long_name_is_a_slug(name in "[a-z0-9 -]{0,80}", nth in 1_u32..100_000) {
            let slug = slug_from(&name, nth);
            prop_assert!(check_slug(&slug).is_ok(), "{:?} -> {:?}", name, slug);
        }
    }
}
