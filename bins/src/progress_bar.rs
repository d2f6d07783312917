//! A progress bar in one line, for both programs.

/// The width of the bar, in characters.
const WIDTH: usize = 24;

/// Returns percentage, bar, bytes, rate and remaining time, as far as they are known. `rate` is in bytes per second.
pub(crate) fn progress_bar(bytes: u64, size: Option<u64>, rate: f64) -> String {
    let amount = format!("{:.1} MB  {:.1} MB/s", megabytes(bytes as f64), megabytes(rate));
    // Some servers answer `tsize` with 0 because they do not know the size.
    let Some(size) = size.filter(|&size| size > 0 && bytes <= size) else { return amount };
    let fraction = bytes as f64 / size as f64;
    let bar = "=".repeat((fraction * WIDTH as f64) as usize);
    let remaining = if rate > 0.0 { clock_time(((size - bytes) as f64 / rate) as u64) } else { "-:--".into() };
    format!("{:3.0}% [{bar:WIDTH$}] {amount}  {remaining} left", (fraction * 100.0).floor())
}

/// Converts bytes to megabytes.
pub(crate) fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}

/// Formats seconds as M:SS or H:MM:SS.
fn clock_time(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_known_values() {
        for (bytes, size, line) in [
            (0, Some(1_000_000), "  0% [                        ] 0.0 MB  0.0 MB/s  -:-- left"),
            (500_000, Some(1_000_000), " 50% [============            ] 0.5 MB  0.5 MB/s  0:01 left"),
            (999_999, Some(1_000_000), " 99% [======================= ] 1.0 MB  1.0 MB/s  0:00 left"),
            (1_000_000, Some(1_000_000), "100% [========================] 1.0 MB  1.0 MB/s  0:00 left"),
            (1_000_000, Some(9_999_000_000), "  0% [                        ] 1.0 MB  1.0 MB/s  2:46:38 left"),
            (2_000_000, None, "2.0 MB  2.0 MB/s"),
            (2_000_000, Some(0), "2.0 MB  2.0 MB/s"),
            (2_000_000, Some(1), "2.0 MB  2.0 MB/s"),
        ] {
            assert_eq!(progress_bar(bytes, size, bytes as f64), line);
        }
        assert!(progress_bar(u64::MAX, Some(u64::MAX), 1e300).starts_with("100%"));
    }
}
