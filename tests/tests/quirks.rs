//! Models of boot clients against the core's sender, over a network that loses chosen datagrams.
//!
//! Duplicate requests are handled by the daemon; here every request arrives once.

use rtftp_core::{
    Instant, Outcome, Output, Packet, Sender,
    wire::{
        options::{Limits, negotiate},
        packet::data_header,
    },
};
use rtftp_tests::{
    assert_same, noise,
    sim::{ACK, Client, DATA, Network, OACK, Rng, Step, simulate},
};

/// Window 4. Every DATA packet out of order causes another ACK of the last block in order: up to three for one loss.
const EDK2: Client = Client {
    name: "EDK2",
    request: b"\x00\x01grub/x86_64-efi/core.efi\0octet\0blksize\x001468\0windowsize\x004\0",
    other: |file, _| Some(file.last()),
    timer: &[4_000; 6],
};

/// Acknowledges any lower number with that number, compared as 16 bits: after the rollover a repeated 65535 is not lower than 0, and
/// is ignored. Has no timer, so that only the server's retransmits.
const GRUB: Client = Client {
    name: "GRUB",
    request: b"\x00\x01/grub/x86_64-efi/normal.mod\0octet\0blksize\x001024\0tsize\x000\0",
    other: |file, number| (number < file.next()).then_some(number),
    timer: &[],
};

/// Repeats its last ACK on any wrong packet, and 0.1 s after the last DATA.
const PXELINUX: Client = Client {
    name: "PXELINUX",
    request: b"\x00\x01ldlinux.c32\0octet\0tsize\x000\0blksize\x001408\0",
    other: |file, _| Some(file.last()),
    timer: &[110, 110, 160, 160, 220, 270, 330, 440],
};

/// Acknowledges the blocks before the first gap in its bitmap on every packet; with one block in flight that is its last block.
const IPXE: Client = Client {
    name: "iPXE",
    request: b"\x00\x01boot.ipxe\0octet\0blksize\x001432\0tsize\x000\0",
    other: |file, _| Some(file.last()),
    timer: &[250, 500, 1_000, 2_000, 4_000, 8_000],
};

/// Sends one NACK for a gap, then nothing. The comparison is signed: no NACK above block 32767, nor if block 1 of the file is lost;
/// a lower number has no effect. Allows ten timeouts in a transfer.
const UBOOT: Client = Client {
    name: "U-Boot, window 8",
    request: b"\x00\x01big40m\0octet\0timeout\x005\0blksize\x00512\0windowsize\x008\0",
    other: |file, number| {
        if i32::from(file.next()) > i32::from(number as i16) || file.nacked == file.last() {
            return None;
        }
        file.nacked = file.last();
        Some(file.last())
    },
    timer: &[5_000; 10],
};

/// The same with the largest window observed.
const UBOOT_64: Client = Client {
    name: "U-Boot, window 64",
    request: b"\x00\x01big40m\0octet\0timeout\x005\0blksize\x001468\0windowsize\x0064\0",
    ..UBOOT
};

/// Acknowledges the last block again, and no other.
const CURL: Client = Client {
    name: "curl",
    request: b"\x00\x01f0\0octet\0tsize\x000\0blksize\x001428\0timeout\x005\0",
    other: |file, number| (number == file.last()).then_some(number),
    timer: &[6_000; 10],
};

/// Like curl, but any other number ends the transfer with ERROR 5 to the server.
const LWIP: Client = Client {
    name: "U-Boot with lwIP",
    request: b"\x00\x01f0\0octet\0tsize\x000\0blksize\x001468\0",
    other: |file, number| {
        assert_eq!(number, file.last(), "ERROR 5, wrong block number");
        Some(number)
    },
    timer: &[1_000; 5],
};

/// Ignores old DATA; its timer starts at 0.1 s.
const BUSYBOX: Client = Client {
    name: "busybox",
    request: b"\x00\x01f0\0octet\0blksize\x001468\0tsize\x000\0",
    other: |_, _| None,
    timer: &[100, 150, 225, 337, 506, 759, 1_139, 1_708, 2_000, 2_000, 2_000, 2_000],
};

/// The version of 2021: a repeated block makes it acknowledge one that it never received. A lost ACK is therefore fatal.
const PI4: Client = Client {
    name: "Pi 4 start4.elf",
    request: b"\x00\x0112345678/kernel8.img\0octet\0tsize\x000\0blksize\x001024\0",
    other: |_, number| panic!("block {number} repeated: the client acknowledges a block that it never received"),
    timer: &[],
};

/// No options. Its reaction to a repeated block is not known; an ACK is assumed.
const PI3: Client =
    Client { name: "Pi 3 boot ROM", request: b"\x00\x01bootcode.bin\0octet\0", other: CURL.other, timer: &[] };

