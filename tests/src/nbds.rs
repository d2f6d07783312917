//! NBD servers with TLS: nbdkit, qemu-nbd and nbd-server.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
};

use crate::{Authority, Disk, NbdServer, Process, can_unshare, nbd::listener, not_tested};

/// A disk to be exported with TLS.
#[derive(Debug, Clone, Copy)]
pub struct TlsExport<'e> {
    /// The disk.
    pub disk: &'e Disk,
    /// The authority of the server's certificate, which is for the server's address and `localhost`.
    pub authority: &'e Authority,
    /// The authority of the certificates of clients.
    pub clients: &'e Authority,
    /// The year at whose start the server's certificate ends.
    pub end: i32,
    /// The directory for the server's files.
    pub directory: &'e Path,
}

impl TlsExport<'_> {
    /// Exports the disk with `nbdkit`, which demands TLS, and further arguments.
    #[track_caller]
    pub fn nbdkit(&self, arguments: &[&str]) -> NbdServer {
        self.nbdkit_on(listener().0, arguments)
    }

    /// Exports the disk with `nbdkit` on the address of a server that was killed.
    #[track_caller]
    pub fn nbdkit_at(&self, address: SocketAddr) -> NbdServer {
        self.nbdkit_on(TcpListener::bind(address).expect("the address of a killed server"), &[])
    }

    /// Exports the disk with `nbdkit` and a certificate that is its own authority, as `openssl req -x509` makes it.
    #[track_caller]
    pub fn nbdkit_self_signed(&self) -> NbdServer {
        let listener = listener().0;
        self.issue(listener.local_addr().expect("a bound socket").ip());
        let [certificate, key] = ["server-cert.pem", "server-key.pem"].map(|name| self.directory.join(name));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=own",
        ]);
        let made = openssl.arg("-out").arg(certificate).arg("-keyout").arg(key).stderr(Stdio::null()).status();
        assert!(made.is_ok_and(|status| status.success()), "openssl makes a certificate");
        self.start_nbdkit(listener, &[])
    }

    /// Exports the disk with `nbdkit` on a Unix socket.
    #[track_caller]
    pub fn nbdkit_unix(&self) -> NbdServer {
        self.issue(IpAddr::from([127, 0, 0, 1]));
        let (certificates, file) = (self.certificates(), self.disk.path().display().to_string());
        let arguments = ["--tls=require", &certificates, "file", &file];
        NbdServer::start_unix_with(&self.directory.join("nbd.sock"), &arguments).with_tls()
    }

    /// Exports the disk with `qemu-nbd`, for clients with a certificate if `verifies`.
    #[track_caller]
    pub fn qemu(&self, verifies: bool) -> NbdServer {
        let (listener, address) = listener();
        self.issue(address.ip());
        let verify = if verifies { "on" } else { "off" };
        let directory = self.directory.display();
        let credentials = format!("tls-creds-x509,id=tls,endpoint=server,dir={directory},verify-peer={verify}");
        let image = self.disk.path().display().to_string();
        let command = ["qemu-nbd", "--persistent", "--shared=0", "--format=raw", "--export-name=disk"];
        let tls = ["--object", &credentials, "--tls-creds=tls", &image];
        NbdServer::start_on(listener, &[&command[..], &tls].concat(), "/disk").with_tls()
    }

    /// Exports the disk with `nbd-server`; `None` if it cannot run here.
    #[track_caller]
    pub fn nbd_server(&self) -> Option<NbdServer> {
        if Command::new("nbd-server").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            not_tested("nbd-server is not installed");
            return None;
        }
        // It forks, so it gets a process namespace, which ends with the test.
        if !can_unshare(&["--map-root-user", "--pid", "--fork"]) {
            return None;
        }
        let address = listener().1;
        self.issue(address.ip());
        let (directory, image) = (self.directory.display(), self.disk.path().display().to_string());
        let (ip, port) = (address.ip(), address.port());
        let config = format!(
            "[generic]\nlistenaddr = {ip}\nport = {port}\ncacertfile = {directory}/ca-cert.pem\ncertfile = {directory}/server-cert.pem\n\
             keyfile = {directory}/server-key.pem\nforce_tls = true\n[disk]\nexportname = {image}\nreadonly = true\n"
        );
        let file = self.directory.join("nbd-server.conf");
        fs::write(&file, config).expect("written");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        command.args([r#"nbd-server -C "$1" && exec sleep 3600"#, "sh"]).arg(file);
        Some(NbdServer::listening(Process::start_quietly(&mut command), address).with_tls())
    }

    #[track_caller]
    fn nbdkit_on(&self, listener: TcpListener, arguments: &[&str]) -> NbdServer {
        self.issue(listener.local_addr().expect("a bound socket").ip());
        self.start_nbdkit(listener, arguments)
    }

    #[track_caller]
    fn start_nbdkit(&self, listener: TcpListener, arguments: &[&str]) -> NbdServer {
        let (certificates, image) = (self.certificates(), self.disk.path().display().to_string());
        let command = ["nbdkit", "--foreground", "--tls=require", &certificates];
        NbdServer::start_on(listener, &[&command[..], arguments, &["file", &image]].concat(), "").with_tls()
    }

    fn certificates(&self) -> String {
        format!("--tls-certificates={}", self.directory.display())
    }

    /// Writes the files of the server.
    fn issue(&self, ip: IpAddr) {
        self.authority.issue_to(&[&ip.to_string(), "localhost"], self.end, self.directory, "server");
        fs::write(self.directory.join("ca-cert.pem"), self.clients.certificate()).expect("written");
    }
}
