//! Literal models of boot clients, and a network that loses chosen datagrams between one of them and a server.

use std::collections::VecDeque;

use rtftp_core::{Packet, wire::packet::Options};

use super::file::Rng;

/// One way of the network, in microseconds.
const DELAY: u64 = 1_000;
/// How much later some ACKs come: a client that writes to flash.
const LATE: u64 = 30_000;
/// How long the bottleneck works on one datagram, where there is one.
const SERVICE: u64 = 120;
/// After so much time nothing more is expected, in microseconds.
const END: u64 = 300_000_000;

/// The opcode of a block.
pub const DATA: u8 = 3;
/// The opcode of an acknowledgement.
pub const ACK: u8 = 4;
/// The opcode of the options' acknowledgement; it counts as block 0.
pub const OACK: u8 = 6;

/// A kind of client. All take the next block; what they do with any other tells them apart.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    /// What it is called.
    pub name: &'static str,
    /// Its read request.
    pub request: &'static [u8],
    /// Which ACK another block than the next one brings.
    pub other: fn(&mut File, u16) -> Option<u16>,
    /// How long it waits for progress before it repeats its last ACK, in milliseconds, time after time. All are counted over
    /// the whole transfer, as U-Boot does; the others forget them when there is progress.
    pub timer: &'static [u64],
}

/// What a client has of its file.
#[derive(Debug)]
pub struct File {
    blksize: usize,
    window: u64,
    agreed: bool,
    /// The size that the server told.
    pub size: Option<u64>,
    /// The file itself.
    pub bytes: Vec<u8>,
    /// How many blocks it has.
    pub blocks: u64,
    /// How many of them it has acknowledged.
    pub acked: u64,
    /// The last block it named in a NACK.
    pub nacked: u16,
    /// Whether it has the last block.
    pub ended: bool,
    /// When it got that, in microseconds.
    pub ended_at: u64,
}

impl File {
    /// The number of the last block it has.
    pub fn last(&self) -> u16 {
        self.blocks as u16
    }

    /// The number of the block it waits for.
    pub fn next(&self) -> u16 {
        self.last().wrapping_add(1)
    }
}

impl Client {
    /// The options it asks for.
    pub fn options(&self) -> Options<'static> {
        let Ok(Packet::ReadRequest(request)) = Packet::parse(self.request) else { panic!("{} asks", self.name) };
        request.options
    }

    fn asked(&self, name: &[u8]) -> Option<u64> {
        self.options().find(|(asked, _)| *asked == name).map(|(_, value)| number(value))
    }

    /// What it has before anything came.
    pub fn file(&self) -> File {
        File {
            blksize: 512,
            window: 1,
            agreed: self.options().next().is_none(),
            size: None,
            bytes: vec![],
            blocks: 0,
            acked: 0,
            nacked: 0,
            ended: false,
            ended_at: 0,
        }
    }

    /// The block size it asks for, in bytes.
    pub fn blksize(&self) -> usize {
        self.asked(b"blksize").map_or(512, |blksize| blksize as usize)
    }

    /// How many blocks it wants at once.
    pub fn window(&self) -> u64 {
        self.asked(b"windowsize").unwrap_or(1)
    }

    /// Checks an OACK as EDK2, curl, U-Boot and PXELINUX do between them: only what was asked, as it was spelled, nothing
    /// larger, the timeout equal.
    fn accept_oack(&self, file: &mut File, granted: Options<'_>) {
        assert_eq!(file.blocks, 0, "a second OACK after data: GRUB starts over");
        for (name, value) in granted {
            let asked = self.asked(name).unwrap_or_else(|| panic!("{} was not asked", name.escape_ascii()));
            let value = number(value);
            match name {
                b"blksize" => file.blksize = value as usize,
                b"windowsize" => file.window = value,
                b"tsize" => file.size = Some(value),
                _ => assert_eq!(value, asked, "the timeout is the one asked"),
            }
            assert!(name == b"tsize" || value <= asked, "{} is larger than asked", name.escape_ascii());
        }
        file.agreed = true;
    }

    /// Takes in a datagram and says which ACK that brings.
    ///
    /// # Panics
    ///
    /// If the client could not go on.
    pub fn react(&self, file: &mut File, datagram: &[u8]) -> Option<u16> {
        let reply = match Packet::parse(datagram) {
            Ok(Packet::OptionAck(granted)) => {
                self.accept_oack(file, granted);
                Some(0)
            }
            Ok(Packet::Data { block, payload }) => {
                assert!(file.agreed, "DATA instead of an OACK: GRUB waits on");
                assert!(payload.len() <= file.blksize, "a block larger than agreed");
                if block == file.next() {
                    file.bytes.extend_from_slice(payload);
                    file.blocks += 1;
                    file.ended = payload.len() < file.blksize;
                    (file.ended || file.blocks - file.acked == file.window).then(|| file.last())
                } else {
                    (self.other)(file, block)
                }
            }
            other => panic!("a client is sent {other:?}"),
        };
        if reply.is_some() {
            file.acked = file.blocks;
        }
        reply
    }
}

fn number(value: &[u8]) -> u64 {
    str::from_utf8(value).ok().and_then(|value| value.parse().ok()).expect("a plain number")
}

/// What a network does to a transfer. The default is a perfect one.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// What is lost the first time it is sent: an opcode, and the number of a block.
    pub lost: Vec<(u8, u16)>,
    /// How likely everything else is to be lost, and what decides.
    pub random: Option<(f64, Rng)>,
    /// Whether every seventh ACK comes late.
    pub late: bool,
    /// How many datagrams wait at the server's bottleneck, if it has one.
    pub room: Option<u64>,
}

impl Network {
    fn loses(&mut self, datagram: &[u8]) -> bool {
        let what = match datagram {
            [_, OACK, ..] => (OACK, 0),
            [_, opcode, high, low, ..] => (*opcode, u16::from_be_bytes([*high, *low])),
            _ => panic!("a datagram too short"),
        };
        let chosen = self.lost.iter().position(|lost| *lost == what).map(|at| self.lost.swap_remove(at)).is_some();
        chosen || self.random.as_mut().is_some_and(|(loss, rng)| rng.chance(*loss))
    }
}

/// What a server sends, and when it goes on by itself.
pub type Step = (Vec<Vec<u8>>, Option<u64>);

/// Lets a server and a client meet. Returns what the client has in the end, and how many blocks were sent to it. A client that
/// has its file falls silent.
pub fn meet(mut server: impl FnMut(u64, Option<&[u8]>) -> Step, client: &Client, mut network: Network) -> (File, u64) {
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
