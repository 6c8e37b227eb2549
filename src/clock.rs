//! Time as a parameter. Everything that decides by time takes a [`Clock`]: limits, quotas, end dates, records. Tests hold the
//! same clock and move it; nothing sleeps.
//!
//! Timers that only bound a wait on the network (connect, first byte, idle) use tokio's timers: they promise nothing exact.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use governor::nanos::Nanos;

/// A wall-clock instant in whole microseconds since the Unix epoch (UTC).
///
/// Printed as RFC 3339 text of fixed width, six digits and `Z`, so that text order is time order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The number of whole days since the Unix epoch: the UTC day a quota belongs to.
    #[must_use]
    pub fn utc_day(self) -> i64 {
        self.0.div_euclid(86_400_000_000)
    }

    /// This instant moved by `micros` (negative: into the past).
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Reads RFC 3339 text with any offset and precision.
    ///
    /// # Errors
    /// When the text is not an RFC 3339 date-time.
    pub fn parse(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<jiff::Timestamp>().map(|t| Self(t.as_microsecond()))
    }

    /// Reads the text that [`Timestamp`] prints, and no other text for the same instant.
    #[must_use]
    pub fn parse_exact(text: &str) -> Option<Self> {
        let bytes: &[u8; 27] = text.as_bytes().try_into().ok()?;
        let number = |from: usize, to: usize| {
            bytes[from..to]
                .iter()
                .try_fold(0_i64, |n, digit| digit.is_ascii_digit().then(|| n * 10 + i64::from(digit - b'0')))
        };
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        if marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second, micros) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 26)?);
        let date = jiff::civil::Date::new(year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?).ok()?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = i64::from((date - jiff::civil::date(1970, 1, 1)).get_days());
        Some(Self((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros))
    }

    fn civil(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`, the form OpenAgora signs.
    #[must_use]
    pub fn to_millis_text(self) -> String {
        self.civil().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    }

    /// The IMF-fixdate form of HTTP (RFC 9110 section 5.6.7).
    #[must_use]
    pub fn to_http_date(self) -> String {
        self.civil().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.civil().strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse_exact(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no time as it is written here")))
    }
}

/// The gateway's clock: the system's, or one that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System { origin: Instant },
    Manual { nanos: AtomicU64, wall_origin: Timestamp },
}

impl Clock {
    /// The real time.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System { origin: Instant::now() }))
    }

    /// A clock that stands still at `wall` until [`Clock::advance`] is called.
    #[must_use]
    pub fn manual(wall: Timestamp) -> Self {
        Self(Arc::new(Source::Manual { nanos: AtomicU64::new(0), wall_origin: wall }))
    }

    /// Moves a manual clock forward, monotonic and wall time together. The system's clock cannot be moved: no effect.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { nanos, .. } = &*self.0 {
            nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Monotonic nanoseconds since this clock was made.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        match &*self.0 {
            Source::System { origin } => u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Source::Manual { nanos, .. } => nanos.load(Ordering::SeqCst),
        }
    }

    /// The wall time. It may jump when an operator sets the machine's clock: never use it to measure a duration.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        match &*self.0 {
            Source::System { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Source::Manual { nanos, wall_origin } => {
                let micros = nanos.load(Ordering::SeqCst) / 1_000;
                wall_origin.plus_micros(i64::try_from(micros).unwrap_or(i64::MAX))
            }
        }
    }
}

impl governor::clock::Clock for Clock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_print_with_fixed_width_and_parse_back() {
        let t = Timestamp(1_700_000_000_000_001);
        assert_eq!(t.to_string(), "2023-11-14T22:13:20.000001Z");
        assert_eq!(Timestamp::parse(&t.to_string()).expect("own text"), t);
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(t.to_millis_text(), "2023-11-14T22:13:20.000Z");
        assert_eq!(t.to_http_date(), "Tue, 14 Nov 2023 22:13:20 GMT");
    }

    #[test]
    fn only_the_printed_text_is_read_exactly() {
        for micros in
            [0, 1, -1, 1_700_000_000_000_001, 951_782_400_000_000, 253_402_207_199_999_999, -62_135_596_800_000_000]
        {
            let text = Timestamp(micros).to_string();
            assert_eq!(Timestamp::parse_exact(&text), Some(Timestamp(micros)), "{text}");
        }
        for text in [
            "2023-11-14t22:13:20.000001Z",
            "2023-11-14T22:13:20.000001z",
            "2023-11-14T22:13:20.00001Z",
            "2023-11-14T22:13:60.000001Z",
            "2023-02-29T22:13:20.000001Z",
            "2023-11-14T22:13:20.000001Z ",
            "2023-11-14T22:13:20,000001Z",
            "+023-11-14T22:13:20.000001Z",
        ] {
            assert_eq!(Timestamp::parse_exact(text), None, "{text}");
        }
    }

    #[test]
    fn a_manual_clock_moves_wall_and_monotonic_time_together() {
        let clock = Clock::manual(Timestamp(5));
        clock.advance(Duration::from_micros(7));
        assert_eq!((clock.nanos(), clock.wall()), (7_000, Timestamp(12)));
    }
}
