//! `check-config`: the files a configuration names, read as the start would read them; and what is not a default.
//!
//! Opens no database and no port: it may run beside a gateway that works.

use crate::config::{Config, Destination};
use crate::gateway;
use crate::outlets;
use crate::proxy::roots;
use crate::server::tls::TlsFiles;
use crate::telemetry::escaped;

/// Reads every file the configuration names.
///
/// # Errors
/// What is wrong with them, one line each, beginning with the setting.
pub(super) fn check(config: &Config) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    for (section, tls) in [("server.tls", &config.server.tls), ("admin.tls", &config.admin.tls)] {
        if let Some(Err(error)) = TlsFiles::of(tls).map(|files| files.load()) {
            wrong.push(format!("{section}: {error}"));
        }
    }
    if let Err(error) = roots::client_config(&config.upstream.roots) {
        wrong.push(format!("upstream.roots: {error}"));
    }
    if let Err(error) = gateway::check_database(config) {
        wrong.push(error.to_string());
    }
    if let Err(error) = gateway::policy(config) {
        wrong.push(format!("policy.file: {error}"));
    }
    for outlet in &config.audit.outlets {
        if let Destination::Http(_, Some(file)) = &outlet.destination
            && let Err(error) = outlets::bearer_token(file)
        {
            wrong.push(format!("audit.outlets: {}: token_file: {error}", outlet.name));
        }
    }
    for webhook in &config.webhooks {
        if let Err(error) = outlets::Secret::read(&webhook.secret_file) {
            wrong.push(format!("webhooks: {}: secret_file: {error}", webhook.name));
        }
    }
    if config.data_dir.exists() && !config.data_dir.is_dir() {
        wrong.push(format!("data_dir: {} is not a directory", config.data_dir.display()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// `OK`, the settings that differ from their defaults, and warnings.
pub(super) fn report(config: &Config) -> String {
    let changed = config.non_default();
    let width = changed.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut lines = vec!["OK".to_owned()];
    match changed.is_empty() {
        true => lines.push("All settings have their defaults.".to_owned()),
        false => lines.push("Settings that differ from their defaults:".to_owned()),
    }
    lines.extend(changed.iter().map(|(name, value)| format!("  {name:width$} = {}", escaped(value))));
    lines.extend(config.warnings().iter().map(|warning| format!("warning: {}", escaped(warning))));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use crate::config::Roots;

    use super::*;

    #[test]
    fn the_defaults_are_fine() {
        assert_eq!(check(&Config::default()), Ok(()));
        assert_eq!(report(&Config::default()), "OK\nAll settings have their defaults.\n");
    }

    #[test]
    fn every_file_that_is_missing_is_told_with_its_setting() {
        let lists = "audit.outlets = [{ name = \"siem\", url = \"https://siem.example\", token_file = \"no/token\" }]\n\
                     webhooks = [{ name = \"pager\", url = \"https://pager.example\", secret_file = \"no/secret\" }]";
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gw.toml");
        std::fs::write(&file, lists).expect("written");
        let mut config = Config::load(crate::config::LoadSource::file(file)).expect("good but for the files");
        config.server.tls.cert = Some("no/cert".into());
        config.server.tls.key = Some("no/key".into());
        config.admin.tls.cert = Some("no/admin-cert".into());
        config.admin.tls.key = Some("no/admin-key".into());
        config.upstream.roots = Roots::WithFile("no/ca".into());
        config.policy.file = Some("no/policy".into());
        config.data_dir = "Cargo.toml".into();
        let wrong = check(&config).expect_err("nothing is there");
        let settings: Vec<_> = wrong.iter().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(
            settings,
            ["server.tls", "admin.tls", "upstream.roots", "policy.file", "audit.outlets", "webhooks", "data_dir"],
            "{wrong:?}"
        );
        assert!(wrong[0].contains("no/cert: ") && wrong[1].contains("no/admin-cert: "), "{wrong:?}");
    }

    #[test]
    fn the_report_lists_what_was_changed_and_what_looks_wrong() {
        let mut config = Config::default();
        config.server.listen = "0.0.0.0:80".parse().expect("an address");
        config.upstream.pool_idle = std::time::Duration::from_secs(30);
        let report = report(&config);
        let lines: Vec<_> = report.lines().collect();
        assert_eq!(lines[2..4], ["  server.listen      = \"0.0.0.0:80\"", "  upstream.pool_idle = \"30s\""]);
        assert_eq!(lines.iter().filter(|line| line.starts_with("warning: ")).count(), 3, "{report}");
    }
}
