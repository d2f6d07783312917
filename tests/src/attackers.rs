//! Clients that take what they can from a server, each kind on addresses of its own.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::unistd::gettid;

use crate::{
    raw_client::{ack, rrq},
    run,
};

/// Lets all ordinary threads of this machine run before this one and those that it starts (`SCHED_IDLE`): attackers have machines of
/// their own.
pub fn run_elsewhere() {
    run("chrt", ["--idle", "--pid", "0", &gettid().to_string()]);
}

/// Sends requests from a thousand addresses and ports that never answer, `rate` a second. Returns the number sent.
pub fn flood(server: SocketAddr, name: &str, rate: u32, stop: &AtomicBool) -> u64 {
    const INTERVAL: Duration = Duration::from_millis(1);
    let ports = (0..=249u8).flat_map(|host| [host; 4]);
    let sockets: Vec<_> = ports.map(|host| bind([127, 4, host, 1])).collect();
    let requests = [rrq(name, &[]), rrq(name, &[("blksize", "65464"), ("windowsize", "64")]), rrq("missing", &[])];
    let mut pairs = sockets.iter().cycle().zip(requests.iter().cycle());
    let (started, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // What could not be sent in time is not sent later.
        let batch = due.saturating_sub(sent).min(u64::from(rate) / 10);
        let taken = pairs.by_ref().take(batch as usize);
        sent += taken.filter(|(socket, request)| socket.send_to(request, server).is_ok()).count() as u64;
        sleep(INTERVAL);
    }
    sent
}

/// Requests a file from `count` ports on four addresses, and acknowledges each block only after `pause`.
pub fn receive_slowly(server: SocketAddr, name: &str, count: u16, pause: Duration, stop: &AtomicBool) {
    let sockets: Vec<_> = (0..count).map(|nth| bind([127, 5, 0, 1 + (nth % 4) as u8])).collect();
    while !stop.load(Ordering::Relaxed) {
        for socket in &sockets {
            if !acknowledge_received(socket) {
                let _ = socket.send_to(&rrq(name, &[]), server);
            }
        }
        sleep_unless(stop, pause);
    }
}

/// Requests these files every 200 ms, each from an address of its client, and receives what the server sends.
pub fn request_repeatedly(server: SocketAddr, requests: &[(Ipv4Addr, String)], stop: &AtomicBool) {
    let sockets: Vec<_> = requests.iter().map(|(client, name)| (bind(client.octets()), rrq(name, &[]))).collect();
    while !stop.load(Ordering::Relaxed) {
        for (socket, request) in &sockets {
            if !acknowledge_received(socket) {
                let _ = socket.send_to(request, server);
            }
        }
        sleep_unless(stop, Duration::from_millis(200));
    }
}

/// Keeps 64 connections to the status page open, and sends a byte on each per second.
pub fn connect_slowly(page: SocketAddr, stop: &AtomicBool) {
    let mut streams: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        streams.retain_mut(|stream| stream.write_all(b"G").is_ok());
        while streams.len() < 64
            && let Ok(stream) = TcpStream::connect_timeout(&page, Duration::from_secs(1))
        {
            streams.push(stream);
        }
        sleep_unless(stop, Duration::from_secs(1));
    }
}

fn bind(address: [u8; 4]) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::from(address), 0)).expect("a local address");
    socket.set_nonblocking(true).expect("set");
    socket
}

/// Acknowledges what has been received on a socket. Returns `false` if that is nothing.
fn acknowledge_received(socket: &UdpSocket) -> bool {
    let (mut buf, mut is_any) = ([0; 4], false);
    while let Ok((_, from)) = socket.recv_from(&mut buf) {
        let [_, kind, high, low] = buf;
        let block = if kind == 3 { u16::from_be_bytes([high, low]) } else { 0 };
        // An ERROR needs no reply; if sending fails, the packet is repeated.
        is_any |= kind != 5 && socket.send_to(&ack(block), from).is_ok();
    }
    is_any
}

/// Sleeps for some time, or until `stop` is set.
fn sleep_unless(stop: &AtomicBool, time: Duration) {
    let deadline = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
    }
}
