//! Forged requests and ACKs: what the server sends to a client that never asked.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use rtftp_tests::{
    Client, ForeignServer, Rtftp, TftpServerProgram, noise,
    raw_client::{ack, rrq},
    thread_cpu_times,
};

/// How long packets are counted: those of 0, 1, 3 and 7 s. The core's test `unverified_client_receives_six_packets_whatever_it_asks_for`
/// counts over the whole life of a session, in simulated time.
const WATCH: Duration = Duration::from_secs(9);
/// The number of packets to an unverified client in this time.
const PACKETS: usize = 4;
/// The tolerance for the times of packets, on a busy machine.
const TOLERANCE: Duration = Duration::from_millis(700);

type Options = &'static [(&'static str, &'static str)];

/// Options that made the server send more, more often, or larger packets.
const OPTION_SETS: [Options; 8] = [
    &[],
    &[("blksize", "65464")],
    &[("windowsize", "64")],
    &[("timeout", "1")],
    &[("timeout", "255")],
    &[("utimeout", "10000")],
    &[("tsize", "0"), ("rollover", "1")],
    &[("blksize", "65464"), ("windowsize", "64"), ("timeout", "1"), ("utimeout", "10000"), ("tsize", "0")],
];

/// Returns the time and the length of all packets that arrive at a socket until a point in time.
fn packets(socket: &UdpSocket, until: Instant) -> Vec<(Duration, usize)> {
    let start = Instant::now();
    let (mut packets, mut buf) = (vec![], vec![0; 65_536]);
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left)).expect("set");
        if let Ok(len) = socket.recv(&mut buf) {
            packets.push((start.elapsed(), len));
        }
    }
    packets
}

/// Sends a request and never answers. Returns the time and the length of all packets until a point in time.
fn silent_client(server: SocketAddr, request: &[u8], until: Instant) -> Vec<(Duration, usize)> {
    let socket = UdpSocket::bind("127.0.0.7:0").expect("a port");
    socket.send_to(request, server).expect("sent");
    packets(&socket, until)
}

/// Returns the number of packets that dnsmasq sends for one request, if it can run here.
fn packets_of_dnsmasq() -> Option<u64> {
    let dnsmasq = ForeignServer::start(TftpServerProgram::Dnsmasq)?;
    dnsmasq.put("f", noise(1 << 20, 1));
    let before = dnsmasq.datagrams();
    let until = Instant::now() + WATCH;
    dnsmasq.request(&rrq("f", &[("blksize", "1468"), ("utimeout", "10000")]));
    thread::sleep(until.saturating_duration_since(Instant::now()));
    // Without the request.
    Some(dnsmasq.datagrams() - before - 1)
}

/// With `utimeout` 10000, these were some 900 packets.
#[test]
fn unverified_client_receives_few_packets_whatever_it_asks_for() {
    let daemons = [&[][..], &["--single-port"]].map(|args| {
        let daemon = Rtftp::start_with("127.0.0.1", 3600, args);
        daemon.put("default/f", noise(1 << 20, 1));
        daemon
    });
    let netascii = b"\0\x01f\0netascii\0windowsize\x0064\0utimeout\x0010000\0".to_vec();
    let requests = OPTION_SETS.iter().map(|options| (rrq("f", options), PACKETS));
    let requests: Vec<_> = requests.chain([(netascii, PACKETS), (rrq("missing", OPTION_SETS[7]), 1)]).collect();
    let until = Instant::now() + WATCH;
    thread::scope(|scope| {
        let dnsmasq = scope.spawn(packets_of_dnsmasq);
        let mut clients = vec![];
        for (daemon, mode) in daemons.iter().zip(["own ports", "single port"]) {
            for (request, expected) in &requests {
                let client = scope.spawn(move || silent_client(daemon.address(), request, until));
                clients.push((mode, request.escape_ascii(), *expected, client));
            }
        }
        for (mode, request, expected, client) in clients {
            let packets = client.join().expect("a client");
            let bytes: usize = packets.iter().map(|(_, len)| len).sum();
            println!("{mode}, {request}: {} packets with {bytes} bytes in {WATCH:?}", packets.len());
            assert_eq!(packets.len(), expected, "{mode}, {request}: {packets:?}");
            assert!(packets.iter().all(|(_, len)| *len <= 516), "{mode}, {request}: {packets:?}");
            for ((time, _), seconds) in packets.iter().zip([0, 1, 3, 7]) {
                let due = Duration::from_secs(seconds);
                assert!(*time + Duration::from_millis(100) >= due && *time < due + TOLERANCE, "{packets:?}");
            }
        }
        if let Some(packets) = dnsmasq.join().expect("dnsmasq") {
            println!("dnsmasq: {packets} packets in {WATCH:?}");
        }
    });
}

