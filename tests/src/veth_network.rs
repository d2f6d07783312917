//! A network of its own: the daemon on one machine, the test on another, and a cable between them.

use std::{
    io::{Write as _, stderr},
    panic::resume_unwind,
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};

use crate::{Client, Rtftp, run};

/// The card of the test's machine.
pub const BOARD_MAC: &str = "02-00-00-00-00-05";

/// Two machines on one network. What is said of a machine holds for the thread that the test runs on.
#[derive(Debug)]
pub struct VethNetwork {
    daemon: Rtftp,
}

impl VethNetwork {
    /// Runs a test with the daemon, which has these arguments, at the far end: at 10.9.0.1, `fd09::1` and `fe80::1`. The test
    /// is at 10.9.0.5 and 10.9.0.6, `fd09::5` and `fe80::5`, all on one [`BOARD_MAC`].
    ///
    /// Only root may make networks; for others the test is not run, and that is said.
    #[track_caller]
    pub fn test(args: &[&str], test: impl FnOnce(&Self) + Send) {
        if !geteuid().is_root() {
            let name = thread::current().name().unwrap_or_default().to_owned();
            // Not with a macro, whose words are shown only when a test fails.
            let _ = writeln!(stderr(), "NOT TESTED: {name} wants to be root, to make networks");
            return;
        }
        // A thread is on a network for good.
        let tested = thread::scope(|scope| scope.spawn(|| test(&Self::lay(args))).join());
        tested.unwrap_or_else(|panic| resume_unwind(panic));
    }

    fn lay(args: &[&str]) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network for the daemon");
        let daemon = Rtftp::with("::", 3600, args);
        unshare(CloneFlags::CLONE_NEWNET).expect("a network for the test");
        let (cable, far_end) = (Self { daemon }, "veth peer name server netns");
        cable.here(&format!("ip link add board address {} type {far_end} {}", BOARD_MAC.replace('-', ":"), cable.id()));
        for address in ["10.9.0.5/24", "10.9.0.6/24", "fd09::5/64 nodad", "fe80::5/64 nodad"] {
            cable.here(&format!("ip address add {address} dev board"));
        }
        for address in ["10.9.0.1/24", "fd09::1/64 nodad", "fe80::1/64 nodad"] {
            cable.there(&format!("ip address add {address} dev server"));
        }
        cable.here("ip link set board up");
        cable.there("ip link set server up");
        cable
    }

    /// The daemon.
    pub fn daemon(&self) -> &Rtftp {
        &self.daemon
    }

    /// A client at this address of the test's machine, of the daemon at this one.
    pub fn client(&self, from: &str, to: &str) -> Client {
        let server = format!("{to}:{}", self.daemon.address().port());
        Client::new(from, server.parse().expect("an address"))
    }

    /// What a client at this address gets for this name, as text.
    ///
    /// # Errors
    ///
    /// The code of the ERROR.
    #[track_caller]
    pub fn fetch(&self, from: &str, name: &str) -> Result<String, u16> {
        let to = if from.contains(':') { "[fd09::1]" } else { "10.9.0.1" };
        let file = self.client(from, to).fetch(name, &[]);
        file.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.code())
    }

    /// Runs a command on the test's machine; its words are what stands between spaces.
    #[track_caller]
    pub fn here(&self, command: &str) {
        let (program, args) = command.split_once(' ').expect("a program and its arguments");
        run(program, args.split(' '));
    }

    /// Runs a command on the daemon's machine.
    #[track_caller]
    pub fn there(&self, command: &str) {
        self.here(&format!("nsenter --target {} --net {command}", self.id()));
    }

    fn id(&self) -> u32 {
        self.daemon.process().id()
    }
}
