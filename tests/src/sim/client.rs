//! Literal models of boot clients, and a network that loses chosen datagrams between one of them and a server.

use std::collections::VecDeque;

use rtftp_core::{Packet, wire::packet::Options};

use super::file::Rng;

/// The delay of the network in one direction, in microseconds.
const DELAY: u64 = 1_000;
/// The extra delay of late ACKs, in microseconds: a client that writes to flash.
const LATE: u64 = 30_000;
/// The time that the bottleneck takes for one datagram, in microseconds.
const SERVICE: u64 = 120;
/// The end of a simulation, in microseconds.
const END: u64 = 300_000_000;

/// The opcode of DATA.
pub const DATA: u8 = 3;
/// The opcode of an ACK.
pub const ACK: u8 = 4;
/// The opcode of an OACK, which counts as block 0.
pub const OACK: u8 = 6;

/// A model of a boot client. All models accept the next block; they differ in their reaction to any other block.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// The name of the client.
    pub name: &'static str,
    /// Its read request.
    pub request: &'static [u8],
    /// Returns the ACK for a block that is not the next one.
    pub other: fn(&mut File, u16) -> Option<u16>,
    /// The timeouts without progress after which it repeats its last ACK, in milliseconds, one after the other. They count over
    /// the whole transfer, as in U-Boot; other clients start again after progress.
    pub timer: &'static [u64],
}

/// The part of the file that a client has received.
#[derive(Debug)]
pub struct File {
    blksize: usize,
    window: u64,
    negotiated: bool,
    /// The size by the OACK, in bytes.
    pub size: Option<u64>,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The number of blocks.
    pub blocks: u64,
    /// The number of them that are acknowledged.
    pub acked: u64,
    /// The last block that a repeated ACK asked for.
    pub nacked: u16,
    /// Whether the last block has arrived.
    pub ended: bool,
    /// When it arrived, in microseconds.
    pub ended_at: u64,
}

impl File {
    /// Returns the number of the last block that arrived.
    pub fn last(&self) -> u16 {
        self.blocks as u16
    }

    /// Returns the number of the awaited block.
    pub fn next(&self) -> u16 {
        self.last().wrapping_add(1)
    }
}

impl Client {
    /// Returns the options of the request.
    pub fn options(&self) -> Options<'static> {
        let Ok(Packet::ReadRequest(request)) = Packet::parse(self.request) else {
            panic!("{} sends a read request", self.name)
        };
        request.options
    }

    fn requested(&self, name: &[u8]) -> Option<u64> {
        self.options().find(|(option, _)| *option == name).map(|(_, value)| number(value))
    }

    /// Returns the file before the first packet.
    pub fn file(&self) -> File {
        File {
            blksize: 512,
            window: 1,
            negotiated: self.options().next().is_none(),
            size: None,
            bytes: vec![],
            blocks: 0,
            acked: 0,
            nacked: 0,
            ended: false,
            ended_at: 0,
        }
    }

    /// Returns the requested block size, in bytes.
    pub fn blksize(&self) -> usize {
        self.requested(b"blksize").map_or(512, |blksize| blksize as usize)
    }

    /// Returns the requested window, in blocks.
    pub fn window(&self) -> u64 {
        self.requested(b"windowsize").unwrap_or(1)
    }

    /// Checks an OACK as strictly as EDK2, curl, U-Boot and PXELINUX together: only requested options, in the same spelling, no
    /// larger value, the same timeout.
    fn accept_oack(&self, file: &mut File, granted: Options<'_>) {
        assert_eq!(file.blocks, 0, "a second OACK after data: GRUB starts over");
        for (name, value) in granted {
            let requested = self.requested(name).unwrap_or_else(|| panic!("{} was not requested", name.escape_ascii()));
            let value = number(value);
            match name {
                b"blksize" => file.blksize = value as usize,
                b"windowsize" => file.window = value,
                b"tsize" => file.size = Some(value),
                _ => assert_eq!(value, requested, "another timeout"),
            }
            assert!(name == b"tsize" || value <= requested, "{} is larger than requested", name.escape_ascii());
        }
        file.negotiated = true;
    }

    /// Processes a datagram and returns the number of the ACK for it.
    ///
    /// # Panics
    ///
    /// If the client would abort the transfer.
    pub fn react(&self, file: &mut File, datagram: &[u8]) -> Option<u16> {
        let reply = match Packet::parse(datagram) {
            Ok(Packet::OptionAck(granted)) => {
                self.accept_oack(file, granted);
                Some(0)
            }
            Ok(Packet::Data { block, payload }) => {
                assert!(file.negotiated, "DATA instead of an OACK: GRUB waits on");
                assert!(payload.len() <= file.blksize, "a block larger than negotiated");
                if block == file.next() {
                    file.bytes.extend_from_slice(payload);
                    file.blocks += 1;
                    file.ended = payload.len() < file.blksize;
                    (file.ended || file.blocks - file.acked == file.window).then(|| file.last())
                } else {
                    (self.other)(file, block)
                }
            }
            other => panic!("the client received {other:?}"),
        };
        if reply.is_some() {
            file.acked = file.blocks;
        }
        reply
    }
}

