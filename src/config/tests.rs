//! The configuration as a whole: the example file, load order, errors and reload.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::table::{SETTINGS, Takes};
use super::*;

const EXAMPLE: &str = include_str!("../../trust-gateway.example.toml");

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("gw.toml");
    fs::write(&file, text).expect("write");
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(LoadSource::file(&file).with_env(env))
}

fn load(text: &str) -> Result<Config, ConfigErrors> {
    load_with(text, &[])
}

/// The errors as (line, key, message); line 0 is not a line.
fn errors(result: Result<Config, ConfigErrors>) -> Vec<(usize, String, String)> {
    let errors = result.expect_err("this configuration is wrong");
    let line = |place: &Place| if let Place::Line { line, .. } = place { *line } else { 0 };
    errors.iter().map(|e| (line(&e.place), e.key.clone(), e.message.clone())).collect()
}

/// The one error of a configuration, as printed, without the directory of the file.
fn error(result: Result<Config, ConfigErrors>) -> String {
    let printed = result.expect_err("this configuration is wrong").to_string();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    printed.rfind("gw.toml").map_or(printed.clone(), |at| printed[at..].to_owned())
}

/// The example with `value` (TOML text) for a setting, whether that stands there with its default or as a comment.
fn example_with(name: &str, value: &str) -> String {
    let (section, key) = name.rsplit_once('.').unwrap_or(("", name));
    let mut current = String::new();
    let (mut result, mut replaced) = (String::new(), 0);
    for line in EXAMPLE.lines() {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            current = header.to_owned();
        }
        let written = line.strip_prefix("# ").unwrap_or(line);
        let is_it = current == section && written.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "));
        replaced += usize::from(is_it);
        if is_it { writeln!(result, "{key} = {value}") } else { writeln!(result, "{line}") }
            .expect("a string takes all");
    }
    assert_eq!(
        replaced, 1,
        "{name} must stand once in the example, with its default or as a comment \"# {key} = ...\""
    );
    result
}

#[test]
fn the_example_file_shows_every_setting_with_its_default() {
    assert_eq!(load(EXAMPLE), Ok(Config::default()));
    for setting in SETTINGS {
        match (setting.written)(&Config::default()) {
            Some(default) => {
                // A line shows it: taking another default's place is noticed because the line must be replaceable once, and
                // the same text must leave the default in force.
                assert_eq!(load(&example_with(setting.name, &default)), Ok(Config::default()), "{}", setting.name);
                let key = setting.name.rsplit('.').next().expect("a name");
                assert!(EXAMPLE.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key} is only a comment");
            }
            None => assert!(example_with(setting.name, "\"x\"").contains(" = \"x\"")),
        }
    }
}

#[test]
fn the_example_file_marks_what_a_reload_takes() {
    let mut section = String::new();
    let mut comment = String::new();
    let mut section_takes = Takes::Restart;
    for line in EXAMPLE.lines() {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{header}.");
            section_takes = if comment.contains("(reload") { Takes::Reload } else { Takes::Restart };
            comment.clear();
        } else if let Some((key, _)) = line.strip_prefix("# ").unwrap_or(line).split_once(" = ")
            && let Some(setting) = table::find(&format!("{section}{key}"))
        {
            let marked = comment.contains("(reload)") || section_takes == Takes::Reload;
            assert_eq!(marked, setting.takes == Takes::Reload, "{}", setting.name);
        } else if line.is_empty() {
            comment.clear();
        } else if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        }
    }
}

#[test]
fn without_a_file_the_defaults_stand() {
    assert_eq!(Config::load(LoadSource::defaults()), Ok(Config::default()));
    assert_eq!(Config::default().public_url().as_str(), "http://127.0.0.1:8080");
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let error = error(Config::load(LoadSource::file("/no/such/gw.toml")));
    assert!(error.starts_with("gw.toml: cannot be read: ") && error.contains("--config"), "{error}");
}

