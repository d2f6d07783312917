//! A program without std and without a heap that parses a request and a disk's description and sends a file.
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

use core::time::Duration;

use rtftp_core::options::{Limits, negotiate};
use rtftp_core::packet::{Mode, Packet, Request};
use rtftp_core::{Instant, Outcome, Output, RequestPath, Sender};

const REQUEST: &[u8] = b"\0\x01/boot\\kernel8.img\0octet\0blksize\x001468\0windowsize\x004\0";

#[cfg(not(feature = "no-panic"))]
const DISK: &[u8] =
    br#"{"url": "nbd://10.0.0.1/root", "mounts": [{"partition": 2, "mountpoint": "/"}], "tftp_root": "/boot"}"#;

static FILE: [u8; 100_000] = [0x5A; 100_000];

/// The entry point that the C library calls; its result is the exit code.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    i32::from(serve().is_none())
}

/// Serves one request to a client that acknowledges everything at once.
fn serve() -> Option<()> {
    #[cfg(not(feature = "no-panic"))]
    rtftp_core::disk::DiskConfig::parse(DISK).ok().filter(|disk| disk.tftp_root == "/boot")?;
    let Packet::ReadRequest(Request { file, mode: Mode::Octet, options }) = Packet::parse(REQUEST).ok()? else {
        return None;
    };
    RequestPath::parse(file).ok().filter(|path| path.as_bytes() == b"boot/kernel8.img")?;
    let (settings, granted) = negotiate(options, &Limits::default(), Some(FILE.len() as u64));
    let mut now = Instant::from_micros(0);
    let mut sender = Sender::new(now, settings, granted, Some(FILE.len() as u64));
    let (mut file, mut buf, mut received) = (&FILE[..], [0; 8192], 0);
    loop {
        now = now.after(Duration::from_millis(1));
        match sender.poll(now, &mut file, &mut buf) {
            Output::Transmit(transmit) => {
                for datagram in buf.get(..transmit.len)?.chunks(transmit.segment.max(1)) {
                    let block = match Packet::parse(datagram).ok()? {
                        Packet::OptionAck(_) => 0,
                        Packet::Data { block, payload } => {
                            received += payload.len();
                            block
                        }
                        _ => return None,
                    };
                    let mut ack = [0; 4];
                    Packet::Ack { block }.write(&mut ack)?;
                    sender.handle(now, &ack);
                }
            }
            #[cfg(feature = "panic-sneaks-in")]
            Output::Finished(_) => return (FILE[received] == 0).then_some(()),
            #[cfg(not(feature = "panic-sneaks-in"))]
            Output::Finished(outcome) => return (outcome == Outcome::Complete && received == FILE.len()).then_some(()),
            Output::Wait(_) | Output::NeedData => return None,
        }
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
