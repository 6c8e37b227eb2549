//! Durations and sizes as people write them (`"10s"`, `"64KiB"`), and the text of each value that reads back as the same value.
//!
//! Promises: what is printed is read back unchanged; a bare number is refused, since nobody can see whether it means seconds or
//! milliseconds; every error says what to write. Knows nothing of settings.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The units of time, longest first, each with its length in milliseconds.
const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// The units of size, largest first, each with its length in bytes.
const SIZE: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A duration in whole milliseconds, written as one number and one unit: `"500ms"`, `"10s"`, `"5min"`, `"2h"`, `"30d"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationText(pub Duration);

impl FromStr for DurationText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write a number and one of ms, s, min, h, d, such as \"10s\" or \"5min\"";
        let (number, unit) = split(text).ok_or_else(|| format!("{text:?} is not a duration; {example}"))?;
        let Some(&(_, millis)) = TIME.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit {
                "" => format!(
                    "a duration needs its unit; write \"{number}s\" for seconds or \"{number}ms\" for milliseconds"
                ),
                "m" => format!("\"m\" could mean minutes or months; write \"{number}min\""),
                _ => format!("{unit:?} is not a unit of time; {example}"),
            });
        };
        number
            .checked_mul(millis)
            .map(|total| Self(Duration::from_millis(total)))
            .ok_or_else(|| format!("{text:?} is too long; write a shorter duration"))
    }
}

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &TIME, "s")
    }
}

/// A size in bytes, written as one number and one unit: `"512B"`, `"64KiB"`, `"10MiB"`, `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(serde::Serialize))]
pub struct Size(pub u64);

impl Size {
    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The size in bytes as a length in memory; what does not fit is as long as memory can be.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write a number and one of B, KiB, MiB, GiB, such as \"64KiB\" or \"10MiB\"";
        let (number, unit) = split(text).ok_or_else(|| format!("{text:?} is not a size; {example}"))?;
        let Some(&(_, bytes)) = SIZE.iter().find(|(name, _)| *name == unit) else {
            return Err(match unit.to_ascii_uppercase().as_str() {
                "" => format!(
                    "a size needs its unit; write \"{number}B\" for bytes or \"{number}KiB\" for 1024 bytes each"
                ),
                "K" | "KB" | "KIB" => {
                    format!("{unit:?} is not a unit of size; write \"{number}KiB\" (1024 bytes each)")
                }
                "M" | "MB" | "MIB" => format!("{unit:?} is not a unit of size; write \"{number}MiB\" (1024 KiB each)"),
                "G" | "GB" | "GIB" => format!("{unit:?} is not a unit of size; write \"{number}GiB\" (1024 MiB each)"),
                _ => format!("{unit:?} is not a unit of size; {example}"),
            });
        };
        number.checked_mul(bytes).map(Self).ok_or_else(|| format!("{text:?} is too large; write a smaller size"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, &SIZE, "B")
    }
}

/// The number at the start and the unit after it; none where there is no number, or one beyond `u64`.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Prints `value` in the largest unit that says it exactly.
fn print(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    if value == 0 {
        return write!(f, "0{zero}");
    }
    let exact = units.iter().find(|(_, length)| value.is_multiple_of(*length));
    let (name, length) = exact.expect("the last unit of both tables has length 1, which divides everything");
    write!(f, "{}{name}", value / length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(text: &str) -> Result<u128, String> {
        text.parse::<DurationText>().map(|d| d.0.as_millis())
    }

    fn bytes(text: &str) -> Result<u64, String> {
        text.parse::<Size>().map(Size::bytes)
    }

    #[test]
    fn durations_are_read_in_every_unit() {
        let read: Vec<_> = ["500ms", "10s", "5min", "2h", "30d", " 1 s ", "0s"].map(millis).into_iter().collect();
        assert_eq!(
            read,
            [Ok(500), Ok(10_000), Ok(300_000), Ok(7_200_000), Ok(2_592_000_000), Ok(1_000), Ok(0)].to_vec()
        );
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        assert_eq!(bytes("512B"), Ok(512));
        assert_eq!(bytes("64KiB"), Ok(65_536));
        assert_eq!(bytes("10 MiB"), Ok(10_485_760));
        assert_eq!(bytes("1GiB"), Ok(1_073_741_824));
    }

    #[test]
    fn a_refused_duration_is_told_what_to_write() {
        for (text, advice) in [
            ("10", "write \"10s\""),
            ("5m", "write \"5min\""),
            ("5 fortnights", "ms, s, min, h, d"),
            ("-1s", "such as \"10s\""),
            ("1.5s", "such as \"10s\""),
            ("", "such as \"10s\""),
            ("s", "such as \"10s\""),
            ("999999999999999d", "shorter"),
        ] {
            let error = millis(text).expect_err(text);
            assert!(error.contains(advice), "{text}: {error}");
        }
    }

    #[test]
    fn a_refused_size_is_told_what_to_write() {
        for (text, advice) in [
            ("64", "write \"64B\""),
            ("64KB", "write \"64KiB\""),
            ("64kib", "write \"64KiB\""),
            ("1M", "write \"1MiB\""),
            ("2gb", "write \"2GiB\""),
            ("ten", "such as \"64KiB\""),
            ("99999999999999GiB", "smaller"),
        ] {
            let error = bytes(text).expect_err(text);
            assert!(error.contains(advice), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back_the_same(number in 0..=u64::MAX / 86_400_000, unit in 0..TIME.len()) {
            let duration = DurationText(Duration::from_millis(number * TIME[unit].1));
            prop_assert_eq!(duration.to_string().parse::<DurationText>(), Ok(duration));
        }

        #[test]
        fn a_printed_size_reads_back_the_same(number in 0..=u64::MAX >> 30, unit in 0..SIZE.len()) {
            let size = Size(number * SIZE[unit].1);
            prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,24}|[0-9]{1,24}[a-zA-Z]{0,4}") {
            let _ = (text.parse::<DurationText>(), text.parse::<Size>());
        }
    }
}
