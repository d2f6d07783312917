//! The files of the boot server over HTTPS, fetched by curl.

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpListener},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rtftp_tests::{
    Authority, Disk, DiskConfig, FileSystem, NbdServer, Process, Rtftp, Tree, assert_same, http_client::HttpClient,
    noise, poll_until, run_with_bad_arguments, thread_cpu_times,
};
use tempfile::TempDir;

/// A daemon with HTTPS, its authority, and the directory with the files of both.
struct Https {
    daemon: Rtftp,
    address: SocketAddr,
    files: TempDir,
}

/// Issues a certificate, and starts a daemon with it.
fn start(arguments: &[&str]) -> Https {
    let files = TempDir::new().expect("a directory");
    issue(&Authority::new("first"), &files);
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| path(&files, name));
    let tls = ["--https", "127.0.0.1:0", "--tls-certificate", &certificate, "--tls-key", &key];
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[&tls, arguments].concat());
    let address = daemon.served_at("serving files over HTTPS on ");
    Https { daemon, address, files }
}

fn issue(authority: &Authority, files: &TempDir) {
    authority.issue(2100, files.path());
    fs::write(files.path().join("ca.pem"), authority.certificate()).expect("written");
}

fn path(files: &TempDir, name: &str) -> String {
    files.path().join(name).display().to_string()
}

impl Https {
    /// Fetches a file with curl, which trusts the authority.
    fn curl(&self, name: &str, arguments: &[&str]) -> Output {
        let authority = path(&self.files, "ca.pem");
        let url = format!("https://{}/{name}", self.address);
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--cacert", &authority]);
        command.args(arguments).arg(url).output().expect("curl runs")
    }

    #[track_caller]
    fn fetch(&self, name: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.curl(name, arguments);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn reload(&self) {
        self.daemon.process().signal(Signal::SIGHUP);
    }
}

#[test]
fn curl_fetches_over_both_versions_of_tls() {
    let https = start(&[]);
    let kernel = noise(3_000_001, 1);
    let tree = Tree::new().file("boot/vmlinuz", &kernel);
    let image = Disk::whole(64, FileSystem::Ext4(&tree));
    let server = NbdServer::qemu(&image);
    https.daemon.put_disk("127.0.0.1", &DiskConfig::new(server.url()).device("/dev/sda", "/").tftp_root("/boot"));
    https.daemon.put("default/large", noise(5_000_003, 2));
    https.daemon.put("default/empty", "");
    for version in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"], &["--http1.0"]] {
        assert_same(&https.fetch("large", version), &noise(5_000_003, 2), "a local file");
        assert_same(&https.fetch("vmlinuz", version), &kernel, "a file on a disk");
        assert_eq!(https.fetch("empty", version), b"");
        let range = [version, &["--range", "2000000-2000009"]].concat();
        assert_same(&https.fetch("large", &range), &noise(5_000_003, 2)[2_000_000..2_000_010], "a part");
        assert_eq!(https.curl("missing", version).status.code(), Some(22), "404");
    }
    let two = https.fetch("large", &[&format!("https://{}/vmlinuz", https.address)]);
    assert_same(&two, &[kernel, noise(5_000_003, 2)].concat(), "two files over one connection");
}

#[test]
fn firmware_without_elliptic_curves_can_connect() {
    let https = start(&[]);
    https.daemon.put("default/large", noise(1_000_003, 4));
    Authority::new("another").issue_with_rsa(2100, https.files.path());
    https.reload();
    for cipher in ["DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384"] {
        let arguments = ["--tls-max", "1.2", "--insecure", "--ciphers", cipher];
        let body = poll_until("the certificate with an RSA key", Duration::from_secs(10), || {
            Some(https.curl("large", &arguments)).filter(|output| output.status.success())
        });
        assert_same(&body.stdout, &noise(1_000_003, 4), cipher);
    }
}

#[test]
fn a_client_without_the_authority_is_explained() {
    let https = start(&[]);
    fs::write(https.files.path().join("ca.pem"), Authority::new("other").certificate()).expect("written");
    assert_eq!(https.curl("a", &[]).status.code(), Some(60), "curl rejects the certificate");
    https.daemon.logged(&["127.0.0.1", "TLS handshake failed", "issuer"]);
    https.curl("a", &["--tls-max", "1.2", "--ciphers", "AES128-SHA"]);
    https.daemon.logged(&["127.0.0.1", "TLS handshake failed", "no cipher suite in common"]);
}

#[test]
fn reload_reads_certificate_and_key_again() {
    let https = start(&[]);
    https.daemon.put("default/a", "file");
    assert_eq!(https.fetch("a", &[]), b"file");
    issue(&Authority::new("second"), &https.files);
    assert_eq!(https.curl("a", &[]).status.code(), Some(60), "the new one is not in use yet");
    https.reload();
    poll_until("the new certificate to be in use", Duration::from_secs(10), || {
        https.curl("a", &[]).status.success().then_some(())
    });
    for (name, content, message) in [
        ("key.pem", fs::read(https.files.path().join("ca.pem")).expect("read"), "no key in the PEM format"),
        ("certificate.pem", b"nothing".to_vec(), "no certificate in the PEM format"),
    ] {
        fs::write(https.files.path().join(name), content).expect("written");
        https.reload();
        https.daemon.logged(&[name, message, "stays in use"]);
        assert_eq!(https.fetch("a", &[]), b"file");
    }
}

