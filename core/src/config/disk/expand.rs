//! Replaces the placeholders in a description for many boards.

use core::fmt::{self, Write};

use heapless::String;

use super::{
    error::Problem,
    model::{MAX_APPEND, MAX_URL},
    placeholder::{Board, Placeholder, Placeholders},
};
use crate::config::uri::percent_encode;

/// Replaces the placeholders of a `url`. A value stays within its part of the URL: all characters with a meaning in one are
/// percent-encoded.
pub(super) fn replace_in_url(
    url: &str,
    board: &Board<'_>,
    used: &mut Placeholders,
) -> Result<String<MAX_URL>, Problem> {
    // Bytes that are unreserved in RFC 3986 section 2.3.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    replace(url, board, used, is_plain, may_vary)
}

/// Replaces the placeholders of an `append`. A value stays within its word: all characters with a meaning to a boot loader or in a
/// command line are percent-encoded.
pub(super) fn replace_in_append(
    append: &str,
    board: &Board<'_>,
    used: &mut Placeholders,
) -> Result<String<MAX_APPEND>, Problem> {
    replace(append, board, used, |byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte), |_| true)
}

/// Replaces the placeholders of a text. `is_plain` returns whether a byte is not percent-encoded in a value, `may_follow` whether a
/// placeholder may follow a text.
fn replace<const MAX: usize>(
    text: &str,
    board: &Board<'_>,
    used: &mut Placeholders,
    is_plain: fn(u8) -> bool,
    may_follow: fn(&str) -> bool,
) -> Result<String<MAX>, Problem> {
    let mut replaced = String::<MAX>::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let found = Placeholder::ALL
            .into_iter()
            .find_map(|placeholder| Some((placeholder, after.strip_prefix(placeholder.name())?.strip_prefix('}')?)));
        let (placeholder, after) = found.ok_or(Problem::UnknownPlaceholder)?;
        replaced.push_str(before).map_err(|_| Problem::TooLong(MAX))?;
        if !may_follow(&replaced) {
            return Err(Problem::PlaceholderInHost);
        }
        let value = board.value(placeholder).ok_or(Problem::NoValue(placeholder))?;
        write!(Encoder(&mut replaced, is_plain), "{value}").map_err(|_| Problem::TooLong(MAX))?;
        if !used.contains(&placeholder) {
            used.push(placeholder).map_err(|_| Problem::UnknownPlaceholder)?;
        }
        rest = after;
    }
    replaced.push_str(rest).map_err(|_| Problem::TooLong(MAX))?;
    Ok(replaced)
}

/// Returns whether the part of a URL in which it ends may depend on the board: the name of the export and the path of the socket, but
/// neither the server nor its verification.
fn may_vary(url: &str) -> bool {
    let Some((_, path)) = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')) else { return false };
    path.split_once('?')
        .is_none_or(|(_, query)| query.rsplit('&').next().is_some_and(|last| last.starts_with("socket=")))
}

/// Returns whether a text has a placeholder.
pub(super) fn has_placeholder(text: &str) -> bool {
    let mut starts = text.split('{').skip(1);
    starts.any(|start| {
        let name = start.split_once('}').map(|(name, _)| name);
        Placeholder::ALL.iter().any(|placeholder| Some(placeholder.name()) == name)
    })
}

/// Percent-encodes all bytes but those for which the function returns `true`.
struct Encoder<'s, const MAX: usize>(&'s mut String<MAX>, fn(u8) -> bool);

