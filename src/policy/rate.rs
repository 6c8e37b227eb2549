//! Rates and periods as people write them: `300/min`, `1/5min`, `10s`. One reader for each, used by every file that holds one.
//!
//! Pure text and arithmetic: knows no limiter and no clock.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// The longest period that can be written: a leap year.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// The units a period may be written in, the first name of each being the one it is printed with.
const UNITS: [(&[&str], u64); 5] = [
    (&["d", "day", "days"], 86_400_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["min", "m", "minute", "minutes"], 60_000),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["ms"], 1),
];

/// Why a rate or period could not be read; says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateError(String);

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RateError {}

/// A length of time written as a whole number and a unit: `250ms`, `10s`, `5min`, `1h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let millis = UNITS.iter().find(|(names, _)| names.contains(&unit)).map(|(_, millis)| *millis);
        let period = match (count.parse::<u64>(), millis) {
            (Ok(count), Some(millis)) => count.checked_mul(millis).map(Duration::from_millis),
            _ => None,
        };
        match period {
            Some(period) if period.is_zero() => {
                Err(RateError(format!("`{text}` is no time at all: write a period of at least 1ms")))
            }
            Some(period) if period <= LONGEST => Ok(Self(period)),
            Some(_) => Err(RateError(format!("`{text}` is too long: write a period of at most 366d"))),
            None => Err(RateError(format!(
                "`{text}` is not a period: write a whole number and a unit (ms, s, min, h, d), such as 10s or 5min"
            ))),
        }
    }
}

impl TryFrom<String> for Period {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (names, unit) = UNITS
            .iter()
            .find(|(_, unit)| millis.is_multiple_of(u128::from(*unit)))
            .expect("every number of milliseconds is a multiple of one millisecond");
        write!(f, "{}{}", millis / u128::from(*unit), names[0])
    }
}

/// So many calls in so much time: `300/min`, `1/5min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    /// How many calls.
    pub calls: NonZeroU32,
    /// In how much time.
    pub per: Period,
}

impl Rate {
    /// The nanoseconds in which one call is given back, rounded up: never faster than stated.
    #[must_use]
    pub fn interval_nanos(&self) -> u64 {
        let nanos = self.per.0.as_nanos().div_ceil(u128::from(self.calls.get()));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let wrong = || {
            RateError(format!(
                "`{text}` is not a rate: write calls/period, such as 300/min, 1/5min or 20/s (not 0: to admit nothing, set `daily = 0`)"
            ))
        };
        let (calls, per) = text.split_once('/').ok_or_else(wrong)?;
        if !calls.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let calls = calls.parse::<NonZeroU32>().map_err(|_| wrong())?;
        // "300/min" is "300/1min".
        let per = if per.starts_with(|c: char| c.is_ascii_digit()) { per.parse() } else { format!("1{per}").parse() };
        let rate = Self { calls, per: per.map_err(|_: RateError| wrong())? };
        if rate.interval_nanos() < 1_000 {
            return Err(RateError(format!("`{text}` is more than 1000000 calls a second: write less")));
        }
        Ok(rate)
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = self.per.to_string();
        let unit = per.strip_prefix('1').filter(|rest| rest.starts_with(|c: char| c.is_alphabetic()));
        write!(f, "{}/{}", self.calls, unit.unwrap_or(&per))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_read_as_people_write_them() {
        let cases =
            [("300/min", 300, 60), ("1/5min", 1, 300), ("20/s", 20, 1), ("7/2h", 7, 7_200), ("1/day", 1, 86_400)];
        for (text, calls, seconds) in cases {
            let rate: Rate = text.parse().expect(text);
            assert_eq!((rate.calls.get(), rate.per.0), (calls, Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!("300/min".parse::<Rate>().expect("a rate").interval_nanos(), 200_000_000);
    }

    #[test]
    fn an_interval_is_rounded_up_so_that_no_rate_is_faster_than_stated() {
        let rate: Rate = "7/min".parse().expect("a rate");
        assert_eq!(rate.interval_nanos(), 8_571_428_572);
    }

    #[test]
    fn what_is_not_a_rate_is_refused_with_what_to_write() {
        for text in ["", "300", "/min", "0/min", "-1/min", "+1/min", "1/0s", "3/fortnight", "1/ min", "1/367d", "x/s"] {
            let error = text.parse::<Rate>().expect_err(text).to_string();
            assert!(error.contains("write"), "{text}: {error}");
        }
        assert!("2000000/s".parse::<Rate>().is_err());
        assert!("99999999999999999999s".parse::<Period>().is_err());
        assert!("18446744073709551615d".parse::<Period>().is_err());
    }

    proptest! {
        #[test]
        fn a_printed_rate_reads_back_as_itself(calls in 1u32..100_000, millis in 100u64..31_000_000_000) {
            let rate = Rate {
                calls: NonZeroU32::new(calls).expect("from 1"),
                per: Period(Duration::from_millis(millis)),
            };
            prop_assume!(rate.interval_nanos() >= 1_000);
            prop_assert_eq!(rate.to_string().parse::<Rate>().expect("own text"), rate);
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in ".{0,20}") {
            let _ = text.parse::<Rate>();
            let _ = text.parse::<Period>();
        }
    }
}
