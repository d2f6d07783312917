//! Disks over NBD with TLS (`nbds://`), from nbdkit, qemu-nbd and nbd-server.

use std::{fs, path::Path, time::Duration};

use rtftp_tests::{
    Authority, Disk, DiskConfig, FileSystem, NbdServer, Rtftp, TlsExport, Tree, assert_same, binary, noise, poll_until,
    rtftp_check::CheckResult, run,
};
use tempfile::TempDir;

/// The files of clients, below the root directory of a daemon, which serves them to nobody.
const TLS: &str = r#"{"ca": ".tls/ca-cert.pem", "certificate": ".tls/client-cert.pem", "key": ".tls/client-key.pem"}"#;

fn disk() -> Disk {
    Disk::whole(32, FileSystem::Ext4(&Tree::new().file("boot/kernel", kernel())))
}

fn kernel() -> Vec<u8> {
    noise(5_000_003, 7)
}

fn config(server: &NbdServer) -> DiskConfig {
    DiskConfig::new(server.url()).partition(0, "/").tftp_root("/boot")
}

/// Writes what a client of servers with certificates of an authority needs, under the names that libnbd expects.
fn write_client_files(authority: &Authority, directory: &Path) {
    fs::create_dir_all(directory).expect("a directory");
    fs::write(directory.join("ca-cert.pem"), authority.certificate()).expect("written");
    authority.issue_to(&["board"], 2100, directory, "client");
}

/// Returns an export whose server and clients have certificates of one authority, valid until 2100.
fn export<'e>(disk: &'e Disk, authority: &'e Authority, directory: &'e TempDir) -> TlsExport<'e> {
    TlsExport { disk, authority, clients: authority, end: 2100, directory: directory.path() }
}

fn directories<const N: usize>() -> [TempDir; N] {
    std::array::from_fn(|_| TempDir::new().expect("a directory"))
}

#[track_caller]
fn assert_boots(daemon: &Rtftp, client: &str) {
    let file = daemon.client(client).fetch("kernel", &[("blksize", "16384")]);
    let file = file.unwrap_or_else(|error| panic!("{client}: {error:?}\n{}", daemon.log().join("\n")));
    assert_same(&file, &kernel(), client);
}

