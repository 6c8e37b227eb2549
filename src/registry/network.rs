//! Which network addresses an agent may live at. Pure: the dialler, the probes and the registration form all ask this one
//! function, the dialler about the very address it is about to connect to.
//!
//! Promises: link-local, metadata, multicast, unspecified and broadcast addresses are refused to everybody; every other
//! address that the IANA special-purpose registries do not call globally reachable counts as private. An IPv4 address
//! that travels inside an IPv6 one (mapped, compatible, NAT64, 6to4, Teredo) is judged as the address it leads to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

/// The networks that the configuration allows: one value for all who ask, which a reload changes for all of them at once.
pub type AllowedNetworks = Arc<ArcSwap<Vec<IpNet>>>;

/// What is allowed beyond globally reachable addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkRules {
    /// Private addresses, loopback among them: for endpoints registered by an operator.
    pub private_allowed: bool,
    /// Networks allowed by the configuration. They never open what is refused to everybody.
    pub allowed: Vec<IpNet>,
}

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// Refused to everybody, with the kind of address it is.
    Always(&'static str),
    /// Private, and the rules do not allow private addresses here.
    Private,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always(kind) => write!(f, "{kind} addresses are never allowed"),
            Self::Private => f.write_str(
                "private addresses are allowed only for agents registered by an operator, or by allow_networks in the configuration",
            ),
        }
    }
}

impl std::error::Error for Forbidden {}

enum Kind {
    Global,
    Private,
    Never(&'static str),
}

/// Whether `addr` may be dialled under `rules`.
///
/// # Errors
/// [`Forbidden`], with the reason.
pub fn check(addr: IpAddr, rules: &NetworkRules) -> Result<(), Forbidden> {
    let real = unwrap(addr);
    // The wrapping itself can be forbidden ground (a mapped address never is, a local NAT64 prefix is private).
    for kind in [kind_of(addr), kind_of(real)] {
        match kind {
            Kind::Never(what) => return Err(Forbidden::Always(what)),
            Kind::Private
                if !rules.private_allowed
                    && !rules.allowed.iter().any(|net| net.contains(&addr) || net.contains(&real)) =>
            {
                return Err(Forbidden::Private);
            }
            Kind::Private | Kind::Global => {}
        }
    }
    Ok(())
}

/// The address that dialling `addr` leads to in the end.
fn unwrap(addr: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = addr else { return addr };
    let s = v6.segments();
    let o = v6.octets();
    let v4 = |a: u16, b: u16| IpAddr::V4(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b)));
    match s {
        [0, 0, 0, 0, 0, 0xffff, a, b] => v4(a, b),
        // Deprecated "compatible" form; :: and ::1 are addresses of their own.
        [0, 0, 0, 0, 0, 0, a, b] if a != 0 || b > 1 => v4(a, b),
        // SIIT, "translated".
        [0, 0, 0, 0, 0xffff, 0, a, b] => v4(a, b),
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => v4(a, b),
        // RFC 6052 with a prefix of 48 bits: octet 8 is skipped.
        [0x64, 0xff9b, 1, ..] => IpAddr::V4(Ipv4Addr::new(o[6], o[7], o[9], o[10])),
        [0x2002, a, b, ..] => v4(a, b),
        // Teredo hides the client's address by flipping its bits.
        [0x2001, 0, _, _, _, _, a, b] => v4(!a, !b),
        _ => addr,
    }
}

fn kind_of(addr: IpAddr) -> Kind {
    match addr {
        IpAddr::V4(v4) => kind_of_v4(v4),
        IpAddr::V6(v6) => kind_of_v6(v6),
    }
}

fn kind_of_v4(addr: Ipv4Addr) -> Kind {
    match addr.octets() {
        [0, 0, 0, 0] => Kind::Never("unspecified"),
        [0, ..] => Kind::Never("\"this network\""),
        [169, 254, ..] => Kind::Never("link-local and metadata"),
        [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192] => Kind::Never("metadata"),
        [255, 255, 255, 255] => Kind::Never("broadcast"),
        [224..=239, ..] => Kind::Never("multicast"),
        [10, ..] | [127, ..] | [172, 16..=31, ..] | [192, 168, ..] => Kind::Private,
        [100, 64..=127, ..] => Kind::Private, // shared, carrier-grade NAT
        [192, 0, 0, 9 | 10] => Kind::Global,  // anycast of PCP and TURN
        [192, 0, 0 | 2, _] => Kind::Private,  // IETF protocol assignments, TEST-NET-1
        [192, 88, 99, _] => Kind::Private,    // former 6to4 relays
        [198, 18 | 19, ..] => Kind::Private,  // benchmarking
        [198, 51, 100, _] | [203, 0, 113, _] => Kind::Private, // TEST-NET-2 and -3
        [240..=255, ..] => Kind::Private,     // reserved
        _ => Kind::Global,
    }
}

