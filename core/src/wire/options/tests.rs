use std::string::ToString;

use super::*;

const SIZE: u64 = 123_456;

#[track_caller]
fn grants(requested: &[u8], granted: &[u8]) -> Settings {
    let (settings, answer) = negotiate(Options::new(requested), &Limits::default(), Some(SIZE));
    assert_eq!(answer.0.escape_ascii().to_string(), granted.escape_ascii().to_string());
    settings
}

#[test]
fn grants_options_in_their_order_and_spelling() {
    let settings = grants(
        b"tsize\x000\0BlkSize\x001468\0windowsize\x004\0TIMEOUT\x0010\0",
        b"tsize\x00123456\0BlkSize\x001468\0windowsize\x004\0TIMEOUT\x0010\0",
    );
    assert_eq!(
        settings,
        Settings { blksize: 1468, windowsize: 4, timeout: Some(Duration::from_secs(10)), rollover: Rollover::ToZero }
    );
}

#[test]
fn omits_unknown_and_invalid_options() {
    for requested in [
        &b"multicast\0\0"[..],
        b"blksize\0\0",
        b"blksize\x007\0",
        b"blksize\x00-512\0",
        b"blksize\x00+512\0",
        b"blksize\x00 512\0",
        b"blksize\x00512x\0",
        b"blksize\x0099999999999999999999\0",
        b"windowsize\x000\0",
        b"timeout\x000\0",
        b"timeout\x00256\0",
        b"tsize\0\xff\0",
        b"blksize\x00512",
    ] {
        assert_eq!(grants(requested, b""), Settings::default(), "{}", requested.escape_ascii());
    }
}

/// U-Boot always asks for 5 s. If that was kept, every lost block would cost it 5 s.
#[test]
fn omits_a_timeout_shorter_than_ten_seconds() {
    for seconds in [1, 5, 6, 9] {
        let requested = std::format!("blksize\0600\0timeout\0{seconds}\0");
        assert_eq!(grants(requested.as_bytes(), b"blksize\x00600\0").timeout, None);
    }
    assert_eq!(grants(b"timeout\x0060\0", b"timeout\x0060\0").timeout, Some(Duration::from_secs(60)));
}

#[test]
fn omits_repeated_options() {
    assert_eq!(grants(b"blksize\x00600\0BLKSIZE\x00700\0", b"blksize\x00600\0").blksize, 600);
}

#[test]
fn grants_at_most_the_limits() {
    assert_eq!(grants(b"blksize\x0065535\0", b"blksize\x0065464\0").blksize, 65_464);
    assert_eq!(grants(b"windowsize\x00100000\0", b"windowsize\x008192\0").windowsize, 8192, "4 MiB of 512 bytes");
    assert_eq!(grants(b"windowsize\x009\0blksize\x0065464\0", b"windowsize\x009\0blksize\x0065464\0").windowsize, 9);
    assert_eq!(grants(b"windowsize\x0099\0blksize\x0065464\0", b"windowsize\x0064\0blksize\x0065464\0").windowsize, 64);
    let limits = Limits { blksize: 1468, windowsize: 16, window_bytes: 1 << 20 };
    let requested = Options::new(b"blksize\x008192\0windowsize\x0064\0");
    let (settings, granted) = negotiate(requested, &limits, Some(SIZE));
    assert_eq!((settings.blksize, settings.windowsize), (1468, 16));
    assert_eq!(&granted.0[..], b"blksize\x001468\0windowsize\x0016\0");
}

#[test]
fn grants_the_options_of_tftpd_hpa() {
    let settings = grants(b"utimeout\x00300000\0rollover\x001\0", b"utimeout\x00300000\0rollover\x001\0");
    assert_eq!((settings.timeout, settings.rollover), (Some(Duration::from_millis(300)), Rollover::ToOne));
    assert_eq!(grants(b"rollover\x000\0", b"rollover\x000\0").rollover, Rollover::ToZero);
    assert_eq!(grants(b"rollover\x002\0utimeout\x009999\0", b""), Settings::default());
}

#[test]
fn omits_an_unknown_size() {
    let (_, granted) = negotiate(Options::new(b"tsize\x000\0blksize\x00600\0"), &Limits::default(), None);
    assert_eq!(&granted.0[..], b"blksize\x00600\0");
}

#[test]
fn longest_answer_fits() {
    let requested = Options::new(
        b"blksize\x0065464\0tsize\x000\0timeout\x00255\0windowsize\x0065535\0utimeout\x00255000000\0rollover\x001\0",
    );
    let limits = Limits { window_bytes: u32::MAX, ..Limits::default() };
    let (_, granted) = negotiate(requested, &limits, Some(u64::MAX));
    assert_eq!(granted.0.len(), MAX_OPTIONS);
    assert_eq!(granted.options().count(), 6);
}

const OPTIONS: RequestedOptions =
    RequestedOptions { blksize: Some(1468), windowsize: Some(16), timeout: Some(3), tsize: true };

#[test]
fn writes_the_options_of_a_request() {
    assert_eq!(&OPTIONS.to_wire()[..], b"tsize\x000\0blksize\x001468\0windowsize\x0016\0timeout\x003\0");
    assert_eq!(&RequestedOptions::default().to_wire()[..], b"");
}

#[test]
fn accepts_less_than_requested() {
    let accept = |granted| OPTIONS.accept_oack(Options::new(granted));
    assert_eq!(accept(b""), Some((Settings::default(), None)));
    assert_eq!(
        accept(b"BLKSIZE\x008\0windowsize\x001\0timeout\x003\0tsize\x0018446744073709551615\0"),
        Some((Settings { blksize: 8, timeout: Some(Duration::from_secs(3)), ..Settings::default() }, Some(u64::MAX)))
    );
    let (settings, _) = accept(b"windowsize\x0016\0blksize\x001468\0").expect("exactly the requested options");
    assert_eq!(settings, Settings { blksize: 1468, windowsize: 16, ..Settings::default() });
}

#[test]
fn refuses_options_that_were_not_requested() {
    for granted in [
        &b"blksize\x001469\0"[..],
        b"blksize\x007\0",
        b"blksize\x0066004\0",
        b"blksize\x00\0",
        b"blksize\x00512\0blksize\x00512\0",
        b"windowsize\x0017\0",
        b"windowsize\x000\0",
        b"timeout\x002\0",
        b"timeout\x003\0timeout\x003\0",
        b"tsize\x001k\0",
        b"tsize\x001\0tsize\x001\0",
        b"multicast\0\0",
    ] {
        assert_eq!(OPTIONS.accept_oack(Options::new(granted)), None, "{}", granted.escape_ascii());
    }
    for granted in [&b"blksize\x008\0"[..], b"windowsize\x001\0", b"timeout\x003\0", b"tsize\x001\0"] {
        assert_eq!(RequestedOptions::default().accept_oack(Options::new(granted)), None, "{}", granted.escape_ascii());
    }
}
