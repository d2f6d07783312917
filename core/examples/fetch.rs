//! Fetches a file from a TFTP server and writes it to standard output: a [`Receiver`] over a UDP socket of std.
//!
//! ```text
//! cargo run -p rtftp-core --example fetch -- HOST:PORT FILE
//! ```

use std::{
    env,
    error::Error,
    io::{self, Write},
    net::{SocketAddr, ToSocketAddrs, UdpSocket},
    time,
};

use rtftp_core::{
    BlockSink, Instant, Outcome, Output, Packet, Peer, Receiver, ReceiverConfig, WriteFailed,
    transfer::receiver::MAX_REQUEST, wire::options::RequestedOptions,
};

const OPTIONS: RequestedOptions =
    RequestedOptions { blksize: Some(1428), windowsize: Some(4), timeout: None, tsize: true };

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().collect();
    let [_, server, file] = &args[..] else { return Err("usage: fetch HOST:PORT FILE".into()) };
    let server = server.to_socket_addrs()?.next().ok_or("the host has no address")?;
    Ok(io::stdout().write_all(&fetch(server, file)?)?)
}

/// Fetches `file` from the server that listens on `server`.
pub fn fetch(server: SocketAddr, file: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    let start = time::Instant::now();
    let now = || Instant::from_micros(start.elapsed().as_micros() as u64);
    // Ends with the last ACK. If that is lost, the server repeats the last block in vain.
    let config = ReceiverConfig { options: OPTIONS, dally: 0, ..ReceiverConfig::DEFAULT };
    let mut receiver = Receiver::new(now(), file.as_bytes(), config)?;
    let mut peer = Peer::new(server.ip(), server.port());
    let (mut bytes, mut error_text) = (Memory(Vec::new()), String::new());
    let (mut send_buf, mut receive_buf) = ([0; MAX_REQUEST], [0; 1432]);
    loop {
        match receiver.poll(now(), &mut send_buf) {
            Output::Transmit(transmit) => {
                socket.send_to(&send_buf[..transmit.len], (peer.address(), peer.port()))?;
            }
            Output::Wait(until) => {
                socket.set_read_timeout(Some(until.since(now()).max(time::Duration::from_millis(1))))?;
                let Ok((len, from)) = socket.recv_from(&mut receive_buf) else { continue };
                let source = (from.ip(), from.port());
                let Ok(packet) = Packet::parse(&receive_buf[..len]) else { continue };
                match (peer.handle(&mut receiver, now(), source, packet, &mut bytes), packet) {
                    (Ok(()), Packet::Error { message, .. }) => error_text = message.escape_ascii().to_string(),
                    (Ok(()), _) => {}
                    (Err(error), _) => eprintln!("ignored a packet from {from}: {error}"),
                }
            }
            Output::Finished(Outcome::Complete) => return Ok(bytes.0),
            Output::Finished(Outcome::PeerError(code)) => return Err(format!("ERROR {code}: {error_text}").into()),
            Output::Finished(outcome) => return Err(outcome.to_string().into()),
            Output::NeedData => unreachable!("only a sender needs data"),
        }
    }
}

/// A file in memory.
struct Memory(Vec<u8>);

impl BlockSink for Memory {
    fn write(&mut self, _offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}
