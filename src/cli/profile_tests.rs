use super::*;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn resolve(&self, access: &Access, variables: &[(&str, &str)]) -> Result<Resolved, Failure> {
        let config = self.0.path().to_str().expect("a plain path").to_owned();
        let variable = |name: &str| {
            let given = variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            given.or_else(|| (name == "XDG_CONFIG_HOME").then(|| config.clone()))
        };
        access.resolve(&Surroundings { variable: &variable, directory: self.0.path() })
    }

    fn store(&self, default: &str, name: &str, url: &str, token: &str) {
        let file = self.0.path().join("trust-gateway/profile.toml");
        let mut profiles = read(&file).expect("readable");
        profiles.default = Some(default.to_owned());
        let profile = Profile { url: url.to_owned(), token: token.to_owned(), ca_file: None };
        profiles.profiles.insert(name.to_owned(), profile);
        write(&file, &profiles).expect("writable");
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.path().join(name);
        std::fs::create_dir_all(file.parent().expect("below the home")).expect("a directory");
        std::fs::write(&file, text).expect("writable");
        file
    }
}

fn url(url: &str) -> Access {
    Access { url: Some(url.to_owned()), ..Access::default() }
}

fn found(resolved: &Resolved) -> (&str, Option<&str>) {
    (&resolved.url, resolved.token.as_deref())
}

#[test]
fn flags_come_before_the_environment_before_the_profile_before_the_defaults() {
    let home = Home::new();
    let none = Access::default();
    assert_eq!(found(&home.resolve(&none, &[]).expect("defaults")), (LOCAL_URL, None));
    home.file(LOCAL_TOKEN, "local\n");
    assert_eq!(found(&home.resolve(&none, &[]).expect("defaults")), (LOCAL_URL, Some("local")));
    home.store("a", "a", "https://gw.example/", "stored");
    assert_eq!(found(&home.resolve(&none, &[]).expect("profile")), ("https://gw.example", Some("stored")));
    let env = [("TRUST_GATEWAY_URL", "http://env:1"), ("TRUST_GATEWAY_TOKEN", "env")];
    assert_eq!(found(&home.resolve(&none, &env).expect("environment")), ("http://env:1", Some("env")));
    let file = home.file("token", " flag \n");
    let flags = Access { token_file: Some(file), ..url("http://flag:1") };
    assert_eq!(found(&home.resolve(&flags, &env).expect("flags")), ("http://flag:1", Some("flag")));
}

#[test]
fn a_token_is_not_sent_to_a_gateway_it_was_not_stored_for() {
    let home = Home::new();
    home.file(LOCAL_TOKEN, "local");
    home.store("a", "a", "https://gw.example", "stored");
    assert_eq!(home.resolve(&url("http://other:1"), &[]).expect("an address").token, None);
    assert_eq!(home.resolve(&url("https://gw.example/"), &[]).expect("an address").token.as_deref(), Some("stored"));
}

#[test]
fn a_profile_that_is_named_wins_over_the_environment_and_must_exist() {
    let home = Home::new();
    home.store("a", "a", "http://a:1", "ta");
    home.store("a", "b", "http://b:1", "tb");
    let env = [("TRUST_GATEWAY_URL", "http://env:1"), ("TRUST_GATEWAY_TOKEN", "env")];
    let b = Access { profile: Some("b".to_owned()), ..Access::default() };
    assert_eq!(found(&home.resolve(&b, &env).expect("stored")), ("http://b:1", Some("tb")));
    let c = Access { profile: Some("c".to_owned()), ..Access::default() };
    let failure = home.resolve(&c, &env).err().expect("none of that name");
    assert_eq!(failure.code(), 2);
    assert!(failure.text().contains("login --profile c"), "{}", failure.text());
}

#[test]
fn the_file_is_the_users_alone_and_a_broken_one_is_not_quoted() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    home.store("a", "a", "http://a:1", "t");
    let file = home.0.path().join("trust-gateway/profile.toml");
    let mode = std::fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(&file, "token = secret-token\n").expect("writable");
    let text = home.resolve(&Access::default(), &[]).err().expect("broken").text();
    assert!(text.contains("log in again") && !text.contains("secret-token"), "{text}");
}

#[test]
fn what_is_no_address_or_no_token_is_told_so() {
    let home = Home::new();
    for bad in ["127.0.0.1:8081", "ftp://x", "http://user:pw@x", "http://x/?a=b", ""] {
        let text = home.resolve(&url(bad), &[]).err().map(|failure| failure.text()).unwrap_or_default();
        assert!(text.contains("http://127.0.0.1:8081"), "{bad}: {text}");
    }
    for bad in ["", " \n", "two words", "t\u{f6}ken"] {
        let access = Access { token_file: Some(home.file("token", bad)), ..Access::default() };
        assert_eq!(home.resolve(&access, &[]).err().map(|failure| failure.code()), Some(2), "{bad:?}");
    }
}

#[test]
fn a_token_that_would_travel_readable_is_noticed() {
    let home = Home::new();
    let clear = |to: &str| home.resolve(&url(to), &[]).expect("an address").in_the_clear();
    for plain in ["http://gw.example", "http://10.0.0.1:8081", "http://[2001:db8::1]"] {
        assert!(clear(plain), "{plain}");
    }
    for safe in ["https://gw.example", "http://127.0.0.1:8081", "http://[::1]:8081", "http://localhost:8081"] {
        assert!(!clear(safe), "{safe}");
    }
}
