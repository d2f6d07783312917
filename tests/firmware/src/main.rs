//! Firmware that fetches a file by TFTP: rtftp-core's receiver on a Cortex-M4 without an operating system and without a heap.
//!
//! The board is QEMU's mps2-an386 in QEMU's user network, where the host is 10.0.2.2. It logs with defmt through semihosting to
//! the emulator's standard output, which `decode` converts to text. The emulator's exit code is 0 if the file arrived.
#![no_std]
#![no_main]

mod arguments;
mod clock;
mod fetch;
mod lan9118;
mod loopback;
mod lossy;
mod stack;

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, heprintln};
use crc::{CRC_32_ISO_HDLC, Crc, Digest, Table};
use defmt::{error, info};
use defmt_semihosting as _;
use rtftp_core::{BlockSink, Receiver, ReceiverConfig, Sender, WriteFailed, wire::options::RequestedOptions};
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

/// Any port: slirp keeps transfers apart.
const LOCAL_PORT: u16 = 50_000;

/// The largest stack that can be measured, in bytes.
const MAX_STACK: usize = 64 * 1024;

/// Four packets of this size fit into the controller's receive FIFO (10,560 bytes) at once.
const OPTIONS: RequestedOptions =
    RequestedOptions { blksize: Some(1428), windowsize: Some(4), timeout: None, tsize: true };

const CONFIG: ReceiverConfig = ReceiverConfig { options: OPTIONS, ..ReceiverConfig::DEFAULT };

/// Only the checksum of the file is kept. It is that of gzip, so that the host needs no other program to compare.
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
    let (result, used) = stack::measure(MAX_STACK, run);
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

/// Fetches the file and logs its checksum and the speed.
fn run() -> Result<(), &'static str> {
    let stack = loopback::run().ok_or("the transfer on the board failed")?;
    info!("stack: Sender {} bytes", stack.sender);
    info!("stack: Receiver {} bytes", stack.receiver);
    info!("state: Sender {} bytes", size_of::<Sender>());
    info!("state: Receiver {} bytes", size_of::<Receiver>());
    let mut buf = [0; 256];
    let arguments = Arguments::read(&mut buf).ok_or("expected the arguments PORT FILE LOSS SEED")?;
    let mut clock = Clock::new(cortex_m::Peripherals::take().ok_or("the peripherals are in use")?.SYST);
    let mut device = Lan9118::new(ADDRESS, Lossy::new(arguments.loss, arguments.seed)).ok_or("no LAN9118 found")?;
    let interface = interface(&mut device)?;

    let (mut received, mut received_bytes) = ([udp::PacketMetadata::EMPTY; 8], [0; 12_288]);
    let (mut sent, mut sent_bytes) = ([udp::PacketMetadata::EMPTY; 2], [0; 1024]);
    let mut socket = udp::Socket::new(
        udp::PacketBuffer::new(&mut received[..], &mut received_bytes[..]),
        udp::PacketBuffer::new(&mut sent[..], &mut sent_bytes[..]),
    );
    socket.bind(LOCAL_PORT).map_err(|_| "the port is in use")?;
    let mut storage = [SocketStorage::EMPTY];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let socket = sockets.add(socket);
    let mut network = Network { device, interface, sockets, socket };

    let start = clock.now();
    let mut receiver = Receiver::new(start, arguments.file.as_bytes(), CONFIG).map_err(|_| "invalid file name")?;
    let mut checksum = Checksum(CRC.digest());
    let server = IpEndpoint::new(HOST.into(), arguments.port);
    info!("requesting {=str}", arguments.file);
    info!("options: {}", OPTIONS);
    match fetch(&mut receiver, &mut checksum, &mut network, &mut clock, server) {
        Ok(complete) => {
            report(&receiver, checksum, &network.device, complete.since(start).as_millis() as u64);
            Ok(())
        }
        Err(outcome) => {
            error!("{} after {} bytes", outcome, receiver.delivered());
            Err("the transfer failed")
        }
    }
}

/// Returns the interface with the address of the board.
fn interface(device: &mut Lan9118) -> Result<Interface, &'static str> {
    let config = Config::new(EthernetAddress(ADDRESS).into());
    let mut interface = Interface::new(config, device, Instant::ZERO);
    let mut full = Ok(());
    interface.update_ip_addrs(|addresses| full = addresses.push(IpCidr::new(BOARD.into(), 24)));
    full.map(|()| interface).map_err(|_| "no room for an address")
}

/// Logs the results for `run.sh`.
fn report(receiver: &Receiver, checksum: Checksum, device: &Lan9118, millis: u64) {
    info!("received {} bytes crc32 {:08x}", receiver.delivered(), checksum.0.finalize());
    info!(
        "took {} ms ({} kB/s), {} frames lost, {} retransmissions",
        millis,
        receiver.delivered() / millis.max(1),
        device.lost(),
        receiver.retransmitted()
    );
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Not with defmt, which may have panicked.
    heprintln!("{}", info);
    loop {
        debug::exit(debug::EXIT_FAILURE);
    }
}