impl<const MAX: usize> Write for Encoder<'_, MAX> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        percent_encode(self.0, text, self.1)
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;
    use std::{
        format,
        string::{String as StdString, ToString},
    };

    use super::{
        super::{Board, DiskConfig},
        *,
    };
    use crate::config::uri::{NbdServer, NbdUri};

    const BOARD: Board<'_> = Board {
        ip: IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 5)),
        mac: Some([0xdc, 0xa6, 0x32, 0x01, 0x36, 0xc2]),
        hostname: Some("rack-1.lab"),
        serial: Some(0x9ffe_fdef),
    };

    fn json(url: &str, more: &str) -> StdString {
        format!(r#"{{"url": "{url}", "mounts": [{{"partition": 1, "mountpoint": "/"}}]{more}}}"#)
    }

    fn parse(url: &str, board: &Board<'_>) -> Result<DiskConfig, Problem> {
        DiskConfig::parse_for(json(url, r#", "trust_serial": true"#).as_bytes(), board).map_err(|error| error.problem)
    }

    #[test]
    fn replaces_placeholders_in_export_and_socket() {
        for (url, expected) in [
            ("nbd://h/{ip}", "nbd://h/10.0.0.5"),
            ("nbd://h:1/boards/{mac}/root", "nbd://h:1/boards/dc-a6-32-01-36-c2/root"),
            ("nbd://h/{hostname}", "nbd://h/rack-1.lab"),
            ("nbd://h/{serial}", "nbd://h/9ffefdef"),
            ("nbd://h/{ip}-{serial}{ip}", "nbd://h/10.0.0.5-9ffefdef10.0.0.5"),
            ("nbd+unix:///x?socket=/run/{ip}.sock", "nbd+unix:///x?socket=/run/10.0.0.5.sock"),
            ("nbd://h/golden", "nbd://h/golden"),
            ("nbds://h/{ip}?tls-hostname=nas", "nbds://h/10.0.0.5?tls-hostname=nas"),
            ("nbds+unix:///?tls-hostname=nas&socket=/{ip}", "nbds+unix:///?tls-hostname=nas&socket=/10.0.0.5"),
        ] {
            let config = parse(url, &BOARD).expect(url);
            assert_eq!(Ok(config.url), NbdUri::parse(expected), "{url}");
        }
        let used = parse("nbd://h/{mac}-{ip}-{mac}", &BOARD).expect("a description").placeholders;
        assert_eq!(used, [Placeholder::Mac, Placeholder::Ip]);
    }

    #[test]
    fn hostile_values_stay_in_their_component() {
        for name in
            ["?socket=/evil", "a/../../b", "#x", "%00", "a b", "@evil:1/", "{ip}", "\"\\", "\n", "gr\u{fc}n", ""]
        {
            let board = Board { hostname: Some(name), ..BOARD };
            let url = parse("nbd://h:7/disk-{hostname}", &board).expect(name).url;
            let server = NbdServer::Tcp { host: "h".try_into().expect("short"), port: 7 };
            assert_eq!((&url.server, url.export.as_str()), (&server, &*format!("disk-{name}")), "{name}");
            let url = parse("nbd+unix:///x?socket=/run/{hostname}", &board).expect(name).url;
            assert_eq!(url.export, "x");
            assert!(matches!(&url.server, NbdServer::Unix(path) if *path == format!("/run/{name}").as_str()), "{name}");
        }
        let ip = "fe80::1".parse().expect("an address");
        assert_eq!(parse("nbd://h/{ip}", &Board { ip, ..BOARD }).expect("a description").url.export, "fe80::1");
        let long = "\u{e9}".repeat(400);
        assert!(matches!(
            parse("nbd://h/{hostname}", &Board { hostname: Some(&long), ..BOARD }),
            Err(Problem::TooLong(_))
        ));
    }

    #[test]
    fn hostile_values_stay_in_their_word_of_a_command_line() {
        let append = |append: &str, board: &Board<'_>| {
            let more = format!(r#", "trust_serial": true, "boot": {{"append": "{append}"}}"#);
            DiskConfig::parse_for(json("nbd://h/x", &more).as_bytes(), board).map(|config| config.boot)
        };
        let boot = append("nbdroot=10.0.0.1,{ip} name={hostname} {mac}{serial}", &BOARD).expect("a description");
        assert_eq!(boot.append, "nbdroot=10.0.0.1,10.0.0.5 name=rack-1.lab dc-a6-32-01-36-c29ffefdef");
        assert_eq!(boot.placeholders.len(), 4);
        for (name, expected) in [
            ("a init=/bin/sh", "a%20init%3D%2Fbin%2Fsh"),
            ("a\n}; reboot", "a%0A%7D%3B%20reboot"),
            ("\"'\\$`", "%22%27%5C%24%60"),
            ("{ip}", "%7Bip%7D"),
        ] {
            let board = Board { hostname: Some(name), ..BOARD };
            assert_eq!(append("{hostname}", &board).expect("a description").append, expected);
        }
        let ip = "fe80::1".parse().expect("an address");
        assert_eq!(append("{ip}", &Board { ip, ..BOARD }).expect("a description").append, "fe80::1");
        let unknown = Board { hostname: None, ..BOARD };
        let error = append("{hostname}", &unknown).expect_err("no host name");
        assert_eq!(error.problem, Problem::NoValue(Placeholder::Hostname));
        let json = json("nbd://h/x", r#", "boot": {"append": "{serial}"}"#);
        let error = DiskConfig::parse_for(json.as_bytes(), &BOARD).expect_err("untrusted");
        assert!(error.to_string().contains(r#"boot.append: expected "trust_serial": true"#), "{error}");
    }

    #[test]
    fn rejects_placeholders_in_other_places() {
        for (url, problem) in [
            ("nbd://{hostname}/x", Problem::PlaceholderInHost),
            ("nbd://h:{serial}/x", Problem::PlaceholderInHost),
            ("nbd+unix://?socket={ip}", Problem::PlaceholderInHost),
            ("{ip}", Problem::PlaceholderInHost),
            ("nbds://h/x?tls-certificates=/etc/{hostname}", Problem::PlaceholderInHost),
            ("nbds+unix:///x?socket=/s&tls-hostname={hostname}", Problem::PlaceholderInHost),
            ("nbd://h/{name}", Problem::UnknownPlaceholder),
            ("nbd://h/{IP}", Problem::UnknownPlaceholder),
            ("nbd://h/{ip", Problem::UnknownPlaceholder),
            ("nbd://h/{{ip}}", Problem::UnknownPlaceholder),
        ] {
            assert_eq!(parse(url, &BOARD), Err(problem), "{url}");
        }
        let config = DiskConfig::parse_for(json("nbd://h/x", r#", "tftp_root": "/{ip}""#).as_bytes(), &BOARD);
        assert_eq!(config.expect("a description").tftp_root, "/{ip}", "only url has placeholders");
        let error = DiskConfig::parse(json("nbd://h/{ip}", "").as_bytes()).expect_err("the file of a board");
        assert_eq!(error.problem, Problem::PlaceholderForOne);
    }

    #[test]
    fn serial_number_must_be_trusted_explicitly() {
        for more in ["", r#", "trust_serial": false"#] {
            let error =
                DiskConfig::parse_for(json("nbd://h/{serial}", more).as_bytes(), &BOARD).expect_err("untrusted");
            assert_eq!(error.problem, Problem::UntrustedSerial);
            assert!(error.to_string().contains(r#"url: expected "trust_serial": true"#), "{error}");
        }
        let error = DiskConfig::parse_for(json("nbd://h/x", r#", "trust_serial": "yes""#).as_bytes(), &BOARD);
        assert_eq!(error.expect_err("a string").problem, Problem::Expected("true or false"));
    }

    #[test]
    fn missing_value_is_a_problem() {
        let board = Board { mac: None, hostname: None, serial: None, ..BOARD };
        for placeholder in [Placeholder::Mac, Placeholder::Hostname, Placeholder::Serial] {
            let url = format!("nbd://h/{placeholder}");
            assert_eq!(parse(&url, &board), Err(Problem::NoValue(placeholder)));
        }
    }
}
