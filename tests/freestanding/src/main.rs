//! A program without std and without a heap that reads a disk's description and sends a file from a sender to a receiver.
//!
//! That it links proves that the core brings neither std (its panic handler would be a second one) nor alloc (there is no
//! allocator to be had). That it ends with 0 proves that what was linked is the real thing.
//!
//! With the feature `no-panic` its panic handler calls a function that is nowhere: then it links only if no panic can be reached.
//! Reading the description of a disk is left out there; the JSON library has checks that the compiler cannot see through.
#![no_std]
#![no_main]

#[cfg(feature = "alloc-sneaks-in")]
extern crate alloc;
#[cfg(feature = "std-sneaks-in")]
extern crate std;

use core::{hint::black_box, time::Duration};

use rtftp_core::{
    BlockSink, Instant, Outcome, Output, Receiver, RequestPath, Sender, WriteFailed,
    wire::{
        options::{Limits, RequestedOptions, negotiate},
        packet::{Mode, Packet, Request},
    },
};

const OPTIONS: RequestedOptions =
    RequestedOptions { blksize: Some(1468), windowsize: Some(4), timeout: None, tsize: true };

#[cfg(not(feature = "no-panic"))]
const DISK: &[u8] =
    br#"{"url": "nbd://10.0.0.1/root", "mounts": [{"partition": 2, "mountpoint": "/"}], "tftp_root": "/boot"}"#;

static FILE: [u8; 100_000] = [0x5A; 100_000];

/// The entry point that the C library calls; its result is the exit code.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    i32::from(transfer().is_none())
}

/// Has a receiver ask a sender for a file and take it. The compiler knows nothing of what comes in a packet.
fn transfer() -> Option<()> {
    #[cfg(not(feature = "no-panic"))]
    rtftp_core::config::disk::DiskConfig::parse(DISK).ok().filter(|disk| disk.tftp_root == "/boot")?;
    let mut now = Instant::from_micros(0);
    let (mut file, mut buf, mut packet, mut received) = (&FILE[..], [0; 8192], [0; 600], Received(0));
    let mut receiver = Receiver::new(now, black_box(b"/boot\\kernel8.img"), OPTIONS).ok()?;
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
            #[cfg(feature = "panic-sneaks-in")]
            Output::Finished(_) => return (FILE[received.0] == 0).then_some(()),
            #[cfg(not(feature = "panic-sneaks-in"))]
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

/// How many bytes of the file came, as long as they are the right ones.
struct Received(usize);

impl BlockSink for Received {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        let expected = usize::try_from(offset).ok().and_then(|offset| FILE.get(offset..)?.get(..bytes.len()));
        if expected != Some(bytes) {
            return Err(WriteFailed("these are not the bytes of the file"));
        }
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    unsafe extern "C" {
        #[cfg_attr(feature = "no-panic", link_name = "a_panic_can_be_reached")]
        safe fn abort() -> !;
    }
    abort()
}

/// What the precompiled core asks for when it is not optimised; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
