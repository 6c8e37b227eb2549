//! The URL of a server that is logged in to: it may hold a password, and is never shown with it.

use std::fmt;

/// Such a URL. Printed, also for debugging, with `***` in place of the password and without what follows a `?`.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// Any text; whoever logs in reads it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// All of it, password included: for logging in, and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.split_once('?').map_or(self.0.as_str(), |(before, _)| before);
        let (scheme, rest) = shown.split_once("://").unwrap_or(("", shown));
        let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
        f.write_str(scheme)?;
        f.write_str(if scheme.is_empty() { "" } else { "://" })?;
        if let Some(login) = login {
            let (user, password) = login.split_once(':').map_or((login, ""), |(user, _)| (user, ":***"));
            write!(f, "{user}{password}@")?;
        }
        f.write_str(place)
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
impl serde::Serialize for ServerUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            (
                "postgres://gw:hunter2@db.example:5432/gw?sslmode=require&password=hunter2",
                "postgres://gw:***@db.example:5432/gw",
            ),
            ("postgres://gw:hun@ter2@db.example/gw", "postgres://gw:***@db.example/gw"),
            ("postgres://gw@db.example/gw", "postgres://gw@db.example/gw"),
            ("postgres://db.example/gw", "postgres://db.example/gw"),
            ("redis://:hunter2@cache:6379/0", "redis://:***@cache:6379/0"),
            ("hunter2", "hunter2"),
        ] {
            assert_eq!(format!("{} {:?}", ServerUrl::new(url), ServerUrl::new(url)), format!("{shown} {shown}"));
        }
    }
}
