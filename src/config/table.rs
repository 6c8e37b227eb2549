//! Every setting by its name, and whether a change of it takes effect without a restart.
//!
//! Reading, environment variables, reload and `check-config` all go by this one table; a test holds it against the structs.

use toml::Spanned;
use toml::de::DeValue;

use super::Config;
use super::values::{Written, Wrong};

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// At the next reload, for what begins after it.
    Reload,
    /// At the next start.
    Restart,
}

/// One setting.
pub(super) struct Setting {
    /// Its full name, `server.listen`.
    pub(super) name: &'static str,
    /// When a change takes effect.
    pub(super) takes: Takes,
    /// Reads a value into the configuration, which stays as it was if the value is refused.
    pub(super) read: fn(&mut Config, &Spanned<DeValue<'_>>) -> Result<(), Wrong>,
    /// The value's TOML text; none where it is not set.
    pub(super) written: fn(&Config) -> Option<String>,
    /// Copies the value from the second configuration to the first.
    pub(super) copy: fn(&mut Config, &Config),
}

macro_rules! settings {
    ($($takes:ident $first:ident $(. $rest:ident)*,)+) => {
        &[$(Setting {
            name: concat!(stringify!($first) $(, ".", stringify!($rest))*),
            takes: Takes::$takes,
            read: |config, value| {
                config.$first$(.$rest)* = Written::read(value)?;
                Ok(())
            },
            written: |config| config.$first$(.$rest)*.written(),
            copy: |to, from| to.$first$(.$rest)*.clone_from(&from.$first$(.$rest)*),
        }),+]
    };
}

/// All of them, in the order of the example file.
pub(super) const SETTINGS: &[Setting] = settings! {
    Restart data_dir,
    Restart webhooks,

    Restart server.listen,
    Restart server.public_url,
    Restart server.workers,
    Reload  server.trusted_proxies,
    Reload  server.drain_timeout,
    Restart server.max_connections,
    Reload  server.max_in_flight,
    Restart server.header_timeout,
    Restart server.max_header_bytes,
    Restart server.max_headers,
    Restart server.max_body,
    Restart server.body_memory,
    Restart server.body_memory_per_caller,
    Restart server.body_min_rate,
    Restart server.body_grace,
    Restart server.stall_timeout,
    Reload  server.x_ratelimit,
    // Other files are taken at a reload; turning TLS on or off is not, see `Config::diff_reload`.
    Reload  server.tls.cert,
    Reload  server.tls.key,
    Reload  server.tls.min_version,

    Restart admin.listen,
    Reload  admin.tls.cert,
    Reload  admin.tls.key,
    Reload  admin.tls.min_version,

    Restart store.url,
    Restart store.password_file,

    Restart directory.max_stale,

    Restart audit.durability,
    Restart audit.addresses,
    Restart audit.segment,
    Restart audit.outlets,
    Restart audit.witnesses,

    Reload  agents.registration,
    Reload  agents.max_pending,
    Reload  agents.allow_networks,
    Restart agents.key_prefix,

    Reload  upstream.connect,
    Reload  upstream.first_byte,
    Reload  upstream.read_first_byte,
    Reload  upstream.idle,
    // Connections in the pool were made under these two.
    Restart upstream.pool_idle,
    Reload  upstream.max_in_flight,
    Reload  upstream.pass_accept_encoding,
    Restart upstream.roots,

    Restart health.interval,
    Restart health.timeout,
    Restart health.concurrency,

    Reload  breaker.failures,
    Reload  breaker.min_open,
    Reload  breaker.max_open,

    Reload  policy.file,

    Restart limits.shared,
    Restart limits.namespace,
    Restart limits.shared_timeout,
    Restart limits.roots,

    Restart log.format,
    Reload  log.level,
    Reload  log.access,
};

/// The setting of this name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Whether settings live below this name.
pub(super) fn is_section(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The name that was probably meant by one that does not exist: a near miss in the same place, or the right name in
/// another section.
pub(super) fn meant(unknown: &str) -> Option<&'static str> {
    let (section, last) = unknown.rsplit_once('.').unwrap_or(("", unknown));
    let parts = |name: &'static str| name.rsplit_once('.').unwrap_or(("", name));
    let elsewhere = || SETTINGS.iter().map(|setting| setting.name).filter(|name| parts(name).1 == last);
    // "server" itself is a name as well, for a misspelt `[sever]`.
    let names = SETTINGS.iter().flat_map(|setting| {
        let dots = setting.name.match_indices('.').map(|(at, _)| &setting.name[..at]);
        std::iter::once(setting.name).chain(dots)
    });
    let near = names
        .filter(|name| parts(name).0 == section)
        .map(|name| (edits(last, parts(name).1), name))
        .filter(|(edits, _)| *edits <= 1.max(last.chars().count() / 3))
        .min_by_key(|(edits, _)| *edits);
    near.map(|(_, name)| name).or_else(|| {
        let mut found = elsewhere();
        found.next().filter(|_| found.next().is_none())
    })
}

/// How many single-character edits (a swap of neighbours counts as one) lead from `a` to `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every leaf of the serialised structs, as full names; a name of the table is a leaf whatever it looks like.
    fn leaves(prefix: &str, value: &serde_json::Value, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) if find(prefix).is_none() => {
                for (key, member) in members {
                    let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    leaves(&name, member, out);
                }
            }
            _ => out.push(prefix.to_owned()),
        }
    }

    #[test]
    fn every_field_of_the_configuration_is_a_setting_of_the_table() {
        let mut fields = Vec::new();
        leaves("", &serde_json::to_value(Config::default()).expect("plain data"), &mut fields);
        let mut names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
        fields.sort();
        names.sort_unstable();
        assert_eq!(fields, names);
    }

    #[test]
    fn the_settings_that_take_a_reload_are_these() {
        let reload: Vec<_> = SETTINGS.iter().filter(|s| s.takes == Takes::Reload).map(|s| s.name).collect();
        let expected = "server.trusted_proxies server.drain_timeout server.max_in_flight server.x_ratelimit server.tls.cert server.tls.key server.tls.min_version \
            admin.tls.cert admin.tls.key admin.tls.min_version agents.registration agents.max_pending agents.allow_networks \
            upstream.connect upstream.first_byte upstream.read_first_byte upstream.idle upstream.max_in_flight \
            upstream.pass_accept_encoding breaker.failures breaker.min_open breaker.max_open policy.file log.level log.access";
        assert_eq!(reload, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn a_near_miss_finds_the_name_that_was_meant() {
        for (unknown, expected) in [
            ("server.lisen", Some("server.listen")),
            ("server.public-url", Some("server.public_url")),
            ("sever", Some("server")),
            ("upstraem", Some("upstream")),
            ("server.tls.certs", Some("server.tls.cert")),
            ("server.durability", Some("audit.durability")),
            ("pool_idle", Some("upstream.pool_idle")),
            // Two sections have one: no guess.
            ("log.listen", None),
            ("server.wholly_unlike", None),
            ("x", None),
        ] {
            assert_eq!(meant(unknown), expected, "{unknown}");
        }
    }

    #[test]
    fn a_swap_of_neighbours_is_one_edit() {
        assert_eq!([edits("lsiten", "listen"), edits("listen", "listen"), edits("", "abc")], [1, 0, 3]);
    }
}
