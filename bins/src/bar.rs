//! How far a transfer is, in one line, for both programs.

/// How many characters the bar has.
const BAR: usize = 24;

/// Percent, a bar, bytes, rate and time left, as far as they are known. The rate is in bytes a second.
pub(crate) fn bar(bytes: u64, size: Option<u64>, rate: f64) -> String {
    let came = format!("{:.1} MB  {:.1} MB/s", megabytes(bytes as f64), megabytes(rate));
    // Some servers answer `tsize` with 0 because they do not know it.
    let Some(size) = size.filter(|&size| size > 0 && bytes <= size) else { return came };
    let part = bytes as f64 / size as f64;
    let bar = "=".repeat((part * BAR as f64) as usize);
    let left = if rate > 0.0 { clock(((size - bytes) as f64 / rate) as u64) } else { "-:--".into() };
    format!("{:3.0}% [{bar:BAR$}] {came}  {left} left", (part * 100.0).floor())
}

/// Bytes in millions.
pub(crate) fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}

/// Seconds as minutes and seconds, or hours, minutes and seconds.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_is_known() {
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
            assert_eq!(bar(bytes, size, bytes as f64), line);
        }
        assert!(bar(u64::MAX, Some(u64::MAX), 1e300).starts_with("100%"));
    }
}
