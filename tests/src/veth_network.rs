//! Two network namespaces joined by a veth pair: the daemon in one, the test in the other.

use std::fs;

use nix::sched::{CloneFlags, unshare};

use crate::{
    Client, Namespace, Rtftp,
    namespace::{in_new_network, run_words},
};

/// The MAC address of the test's interface.
pub const BOARD_MAC: &str = "02-00-00-00-00-05";

/// A daemon in a network namespace of its own. The test runs on a thread that is in the other namespace.
#[derive(Debug)]
pub struct VethNetwork {
    daemon: Rtftp,
}

impl VethNetwork {
    /// Runs a test against a daemon that was started with `args`. The daemon has the addresses 10.9.0.1, `fd09::1` and `fe80::1`;
    /// the test has 10.9.0.5, 10.9.0.6, `fd09::5` and `fe80::5`, all with the MAC address [`BOARD_MAC`].
    ///
    /// Creating network namespaces needs root. Without this privilege, also in most containers, the test says so and does nothing.
    #[track_caller]
    pub fn test(args: &[&str], test: impl FnOnce(&Self) + Send) {
        in_new_network(|| test(&Self::create(args)));
    }

    /// Starts the daemon in the network of this thread.
    fn create(args: &[&str]) -> Self {
        let daemon = Rtftp::start_with("::", 3600, args);
        unshare(CloneFlags::CLONE_NEWNET).expect("a network for the test");
        let (network, far_end) = (Self { daemon }, "veth peer name server netns");
        network.run_on_board(&format!(
            "ip link add board address {} type {far_end} {}",
            BOARD_MAC.replace('-', ":"),
            network.id()
        ));
        for address in ["10.9.0.5/24", "10.9.0.6/24", "fd09::5/64 nodad", "fe80::5/64 nodad"] {
            network.run_on_board(&format!("ip address add {address} dev board"));
        }
        for address in ["10.9.0.1/24", "fd09::1/64 nodad", "fe80::1/64 nodad"] {
            network.run_on_server(&format!("ip address add {address} dev server"));
        }
        network.run_on_board("ip link set board up");
        network.run_on_server("ip link set server up");
        network
    }

    /// Returns the daemon.
    pub fn daemon(&self) -> &Rtftp {
        &self.daemon
    }

    /// Returns a client that sends from the address `from` of the test to the address `to` of the daemon.
    pub fn client(&self, from: &str, to: &str) -> Client {
        let server = format!("{to}:{}", self.daemon.address().port());
        Client::new(from, server.parse().expect("an address"))
    }

    /// Fetches a file from the source address `from` and returns it as text.
    ///
    /// # Errors
    ///
    /// Returns the code of the ERROR packet.
    #[track_caller]
    pub fn fetch(&self, from: &str, name: &str) -> Result<String, u16> {
        let to = if from.contains(':') { "[fd09::1]" } else { "10.9.0.1" };
        let file = self.client(from, to).fetch(name, &[]);
        file.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.code())
    }

    /// Runs a command in the test's namespace; the words are separated by single spaces.
    #[track_caller]
    pub fn run_on_board(&self, command: &str) {
        run_words(command);
    }

    /// Runs a command in the daemon's namespace.
    #[track_caller]
    pub fn run_on_server(&self, command: &str) {
        self.run_on_board(&format!("nsenter --target {} --net {command}", self.id()));
    }

    /// Inserts a router, so that the test has the addresses 10.10.0.7 and `fd10::7` behind a link with this MTU, and no others.
    #[track_caller]
    pub fn insert_router(&self, mtu: u32) -> Router {
        let router = Router { namespace: Namespace::create() };
        let id = router.namespace.id();
        self.run_on_board(&format!("ip link set board netns {id}"));
        for address in ["10.9.0.5/24", "fd09::5/64 nodad"] {
            router.namespace.run(&format!("ip address add {address} dev board"));
        }
        self.run_on_board(&format!("ip link add far mtu {mtu} type veth peer name near mtu {mtu} netns {id}"));
        for (own, routers) in [("10.10.0.7/24", "10.10.0.1/24"), ("fd10::7/64 nodad", "fd10::1/64 nodad")] {
            self.run_on_board(&format!("ip address add {own} dev far"));
            router.namespace.run(&format!("ip address add {routers} dev near"));
        }
        self.run_on_board("ip link set far up");
        for interface in ["board", "near"] {
            router.namespace.run(&format!("ip link set {interface} up"));
        }
        for (network, via, default) in [("10.10.0.0/24", "10.9.0.5", "10.10.0.1"), ("fd10::/64", "fd09::5", "fd10::1")]
        {
            self.run_on_server(&format!("ip route add {network} via {via}"));
            self.run_on_board(&format!("ip route add default via {default}"));
        }
        for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            router.namespace.set(setting, 1);
        }
        router
    }

    /// Returns a counter of IPv4 in the test's namespace.
    pub fn counter(&self, counter: &str) -> u64 {
        ipv4_counter("thread-self", counter)
    }

    /// Returns the number of IPv4 fragments that were created in the daemon's namespace.
    pub fn fragments(&self) -> u64 {
        ipv4_counter(&self.id().to_string(), "FragCreates")
    }

    fn id(&self) -> u32 {
        self.daemon.process().id()
    }
}

/// Returns a counter of IPv4 in the network namespace of a process (proc(5), `/proc/net/snmp`).
#[track_caller]
fn ipv4_counter(process: &str, counter: &str) -> u64 {
    let counters = fs::read_to_string(format!("/proc/{process}/net/snmp")).expect("counters");
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Ip:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = pairs.find(|(name, _)| *name == counter).expect(counter);
    value.parse().expect("a number")
}

/// A router between the server and the board.
#[derive(Debug)]
pub struct Router {
    namespace: Namespace,
}

impl Router {
    /// Makes it send no ICMP messages, like some firewalls.
    #[track_caller]
    pub fn drop_icmp(&self) {
        self.namespace.run("ip -4 rule add priority 10 ipproto icmp blackhole");
        self.namespace.run("ip -6 rule add priority 10 ipproto ipv6-icmp blackhole");
    }

    /// Returns the number of IPv4 fragments that it has created.
    pub fn fragments(&self) -> u64 {
        ipv4_counter(&self.namespace.id().to_string(), "FragCreates")
    }
}