#[test]
fn a_file_that_is_not_utf8_is_told_with_its_line() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("gw.toml");
    fs::write(&file, b"[log]\n\n# caf\xe9\n").expect("write");
    assert_eq!(
        error(Config::load(LoadSource::file(file))),
        "gw.toml:3: this is not UTF-8; save the file as UTF-8 text"
    );
}

#[test]
fn listeners_on_different_addresses_may_have_the_same_port() {
    assert!(load("[server]\nlisten = \"127.0.0.2:80\"\n[admin]\nlisten = \"127.0.0.1:80\"\n").is_ok());
    assert!(load("[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n").is_ok());
}

#[test]
fn a_file_sets_what_it_names_and_nothing_else() {
    let config = load(
        "[server]\nlisten = \"[::1]:9000\"\ntls = { cert = \"c.pem\", key = \"k.pem\" }\n[upstream]\nroots = \"ca.pem\"\n\
         [store]\nurl = \"sqlite:/var/lib/gw.db\"\n[agents]\nallow_networks = [\"10.0.0.0/8\", \"fd00::/8\"]\n",
    )
    .expect("a good file");
    let mut expected = Config::default();
    expected.server.listen = "[::1]:9000".parse().expect("an address");
    expected.server.tls.cert = Some("c.pem".into());
    expected.server.tls.key = Some("k.pem".into());
    expected.upstream.roots = Roots::WithFile("ca.pem".into());
    expected.store.url = StoreUrl::Sqlite(Some("/var/lib/gw.db".into()));
    expected.agents.allow_networks = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().expect("a network")).to_vec();
    assert_eq!(config, expected);
    assert_eq!(config.public_url().as_str(), "https://[::1]:9000");
}

#[test]
fn every_error_is_told_at_once_with_its_line() {
    let text = "\
data_dir = 5
[server]
lisen = \"127.0.0.1:1\"
workers = \"four\"
max_body = 10
trusted_proxies = [
  \"10.0.0.0/8\",
  \"10.1.2.3/8\",
]
[audit]
durability = \"both\"
[pool]
idle = \"1s\"
[upstream]
connect = \"2m\"
idle = \"0s\"
";
    let found = errors(load(text));
    let expected = [
        (1, "data_dir", "expected a path, found the number 5"),
        (3, "server.lisen", "did you mean server.listen?"),
        (4, "server.workers", "expected a whole number, found \"four\""),
        (5, "server.max_body", "write \"10B\""),
        (8, "server.trusted_proxies", "write \"10.0.0.0/8\" for the network"),
        (11, "audit.durability", "write \"process\" or \"disk\""),
        (12, "pool", "there is no such setting"),
        (15, "upstream.connect", "write \"2min\""),
        (16, "upstream.idle", "from \"1ms\" to \"7d\""),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, key, message), (expected_line, expected_key, part)) in found.iter().zip(expected) {
        assert_eq!((*line, key.as_str()), (expected_line, expected_key));
        assert!(message.contains(part), "{key}: {message}");
    }
}

#[test]
fn an_error_is_printed_as_file_line_key_and_advice() {
    assert_eq!(
        error(load("[server]\n\nheader_timeout = 10\n")),
        "gw.toml:3: server.header_timeout: a duration needs its unit; write \"10s\" for seconds or \"10ms\" for milliseconds"
    );
}

#[test]
fn broken_toml_is_told_with_its_line_and_alone() {
    let found = errors(load("[server]\nlisten = \n[wrong]\n"));
    assert!(!found.is_empty() && found.iter().all(|(line, key, _)| *line == 2 && key.is_empty()), "{found:?}");
}

#[test]
fn a_setting_given_twice_is_refused() {
    let found = errors(load("[log]\naccess = true\naccess = false\n"));
    assert_eq!(found.iter().map(|(line, ..)| *line).collect::<Vec<_>>(), [3], "{found:?}");
}