#[test]
fn boots_from_every_server() {
    let (disk, authority) = (disk(), Authority::new("lab"));
    let directories = directories::<4>();
    let export = |number: usize| export(&disk, &authority, &directories[number]);
    let servers = [
        Some(export(0).nbdkit(&["--tls-verify-peer"])),
        Some(export(1).qemu(true)),
        export(2).nbd_server(),
        Some(export(3).nbdkit_unix()),
    ];
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--log-level", "debug"]);
    write_client_files(&authority, &daemon.path(".tls"));
    for (server, client) in servers.iter().flatten().zip(["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]) {
        daemon.put_disk(client, &config(server).tls(TLS));
        assert_boots(&daemon, client);
    }
    // The keys stay where they are.
    for name in ["../.tls/client-key.pem", ".tls/client-key.pem", "/.tls/client-key.pem"] {
        assert!(daemon.fetch("127.0.0.2", name).is_err(), "{name}");
    }
    let key = fs::read_to_string(daemon.path(".tls/client-key.pem")).expect("a key");
    let secret = key.lines().nth(1).expect("PEM");
    assert!(!daemon.log().iter().any(|line| line.contains(secret)), "the key is in the log");
}

#[test]
fn parameters_of_the_uri_are_those_of_libnbd() {
    let (disk, authority) = (disk(), Authority::new("lab"));
    let [server, client] = directories();
    let export = export(&disk, &authority, &server);
    let server = export.nbdkit(&["--tls-verify-peer"]);
    write_client_files(&authority, client.path());
    let daemon = Rtftp::start();
    let certificates = format!("tls-certificates={}", client.path().display());
    for (board, parameters) in [
        ("127.0.0.2", certificates.clone()),
        ("127.0.0.3", format!("{certificates}&tls-hostname=localhost&tls-type=x509")),
        ("127.0.0.4", format!("{certificates}&tls-hostname=other&tls-verify-peer=0")),
    ] {
        let url = format!("{}?{parameters}", server.url());
        daemon.put_disk(board, &DiskConfig::new(url).partition(0, "/").tftp_root("/boot"));
        assert_boots(&daemon, board);
    }
    daemon.logged(&["127.0.0.4.nbd", "any server can pass itself off as", "tls-verify-peer"]);
    assert_eq!(daemon.log_lines(&["any server can pass itself off as"]).len(), 1);
}

#[test]
fn reads_the_files_again_and_reconnects() {
    let (disk, [old, new]) = (disk(), ["old", "new"].map(Authority::new));
    let [directory] = directories();
    let export = |authority| export(&disk, authority, &directory);
    let server = export(&old).nbdkit(&[]);
    let daemon = Rtftp::start();
    write_client_files(&old, &daemon.path(".tls"));
    daemon.put_disk("127.0.0.2", &config(&server).tls(TLS));
    assert_boots(&daemon, "127.0.0.2");
    let address = server.kill();
    let _server = export(&new).nbdkit_at(address);
    assert!(daemon.fetch("127.0.0.2", "kernel").is_err(), "the authority is not known yet");
    daemon.logged(&["127.0.0.2.nbd", "from an authority that is not known (CN=new", "\"ca\""]);
    write_client_files(&new, &daemon.path(".tls"));
    poll_until("the new authority to be known", Duration::from_secs(10), || {
        daemon.client("127.0.0.2").fetch("kernel", &[("blksize", "16384")]).ok()
    });
}

#[test]
fn refuses_a_revoked_certificate() {
    let (disk, authority) = (disk(), Authority::new("lab"));
    let [server_files, client_files] = directories();
    let server = export(&disk, &authority, &server_files).nbdkit(&[]);
    write_client_files(&authority, client_files.path());
    let url = format!("{}?tls-certificates={}", server.url(), client_files.path().display());
    let config = DiskConfig::new(url).partition(0, "/").tftp_root("/boot");
    let root = Tree::new().file("default/a", "").file("10.0.0.1.nbd", config.to_string());
    let certificates = ["client", "server"].map(|name| {
        let files = if name == "client" { &client_files } else { &server_files };
        files.path().join(format!("{name}-cert.pem"))
    });
    let [client, revoked] = certificates.each_ref().map(|path| path.as_path());
    for (list, problem) in [
        (authority.revoke(&[]), ""),
        (authority.revoke(&[client]), ""),
        (authority.revoke(&[client, revoked]), "the server's certificate is not valid: it is revoked by ca-crl.pem"),
        (String::new(), "ca-crl.pem: no list of revoked certificates in the PEM format (-----BEGIN X509 CRL-----)"),
    ] {
        fs::write(client_files.path().join("ca-crl.pem"), &list).expect("written");
        let checked = CheckResult::of(&root, &[]);
        match &checked.problems()[..] {
            [] => assert_eq!(problem, "", "{list}"),
            [found] => assert!(!problem.is_empty() && found.ends_with(problem), "expected `{problem}`: {found}"),
            more => panic!("{more:?}"),
        }
    }
}

#[test]
fn check_explains_every_refusal() {
    let (disk, authority, other) = (disk(), Authority::new("lab"), Authority::new("other"));
    let directories = directories::<6>();
    let export = |number: usize| export(&disk, &authority, &directories[number]);
    let good = export(0).nbdkit(&[]);
    let expired = TlsExport { end: 2020, ..export(1) }.nbdkit(&[]);
    let verifying = [export(2).nbdkit(&["--tls-verify-peer"]), export(3).qemu(true)];
    let nbd_server = export(4).nbd_server();
    let plain = NbdServer::nbdkit(&disk);
    let own = directories[5].path();
    let self_signed = export(5).nbdkit_self_signed();

    let fingerprint = |directory: &Path| {
        let file = directory.join("server-cert.pem").display().to_string();
        let printed = run("openssl", ["x509", "-noout", "-fingerprint", "-sha256", "-in", &file]).stdout;
        let printed = String::from_utf8(printed).expect("text");
        format!(r#"{{"fingerprint": "sha256:{}"}}"#, printed.trim().split('=').nth(1).expect("digits"))
    };
    let (ca, named) = (r#"{"ca": ".tls/ca-cert.pem"}"#, r#"{"ca": ".tls/ca-cert.pem", "hostname": "nas.lan"}"#);
    let with_client = |name: &str| {
        format!(r#"{{"ca": ".tls/ca-cert.pem", "certificate": ".tls/{name}-cert.pem", "key": ".tls/{name}-key.pem"}}"#)
    };
    let plain_as_tls = plain.url().replacen("nbd", "nbds", 1);
    let good_as_plain = good.url().replacen("nbds", "nbd", 1);
    let demand = "the server demands a certificate of the client";
    let rejection = "the server rejects the client's certificate";
    let unverified = format!("{}?tls-verify-peer=false", good.url());
    let not_checked =
        "the server's certificate is not checked (tls-verify-peer is false), so anyone on the way can replace";
    let mut rows: Vec<(&str, String, &str)> = vec![
        (&unverified, String::new(), not_checked),
        (&unverified, ca.into(), ""),
        (good.url(), ca.into(), ""),
        (good.url(), fingerprint(directories[0].path()), ""),
        (expired.url(), fingerprint(directories[1].path()), ""),
        (good.url(), named.into(), "the server's certificate is not for nas.lan, but for "),
        (expired.url(), ca.into(), "the server's certificate expired at 2020-01-01T00:00:00Z"),
        (good.url(), r#"{"ca": ".tls/other.pem"}"#.into(), "from an authority that is not known (CN=lab"),
        (self_signed.url(), ca.into(), "the server's certificate is self-signed: if its fingerprint is sha256:"),
        (self_signed.url(), fingerprint(own), ""),
        (good.url(), fingerprint(own), "the server's certificate is not the expected one: its fingerprint is sha256:"),
        (&plain_as_tls, ca.into(), "the server does not offer TLS"),
        (&good_as_plain, String::new(), "the server requires TLS: use nbds://"),
        (good.url(), r#"{"ca": ".tls/missing.pem"}"#.into(), ".tls/missing.pem: No such file or directory"),
        (
            good.url(),
            r#"{"ca": ".tls/client-key.pem"}"#.into(),
            ".tls/client-key.pem: no certificate in the PEM format",
        ),
    ];
    for server in verifying.iter().chain(&nbd_server) {
        rows.push((server.url(), with_client("client"), ""));
        rows.push((server.url(), ca.into(), demand));
        rows.push((server.url(), with_client("unknown"), rejection));
    }
    let root = Tree::new().file("default/a", "").file(".tls/other.pem", other.certificate());
    write_client_files(&authority, &root.path().join(".tls"));
    other.issue_to(&["board"], 2100, &root.path().join(".tls"), "unknown");
    let root = rows.iter().enumerate().fold(root, |root, (number, (url, tls, _))| {
        let config = DiskConfig::new(*url).partition(0, "/").tftp_root("/boot");
        let config = if tls.is_empty() { config } else { config.tls(tls) };
        root.file(&format!("10.0.0.{}.nbd", number + 1), config.to_string())
    });
    // Disks that only libguestfs can read.
    let root = root.file("10.0.1.1.nbd", config(&good).tls(ca).backend("guestfs").to_string());
    let raid = DiskConfig::new(good.url()).device("/dev/md127", "/").tls(ca);
    let root = root.file("10.0.1.3.nbd", raid.to_string());

    // The authorities of the system are those of this file.
    let system = config(&good).to_string();
    let root = root.file("10.0.1.2.nbd", system);
    let program = binary("rtftp");
    let authorities = format!("SSL_CERT_FILE={}", root.path().join(".tls/ca-cert.pem").display());
    let words = ["env".as_ref(), authorities.as_ref(), program.as_os_str()];
    let checked = CheckResult::run(&words, &root, &[]);
    let problems = checked.problems();
    for (number, (url, tls, reason)) in rows.iter().enumerate() {
        let name = format!("10.0.0.{}", number + 1);
        let found = problems.iter().find(|problem| problem.starts_with(&format!("{name}.nbd: ")));
        match found {
            None => assert_eq!(*reason, "", "{name}: no problem of {url} with {tls}\n{}", checked.stdout),
            Some(problem) => {
                assert!(!reason.is_empty() && problem.contains(reason), "expected `{reason}`: {problem}");
            }
        }
    }
    let found = |name: &str| problems.iter().find(|problem| problem.starts_with(name)).copied();
    for name in ["10.0.1.1.nbd: ", "10.0.1.3.nbd: "] {
        let guestfs = found(name).expect("libguestfs has no TLS");
        assert!(guestfs.contains("libguestfs cannot connect with TLS (nbds://): forward the disk"), "{guestfs}");
    }
    assert_eq!(found("10.0.1.2.nbd: "), None);
}