/// These sessions took 81 % of a processor when each received 100 packets a second. Debug builds take 9 to 13 %.
#[test]
fn unverified_sessions_take_little_processor_time() {
    const NETWORKS: u8 = 40;
    const HOSTS: u8 = 100;
    /// The allowed share of a processor.
    const SHARE: f64 = 0.2;

    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
    let daemon = Rtftp::start_with("127.0.0.1", 3600, &[]);
    daemon.put("default/f", noise(1 << 20, 1));
    let request = rrq("f", &[("utimeout", "10000")]);
    // Each from an address of its own: a few addresses have a share of what is admitted.
    let addresses =
        (1..=NETWORKS).flat_map(|network| (1..=HOSTS).map(move |host| IpAddr::from([127, 1, network, host])));
    let clients: Vec<_> = addresses
        .map_while(|ip| {
            let socket = UdpSocket::bind((ip, 0)).ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
            socket.send_to(&request, daemon.address()).expect("sent");
            // So that the server's receive buffer takes all requests.
            socket.recv(&mut [0; 600]).expect("an answer");
            Some(socket)
        })
        .collect();
    let cpu = || thread_cpu_times(daemon.process().id()).iter().map(|(_, time)| *time).sum::<Duration>();
    let (start, before) = (Instant::now(), cpu());
    thread::sleep(Duration::from_secs(4));
    let share = (cpu() - before).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("{} unverified sessions with utimeout 10000 take {:.1} % of a processor", clients.len(), share * 100.0);
    assert!(share < SHARE, "{share}");
}

#[test]
fn closed_port_ends_transfer_at_once() {
    for args in [&[][..], &["--single-port"]] {
        for (listen, ip) in [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "::1")] {
            let daemon = Rtftp::start_with(listen, 3600, args);
            daemon.put("default/f", noise(1 << 20, 1));
            let server = SocketAddr::new(ip.parse().expect("an address"), daemon.address().port());
            let socket = UdpSocket::bind((ip, 0)).expect("a port");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
            socket.send_to(&rrq("f", &[]), server).expect("sent");
            let (_, from) = socket.recv_from(&mut [0; 600]).expect("block 1");
            let (client, start) = (socket.local_addr().expect("bound"), Instant::now());
            // The daemon sends block 2 to a closed port.
            socket.send_to(&ack(1), from).expect("sent");
            drop(socket);
            daemon.logged(&[&client.to_string(), "the client has closed its port"]);
            println!("{args:?}, {listen}, {ip}: ended after {:?}", start.elapsed());
            assert!(start.elapsed() < Duration::from_secs(3));
            // Requests are still received.
            assert_eq!(Client::new(ip, server).exchange(&rrq("missing", &[])).code(), 1);
        }
    }
}

/// At the shared port, one forged request and 16 forged ACKs of 102 bytes in all brought 67 MB: windows of 4 MiB. An ACK every 20 ms
/// brought a window of 128 KiB each.
#[test]
fn forged_acks_bring_few_windows_at_shared_port() {
    /// Two blocks of the largest size, or 128 KiB.
    const WINDOW: usize = 2 * 65_468;

    let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--single-port"]);
    daemon.put("default/f", noise(100 << 20, 1));
    let options = [("blksize", "65464"), ("windowsize", "64")];
    // Those that come before their window count for nothing. Those at a plausible pace bring a window each at first; later windows are held
    // back for random times, and then limited to 512 KiB per second. Windows are repeated when the ACKs end.
    for (count, pause, most) in [(16, 0, 4), (16, 2, 14), (140, 20, 40)] {
        let victim = UdpSocket::bind("127.0.0.7:0").expect("a port");
        let receiver = victim.try_clone().expect("a descriptor");
        let packets = thread::scope(|scope| {
            let receiving = scope.spawn(move || packets(&receiver, Instant::now() + Duration::from_secs(3)));
            victim.send_to(&rrq("f", &options), daemon.address()).expect("sent");
            thread::sleep(Duration::from_millis(100));
            // Stopped, the daemon receives all of them before it can answer the first.
            let at_once = pause == 0;
            if at_once {
                daemon.process().signal(Signal::SIGSTOP);
            }
            for nth in 0..count {
                victim.send_to(&ack(2 * nth), daemon.address()).expect("sent");
                thread::sleep(Duration::from_millis(pause));
            }
            if at_once {
                daemon.process().signal(Signal::SIGCONT);
            }
            receiving.join().expect("the packets")
        });
        let bytes: usize = packets.iter().map(|(_, len)| len).sum();
        println!("{count} forged ACKs, {pause} ms apart: {} packets with {bytes} bytes in 3 s", packets.len());
        assert!((1..=most * WINDOW).contains(&bytes), "{bytes} bytes");
    }
}