fn kind_of_v6(addr: Ipv6Addr) -> Kind {
    let s = addr.segments();
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Never("unspecified"),
        [0xfe80..=0xfebf, ..] => Kind::Never("link-local"),
        [0xff00..=0xffff, ..] => Kind::Never("multicast"),
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Kind::Never("metadata"),
        // Judged by what is inside.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Kind::Global,
        [0, 0, 0, 0, 0, 0, a, b] if a != 0 || b > 1 => Kind::Global,
        [0x2002, ..] | [0x2001, 0, ..] => Kind::Global,
        // Of the block for IETF protocols only some are reachable: anycast, AMT, AS112, ORCHIDv2, drone remote id.
        [0x2001, 1, 0, 0, 0, 0, 0, 1..=3] | [0x2001, 3, ..] | [0x2001, 4, 0x112, ..] | [0x2001, 0x20..=0x3f, ..] => {
            Kind::Global
        }
        [0x2001, 0..=0x1ff, ..] => Kind::Private,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Private, // documentation
        // Global unicast; all else is loopback, unique local, discard-only, site-local, SRv6 or not assigned.
        [0x2000..=0x3fff, ..] => Kind::Global,
        _ => Kind::Private,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(addr: &str, private_allowed: bool) -> Result<(), Forbidden> {
        check(addr.parse().expect("an address"), &NetworkRules { private_allowed, allowed: Vec::new() })
    }

    #[test]
    fn global_addresses_are_allowed_to_everybody() {
        for addr in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.0.9",
            "192.0.0.10",
            "192.0.1.0",
            "192.0.3.0",
            "192.31.196.1",
            "192.52.193.1",
            "192.167.255.255",
            "192.169.0.0",
            "192.175.48.1",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "203.0.114.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2000::1",
            "2001:1::1",
            "2001:1::2",
            "2001:3::1",
            "2001:4:112::1",
            "2001:20::1",
            "2001:2f:ffff::",
            "2001:30::1",
            "2001:200::1",
            "2620:4f:8000::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
            "3ffe::1",
        ] {
            assert_eq!(judged(addr, false), Ok(()), "{addr}");
        }
    }

    #[test]
    fn private_addresses_need_an_operator() {
        for addr in [
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.8",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "240.0.0.1",
            "255.255.255.254",
            "::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1:808:8:800::",
            "100::1",
            "100:0:0:1::1",
            "2001:2::1",
            "2001:10::1",
            "2001:db8::1",
            "2001:1::4",
            "2001:40::1",
            "2001:1ff::1",
            "2002:a00:1::1",
            "2002:7f00:1::",
            "2001:0:1:2:3:4:f5ff:fffe",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fd12:3456::1",
            "fec0::1",
            "4000::1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(judged(addr, false), Err(Forbidden::Private), "{addr}");
            assert_eq!(judged(addr, true), Ok(()), "{addr}");
        }
    }

    #[test]
    fn some_addresses_are_refused_to_operators_and_configuration_alike() {
        let everything = NetworkRules {
            private_allowed: true,
            allowed: vec!["0.0.0.0/0".parse().expect("a net"), "::/0".parse().expect("a net")],
        };
        for addr in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.0.1",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2002:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
            "::ffff:0:169.254.169.254",
            "::ffff:0.0.0.0",
        ] {
            let addr: IpAddr = addr.parse().expect("an address");
            assert!(matches!(check(addr, &everything), Err(Forbidden::Always(_))), "{addr}");
        }
    }

    #[test]
    fn an_allowed_network_opens_just_itself() {
        let rules = NetworkRules { private_allowed: false, allowed: vec!["10.1.0.0/16".parse().expect("a net")] };
        assert_eq!(check("10.1.2.3".parse().expect("an address"), &rules), Ok(()));
        assert_eq!(check("::ffff:10.1.2.3".parse().expect("an address"), &rules), Ok(()));
        assert_eq!(check("10.2.0.0".parse().expect("an address"), &rules), Err(Forbidden::Private));
    }

    proptest! {
        #[test]
        fn an_embedded_v4_address_is_never_judged_kinder_than_itself(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b, c, d] = v4.octets();
            let high = (u16::from(a) << 8) | u16::from(b);
            let low = (u16::from(c) << 8) | u16::from(d);
            let plain = check(IpAddr::V4(v4), &NetworkRules::default());
            let mut wraps = vec![
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 1, 1, 0, 0, !high, !low),
            ];
            if bits > 1 {
                wraps.push(Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low));
            }
            for wrapped in wraps {
                prop_assert_eq!(check(IpAddr::V6(wrapped), &NetworkRules::default()), plain, "{}", wrapped);
            }
        }
    }
}
