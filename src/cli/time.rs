//! Times as people write and read them: `10m` ago, `in 3d`, RFC 3339.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::Timestamp;
use crate::config::DurationText;

/// The real time.
pub(super) fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
}

/// A flag's time: a moment, or how far away from now it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Away(i64),
}

/// Reads `10m`, `2h`, `30d`, `2026-12-31` or RFC 3339.
pub(super) fn when(text: &str) -> Result<When, String> {
    if let Ok(at) = Timestamp::parse(text) {
        return Ok(When::At(at));
    }
    if let Ok(at) = Timestamp::parse(&format!("{text}T00:00:00Z")) {
        return Ok(When::At(at));
    }
    duration(text)
        .map(|millis| When::Away(i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1_000)))
        .map_err(|_| "write how long, such as 10m, 2h or 30d, or a time such as 2026-12-31T23:59:59Z".to_owned())
}

/// A duration in milliseconds; in a command `m` can only mean minutes.
fn duration(text: &str) -> Result<u128, String> {
    let text = match text.strip_suffix('m') {
        Some(number) => format!("{number}min"),
        None => text.to_owned(),
    };
    text.parse::<DurationText>().map(|duration| duration.0.as_millis())
}

/// A duration as the API takes it.
pub(super) fn api_duration(text: &str) -> Result<String, String> {
    let millis = duration(text).map_err(|_| "write a number and its unit, such as 30s, 10m, 2h or 7d".to_owned())?;
    let millis = u64::try_from(millis).map_err(|_| "this is too long".to_owned())?;
    Ok(DurationText(std::time::Duration::from_millis(millis)).to_string())
}

impl When {
    /// The moment, where a length counts back from now.
    pub(super) fn before(self, now: Timestamp) -> String {
        match self {
            Self::At(at) => at.to_string(),
            Self::Away(micros) => now.plus_micros(micros.saturating_neg()).to_string(),
        }
    }

    /// The moment, where a length counts on from now.
    pub(super) fn after(self, now: Timestamp) -> String {
        match self {
            Self::At(at) => at.to_string(),
            Self::Away(micros) => now.plus_micros(micros).to_string(),
        }
    }
}

/// `at` as seen from `now`, short: `4m ago`, `in 3d`; beyond two months, the date.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    // To the nearest second: what was asked to be in 30 days is not `in 29d` on the answer.
    let seconds = (now.0 - at.0 + 500_000).div_euclid(1_000_000);
    let away = seconds.unsigned_abs();
    let length = match away {
        0..60 => format!("{away}s"),
        60..3_600 => format!("{}m", away / 60),
        3_600..172_800 => format!("{}h", away / 3_600),
        172_800..5_184_000 => format!("{}d", away / 86_400),
        _ => return at.to_string().chars().take(10).collect(),
    };
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{length} ago"),
        _ => format!("in {length}"),
    }
}

/// To the second, in UTC.
pub(super) fn exact(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}Z", text.split('.').next().unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    #[test]
    fn a_flag_takes_a_length_a_day_or_a_moment() {
        assert_eq!(when("10m"), Ok(When::Away(600_000_000)));
        assert_eq!(when("10min"), when("10m"));
        assert_eq!(when("500ms"), Ok(When::Away(500_000)));
        assert_eq!(when("2026-12-31"), when("2026-12-31T00:00:00Z"));
        assert_eq!(when("2026-12-31T01:00:00+01:00"), when("2026-12-31"));
        for bad in ["", "m", "10", "yesterday", "-1h", "10 fortnights"] {
            assert!(when(bad).is_err_and(|text| text.contains("10m")), "{bad}");
        }
        assert_eq!(when("1h").expect("read").before(NOW), Timestamp(NOW.0 - 3_600_000_000).to_string());
        assert_eq!(when("1h").expect("read").after(NOW), Timestamp(NOW.0 + 3_600_000_000).to_string());
        assert_eq!(api_duration("90m"), Ok("90min".to_owned()));
    }

    #[test]
    fn a_time_is_told_as_seen_from_now() {
        let told = |seconds: i64| relative(NOW.plus_micros(seconds * 1_000_000), NOW);
        let times = [0, -5, -61, -7_200, -200_000, 90, 400_000, -100_000_000];
        assert_eq!(times.map(told), ["now", "5s ago", "1m ago", "2h ago", "2d ago", "in 1m", "in 4d", "2023-11-14"]);
        assert_eq!(exact(NOW), "2027-01-15T08:00:00Z");
    }
}
