//! Pure backoff of one key: 1 s doubled per failure, at most five minutes, with full jitter above half.

use std::time::Duration;

/// Longest wait between two tries of one object.
pub const LONGEST: Duration = Duration::from_mins(5);

/// The wait after the `failures`th failure in a row (1 is the first). `unit` is random in 0..1.
pub fn wait(failures: u32, unit: f64) -> Duration {
    let exponent = failures.saturating_sub(1).min(9);
    let full = Duration::from_secs(1 << exponent).min(LONGEST);
    full.mul_f64(0.5 + unit.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST, wait};

    #[test]
    fn waits_double_and_are_bounded() {
        assert_eq!(wait(1, 1.0), Duration::from_secs(1));
        assert_eq!(wait(4, 1.0), Duration::from_secs(8));
        assert_eq!(wait(4, 0.0), Duration::from_secs(4));
        assert_eq!(wait(u32::MAX, 1.0), LONGEST);
    }
}
