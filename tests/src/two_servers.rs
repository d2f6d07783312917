//! Two servers of one service, each in a network namespace of its own. The boards are in that of the test.

use std::{
    fs,
    net::SocketAddr,
    process::{Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Disk, DiskConfig, FileSystem, Namespace, NbdServer, Process, Rtftp, Tree, binary,
    namespace::{in_new_network, run_words},
    poll_until,
};

/// The address of the service, of the servers with keepalived: in the same network as theirs.
pub const VIRTUAL_ADDRESS: &str = "10.9.0.69";
/// The address of the service, of the servers behind a router: both have it.
pub const ANYCAST_ADDRESS: &str = "192.0.2.69";
/// The network of the boards.
const BOARDS: &str = "10.8.0.0/16";
/// The port of the status page.
const STATUS_PORT: u16 = 8080;

/// A server.
#[derive(Debug)]
pub struct BootServer {
    /// Its network namespace.
    pub namespace: Namespace,
    /// The address of its own.
    pub address: String,
    daemon: Option<Rtftp>,
}

/// Two servers with the same files and the same NBD server.
#[derive(Debug)]
pub struct TwoServers {
    /// The servers.
    pub servers: [BootServer; 2],
    /// The router between them and the boards, if there is one.
    router: Option<Namespace>,
    address: &'static str,
    nbd: NbdServer,
    _disk: Disk,
}

impl TwoServers {
    /// Runs a test with two servers that were started with these arguments, on one Ethernet segment with the boards. They have
    /// [`VIRTUAL_ADDRESS`] when keepalived gives it to one of them. All boards load these files.
    ///
    /// Creating network namespaces needs root. Without this privilege, also in most containers, the test says so and does nothing.
    #[track_caller]
    pub fn on_one_segment(args: &[&str], files: &Tree, test: impl FnOnce(&mut Self) + Send) {
        in_new_network(|| {
            run_words("ip link add name segment type bridge");
            run_words("ip address add 10.9.0.254/16 dev segment");
            run_words("ip link set segment up");
            add_boards();
            let servers = [1, 2].map(|number| {
                let namespace = Namespace::create();
                run_words(&format!("ip link add port{number} type veth peer name eth0 netns {}", namespace.id()));
                run_words(&format!("ip link set port{number} master segment up"));
                BootServer::new(namespace, format!("10.9.0.{number}"), 16, "10.9.0.254")
            });
            test(&mut Self::start(servers, None, VIRTUAL_ADDRESS, args, files));
        });
    }

    /// Runs a test with two servers that were started with these arguments, behind a router that forwards to [`ANYCAST_ADDRESS`] over two
    /// routes, with this `fib_multipath_hash_policy`: 0 selects the route by the addresses of a packet, 1 also by its ports.
    #[track_caller]
    pub fn behind_router(hash_policy: u32, args: &[&str], files: &Tree, test: impl FnOnce(&mut Self) + Send) {
        in_new_network(|| {
            let router = Namespace::create();
            run_words(&format!("ip link add uplink type veth peer name boards netns {}", router.id()));
            run_words("ip address add 10.7.0.2/24 dev uplink");
            run_words("ip link set uplink up");
            run_words("ip route add default via 10.7.0.1");
            add_boards();
            router.run("ip address add 10.7.0.1/24 dev boards");
            router.run("ip link set boards up");
            router.run(&format!("ip route add {BOARDS} via 10.7.0.2"));
            router.set("ipv4/ip_forward", 1);
            router.set("ipv4/fib_multipath_hash_policy", hash_policy);
            let servers = [1, 2].map(|number| {
                let namespace = Namespace::create();
                router.run(&format!("ip link add port{number} type veth peer name eth0 netns {}", namespace.id()));
                router.run(&format!("ip address add 10.9.{number}.254/24 dev port{number}"));
                router.run(&format!("ip link set port{number} up"));
                namespace.run(&format!("ip address add {ANYCAST_ADDRESS}/32 dev lo"));
                BootServer::new(namespace, format!("10.9.{number}.1"), 24, &format!("10.9.{number}.254"))
            });
            let mut two = Self::start(servers, Some(router), ANYCAST_ADDRESS, args, files);
            two.announce(2);
            test(&mut two);
        });
    }

    fn start(
        servers: [BootServer; 2],
        router: Option<Namespace>,
        address: &'static str,
        args: &[&str],
        files: &Tree,
    ) -> Self {
        let disk = Disk::whole(16, FileSystem::Ext4(files));
        // nbdkit 1.32 may abort when a server is killed while it sends a reply.
        let nbd = NbdServer::qemu_unix(&disk);
        let mut two = Self { servers, router, address, nbd, _disk: disk };
        (0..2).for_each(|number| two.start_daemon(number, args));
        two
    }

    /// Starts the daemon of a server.
    pub fn start_daemon(&mut self, number: usize, args: &[&str]) {
        let server = &mut self.servers[number];
        let status = format!("0.0.0.0:{STATUS_PORT}");
        let daemon = Rtftp::start_in(&server.namespace, &[args, &["--status-listen", &status]].concat());
        daemon.put_disk("default", &DiskConfig::new(self.nbd.url()).partition(0, "/"));
        server.daemon = Some(daemon);
    }

    /// Returns the address of the service.
    pub fn service(&self) -> SocketAddr {
        SocketAddr::new(self.address.parse().expect("an address"), 69)
    }

    /// Waits until this number of servers is ready, and makes the router forward to them, as programs do that announce a route while
    /// `/readyz` answers `ok`.
    #[track_caller]
    pub fn announce(&self, ready: usize) {
        let router = self.router.as_ref().expect("a router");
        let servers = poll_until("the servers to be ready", Duration::from_secs(60), || {
            let servers: Vec<_> = self.servers.iter().filter(|server| server.is_ready()).collect();
            (servers.len() == ready).then_some(servers)
        });
        let hops: String = servers.iter().map(|server| format!(" nexthop via {}", server.address)).collect();
        router.run(&format!("ip route replace {}/32{hops}", self.address));
    }

    /// Unplugs the cable of a server on the segment.
    #[track_caller]
    pub fn unplug(&self, number: usize) {
        run_words(&format!("ip link set port{} down", number + 1));
    }

    /// Runs `rtftp status` with both servers.
    pub fn status(&self, args: &[&str]) -> Output {
        let [first, second] = self.servers.each_ref().map(BootServer::status_address);
        let servers = ["status", "--server", &first, "--server", &second];
        crate::run_with_bad_arguments([&servers[..], args].concat())
    }
}

impl BootServer {
    /// Configures the interface of a server.
    fn new(namespace: Namespace, address: String, prefix: u32, gateway: &str) -> Self {
        namespace.run(&format!("ip address add {address}/{prefix} dev eth0"));
        namespace.run("ip link set eth0 up");
        namespace.run(&format!("ip route add default via {gateway}"));
        Self { namespace, address, daemon: None }
    }

    /// Returns the running daemon.
    #[track_caller]
    pub fn daemon(&self) -> &Rtftp {
        self.daemon.as_ref().expect("a running daemon")
    }

    /// Kills the daemon with SIGKILL.
    #[track_caller]
    pub fn kill(&mut self) {
        self.daemon.take().expect("a running daemon").kill();
    }

    /// Asks the daemon whether it is ready, as a program on the same server does.
    fn is_ready(&self) -> bool {
        let mut get = self.namespace.command(binary("rtftp-get").to_str().expect("UTF-8"));
        get.args([&format!("http://127.0.0.1:{STATUS_PORT}/readyz"), "-o", "/dev/null", "-q", "--patience", "2"]);
        get.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn status_address(&self) -> String {
        format!("{}:{STATUS_PORT}", self.address)
    }
}

/// Gives all addresses of boards to the namespace of this thread.
fn add_boards() {
    run_words("ip link set lo up");
    run_words(&format!("ip route add local {BOARDS} dev lo"));
}

/// A running keepalived, which gives [`VIRTUAL_ADDRESS`] to one of two servers.
#[derive(Debug)]
pub struct Keepalived {
    process: Process,
    directory: TempDir,
}

impl Keepalived {
    /// Starts keepalived for a server, with the configuration of the guide and this priority.
    #[track_caller]
    pub fn start(server: &BootServer, guide: &str, priority: u32) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name).to_str().expect("UTF-8").to_owned();
        let config = guide
            .replace("/usr/bin/rtftp-get", binary("rtftp-get").to_str().expect("UTF-8"))
            // The programs of a test may be in a directory that belongs to somebody, or that only root can read.
            .replace("enable_script_security\n", "")
            .replace("script_user nobody", "script_user root")
            .replace("priority 100", &format!("priority {priority}"));
        fs::write(path("keepalived.conf"), config).expect("written");
        // In a namespace of processes, which ends its descendants with it.
        let mut command = server.namespace.command("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "keepalived", "--dont-fork", "--log-console", "--vrrp"])
            .args(["--use-file", &path("keepalived.conf"), "--pid", &path("pid"), "--vrrp_pid", &path("vrrp.pid")])
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .stdin(Stdio::null())
            .stdout(fs::File::create(path("log")).expect("created"));
        Self { process: Process::start_quietly(&mut command), directory }
    }

    /// Waits until it knows that the other one has the address.
    #[track_caller]
    pub fn wait_until_backup(&self) {
        poll_until("keepalived to start", Duration::from_secs(30), || {
            assert!(!self.has_ended(), "keepalived ended: {}", self.log());
            self.log().contains("Entering BACKUP STATE").then_some(())
        });
    }

    /// Returns whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default() + &self.process.stderr()
    }
}
