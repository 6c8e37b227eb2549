//! Numbers as people take them in: short, and as bars.

use serde_json::Value;

/// How long calls took, in milliseconds; null: longer than the buckets reach, or there was none.
pub(super) fn took(ms: &Value, any: bool) -> String {
    match ms.as_u64() {
        Some(ms @ 0..1_000) => format!("{ms}ms"),
        Some(ms @ 1_000..60_000) => format!("{}s", ms / 1_000),
        Some(ms) => format!("{}min", ms / 60_000),
        None if any => ">10min".to_owned(),
        None => "-".to_owned(),
    }
}

/// A number of bytes.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut tenths, mut unit) = (n, 0, 0);
    while whole >= 1_024 && unit + 1 < UNITS.len() {
        tenths = whole % 1_024 * 10 / 1_024;
        whole /= 1_024;
        unit += 1;
    }
    match unit > 0 && whole < 10 {
        true => format!("{whole}.{tenths} {}", UNITS[unit]),
        false => format!("{whole} {}", UNITS[unit]),
    }
}

/// `n` of `most` as a bar of at most `width` columns; what is more than nothing is to be seen.
pub(super) fn bar(n: u64, most: u64, width: u64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(n) * u128::from(width) * 8 / u128::from(most.max(1));
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX).max(usize::from(n > 0));
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

/// One mark for each number, as high as it is of the highest.
pub(super) fn sparkline(numbers: &[u64]) -> String {
    const MARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = numbers.iter().copied().max().unwrap_or(0).max(1);
    let mark = |n: &u64| match n {
        0 => ' ',
        n => MARKS[usize::try_from((u128::from(*n) * 8).div_ceil(u128::from(most)) - 1).unwrap_or(7).min(7)],
    };
    numbers.iter().map(mark).collect()
}

/// Words with how often each came, the most frequent first.
pub(super) fn counted(words: &Value) -> String {
    let counts = words.as_object().into_iter().flatten();
    let mut counts: Vec<(u64, &String)> = counts.map(|(word, n)| (n.as_u64().unwrap_or(0), word)).collect();
    counts.sort_by(|a, b| b.cmp(a));
    counts.iter().map(|(n, word)| format!("{word} {n}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([5, 2_000, 60_000].map(|ms| took(&json!(ms), true)), ["5ms", "2s", "1min"]);
        assert_eq!((took(&Value::Null, true), took(&Value::Null, false)), (">10min".to_owned(), "-".to_owned()));
        assert_eq!([0, 1_023, 1_024, 1_536, 20 << 20].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "20 MiB"]);
        assert_eq!(counted(&json!({"blocked": 2, "rate_limited": 10})), "rate_limited 10, blocked 2");
    }

    #[test]
    fn bars_are_as_long_as_their_numbers_and_little_is_not_nothing() {
        assert_eq!([0, 1, 50, 100].map(|n| bar(n, 100, 4)), ["", "▏", "██", "████"]);
        assert_eq!(sparkline(&[0, 1, 50, 100]), " ▁▄█");
        assert_eq!(sparkline(&[0, 0]), "  ");
        assert_eq!(sparkline(&[u64::MAX, 1]), "█▁");
    }
}
