//! Firmware that fetches a file by TFTP: rtftp-core's receiver on a Cortex-M4 without an operating system or a heap.
//!
//! The board is mps2-an386 as QEMU emulates it, in QEMU's user network: the host is 10.0.2.2. It logs with defmt
//! through semihosting, to the emulator's standard output; `decode` makes text of that. The verdict is the emulator's exit code:
//! 0 when the file has come.
#![no_std]
#![no_main]

mod arguments;
mod clock;
mod exchange;
mod fetch;
mod lan9118;
mod lossy;
mod stack;

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, heprintln};
use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};
use defmt::{error, info};
use defmt_semihosting as _;
use rtftp_core::{BlockSink, Receiver, Sender, WriteFailed, wire::options::RequestedOptions};
use smoltcp::{
    iface::{Config, Interface, SocketSet, SocketStorage},
    socket::udp,
    time::Instant,
    wire::{EthernetAddress, IpCidr, IpEndpoint, Ipv4Address},
};

use crate::{
    arguments::Arguments,
    clock::Clock,
    fetch::{Network, fetch},
    lan9118::Lan9118,
    lossy::Lossy,
};

const HOST: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const BOARD: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
const ADDRESS: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// Any port will do: slirp keeps transfers apart.
const LOCAL_PORT: u16 = 50_000;

/// More than the program takes of the stack, in bytes.
const MOST_STACK: usize = 64 * 1024;

/// Four packets of this size fit into the controller's receive FIFO (10,560 bytes) at once.
const OPTIONS: RequestedOptions =
    RequestedOptions { blksize: Some(1428), windowsize: Some(4), timeout: None, tsize: true };

/// The file is not kept, only its checksum: that of gzip, so that the host needs no program of its own to compare.
static CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISO_HDLC);

struct Checksum(Digest<'static, u32, Table<1>>);

impl BlockSink for Checksum {
    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        self.0.update(bytes);
        Ok(())
    }
}

#[entry]
fn main() -> ! {
    let (result, used) = stack::used_by(MOST_STACK, run);
    let code = match result {
        Ok(()) => {
            info!("stack: the whole program {} bytes", used);
            debug::EXIT_SUCCESS
        }
        Err(why) => {
            error!("failed: {}", why);
            debug::EXIT_FAILURE
        }
    };
    loop {
        debug::exit(code);
    }
}

/// Fetches the file and logs what came and how fast.
fn run() -> Result<(), &'static str> {
    let alone = exchange::run().ok_or("sender and receiver did not come to an end with each other")?;
    info!("stack: Sender {} bytes", alone.sender);
    info!("stack: Receiver {} bytes", alone.receiver);
    info!("state: Sender {} bytes", size_of::<Sender>());
    info!("state: Receiver {} bytes", size_of::<Receiver>());
    let mut buf = [0; 256];
    let arguments = Arguments::read(&mut buf).ok_or("expected the arguments PORT FILE LOSS SEED")?;
    let mut clock = Clock::new(cortex_m::Peripherals::take().ok_or("the peripherals are taken")?.SYST);
    let mut device = Lan9118::new(ADDRESS, Lossy::new(arguments.loss, arguments.seed)).ok_or("there is no LAN9118")?;
    let interface = interface(&mut device)?;

    let (mut received, mut received_bytes) = ([udp::PacketMetadata::EMPTY; 8], [0; 12_288]);
    let (mut sent, mut sent_bytes) = ([udp::PacketMetadata::EMPTY; 2], [0; 1024]);
    let mut socket = udp::Socket::new(
        udp::PacketBuffer::new(&mut received[..], &mut received_bytes[..]),
        udp::PacketBuffer::new(&mut sent[..], &mut sent_bytes[..]),
    );
    socket.bind(LOCAL_PORT).map_err(|_| "the port is taken")?;
    let mut storage = [SocketStorage::EMPTY];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let socket = sockets.add(socket);
    let mut network = Network { device, interface, sockets, socket };

    let start = clock.now();
    let mut receiver = Receiver::new(start, arguments.file.as_bytes(), OPTIONS).map_err(|_| "no such name can be")?;
    let mut checksum = Checksum(CRC.digest());
    let server = IpEndpoint::new(HOST.into(), arguments.port);
    info!("asking for {=str}", arguments.file);
    info!("options: {}", OPTIONS);
    match fetch(&mut receiver, &mut checksum, &mut network, &mut clock, server) {
        Ok(whole) => {
            report(&receiver, checksum, &network.device, whole.since(start).as_millis() as u64);
            Ok(())
        }
        Err(outcome) => {
            error!("{} after {} bytes", outcome, receiver.delivered());
            Err("the transfer did not come to its end")
        }
    }
}

/// The host network's view of this board.
fn interface(device: &mut Lan9118) -> Result<Interface, &'static str> {
    let config = Config::new(EthernetAddress(ADDRESS).into());
    let mut interface = Interface::new(config, device, Instant::ZERO);
    let mut full = Ok(());
    interface.update_ip_addrs(|addresses| full = addresses.push(IpCidr::new(BOARD.into(), 24)));
    full.map(|()| interface).map_err(|_| "there is no room for an address")
}

/// Logs what the script beside this program reads.
fn report(receiver: &Receiver, checksum: Checksum, device: &Lan9118, millis: u64) {
    info!("received {} bytes crc32 {:08x}", receiver.delivered(), checksum.0.finalize());
    info!(
        "took {} ms ({} kB/s), {} frames lost, {} packets repeated",
        millis,
        receiver.delivered() / millis.max(1),
        device.lost(),
        receiver.retransmitted()
    );
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Not into the log, which may be what panics.
    heprintln!("{}", info);
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}