#[test]
fn explains_files_that_cannot_be_used() {
    let [first, second] = [(); 2].map(|()| {
        let files = TempDir::new().expect("a directory");
        issue(&Authority::new("authority"), &files);
        files
    });
    let certificate = path(&first, "certificate.pem");
    let other_key = path(&second, "key.pem");
    fs::write(first.path().join("empty"), "").expect("written");
    for (certificate, key, message) in [
        (&certificate, other_key.clone(), format!("{other_key}: not the key of the certificate {certificate}")),
        (&certificate, path(&first, "missing"), "missing: No such file".into()),
        (&path(&first, "empty"), other_key.clone(), "empty: no certificate in the PEM format".into()),
        (&certificate, path(&first, "empty"), "empty: no key in the PEM format, or an encrypted one".into()),
        (&path(&first, "."), other_key, "/.: Is a directory".into()),
    ] {
        let root = path(&first, "");
        let tls = ["--https", "127.0.0.1:0", "--tls-certificate", certificate, "--tls-key", &key];
        let output = run_with_bad_arguments([&["--root-dir", &root, "--listen-port", "0"][..], &tls].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("--https: ") && stderr.contains(&message), "expected `{message}`: {stderr}");
    }
}

#[test]
fn warns_about_an_expired_certificate() {
    let https = start(&[]);
    https.daemon.logged(&["certificate.pem: the certificate is valid until 2100-01-01T00:00:00Z"]);
    Authority::new("authority").issue(2020, https.files.path());
    https.reload();
    https.daemon.logged(&["certificate.pem: the certificate expired at 2020-01-01T00:00:00Z", "renew it"]);
}

#[test]
fn http_on_the_port_for_https_gets_an_error() {
    let https = start(&[]);
    let response = HttpClient::connect("127.0.0.1", https.address).request("GET", "/a", &[]).expect("a response");
    assert_eq!((response.status, response.header("Content-Length")), (400, Some("0")));
    https.daemon.logged(&["127.0.0.1", "the client does not speak TLS"]);
}

/// Returns the first message of curl to an HTTPS server.
fn client_hello() -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}/", listener.local_addr().expect("bound"));
    let _curl = Process::start(Command::new("curl").args(["--silent", &url]).stdout(Stdio::null()));
    let (mut stream, _) = listener.accept().expect("connected");
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).expect("the head of a record");
    let len = usize::from(record[3]) << 8 | usize::from(record[4]);
    record.resize(5 + len, 0);
    stream.read_exact(&mut record[5..]).expect("a record");
    record
}

#[test]
fn a_thousand_handshakes_at_once_delay_no_transfer() {
    let https = start(&["--http", "127.0.0.1:0"]);
    let plain = https.daemon.served_at("serving files over HTTP on ");
    https.daemon.put("default/a", "file");
    let hello = client_hello();
    let cpu_time = || {
        let times = thread_cpu_times(https.daemon.process().id());
        times.iter().filter(|(name, _)| name.starts_with("tls-handshakes")).map(|(_, time)| *time).sum::<Duration>()
    };
    let before = cpu_time();
    // Each makes the server compute its part, and is never finished.
    let mut clients: Vec<_> =
        (0..1000).map(|number| HttpClient::connect(&format!("127.0.1.{}", number % 10 + 1), https.address)).collect();
    for client in &mut clients {
        client.send(&hello).expect("sent");
    }
    let started = Instant::now();
    let response = HttpClient::connect("127.0.0.1", plain).request("GET", "/a", &[]).expect("a response");
    let plain_time = started.elapsed();
    assert_eq!(response.body, b"file");
    assert_eq!(https.fetch("a", &[]), b"file");
    println!("beside 1,000 handshakes: {plain_time:?} over HTTP, {:?} over HTTPS", started.elapsed());
    assert!(plain_time < Duration::from_secs(1));
    assert!(started.elapsed() < Duration::from_secs(5), "firmware gives up after 5 s");
    println!("one handshake takes {:?}", (cpu_time() - before) / 1000);
}

#[test]
fn handshakes_that_never_begin_keep_nobody_out() {
    let https = start(&["--max-per-client", "64"]);
    https.daemon.put("default/a", "file");
    let hello = client_hello();
    let slow: Vec<_> = (0..1000)
        .map(|number| {
            let mut client = HttpClient::connect(&format!("127.0.1.{}", number % 20 + 1), https.address);
            // The server may have closed it.
            let _ = client.send(&hello[..number % hello.len()]);
            client
        })
        .collect();
    let started = Instant::now();
    assert_eq!(https.fetch("a", &[]), b"file");
    println!("beside {} unfinished handshakes: {:?}", slow.len(), started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn ends_while_a_client_does_not_read() {
    let https = start(&[]);
    https.daemon.put("default/large", noise(20_000_000, 3));
    let url = format!("https://{}/large", https.address);
    let mut curl = Process::start(
        Command::new("curl").args(["--silent", "--insecure", "--no-buffer", &url]).stdout(Stdio::piped()),
    );
    let mut first = [0; 1000];
    curl.child().stdout.as_mut().expect("piped").read_exact(&mut first).expect("the start of the file");
    https.daemon.stop(Signal::SIGTERM);
}
