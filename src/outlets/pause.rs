//! How long to wait after failures: twice as long each time up to a limit, and never for as long as others wait.

use std::time::Duration;

use aws_lc_rs::rand;

/// The pause after so many failures in a row: between half of it and all of it, `first` doubled with each up to `most`.
pub(super) fn after(failures: u32, first: Duration, most: Duration) -> Duration {
    let doubled = first.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(most);
    let mut random = [0; 2];
    // Without it, all of it.
    let part = rand::fill(&mut random).map_or(u16::MAX, |()| u16::from_le_bytes(random));
    doubled / 2 + (doubled / 2).mul_f64(f64::from(part) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_differ() {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(60));
        for (failures, whole) in [(0, 1), (1, 1), (2, 2), (6, 32), (7, 60), (40, 60), (u32::MAX, 60)] {
            let pause = after(failures, first, most);
            assert!(
                pause * 2 >= Duration::from_secs(whole) && pause <= Duration::from_secs(whole),
                "{failures}: {pause:?}"
            );
        }
        let pauses: std::collections::HashSet<_> = (0..20).map(|_| after(7, first, most)).collect();
        assert!(pauses.len() > 1);
    }
}
