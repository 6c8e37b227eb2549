//! The address a call comes from.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The proxies whose word about their clients is taken.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The proxies in these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The caller's address: the peer's, or, where the peer is a trusted proxy, the right-most address in `X-Forwarded-For` that is
/// not one itself. What a proxy wrote that cannot be read ends the search at the proxy.
#[must_use]
pub fn source_address(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut source = peer.to_canonical();
    if !trusted.contains(source) {
        return source;
    }
    let lines: Vec<&str> = headers.get_all("x-forwarded-for").iter().map(|v| v.to_str().unwrap_or("?")).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Some(address) = parse_hop(hop.trim()) else {
            return source;
        };
        source = address;
        if !trusted.contains(source) {
            break;
        }
    }
    source
}

/// An address with or without a port: `203.0.113.7`, `203.0.113.7:8080`, `2001:db8::1`, `[2001:db8::1]:8080`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address = match hop.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match hop.parse::<std::net::SocketAddr>() {
            Ok(socket) => socket.ip(),
            Err(_) => hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?,
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: &str, forwarded: &[&'static str]) -> String {
        let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().expect("a network")]);
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", http::HeaderValue::from_static(line));
        }
        source_address(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    #[test]
    fn only_listed_proxies_are_believed() {
        assert_eq!(source("198.51.100.1", &["203.0.113.7"]), "198.51.100.1");
        assert_eq!(source("10.0.0.1", &["203.0.113.7"]), "203.0.113.7");
        assert_eq!(source("::ffff:10.0.0.1", &["203.0.113.7"]), "203.0.113.7");
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_counts() {
        assert_eq!(source("10.0.0.1", &["6.6.6.6, 203.0.113.7, 10.0.0.2"]), "203.0.113.7");
        assert_eq!(source("10.0.0.1", &["6.6.6.6", "203.0.113.7:4711"]), "203.0.113.7");
        assert_eq!(source("10.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(source("10.0.0.1", &["203.0.113.7, nonsense"]), "10.0.0.1");
        assert_eq!(source("10.0.0.1", &[]), "10.0.0.1");
    }
}