#[test]
fn a_value_where_a_section_belongs_is_told_so() {
    assert_eq!(
        error(load("log = \"json\"\n")),
        "gw.toml:1: log: this is a section, not a string; write [log] above its settings"
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = load_with(
        "[server]\nlisten = \"127.0.0.1:1\"\npublic_url = \"https://a.example\"\n[log]\nlevel = \"warn\"\n",
        &[
            ("TRUST_GATEWAY__SERVER__LISTEN", "127.0.0.1:2"),
            ("TRUST_GATEWAY__SERVER__PUBLIC_URL", ""),
            ("TRUST_GATEWAY__SERVER__WORKERS", "3"),
            ("TRUST_GATEWAY__SERVER__TRUSTED_PROXIES", "[\"10.0.0.0/8\"]"),
            ("TRUST_GATEWAY__SERVER__TLS__MIN_VERSION", "1.3"),
            ("TRUST_GATEWAY__LOG__ACCESS", "false"),
            ("TRUST_GATEWAY__LOG__FORMAT", "\"json\""),
            ("TRUST_GATEWAY__UPSTREAM__CONNECT", "5s"),
            ("TRUST_GATEWAY__AGENTS__KEY_PREFIX", "2025"),
            ("TRUST_GATEWAY_SERVICE_HOST", "set by others"),
            ("PATH", "/bin"),
        ],
    )
    .expect("good values");
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!((config.server.public_url, config.server.workers), (None, 3));
    assert_eq!(config.server.trusted_proxies.len(), 1);
    assert_eq!(config.server.tls.min_version, TlsVersion::V1_3);
    assert_eq!((config.log.access, config.log.format, config.log.level), (false, LogFormat::Json, LogLevel::Warn));
    assert_eq!((config.upstream.connect, config.agents.key_prefix.as_str()), (Duration::from_secs(5), "2025"));
}

#[test]
fn a_wrong_variable_is_named_as_it_was_written() {
    for (variable, value, expected) in [
        ("TRUST_GATEWAY__SERVER__LISEN", "x", "did you mean TRUST_GATEWAY__SERVER__LISTEN?"),
        ("TRUST_GATEWAY__server__listen", "127.0.0.1:1", "did you mean TRUST_GATEWAY__SERVER__LISTEN?"),
        ("TRUST_GATEWAY__SERVER", "x", "there is no such setting"),
        ("TRUST_GATEWAY__", "x", "there is no such setting"),
        ("TRUST_GATEWAY__SERVER__MAX_BODY", "10", "write \"10B\""),
        ("TRUST_GATEWAY__SERVER__TRUSTED_PROXIES", "10.0.0.0/8", "write [\"10.0.0.0/8\"]"),
        ("TRUST_GATEWAY__UPSTREAM__IDLE", "0s", "out of range"),
    ] {
        let printed = load_with("", &[(variable, value)]).expect_err(variable).to_string();
        assert!(printed.starts_with(&format!("{variable}: ")) && printed.contains(expected), "{printed}");
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    for (text, key, part) in [
        (
            "[admin]\nlisten = \"0.0.0.0:8081\"",
            "admin.listen",
            "operator tokens would pass in the clear; write \"127.0.0.1:8081\"",
        ),
        ("[admin]\nlisten = \"127.0.0.1:8080\"", "admin.listen", "takes this port already"),
        ("[server]\nlisten = \"0.0.0.0:8081\"", "admin.listen", "takes this port already"),
        ("[server.tls]\ncert = \"c.pem\"", "server.tls.key", "the certificate needs its private key"),
        ("[admin.tls]\nkey = \"k.pem\"", "admin.tls.cert", "the key needs its certificate"),
        ("[server]\nmax_header_bytes = \"4KiB\"", "server.max_header_bytes", "from \"8KiB\" to \"1MiB\""),
        ("[server]\nmax_connections = 0", "server.max_connections", "from 1"),
        ("[health]\ninterval = \"5s\"", "health.timeout", "at most \"5s\""),
        ("[agents]\nkey_prefix = \"a b\"", "agents.key_prefix", "letters, digits"),
        ("[store]\nurl = \"postgres://db:none/x\"", "store.url", "port"),
        ("[store]\nurl = \"mysql://gw:hunter2@db/x\"", "store.url", "\"mysql\" is no kind of store"),
        ("[store]\nurl = \"sqlite::memory:\"", "store.url", "cannot live in memory"),
        ("[server]\npublic_url = \"https://u:p@h/\"", "server.public_url", "shown to everybody"),
        ("[server]\npublic_url = \"gateway.example.org\"", "server.public_url", "https://"),
    ] {
        let found = errors(load(text));
        assert_eq!(found.iter().map(|(_, key, _)| key.as_str()).collect::<Vec<_>>(), [key], "{text}: {found:?}");
        assert!(found[0].2.contains(part), "{text}: {}", found[0].2);
    }
}

#[test]
fn an_operators_listener_with_tls_may_be_anywhere() {
    let config = load("[admin]\nlisten = \"0.0.0.0:8081\"\ntls = { cert = \"c\", key = \"k\" }\n").expect("allowed");
    assert!(config.admin.tls.is_on() && config.warnings().is_empty());
}

#[test]
fn a_public_listener_without_public_url_and_tls_warns_twice() {
    let config = load("[server]\nlisten = \"0.0.0.0:8080\"\n").expect("allowed");
    assert_eq!(config.warnings().len(), 2, "{:?}", config.warnings());
    assert!(Config::default().warnings().is_empty());
}

#[test]
fn the_public_url_has_no_slash_at_its_end() {
    let config = load("[server]\npublic_url = \"https://gw.example.org/a2a/\"\n").expect("allowed");
    assert_eq!(config.public_url().as_str(), "https://gw.example.org/a2a");
}

#[test]
fn a_changed_listener_needs_a_restart_and_a_changed_level_does_not() {
    let old = Config::default();
    let new =
        load("[server]\nlisten = \"127.0.0.1:1\"\ndrain_timeout = \"1s\"\n[log]\nlevel = \"debug\"\n").expect("good");
    assert_eq!(old.diff_reload(&old), Vec::<&str>::new());
    assert_eq!(old.diff_reload(&new), ["server.listen"]);
    let expected =
        [("server.listen", Takes::Restart), ("server.drain_timeout", Takes::Reload), ("log.level", Takes::Reload)];
    assert_eq!(old.diff(&new), expected);
    assert_eq!(new.non_default().iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected.map(|(name, _)| name));

    let running = old.reloaded(&new);
    assert_eq!(running.server.listen, old.server.listen);
    assert_eq!((running.log.level, running.server.drain_timeout), (LogLevel::Debug, Duration::from_secs(1)));
}

#[test]
fn other_tls_files_take_a_reload_and_turning_tls_on_takes_a_restart() {
    let with = |cert: &str| load(&format!("[server.tls]\ncert = \"{cert}\"\nkey = \"k\"\n")).expect("good");
    assert_eq!(with("a").diff_reload(&with("b")), Vec::<&str>::new());
    assert_eq!(Config::default().diff_reload(&with("a")), ["server.tls.cert", "server.tls.key"]);
    assert_eq!(Config::default().reloaded(&with("a")), Config::default());
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(
        lines in proptest::collection::vec((0..SETTINGS.len(), "\\PC{0,12}|[0-9a-zA-Z\"\\[\\]{}=., ]{0,16}"), 0..6),
        head in "\\PC{0,20}",
    ) {
        let mut text = head;
        for (index, value) in lines {
            write!(text, "\n{} = {value}", SETTINGS[index].name).expect("a string takes all");
        }
        let _ = load(&text);
    }

    #[test]
    fn a_printed_value_reads_back_the_same(millis in 1..600_000_000_u64, kib in 1..1_000_u64, path in "[^\\x00]{1,20}") {
        let mut config = Config::default();
        config.upstream.connect = Duration::from_millis(millis);
        config.server.body_min_rate = Size(kib << 10);
        config.data_dir = path.clone().into();
        config.server.tls = Tls { cert: Some(path.clone().into()), key: Some(path.into()), min_version: TlsVersion::V1_3 };
        let text = config.non_default().iter().fold(String::new(), |text, (name, value)| format!("{text}{name} = {value}\n"));
        prop_assert_eq!(load(&text), Ok(config));
    }
}

const LISTS: &str = "\
[[audit.outlets]]
name = \"disk\"
file = \"/var/log/calls.jsonl\"
[[audit.outlets]]
name = \"siem\"
url = \"https://siem.example.org/calls\"
token_file = \"token\"
batch = 7
rows = \"refused\"
[[webhooks]]
name = \"pager\"
url = \"https://pager.example.org/hook\"
secret_file = \"secret\"
";

#[test]
fn outlets_and_webhooks_are_tables_of_their_own_and_read_back_as_they_are_printed() {
    let config = load(LISTS).expect("a good file");
    assert_eq!(config.audit.outlets.len(), 2);
    assert_eq!(config.webhooks[0].events, WebhookEvent::ALL);
    let printed =
        config.non_default().iter().fold(String::new(), |text, (name, value)| format!("{text}{name} = {value}\n"));
    assert_eq!(load(&printed), Ok(config.clone()), "{printed}");
    let outlets = table::find("audit.outlets").and_then(|setting| (setting.written)(&config)).expect("written");
    let by_environment = load_with("", &[("TRUST_GATEWAY__AUDIT__OUTLETS", &outlets)]).expect("the same");
    assert_eq!(by_environment.audit.outlets, config.audit.outlets);
}

#[test]
fn what_is_wrong_with_an_outlet_or_a_webhook_is_told_with_its_line() {
    for (from, to, line, part) in [
        ("name = \"disk\"", "name = \"my disk\"", 1, "name: write 1 to 64 letters"),
        ("name = \"disk\"", "", 1, "an outlet needs name; write name = \"siem\""),
        ("name = \"siem\"", "name = \"disk\"", 1, "two are named \"disk\""),
        ("file = ", "fiel = ", 3, "there is no \"fiel\" in an outlet; it has name, file, url, token_file, batch, rows"),
        ("token_file = ", "file = ", 4, "an outlet has one destination; write file = "),
        ("file = \"/var/log/calls.jsonl\"", "", 1, "an outlet has one destination"),
        ("name = \"disk\"", "name = \"disk\"\ntoken_file = \"t\"", 1, "token_file: a file takes rows without a token"),
        ("batch = 7", "batch = 501", 4, "batch: 501 is out of range; write a number from 1 to 500"),
        ("batch = 7", "batch = \"7\"", 8, "batch: expected a whole number"),
        ("\"refused\"", "\"none\"", 9, "rows: \"none\" is not one of the choices; write \"all\" or"),
        ("https://siem", "ftp://siem", 6, "url: it is posted by http or https, not \"ftp\""),
        ("https://pager", "https://me:secret@pager", 12, "url: a name or password in the URL would be shown"),
        ("secret_file = \"secret\"", "", 10, "a webhook needs secret_file"),
        ("secret_file = \"secret\"", "secret_file = \"s\"\nevents = [\"agent.gone\"]", 14, "\"agent.gone\" is not one"),
    ] {
        let found = errors(load(&LISTS.replacen(from, to, 1)));
        assert_eq!(found.len(), 1, "{to}: {found:?}");
        assert_eq!(found[0].0, line, "{to}: {found:?}");
        assert!(found[0].2.contains(part), "{to}: {found:?}");
    }
    assert!(load("webhooks = [1]").is_err() && load("webhooks = \"x\"").is_err());
}

#[test]
fn what_is_sent_in_the_clear_is_warned_of() {
    let config = load(&LISTS.replace("https", "http")).expect("allowed");
    assert_eq!(config.warnings().iter().filter(|warning| warning.contains("in the clear")).count(), 2);
    let here =
        LISTS.replace("https", "http").replace("siem.example.org", "[::1]").replace("pager.example.org", "localhost");
    assert_eq!(load(&here).expect("allowed").warnings(), Vec::<String>::new());
}