/// Acknowledges the last block again, also every 0.3 s without limit.
const STEADY: Client = Client {
    name: "window 16, 0.3 s",
    request: b"\x00\x01f0\0octet\0blksize\x001468\0windowsize\x0016\0",
    other: |file, number| if number == file.last() { Some(number) } else { (UBOOT.other)(file, number) },
    timer: &[300; 1_000],
};

/// Acknowledges complete windows only: no NACK, no timer.
const WHOLE_WINDOWS: Client = Client { name: "whole windows", other: |_, _| None, timer: &[], ..UBOOT_64 };

const CLIENTS: [Client; 11] = [EDK2, GRUB, PXELINUX, IPXE, UBOOT, UBOOT_64, CURL, LWIP, BUSYBOX, PI4, PI3];

/// The core's sender, as the daemon starts it.
struct Server<'a> {
    sender: Sender,
    file: &'a [u8],
    buf: Vec<u8>,
    outcome: Option<Outcome>,
}

impl<'a> Server<'a> {
    fn new(client: &Client, file: &'a [u8]) -> Self {
        let size = Some(file.len() as u64);
        let (settings, granted) = negotiate(client.options(), &Limits::default(), size);
        let sender = Sender::new(Instant::from_micros(0), settings, granted, size);
        Self { sender, file, buf: vec![0; 65_536], outcome: None }
    }

    fn step(&mut self, now: u64, datagram: Option<&[u8]>) -> Step {
        let now = Instant::from_micros(now);
        datagram.inspect(|datagram| self.sender.handle(now, datagram));
        let mut sent = vec![];
        loop {
            match self.sender.poll(now, &mut self.file, &mut self.buf) {
                Output::Transmit(transmit) => {
                    sent.extend(self.buf[..transmit.len].chunks(transmit.segment).map(Vec::from));
                }
                Output::Wait(until) => return (sent, Some(until.as_micros())),
                Output::NeedData => panic!("the file is in memory"),
                Output::Finished(outcome) => {
                    self.outcome = Some(outcome);
                    return (sent, None);
                }
            }
        }
    }
}

/// Runs a transfer of a file of `size` bytes. The client must receive the file within a budget of datagrams: every block once; two
/// windows for a lost block; eight for a lost ACK, as the server's timer runs from 50 ms up to U-Boot's 5 s; twenty for the last ACK,
/// until the server times out.
#[track_caller]
fn transfer(client: &Client, size: usize, network: &Network) {
    println!("{}: {size} bytes, lost {:?}", client.name, network.lost);
    let content = noise(size, 1);
    let mut server = Server::new(client, &content);
    let (file, data) = simulate(|now, datagram| server.step(now, datagram), client, network.clone());
    assert!(file.ended, "{}: {} of {size} bytes", client.name, file.bytes.len());
    assert_same(&file.bytes, &content, client.name);
    assert!(file.size.is_none_or(|tsize| tsize == size as u64));
    let blocks = size as u64 / client.blksize() as u64 + 1;
    let lost_end = network.lost.contains(&(ACK, blocks as u16));
    assert_eq!(server.outcome, Some(if lost_end { Outcome::TimedOut } else { Outcome::Complete }), "{}", client.name);
    let windows_for = |lost: &(u8, u16)| match *lost {
        (ACK, last) if last == blocks as u16 => 20,
        (ACK, _) => 8,
        _ => 2,
    };
    let budget = blocks + client.window() * network.lost.iter().map(windows_for).sum::<u64>();
    println!("{data} datagrams for {blocks} blocks, budget {budget}");
    assert!(data <= budget, "{}: {data} datagrams for {blocks} blocks, budget {budget}", client.name);
}

#[test]
fn retransmits_nothing_without_loss() {
    for client in CLIENTS {
        for late in [false, true] {
            for rest in [0, 1, client.blksize() - 1] {
                transfer(&client, 200 * client.blksize() + rest, &Network { late, ..Network::default() });
            }
        }
    }
}

#[test]
fn every_client_receives_its_file_despite_losses() {
    for client in CLIENTS {
        let window = client.window() as u16;
        let blocks = 5 * window + window / 2 + 1;
        let (first, middle, end) = (window + 1, window + window / 2 + 1, 2 * window);
        let patterns: [&[(u8, u16)]; 12] = [
            &[(OACK, 0)],
            &[(ACK, 0)],
            &[(DATA, 1)],
            &[(DATA, first)],
            &[(DATA, middle)],
            &[(DATA, end)],
            &[(ACK, end)],
            &[(DATA, blocks)],
            &[(ACK, blocks)],
            &[(DATA, first), (DATA, middle), (DATA, 4 * window)],
            &[(DATA, middle), (ACK, middle - 1), (DATA, end)],
            &[(OACK, 0), (DATA, 1), (ACK, end), (DATA, blocks), (ACK, blocks)],
        ];
        for lost in patterns {
            let fatal = client.name == PI4.name && lost.iter().any(|(opcode, _)| *opcode == ACK);
            let size = (usize::from(blocks) - 1) * client.blksize() + 7;
            if !fatal {
                transfer(&client, size, &Network { lost: lost.to_vec(), ..Network::default() });
            }
        }
    }
}

