//! What HTTP demands (RFC 9110, RFC 9112), and what boot clients need beyond it: one row for each request.

use std::{
    fs::File,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rtftp_tests::{
    Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree,
    http_client::{HttpClient, HttpResponse},
};

const CLIENT: &str = "127.0.0.5";
const CONTENT: &[u8] = b"0123456789";
/// The modification time of the file `a`, and its date.
const MODIFIED: u64 = 784_111_777;
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// What happens to the connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Open,
    Closed,
}
use After::{Closed, Open};

/// Name, request, status, body, connection, and header fields that the response must have. `{tag}` is the entity tag of `a`.
type Row<'a> = (&'a str, &'a str, u16, &'a [u8], After, &'a [(&'a str, &'a str)]);

#[rustfmt::skip]
const ROWS: &[Row<'_>] = &[
    // Connections.
    ("kept open", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 200, CONTENT, Open, &[("Content-Length", "10")]),
    ("closed on request", "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", 200, CONTENT, Closed, &[("Connection", "close")]),
    ("close in a list", "GET /a HTTP/1.1\r\nConnection: x, CLOSE\r\n\r\n", 200, CONTENT, Closed, &[("Connection", "close")]),
    ("HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n", 200, CONTENT, Closed, &[("Connection", "close")]),
    ("HTTP/1.0, kept open", "GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", 200, CONTENT, Open, &[("Connection", "keep-alive")]),
    ("a later minor version", "GET /a HTTP/1.9\r\n\r\n", 200, CONTENT, Open, &[]),
    ("another major version", "GET /a HTTP/2.0\r\n\r\n", 505, b"", Closed, &[]),
    ("kept open after an error", "GET /missing HTTP/1.1\r\n\r\n", 404, b"", Open, &[("Content-Length", "0")]),
    ("empty lines before a request", "\r\n\r\nGET /a HTTP/1.1\r\n\r\n", 200, CONTENT, Open, &[]),
    // Targets.
    ("another port in Host", "GET /a HTTP/1.1\r\nHost: 10.69.0.1:8080\r\n\r\n", 200, CONTENT, Open, &[]),
    ("another name in Host", "GET /a HTTP/1.1\r\nHost: other.example\r\n\r\n", 200, CONTENT, Open, &[]),
    ("absolute form", "GET http://other.example:80/a HTTP/1.1\r\n\r\n", 200, CONTENT, Open, &[]),
    ("query", "GET /a?mac=1&b=2 HTTP/1.1\r\n\r\n", 200, CONTENT, Open, &[]),
    ("doubled slashes", "GET //a HTTP/1.1\r\n\r\n", 200, CONTENT, Open, &[]),
    ("dots", "GET /./dir/.//../a HTTP/1.1\r\n\r\n", 200, CONTENT, Open, &[]),
    ("dots beyond the root", "GET /../a HTTP/1.1\r\n\r\n", 403, b"", Open, &[]),
    ("encoded dots beyond the root", "GET /dir/%2e%2E/%2e./a HTTP/1.1\r\n\r\n", 403, b"", Open, &[]),
    ("encoded slash", "GET /dir%2Fb HTTP/1.1\r\n\r\n", 200, b"b", Open, &[]),
    ("encoded blank", "GET /c%20d.cfg HTTP/1.1\r\n\r\n", 200, b"c d", Open, &[]),
    ("blank as GRUB sends it", "GET /c d.cfg HTTP/1.1\r\n\r\n", 200, b"c d", Open, &[]),
    ("NUL", "GET /a%00b HTTP/1.1\r\n\r\n", 403, b"", Open, &[]),
    ("no encoding after a percent sign", "GET /100%.txt HTTP/1.1\r\n\r\n", 200, b"100", Open, &[]),
    ("a directory", "GET /dir HTTP/1.1\r\n\r\n", 403, b"", Open, &[]),
    ("no file", "GET / HTTP/1.1\r\n\r\n", 404, b"", Open, &[]),
    ("a fragment of another request", "GET /a\r\n\r\n", 400, b"", Closed, &[]),
    // Methods.
    ("POST", "POST /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", 405, b"", Closed, &[("Allow", "GET, HEAD")]),
    ("PUT", "PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", 405, b"", Closed, &[("Allow", "GET, HEAD")]),
    ("OPTIONS", "OPTIONS * HTTP/1.1\r\n\r\n", 405, b"", Closed, &[("Allow", "GET, HEAD")]),
    ("CONNECT", "CONNECT h:1 HTTP/1.1\r\n\r\n", 405, b"", Closed, &[("Allow", "GET, HEAD")]),
    ("lower case", "get /a HTTP/1.1\r\n\r\n", 405, b"", Closed, &[("Allow", "GET, HEAD")]),
    // Bodies of requests. They are not read, so nothing can be smuggled in them.
    ("a body", "GET /a HTTP/1.1\r\nContent-Length: 29\r\n\r\nGET /missing HTTP/1.1\r\n\r\n     ", 200, CONTENT, Closed, &[("Connection", "close")]),
    ("no body", "GET /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 200, CONTENT, Open, &[]),
    ("lengths that differ", "GET /a HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 200, CONTENT, Closed, &[]),
    ("chunks", "GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, CONTENT, Closed, &[]),
    ("expectation", "GET /a HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", 200, CONTENT, Open, &[]),
    ("expectation with a body", "GET /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 200, CONTENT, Closed, &[]),
    // Heads.
    ("bare LF", "GET /a HTTP/1.1\nHost: h\n\n", 200, CONTENT, Open, &[]),
    ("folded field", "GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400, b"", Closed, &[]),
    ("blank before a colon", "GET /a HTTP/1.1\r\nA : b\r\n\r\n", 400, b"", Closed, &[]),
    ("no colon", "GET /a HTTP/1.1\r\nA\r\n\r\n", 400, b"", Closed, &[]),
    ("control character", "GET /a HTTP/1.1\r\nA: \x01\r\n\r\n", 400, b"", Closed, &[]),
    ("names in other case", "GET /a HTTP/1.1\r\nRANGE: bytes=1-2\r\n\r\n", 206, b"12", Open, &[]),
    // Ranges.
    ("range", "GET /a HTTP/1.1\r\nRange: bytes=2-4\r\n\r\n", 206, b"234", Open, &[("Content-Range", "bytes 2-4/10"), ("Content-Length", "3")]),
    ("open range, as GRUB asks", "GET /a HTTP/1.1\r\nRange: bytes=7-\r\n\r\n", 206, b"789", Open, &[("Content-Range", "bytes 7-9/10")]),
    ("suffix", "GET /a HTTP/1.1\r\nRange: bytes=-2\r\n\r\n", 206, b"89", Open, &[("Content-Range", "bytes 8-9/10")]),
    ("long suffix", "GET /a HTTP/1.1\r\nRange: bytes=-99\r\n\r\n", 206, CONTENT, Open, &[("Content-Range", "bytes 0-9/10")]),
    ("range beyond the end", "GET /a HTTP/1.1\r\nRange: bytes=10-\r\n\r\n", 416, b"", Open, &[("Content-Range", "bytes */10"), ("Content-Length", "0")]),
    ("empty suffix", "GET /a HTTP/1.1\r\nRange: bytes=-0\r\n\r\n", 416, b"", Open, &[("Content-Range", "bytes */10")]),
    ("several ranges", "GET /a HTTP/1.1\r\nRange: bytes=0-0,2-2\r\n\r\n", 200, CONTENT, Open, &[("Accept-Ranges", "bytes")]),
    ("range of another unit", "GET /a HTTP/1.1\r\nRange: lines=0-0\r\n\r\n", 200, CONTENT, Open, &[]),
    ("range that is none", "GET /a HTTP/1.1\r\nRange: bytes=4-2\r\n\r\n", 200, CONTENT, Open, &[]),
    // Conditions.
    ("If-Range, same tag", "GET /a HTTP/1.1\r\nRange: bytes=9-\r\nIf-Range: {tag}\r\n\r\n", 206, b"9", Open, &[]),
    ("If-Range, weak tag", "GET /a HTTP/1.1\r\nRange: bytes=9-\r\nIf-Range: W/{tag}\r\n\r\n", 200, CONTENT, Open, &[]),
    ("If-Range, other tag", "GET /a HTTP/1.1\r\nRange: bytes=9-\r\nIf-Range: \"x\"\r\n\r\n", 200, CONTENT, Open, &[]),
    ("If-Range, same date", "GET /a HTTP/1.1\r\nRange: bytes=9-\r\nIf-Range: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", 206, b"9", Open, &[]),
    ("If-Range, later date", "GET /a HTTP/1.1\r\nRange: bytes=9-\r\nIf-Range: Sun, 06 Nov 1994 08:49:38 GMT\r\n\r\n", 200, CONTENT, Open, &[]),
    ("If-Range of an earlier version, beyond the end", "GET /a HTTP/1.1\r\nRange: bytes=99-\r\nIf-Range: \"x\"\r\n\r\n", 200, CONTENT, Open, &[]),
    ("If-None-Match, same tag", "GET /a HTTP/1.1\r\nIf-None-Match: \"x\", W/{tag}\r\n\r\n", 304, b"", Open, &[("ETag", "{tag}"), ("Last-Modified", DATE)]),
    ("If-None-Match, other tag", "GET /a HTTP/1.1\r\nIf-None-Match: \"x\"\r\n\r\n", 200, CONTENT, Open, &[("ETag", "{tag}")]),
    ("If-Modified-Since, same date", "GET /a HTTP/1.1\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", 304, b"", Open, &[]),
    ("If-Modified-Since, earlier date", "GET /a HTTP/1.1\r\nIf-Modified-Since: Sunday, 06-Nov-94 08:49:36 GMT\r\n\r\n", 200, CONTENT, Open, &[]),
    ("If-Modified-Since beside If-None-Match", "GET /a HTTP/1.1\r\nIf-None-Match: \"x\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", 200, CONTENT, Open, &[]),
    ("If-Match, same tag", "GET /a HTTP/1.1\r\nIf-Match: {tag}\r\n\r\n", 200, CONTENT, Open, &[]),
    ("If-Match, weak tag", "GET /a HTTP/1.1\r\nIf-Match: W/{tag}\r\n\r\n", 412, b"", Open, &[("Content-Length", "0")]),
    ("If-Match, other tag", "GET /a HTTP/1.1\r\nIf-Match: \"x\"\r\n\r\n", 412, b"", Open, &[("Content-Length", "0")]),
    ("If-Match for a missing file", "GET /missing HTTP/1.1\r\nIf-Match: *\r\n\r\n", 404, b"", Open, &[]),
    ("If-Unmodified-Since, same date", "GET /a HTTP/1.1\r\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", 200, CONTENT, Open, &[]),
    ("If-Unmodified-Since, earlier date", "GET /a HTTP/1.1\r\nIf-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n\r\n", 412, b"", Open, &[]),
    // Types.
    ("EFI program by its name", "GET /x.efi HTTP/1.1\r\n\r\n", 200, b"", Open, &[("Content-Type", "application/efi")]),
    ("EFI program by its contents", "GET /vmlinuz HTTP/1.1\r\nRange: bytes=0-1\r\n\r\n", 206, b"MZ", Open, &[("Content-Type", "application/efi")]),
    ("a later part of an EFI program", "GET /vmlinuz HTTP/1.1\r\nRange: bytes=64-65\r\n\r\n", 206, b"PE", Open, &[("Content-Type", "application/efi")]),
];

/// Asserts what all responses have in common.
#[track_caller]
fn check_head(name: &str, response: &HttpResponse) {
    let date = response.header("Date").unwrap_or_else(|| panic!("{name}: no date"));
    assert!(date.len() == DATE.len() && date.ends_with(" GMT"), "{name}: {date}");
    for line in &response.headers {
        let (field, _) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line}"));
        let is_usual = |word: &str| word.starts_with(|first: char| first.is_ascii_uppercase());
        assert!(field.split('-').all(is_usual), "{name}: GRUB compares names with their case: {line}");
    }
    assert_eq!(response.header("Content-Length").is_none(), response.status == 304, "{name}: a length");
    assert_eq!(response.header("Location"), None, "{name}: firmware follows no redirects");
}

/// Puts the files of the rows; returns the daemon, its address and the entity tag of `a`.
fn daemon() -> (Rtftp, std::net::SocketAddr, String) {
    let (daemon, address) = Rtftp::start_http(&[]);
    let path = daemon.put("default/a", CONTENT);
    let file = File::options().write(true).open(path).expect("opened");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(MODIFIED)).expect("set");
    for (name, content) in [("dir/b", "b"), ("c d.cfg", "c d"), ("100%.txt", "100"), ("x.efi", "")] {
        daemon.put(&format!("default/{name}"), content);
    }
    let mut program = [0; 70];
    program[..2].copy_from_slice(b"MZ");
    program[0x3c] = 64;
    program[64..68].copy_from_slice(b"PE\0\0");
    daemon.put("default/vmlinuz", program);
    let response = HttpClient::connect(CLIENT, address).request("GET", "/a", &[]).expect("a response");
    let tag = response.header("ETag").expect("an entity tag").to_owned();
    (daemon, address, tag)
}

#[test]
fn each_request_gets_its_response() {
    let (_daemon, address, tag) = daemon();
    for (name, request, status, body, after, fields) in ROWS {
        let mut client = HttpClient::connect(CLIENT, address);
        client.send(request.replace("{tag}", &tag)).expect("sent");
        let response = client.response(false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(response.status, *status, "{name}");
        assert_eq!(response.body, *body, "{name}");
        check_head(name, &response);
        for (field, value) in *fields {
            assert_eq!(response.header(field), Some(&*value.replace("{tag}", &tag)), "{name}: {field}");
        }
        match after {
            Closed => assert_eq!(client.rest(), b"", "{name}: closed"),
            Open => {
                let next = client.request("GET", "/dir/b", &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(next.body, b"b", "{name}: kept open");
            }
        }
    }
    println!("{} requests", ROWS.len());
}

#[test]
fn head_is_answered_as_get_without_a_body() {
    let (_daemon, address, tag) = daemon();
    // HEAD has no ranges.
    let rows = ROWS.iter().filter(|(_, request, ..)| request.contains("GET ") && !request.contains("ange:"));
    for (name, request, status, ..) in rows.filter(|(_, request, ..)| !request.contains("RANGE")) {
        let exchange = |request: &str, is_head: bool| {
            let mut client = HttpClient::connect(CLIENT, address);
            client.send(request.replace("{tag}", &tag)).expect("sent");
            let mut response = client.response(is_head).unwrap_or_else(|error| panic!("{name}: {error}"));
            response.headers.retain(|line| !line.starts_with("Date: "));
            (response.status, response.headers)
        };
        let got = exchange(request, false);
        assert_eq!(exchange(&request.replacen("GET ", "HEAD ", 1), true), got, "{name}");
        assert_eq!(got.0, *status, "{name}");
    }
}

#[test]
fn limits_the_size_of_a_head() {
    let (_daemon, address, _) = daemon();
    for (what, request, status) in [
        ("a path that no file has", format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1000)), 414),
        ("an endless first line", "a".repeat(9000), 414),
        ("an endless field", format!("GET /a HTTP/1.1\r\nA: {}", "a".repeat(9000)), 431),
        ("endless fields", format!("GET /a HTTP/1.1\r\n{}", "A: a\r\n".repeat(2000)), 431),
        ("65 fields", format!("GET /a HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(65)), 431),
        ("64 fields", format!("GET /a HTTP/1.1\r\n{}\r\n", "A: a\r\n".repeat(64)), 200),
        ("fields of 8 KiB", format!("GET /a HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(8192 - 24)), 200),
    ] {
        let mut client = HttpClient::connect(CLIENT, address);
        client.send(request).expect("sent");
        let response = client.response(false).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(response.status, status, "{what}");
        check_head(what, &response);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (_daemon, address, tag) = daemon();
    let mut client = HttpClient::connect(CLIENT, address);
    let rows = || ROWS.iter().filter(|(_, _, _, _, after, _)| *after == Open);
    let requests: String = rows().map(|(_, request, ..)| request.replace("{tag}", &tag)).collect();
    client.send(requests).expect("sent");
    for (name, _, status, body, ..) in rows() {
        let response = client.response(false).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((response.status, &*response.body), (*status, *body), "{name}");
    }
}

#[test]
fn files_on_disks_have_a_version_and_a_date() {
    let (daemon, address) = Rtftp::start_http(&["--view-gap", "0"]);
    let tree = Tree::new().file("vmlinuz", CONTENT);
    for (client, file_system) in [("127.0.0.7", FileSystem::Ext4(&tree)), ("127.0.0.8", FileSystem::Vfat(&tree))] {
        let image = Disk::whole(64, file_system);
        let server = NbdServer::qemu(&image);
        daemon.put_disk(client, &DiskConfig::new(server.url()).device("/dev/sda", "/"));
        let request = |fields: &[&str]| {
            HttpClient::connect(client, address).request("GET", "/vmlinuz", fields).expect("a response")
        };
        let whole = request(&[]);
        let [date, tag] = ["Last-Modified", "ETag"].map(|field| whole.header(field).expect(field).to_owned());
        assert_eq!(request(&[&format!("If-Modified-Since: {date}")]).status, 304, "{client}");
        assert_eq!(request(&[&format!("If-Modified-Since: {DATE}")]).status, 200, "{client}");
        assert_eq!(request(&[&format!("If-Unmodified-Since: {date}")]).status, 200, "{client}");
        assert_eq!(request(&[&format!("If-Unmodified-Since: {DATE}")]).status, 412, "{client}");
        assert_eq!(request(&[&format!("If-None-Match: {tag}")]).status, 304, "{client}");
        assert_eq!(request(&[&format!("If-Match: {tag}")]).status, 200, "{client}");
    }
}

#[test]
fn times_that_no_date_can_show_are_served() {
    let (daemon, address) = Rtftp::start_http(&[]);
    let year = Duration::from_secs(365 * 24 * 3600);
    for (name, time, has_date) in [
        ("before-1970", UNIX_EPOCH - year, false),
        ("tomorrow", SystemTime::now() + year, true),
        ("year-10000", UNIX_EPOCH + 9000 * year, true),
    ] {
        let path = daemon.put(&format!("default/{name}"), CONTENT);
        File::options().write(true).open(path).expect("opened").set_modified(time).expect("set");
        let response = HttpClient::connect(CLIENT, address).request("GET", &format!("/{name}"), &[]).expect(name);
        assert_eq!(response.body, CONTENT);
        // A date in the future would be that of the response.
        let [modified, date] = ["Last-Modified", "Date"].map(|field| response.header(field));
        assert_eq!(modified.is_some(), has_date, "{name}: {modified:?} {date:?}");
    }
}
