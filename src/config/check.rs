//! Settings that are fine by themselves and wrong together, or out of the range that works. Knows no files and no lines.

use std::time::Duration;

use super::Config;
use super::outlets;
use super::sections::Tls;
use super::units::{DurationText, Size};

/// What is wrong: the setting to blame, and what to write instead.
pub(super) fn faults(config: &Config) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    listeners(config, &mut faults);
    ranges(config, &mut faults);
    let prefix = &config.agents.key_prefix;
    if prefix.is_empty()
        || prefix.len() > 16
        || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    {
        faults.push(("agents.key_prefix", "write 1 to 16 letters, digits, - or _, such as \"oag_\"".to_owned()));
    }
    let namespace = &config.limits.namespace;
    if namespace.is_empty()
        || namespace.len() > 64
        || !namespace.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b))
    {
        let advice = "write 1 to 64 letters, digits, -, _, . or :, such as \"trust-gateway\"; nodes share limits that write the same";
        faults.push(("limits.namespace", advice.to_owned()));
    }
    faults.extend(outlets::faults(&config.audit, &config.webhooks));
    if config.data_dir.as_os_str().is_empty() {
        faults.push(("data_dir", "the path is empty; write one such as \"data\"".to_owned()));
    }
    faults
}

fn listeners(config: &Config, faults: &mut Vec<(&'static str, String)>) {
    let (public, admin) = (config.server.listen, config.admin.listen);
    let half = |tls: &Tls, cert, key| match (&tls.cert, &tls.key) {
        (Some(_), None) => {
            Some((key, "the certificate needs its private key; set this to the key's PEM file".to_owned()))
        }
        (None, Some(_)) => {
            Some((cert, "the key needs its certificate; set this to the certificate's PEM file".to_owned()))
        }
        _ => None,
    };
    faults.extend(half(&config.server.tls, "server.tls.cert", "server.tls.key"));
    faults.extend(half(&config.admin.tls, "admin.tls.cert", "admin.tls.key"));

    if !admin.ip().to_canonical().is_loopback() && !config.admin.tls.is_on() {
        let advice = format!(
            "{admin} can be reached from other machines, and operator tokens would pass in the clear; write \"127.0.0.1:{}\", \
             or set admin.tls.cert and admin.tls.key",
            admin.port()
        );
        faults.push(("admin.listen", advice));
    }
    let same_host = public.ip() == admin.ip() || public.ip().is_unspecified() || admin.ip().is_unspecified();
    if same_host && public.port() == admin.port() && public.port() != 0 {
        faults.push((
            "admin.listen",
            format!("server.listen ({public}) takes this port already; write another port for one of them"),
        ));
    }
}

fn ranges(config: &Config, faults: &mut Vec<(&'static str, String)>) {
    let (server, upstream, health) = (&config.server, &config.upstream, &config.health);

    // A time limit of nothing would refuse every call, one of years is a slip of the unit.
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(7 * 86_400));
    let limits = [
        ("server.header_timeout", server.header_timeout),
        ("server.stall_timeout", server.stall_timeout),
        ("upstream.connect", upstream.connect),
        ("upstream.first_byte", upstream.first_byte),
        ("upstream.read_first_byte", upstream.read_first_byte),
        ("upstream.idle", upstream.idle),
        ("upstream.pool_idle", upstream.pool_idle),
        ("health.timeout", health.timeout),
        ("directory.max_stale", config.directory.max_stale),
        ("breaker.min_open", config.breaker.min_open),
        ("breaker.max_open", config.breaker.max_open),
        ("limits.shared_timeout", config.limits.shared_timeout),
    ];
    let from_zero = [("server.drain_timeout", server.drain_timeout), ("server.body_grace", server.body_grace)];
    let limits = limits.map(|(name, value)| (name, value, least)).into_iter();
    for (name, value, least) in limits.chain(from_zero.map(|(name, value)| (name, value, Duration::ZERO))).chain([(
        "health.interval",
        health.interval,
        Duration::from_secs(1),
    )]) {
        if value < least || value > most {
            let [value, least, most] = [value, least, most].map(|d| DurationText(d).to_string());
            faults
                .push((name, format!("\"{value}\" is out of range; write a duration from \"{least}\" to \"{most}\"")));
        }
    }
    if health.timeout > health.interval && health.interval >= Duration::from_secs(1) {
        let interval = DurationText(health.interval);
        faults
            .push(("health.timeout", format!("a probe must end before the next begins; write at most \"{interval}\"")));
    }

    if config.breaker.max_open < config.breaker.min_open {
        let least = DurationText(config.breaker.min_open);
        faults.push((
            "breaker.max_open",
            format!("the longest time is shorter than breaker.min_open; write at least \"{least}\""),
        ));
    }

    let sizes = [
        // hyper takes no smaller buffer.
        ("server.max_header_bytes", server.max_header_bytes, Size(8 << 10), Size(1 << 20)),
        ("server.max_body", server.max_body, Size(1 << 10), Size(1 << 30)),
        ("server.body_memory", server.body_memory, server.max_body, Size(1 << 40)),
        ("server.body_memory_per_caller", server.body_memory_per_caller, server.max_body, Size(1 << 40)),
        ("server.body_min_rate", server.body_min_rate, Size(0), Size(1 << 20)),
        ("audit.segment", config.audit.segment, Size(1 << 20), Size(1 << 30)),
    ];
    for (name, value, least, most) in sizes {
        if value < least || value > most {
            faults.push((name, format!("\"{value}\" is out of range; write a size from \"{least}\" to \"{most}\"")));
        }
    }

    let counts = [
        ("server.workers", server.workers, 0, 1024),
        ("server.max_connections", server.max_connections, 1, 10_000_000),
        ("server.max_in_flight", server.max_in_flight, 1, 10_000_000),
        ("server.max_headers", server.max_headers, 16, 1024),
        ("upstream.max_in_flight", upstream.max_in_flight, 1, 1_000_000),
        ("agents.max_pending", config.agents.max_pending, 1, 100_000),
        ("health.concurrency", health.concurrency, 1, 1024),
        ("breaker.failures", config.breaker.failures, 0, 1_000_000),
    ];
    for (name, value, least, most) in counts {
        if value < least || value > most {
            faults.push((name, format!("{value} is out of range; write a number from {least} to {most}")));
        }
    }
}

/// What works but is probably not meant.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let server = &config.server;
    if !server.listen.ip().to_canonical().is_loopback() {
        if server.public_url.is_none() {
            warnings.push(format!(
                "server.public_url is not set: agent cards will tell callers to use {}; set it to the address callers use",
                config.public_url()
            ));
        }
        if !server.tls.is_on() && server.trusted_proxies.is_empty() {
            warnings.push(
                "server.listen is reachable from other machines without TLS: API keys pass in the clear; set server.tls.cert and \
                 server.tls.key, or list the TLS proxy in front in server.trusted_proxies"
                    .to_owned(),
            );
        }
    }
    if config.server.trusted_proxies.iter().any(|net| net.prefix_len() == 0) {
        warnings.push("server.trusted_proxies holds every address: any caller can claim to be another".to_owned());
    }
    if let Some(shared) = &config.limits.shared {
        if shared.password.is_some() && !shared.tls && !is_this_machine(&shared.host) {
            warnings.push(format!(
                "limits.shared: the password of {}:{} passes in the clear; write rediss:// where the server speaks TLS",
                shared.host, shared.port
            ));
        }
        if config.limits.shared_timeout > Duration::from_millis(500) {
            warnings.push(
                "limits.shared_timeout is long: every call waits for it when the server of shared limits does not answer"
                    .to_owned(),
            );
        }
    }
    for (setting, name) in outlets::in_the_clear(&config.audit, &config.webhooks) {
        warnings.push(format!(
            "{setting}: {name} passes over the network in the clear; write https:// where it speaks TLS"
        ));
    }
    if config.upstream.pool_idle >= Duration::from_secs(5) {
        warnings.push(
            "upstream.pool_idle is not below the 5 s after which common agent servers close: calls may fail on connections \
             that are closing"
                .to_owned(),
        );
    }
    warnings
}

pub(super) fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}