fn number(value: &[u8]) -> u64 {
    str::from_utf8(value).ok().and_then(|value| value.parse().ok()).expect("a decimal number")
}

/// A network between a server and a client. The default loses and delays nothing.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Packets that are lost the first time they are sent: an opcode and a block number.
    pub lost: Vec<(u8, u16)>,
    /// The probability of losing any other packet, and the generator that decides.
    pub random: Option<(f64, Rng)>,
    /// Whether every seventh ACK is late.
    pub late: bool,
    /// The length of the queue at the server's bottleneck, in datagrams, if there is a bottleneck.
    pub room: Option<u64>,
}

impl Network {
    fn loses(&mut self, datagram: &[u8]) -> bool {
        let packet = match datagram {
            [_, OACK, ..] => (OACK, 0),
            [_, opcode, high, low, ..] => (*opcode, u16::from_be_bytes([*high, *low])),
            _ => panic!("the datagram is too short"),
        };
        let chosen = self.lost.iter().position(|lost| *lost == packet).map(|at| self.lost.swap_remove(at)).is_some();
        chosen || self.random.as_mut().is_some_and(|(loss, rng)| rng.chance(*loss))
    }
}

/// The datagrams that a server sends now, and when it wants to be called again.
pub type Step = (Vec<Vec<u8>>, Option<u64>);

/// Runs a transfer between a server and a client. Returns the file that the client received, and how many blocks were sent. The
/// client sends nothing after its last ACK.
pub fn simulate(
    mut server: impl FnMut(u64, Option<&[u8]>) -> Step,
    client: &Client,
    mut network: Network,
) -> (File, u64) {
    let mut file = client.file();
    let (mut down, mut up) = (VecDeque::<(u64, Vec<u8>)>::new(), VecDeque::<(u64, Vec<u8>)>::new());
    let (mut server_wakes, mut client_wakes, mut idle_until) = (Some(0), None, 0);
    let (mut last_ack, mut waits, mut data) = (None, client.timer.iter(), 0);
    loop {
        let arrivals = [&down, &up].map(|way| way.front().map(|(at, _)| *at));
        let next = arrivals.into_iter().chain([server_wakes, client_wakes]).flatten().min();
        let Some(now) = next.filter(|next| *next < END) else { return (file, data) };
        let mut ack = None;
        if arrivals[0] == Some(now) {
            let Some((_, datagram)) = down.pop_front().filter(|_| !file.ended) else { continue };
            let had = file.blocks;
            ack = client.react(&mut file, &datagram);
            last_ack = ack.or(last_ack);
            if file.ended {
                file.ended_at = now;
                client_wakes = None;
            } else if file.blocks > had || client_wakes.is_none() {
                client_wakes = waits.as_slice().first().map(|wait| now + 1_000 * wait);
            }
        } else if client_wakes == Some(now) {
            waits.next();
            client_wakes = waits.as_slice().first().map(|wait| now + 1_000 * wait);
            ack = last_ack;
        } else {
            let datagram = if arrivals[1] == Some(now) { up.pop_front() } else { None };
            let (sent, wakes) = server(now, datagram.as_ref().map(|(_, datagram)| &datagram[..]));
            server_wakes = wakes;
            for datagram in sent {
                data += u64::from(datagram[1] == DATA);
                let backlog = u64::saturating_sub(idle_until, now);
                let full = network.room.is_some_and(|room| backlog > room * SERVICE);
                if !full && !network.loses(&datagram) {
                    idle_until = now + backlog + network.room.map_or(0, |_| SERVICE);
                    down.push_back((idle_until + DELAY, datagram));
                }
            }
        }
        if let Some(block) = ack {
            let [high, low] = block.to_be_bytes();
            let datagram = vec![0, ACK, high, low];
            if !network.loses(&datagram) {
                let late = if network.late && block % 7 == 3 { LATE } else { 0 };
                up.push_back((now + DELAY + late, datagram));
            }
        }
    }
}
