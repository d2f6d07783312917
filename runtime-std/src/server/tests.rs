//! A server on the loopback, with clients that speak TFTP by hand.

use std::{fs, io::ErrorKind, path::Path, sync::mpsc, thread, time::Duration};

use smol::channel::{Sender, bounded};

use super::*;
use crate::{
    history::snapshot::{File, State},
    status::StatusSocket,
};

/// A running server and its root.
struct Running {
    server: Arc<Server>,
    stop: Sender<()>,
    /// Ends the grace period.
    grace: Sender<()>,
    ended: mpsc::Receiver<()>,
    _root: tempfile::TempDir,
}

/// Returns the configuration of a server on a free port of the loopback.
fn config(root: &Path) -> Config {
    let minute = Duration::from_secs(60);
    Config {
        listen_ip: Some([127, 0, 0, 1].into()),
        listen_port: 0,
        root_dir: root.to_owned(),
        idle_timeout: minute,
        view_gap: minute,
        monitor_configs: false,
        limits: Limits::default(),
        mtu_clamp: false,
        port_range: None,
        single_port: false,
        capacity: Capacity { transfers: 9, per_client: 9 },
        open_limit: minute,
        read_limit: minute,
        disk_memory: 256 << 20,
        hostname_files: Default::default(),
        http: None,
        history_dir: None,
        status_socket: StatusSocket::Disabled,
    }
}

fn run(configure: impl FnOnce(&mut Config)) -> Running {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("default")).expect("created");
    fs::write(root.path().join("default/f"), [7; 1000]).expect("written");
    let mut config = config(root.path());
    configure(&mut config);
    let server = Arc::new(Server::bind(config).expect("a server"));
    let ((stop, stopped), (grace, grace_ended)) = (bounded(1), bounded::<()>(1));
    let (end, ended) = mpsc::channel();
    let running = server.clone();
    thread::spawn(move || {
        let stop = async move { _ = stopped.recv().await };
        running.run(stop, async move { _ = grace_ended.recv().await });
        end.send(()).expect("sent");
    });
    Running { server, stop, grace, ended, _root: root }
}

impl Running {
    /// Returns the socket of a new client, and the reply to its datagram.
    fn ask(&self, datagram: &[u8]) -> (UdpSocket, Vec<u8>, SocketAddr) {
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        client.send_to(datagram, self.server.local_addr().expect("bound")).expect("sent");
        let (reply, from) = receive(&client);
        (client, reply, from)
    }

    /// Waits until all transfers have ended, and returns the recorded requests in their order.
    fn requests(&self) -> Vec<File> {
        while self.server.transfers() > 0 {
            thread::yield_now();
        }
        let clients = self.server.history().snapshot().clients;
        clients.into_iter().flat_map(|client| client.boots).flat_map(|boot| boot.files).collect()
    }
}

fn receive(client: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buf = [0; 600];
    let (len, from) = client.recv_from(&mut buf).expect("a datagram");
    (buf[..len].to_vec(), from)
}

fn data(block: u8, len: usize) -> Vec<u8> {
    [&[0, 3, 0, block][..], &vec![7; len]].concat()
}

#[test]
fn serves_file_and_records_request() {
    for single_port in [false, true] {
        let running = run(|config| config.single_port = single_port);
        let (client, first, transfer) = running.ask(b"\x00\x01f\0octet\0");
        assert_eq!(first, data(1, 512));
        assert_eq!(transfer == running.server.local_addr().expect("bound"), single_port);
        client.send_to(&[0, 4, 0, 1], transfer).expect("sent");
        assert_eq!(receive(&client), (data(2, 488), transfer));
        client.send_to(&[0, 4, 0, 2], transfer).expect("sent");
        let [request] = &running.requests()[..] else { panic!("not one request") };
        assert_eq!((&*request.name, request.state, request.acknowledged), ("f", State::Complete, 1000));
    }
}

#[test]
fn rejects_other_packets_with_error() {
    let running = run(|_| {});
    for (datagram, error) in [
        (&b"\x00\x01missing\0octet\0"[..], &b"\x00\x05\x00\x01File not found\0"[..]),
        (b"\x00\x01../f\0octet\0", b"\x00\x05\x00\x02Access violation\0"),
        (b"\x00\x01f\0mail\0", b"\x00\x05\x00\x00only octet and netascii mode are served\0"),
        (b"\x00\x02f\0octet\0", b"\x00\x05\x00\x02Access violation: this server does not take files\0"),
        (b"\x00\x04\x00\x01", b"\x00\x05\x00\x04Illegal TFTP operation: not a TFTP request\0"),
        (b"noise", b"\x00\x05\x00\x04Illegal TFTP operation: not a TFTP request\0"),
    ] {
        let (_, reply, _) = running.ask(datagram);
        assert_eq!(reply, error, "{}", datagram.escape_ascii());
    }
    let states: Vec<_> = running.requests().into_iter().map(|request| request.state).collect();
    assert_eq!(states, [State::Missing, State::Refused, State::Refused, State::Refused]);
}

#[test]
fn ignores_duplicate_request() {
    let running = run(|_| {});
    let request = b"\x00\x01f\0octet\0";
    let (client, first, transfer) = running.ask(request);
    client.send_to(request, running.server.local_addr().expect("bound")).expect("sent");
    // A request from another client is handled after the duplicate.
    let _other = running.ask(b"\x00\x01missing\0octet\0");
    assert_eq!(first, data(1, 512));
    client.send_to(&[0, 4, 0, 1], transfer).expect("sent");
    assert_eq!(receive(&client), (data(2, 488), transfer), "the duplicate started a transfer");
    client.send_to(&[0, 4, 0, 2], transfer).expect("sent");
    let requests = running.requests();
    assert_eq!(requests.iter().map(|request| request.copies).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn stops_at_once_without_transfers() {
    let running = run(|_| {});
    let _ = running.ask(b"\x00\x01missing\0octet\0");
    running.stop.send_blocking(()).expect("sent");
    running.ended.recv_timeout(Duration::from_secs(10)).expect("stopped");
}

#[test]
fn aborts_transfers_at_the_end_of_the_grace_period() {
    let running = run(|_| {});
    let (client, first, transfer) = running.ask(b"\x00\x01f\0octet\0");
    assert_eq!(first, data(1, 512));
    running.stop.send_blocking(()).expect("sent");
    client.send_to(&[0, 4, 0, 1], transfer).expect("sent");
    assert_eq!(receive(&client), (data(2, 488), transfer), "within the grace period");
    running.grace.send_blocking(()).expect("sent");
    let last = std::iter::repeat_with(|| receive(&client).0).find(|packet| *packet != data(2, 488));
    assert_eq!(last, Some(b"\x00\x05\x00\x00the server is shutting down\0".to_vec()));
    running.ended.recv_timeout(Duration::from_secs(10)).expect("stopped");
}

#[test]
fn rejects_unreadable_root() {
    let error = Server::bind(config(Path::new("/nonexistent"))).expect_err("no root");
    assert_eq!(
        (error.kind(), &*error.to_string()),
        (ErrorKind::Other, "/nonexistent: No such file or directory (os error 2)")
    );
}
