//! curl and the wget of busybox fetch from a disk and from a local file over HTTP.

use std::{fs, net::SocketAddr, process::Command};

use rtftp_tests::{Disk, DiskConfig, FileSystem, NbdServer, Rtftp, Tree, assert_same, noise, run};
use tempfile::TempDir;

const SIZE: usize = 3_000_001;

/// A daemon with the files `/kernel` from the disk of 127.0.0.1, `/local` and `/empty`.
struct Server {
    daemon: Rtftp,
    address: SocketAddr,
    _nbd: NbdServer,
    _disk: Disk,
    directory: TempDir,
}

impl Server {
    fn start() -> Self {
        let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--http", "127.0.0.1:0"]);
        let line = daemon.logged(&["serving files over HTTP on "]);
        let address = line.split(" on ").nth(1).and_then(|address| address.parse().ok()).expect("an address");
        let disk = Disk::whole(64, FileSystem::Ext4(&Tree::new().file("boot/kernel", noise(SIZE, 1))));
        let nbd = NbdServer::nbdkit(&disk);
        daemon.put_disk("127.0.0.1", &DiskConfig::new(nbd.url()).device("/dev/sda", "/").tftp_root("/boot"));
        daemon.put("default/local", noise(SIZE, 2));
        daemon.put("default/empty", "");
        Self { daemon, address, _nbd: nbd, _disk: disk, directory: TempDir::new().expect("a temporary directory") }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Runs curl and returns its exit code and what it wrote to standard output: by default the status and the number of connections.
    fn curl(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "60", "--write-out", "%{http_code} %{num_connects}\\n"])
            .args(arguments)
            .output()
            .expect("this test needs the program `curl`");
        (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The files with their contents.
fn files() -> [(&'static str, Vec<u8>); 3] {
    [("/kernel", noise(SIZE, 1)), ("/local", noise(SIZE, 2)), ("/empty", vec![])]
}

#[test]
fn curl_fetches_whole_files() {
    let server = Server::start();
    for (path, expected) in files() {
        for arguments in [
            &["--http1.1"][..],
            &["--http1.0"],
            &["--compressed"],
            &["--header", "Connection: close"],
            &["--header", "Host:"],
            &["--header", "Range: bytes=x"],
            &["--path-as-is", "--user-agent", "GRUB 2.06"],
            // An upgrade is not answered.
            &["--http2"],
        ] {
            let to = server.file("got");
            let url = server.url(path);
            let (code, printed) = server.curl(&[arguments, &["--output", &to, &url]].concat());
            assert_eq!((code, printed.as_str()), (0, "200 1\n"), "{arguments:?} {path}");
            assert_same(&fs::read(&to).unwrap_or_default(), &expected, &format!("{arguments:?} {path}"));
            let _ = fs::remove_file(&to);
        }
    }
}

#[test]
fn curl_resumes_an_incomplete_file() {
    let server = Server::start();
    for (path, expected) in files().into_iter().take(2) {
        let to = server.file("part");
        fs::write(&to, &expected[..1_000_000]).expect("written");
        let (code, printed) = server.curl(&["--continue-at", "-", "--output", &to, &server.url(path)]);
        assert_eq!((code, printed.as_str()), (0, "206 1\n"), "{path}");
        assert_same(&fs::read(&to).expect("the file"), &expected, path);
        let (code, printed) = server.curl(&["--range", "-1000", "--output", &to, &server.url(path)]);
        assert_eq!((code, printed.as_str()), (0, "206 1\n"), "{path}");
        assert_same(&fs::read(&to).expect("the file"), &expected[SIZE - 1000..], path);
        let (code, printed) = server.curl(&["--range", "3000001-", "--output", &to, &server.url(path)]);
        assert_eq!((code, printed.as_str()), (0, "416 1\n"), "{path}");
    }
}

#[test]
fn curl_uses_one_connection_for_all_files() {
    let server = Server::start();
    let [kernel, local, empty, missing] = ["/kernel", "/local", "/empty", "/missing"].map(|path| server.url(path));
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| server.file(name));
    let (code, printed) = server.curl(&["-o", &a, &missing, "-o", &b, &kernel, "-o", &c, &local, "-o", &d, &empty]);
    assert_eq!((code, printed.as_str()), (0, "404 1\n200 0\n200 0\n200 0\n"));
    assert_same(&fs::read(&b).expect("the file"), &noise(SIZE, 1), "kernel");
    assert_same(&fs::read(&c).expect("the file"), &noise(SIZE, 2), "local");
    let (code, printed) = server.curl(&["--head", "--output", &a, &kernel, "--output", &b, &missing]);
    assert_eq!((code, printed.as_str()), (0, "200 1\n404 0\n"));
    let head = fs::read_to_string(&a).expect("the head");
    assert!(head.contains(&format!("Content-Length: {SIZE}\r\n")), "{head}");
}

#[test]
fn curl_fetches_only_other_versions() {
    let server = Server::start();
    for path in ["/kernel", "/local"] {
        let [to, tag, url] = [server.file("file"), server.file("tag"), server.url(path)];
        let conditional = ["--etag-compare", &tag, "--etag-save", &tag, "--output", &to, &url];
        fs::write(&tag, "").expect("written");
        assert_eq!(server.curl(&conditional), (0, "200 1\n".into()), "{path}");
        assert_eq!(server.curl(&conditional), (0, "304 1\n".into()), "{path}");
        let since = ["--remote-time", "--output", &to, &url];
        assert_eq!(server.curl(&since), (0, "200 1\n".into()), "{path}");
        assert_eq!(server.curl(&[&["--time-cond", to.as_str()][..], &since].concat()), (0, "304 1\n".into()), "{path}");
    }
    let before = server.daemon.log_lines(&["/local over HTTP", "complete"]).len();
    server.daemon.put("default/local", noise(SIZE, 3));
    let [to, tag, url] = [server.file("file"), server.file("tag"), server.url("/local")];
    assert_eq!(server.curl(&["--etag-compare", &tag, "--output", &to, &url]), (0, "200 1\n".into()));
    assert_same(&fs::read(&to).expect("the file"), &noise(SIZE, 3), "the new version");
    server.daemon.wait_for("the line of the new version", std::time::Duration::from_secs(10), |_| {
        server.daemon.log_lines(&["/local over HTTP", "complete"]).len() > before
    });
}

#[test]
fn curl_reports_errors() {
    let server = Server::start();
    for (arguments, status) in [
        (&["--fail"][..], "404"),
        (&["--fail", "--request", "DELETE"], "405"),
        (&["--fail", "--data", "x=1"], "405"),
        (&["--fail", "--upload-file", "/dev/null"], "405"),
    ] {
        let path = if status == "404" { "/missing" } else { "/local" };
        let (code, printed) = server.curl(&[arguments, &[&server.url(path)]].concat());
        assert_eq!((code, printed.as_str()), (22, &*format!("{status} 1\n")), "{arguments:?}");
    }
    // Without --fail, the body of an error would be the file.
    let to = server.file("missing");
    assert_eq!(server.curl(&["--output", &to, &server.url("/missing")]), (0, "404 1\n".into()));
    assert_eq!(fs::read(&to).unwrap_or_default(), b"");
}

#[test]
fn busybox_wget_fetches_and_resumes() {
    let server = Server::start();
    for (path, expected) in files().into_iter().take(2) {
        let to = server.file("wget");
        run("busybox", ["wget", "-q", "-O", &to, &server.url(path)]);
        assert_same(&fs::read(&to).expect("the file"), &expected, path);
        fs::write(&to, &expected[..1_234_567]).expect("written");
        run("busybox", ["wget", "-q", "-c", "-O", &to, &server.url(path)]);
        assert_same(&fs::read(&to).expect("the file"), &expected, path);
        fs::remove_file(&to).expect("removed");
    }
}
