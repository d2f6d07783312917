//! A program without std and without a heap that sends a file from a sender to a receiver.
//!
//! It links only if the core uses neither std, whose panic handler would be a second one, nor alloc, since there is no allocator.
//! Its exit code is 0 if the file arrived.
//!
//! With the feature `disk-config` it also parses the description of a disk. With the feature `no-panic` its panic handler calls an
//! undefined function, so it links only if no panic is reachable. The two exclude each other: the JSON library has checks that the
//! compiler cannot remove.
#![no_std]
#![no_main]

#[cfg(feature = "add-alloc")]
extern crate alloc;
#[cfg(feature = "add-std")]
extern crate std;

use core::{hint::black_box, time::Duration};

use rtftp_core::{
    BlockSink, Instant, Outcome, Output, Receiver, ReceiverConfig, RequestPath, Sender, WriteFailed,
    wire::{
        options::{Limits, RequestedOptions, negotiate},
        packet::{Mode, Packet, Request},
    },
};

const CONFIG: ReceiverConfig = ReceiverConfig {
    options: RequestedOptions { blksize: Some(1468), windowsize: Some(4), timeout: None, tsize: true },
    ..ReceiverConfig::DEFAULT
};

#[cfg(feature = "disk-config")]
const DISK: &[u8] =
    br#"{"url": "nbd://10.0.0.1/root", "mounts": [{"partition": 2, "mountpoint": "/"}], "tftp_root": "/boot"}"#;

static FILE: [u8; 100_000] = [0x5A; 100_000];

/// The entry point for the C library. Its result is the exit code.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    i32::from(transfer().is_none())
}

/// Transfers a file from a sender to a receiver. The contents of the packets are unknown to the compiler.
fn transfer() -> Option<()> {
    #[cfg(feature = "disk-config")]
    rtftp_core::config::disk::DiskConfig::parse(DISK).ok().filter(|disk| disk.tftp_root == "/boot")?;
    let mut now = Instant::from_micros(0);
    let (mut file, mut buf, mut packet, mut received) = (&FILE[..], [0; 8192], [0; 600], Received(0));
    let mut receiver = Receiver::new(now, black_box(b"/boot\\kernel8.img"), CONFIG).ok()?;
    let Output::Transmit(request) = receiver.poll(now, &mut packet) else { return None };
    let request = Packet::parse(black_box(packet.get(..request.len)?)).ok()?;
    let Packet::ReadRequest(Request { file: name, mode: Mode::Octet, options }) = request else { return None };
    RequestPath::parse(name).ok().filter(|path| path.as_bytes() == b"boot/kernel8.img")?;
    let (settings, granted) = negotiate(options, &Limits::default(), Some(FILE.len() as u64));
    let mut sender = Sender::new(now, settings, granted, Some(FILE.len() as u64));
    loop {
        now = now.after(Duration::from_millis(1));
        match sender.poll(now, &mut file, &mut buf) {
            Output::Transmit(transmit) => {
                for datagram in buf.get(..transmit.len)?.chunks(transmit.segment.max(1)) {
                    receiver.handle(now, black_box(datagram), &mut received);
                }
            }
            #[cfg(feature = "add-panic")]
            Output::Finished(_) => return (FILE[received.0] == 0).then_some(()),
            #[cfg(not(feature = "add-panic"))]
            Output::Finished(outcome) => {
                return (outcome == Outcome::Complete && received.0 == FILE.len()).then_some(());
            }
            Output::Wait(_) | Output::NeedData => {}
        }
        if let Output::Transmit(ack) = receiver.poll(now, &mut packet) {
            sender.handle(now, black_box(packet.get(..ack.len)?));
        }
    }
}

/// A sink that compares the bytes with the file and counts them.
struct Received(usize);

impl BlockSink for Received {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        let expected = usize::try_from(offset).ok().and_then(|offset| FILE.get(offset..)?.get(..bytes.len()));
        if expected != Some(bytes) {
            return Err(WriteFailed("the bytes differ from the file"));
        }
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        #[cfg_attr(feature = "no-panic", link_name = "panic_is_reachable")]
        safe fn abort() -> !;
    }
    abort()
}

/// Required by the precompiled core library when it is not optimised. Nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
