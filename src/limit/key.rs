//! The names limits are kept under.
//!
//! What may reach a disk (journal, restart) is a keyed hash: it names the same limit across restarts, and tells nobody without
//! the node's secret whose it is. Knows no counts.

use std::net::IpAddr;

use aws_lc_rs::hmac;
use uuid::Uuid;

/// Names one limit.
pub type LimitKey = [u8; 16];

/// An account's name, and the agent whose own limits hold for it; none where it is for several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) key: LimitKey,
    pub(super) agent: Option<Uuid>,
}

/// How closely an account looks: the finest there is room for is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// One caller's own.
    Fine,
    /// Shared with its neighbours: /24, /48, or every target of a caller.
    Coarse,
    /// Shared by everybody who found no room elsewhere.
    Rest,
}

/// Names limits across restarts without telling addresses: HMAC-SHA256 under a secret of the node, the first 16 bytes.
#[derive(Clone)]
pub struct LimitNamer(hmac::Key);

impl std::fmt::Debug for LimitNamer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LimitNamer")
    }
}

impl LimitNamer {
    /// A namer under `secret`; the same secret gives the same names.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }

    /// One direction of a connection: the calls towards the agent `towards`.
    #[must_use]
    pub fn connection(&self, id: Uuid, towards: Uuid) -> LimitKey {
        self.name(b"connection", &id.into_bytes(), &towards.into_bytes())
    }

    /// A known caller without a connection, at one target.
    #[must_use]
    pub fn verified(&self, caller: Uuid, target: Uuid) -> LimitKey {
        self.name(b"verified", &caller.into_bytes(), &target.into_bytes())
    }

    /// An anonymous caller at one target: IPv6 by /64, IPv4 as it is, also where it comes wrapped in IPv6.
    #[must_use]
    pub fn anonymous(&self, target: Uuid, source: IpAddr) -> LimitKey {
        self.anonymous_at(Grain::Fine, target, source).key
    }

    pub(super) fn verified_at(&self, grain: Grain, caller: Uuid, target: Uuid) -> Name {
        match grain {
            Grain::Fine => Name { key: self.verified(caller, target), agent: Some(target) },
            // Callers are registered, so there are never too many of these.
            Grain::Coarse | Grain::Rest => {
                Name { key: self.name(b"verified anywhere", &caller.into_bytes(), &[0; 16]), agent: None }
            }
        }
    }

    pub(super) fn anonymous_at(&self, grain: Grain, target: Uuid, source: IpAddr) -> Name {
        let key = self.name(b"anonymous", &target.into_bytes(), &source_key_at(grain, source));
        Name { key, agent: Some(target) }
    }

    fn name(&self, kind: &[u8], first: &[u8; 16], second: &[u8; 16]) -> LimitKey {
        // Two fields of fixed length after the kind: no two inputs run together into the same bytes.
        let mut context = hmac::Context::with_key(&self.0);
        context.update(first);
        context.update(second);
        context.update(kind);
        let tag = context.sign();
        let mut key = LimitKey::default();
        key.copy_from_slice(&tag.as_ref()[..16]);
        key
    }
}

/// A network source by itself, whatever it asks for.
pub(super) fn source_at(grain: Grain, source: IpAddr) -> Name {
    Name { key: source_key_at(grain, source), agent: None }
}

/// The plain name of a network source: an IPv4 address, an IPv6 /64.
#[must_use]
pub fn source_key(source: IpAddr) -> LimitKey {
    source_key_at(Grain::Fine, source)
}

/// The same of any grain, for limits that never leave memory.
fn source_key_at(grain: Grain, source: IpAddr) -> LimitKey {
    let (kept, kind): (&[u8], u8) = match (source.to_canonical(), grain) {
        (IpAddr::V4(v4), Grain::Fine) => (&v4.octets(), 1),
        (IpAddr::V4(v4), Grain::Coarse) => (&v4.octets()[..3], 2),
        (IpAddr::V6(v6), Grain::Fine) => (&v6.octets()[..8], 3),
        (IpAddr::V6(v6), Grain::Coarse) => (&v6.octets()[..6], 4),
        (_, Grain::Rest) => (&[], 5),
    };
    let mut key = LimitKey::default();
    key[..kept.len()].copy_from_slice(kept);
    key[15] = kind;
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn names_stay_the_same_under_one_secret_and_differ_under_another() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let [one, again, other] = [[7; 32], [7; 32], [8; 32]].map(LimitNamer::new);
        assert_eq!(one.connection(a, b), again.connection(a, b));
        assert_ne!(one.connection(a, b), other.connection(a, b));
        assert_ne!(one.connection(a, b), one.connection(b, a));
        assert_ne!(one.connection(a, b), one.verified(a, b));
    }

    #[test]
    fn ipv6_callers_are_one_per_64_and_wrapped_ipv4_is_the_ipv4_address() {
        let namer = LimitNamer::new([7; 32]);
        let name = |text| namer.anonymous(Uuid::from_u128(1), ip(text));
        assert_eq!(name("2001:db8:1:2::1"), name("2001:db8:1:2:ffff::9"));
        assert_ne!(name("2001:db8:1:2::1"), name("2001:db8:1:3::1"));
        assert_eq!(name("::ffff:192.0.2.1"), name("192.0.2.1"));
        assert_ne!(name("192.0.2.1"), name("192.0.2.2"));
    }

    #[test]
    fn a_coarser_name_is_shared_by_neighbours_only() {
        let coarse = |text| source_key_at(Grain::Coarse, ip(text));
        assert_eq!(coarse("192.0.2.1"), coarse("192.0.2.200"));
        assert_ne!(coarse("192.0.2.1"), coarse("192.0.3.1"));
        assert_ne!(coarse("192.0.2.1"), source_key_at(Grain::Fine, ip("192.0.2.0")));
        assert_eq!(coarse("2001:db8:1:2::1"), coarse("2001:db8:1:ffff::1"));
        assert_ne!(coarse("2001:db8:1::1"), coarse("2001:db8:2::1"));
        assert_eq!(source_key_at(Grain::Rest, ip("192.0.2.1")), source_key_at(Grain::Rest, ip("2001:db8::1")));
    }
}