/// U-Boot sends no NACK above block 32767, and block numbers roll over. GRUB does not answer a repeated 65535, so that its ACK of that
/// block must not be lost, with any server.
#[test]
fn every_client_receives_blocks_beyond_65535() {
    let lost =
        [(DATA, 32_767), (DATA, 32_768), (DATA, 40_001), (DATA, 65_535), (DATA, 0), (ACK, 40_000), (ACK, 65_472)];
    for client in [EDK2, GRUB, UBOOT, UBOOT_64] {
        transfer(&client, 65_700 * client.blksize(), &Network { lost: lost.to_vec(), ..Network::default() });
    }
}

/// Firmware requests only the size and ends the transfer with an ERROR; so do GRUB and PXELINUX if the file is empty.
#[test]
fn size_query_is_a_probe() {
    let edk2 = b"\x00\x01grub/x86_64-efi/core.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
    let probes: [(Client, usize, &[u8]); 4] = [
        (Client { request: edk2, ..EDK2 }, 70_000, b"\x00\x05\x00\x08User aborted the transfer\0"),
        (GRUB, 0, b"\x00\x05\x00\x00closed\0"),
        (PXELINUX, 0, b"\x00\x05\x00\x00No error, file close\0"),
        (PI4, 70_000, b"\x00\x05\x00\x00Early terminate\0"),
    ];
    for (client, size, error) in probes {
        let content = noise(size, 1);
        let mut server = Server::new(&client, &content);
        let mut file = client.file();
        let (oack, _) = server.step(0, None);
        assert_eq!((oack.len(), client.react(&mut file, &oack[0])), (1, Some(0)), "{}", client.name);
        assert_eq!(file.size, Some(size as u64), "{}", client.name);
        assert_eq!(server.step(1_000, Some(error)), (vec![], None), "{}", client.name);
        assert_eq!(server.outcome, Some(Outcome::Probed), "{}", client.name);
    }
}

/// A queue of 16 packets loses the same end of every window of 64, so that a client that acknowledges complete windows never receives
/// one. The sender paces its windows instead.
#[test]
fn paces_windows_for_a_short_queue() {
    const WINDOWS: u64 = 1_000;
    const BLOCKS: usize = 2_000;

    let client = WHOLE_WINDOWS;
    let network = Network { room: Some(16), ..Network::default() };
    let content = noise((BLOCKS - 1) * client.blksize() + 7, 1);

    let (mut base, mut windows) = (0, 0);
    let at_once = |now: u64, datagram: Option<&[u8]>| {
        if let Some(Ok(Packet::Ack { block })) = datagram.map(Packet::parse) {
            base = usize::from(block) + 1;
        }
        if base == 0 {
            return (vec![b"\x00\x06blksize\x001468\0windowsize\x0064\0".to_vec()], Some(now + 200_000));
        }
        windows += 1;
        let blocks = content.chunks(client.blksize()).zip(1u16..).skip(base - 1).take(64);
        let window = blocks.map(|(block, number)| [&data_header(number), block].concat()).collect();
        (window, (windows < WINDOWS).then_some(now + 200_000))
    };
    let (file, _) = simulate(at_once, &client, network.clone());
    assert_eq!((windows, file.acked, file.ended), (WINDOWS, 0, false));

    let mut server = Server::new(&client, &content);
    let (file, data) = simulate(|now, datagram| server.step(now, datagram), &client, network);
    println!("short queue: {} of {BLOCKS} blocks with {data} datagrams", file.blocks);
    assert_same(&file.bytes, &content, "over the short queue");
    assert_eq!(server.outcome, Some(Outcome::Complete));
}

/// When the client's retransmissions counted as round trips, and windows with losses were spread over up to 0.2 s, the 99th percentile
/// was 28 s at 10 % loss and 11 s at 5 %.
#[test]
fn random_loss_bounds_slowest_fetches() {
    const FETCHES: u64 = 500;

    for (loss, median, slow) in [(0.01, 0.3, 1.0), (0.05, 1.5, 4.0), (0.1, 4.0, 8.0)] {
        let content = noise(1 << 20, 1);
        let mut times: Vec<u64> = (0..FETCHES)
            .map(|seed| {
                let network = Network { random: Some((loss, Rng::new(seed))), ..Network::default() };
                let mut server = Server::new(&STEADY, &content);
                let (file, _) = simulate(|now, datagram| server.step(now, datagram), &STEADY, network);
                assert!(file.bytes == content, "seed {seed}: {} bytes", file.bytes.len());
                file.ended_at
            })
            .collect();
        times.sort_unstable();
        let [middle, late] = [50, 99].map(|percent| times[times.len() * percent / 100] as f64 / 1e6);
        println!("loss {loss}: median {middle} s, 99th percentile {late} s");
        assert!(middle <= median && late <= slow, "loss {loss}: median {middle} s, 99th percentile {late} s");
    }
}
