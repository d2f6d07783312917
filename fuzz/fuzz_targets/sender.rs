//! With any packets at any time, the sender waits only for future instants, does not overflow its buffer, and terminates.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rtftp_core::{
    Instant, Output, Packet, Sender,
    wire::{
        options::{Limits, negotiate},
        packet::Options,
    },
};

static FILE: [u8; 70_000] = [7; 70_000];

/// Polls until there is nothing to send. Returns the instant to wait for, or `None` when the transfer is over.
fn drive(sender: &mut Sender, now: Instant, blksize: usize) -> Option<Instant> {
    let (mut file, mut buf) = (&FILE[..], [0; 1024]);
    // More polls than any window needs: 70,000 bytes in blocks of 8, and the empty last block.
    for _ in 0..10_000 {
        match sender.poll(now, &mut file, &mut buf) {
            Output::Transmit(transmit) => {
                assert!(transmit.len > 0 && transmit.segment > 0 && transmit.len <= buf.len());
                for datagram in buf[..transmit.len].chunks(transmit.segment) {
                    if let Ok(Packet::Data { payload, .. }) = Packet::parse(datagram) {
                        assert!(payload.len() <= blksize);
                    }
                }
            }
            Output::NeedData => panic!("the file is in memory"),
            Output::Wait(until) => {
                assert!(until > now, "waits for a past instant");
                return Some(until);
            }
            Output::Finished(outcome) => {
                assert_eq!(sender.poll(now, &mut file, &mut buf), Output::Finished(outcome));
                return None;
            }
        }
    }
    panic!("never waits");
}

fuzz_target!(|input: (&[u8], u16, Vec<(u16, u16)>)| {
    let (options, size, events) = input;
    let limits = Limits { blksize: 1000, ..Limits::default() };
    let (settings, granted) = negotiate(Options::new(options), &limits, Some(u64::from(size)));
    let mut now = Instant::from_micros(0);
    let blksize = usize::from(settings.blksize);
    let mut sender = Sender::new(now, settings, granted, Some(u64::from(size)));
    let mut wait = drive(&mut sender, now, blksize);
    for (pause, block) in events {
        now = now.after(Duration::from_millis(u64::from(pause)));
        let mut ack = [0; 4];
        Packet::Ack { block }.write(&mut ack).expect("enough room");
        sender.handle(now, &ack);
        wait = drive(&mut sender, now, blksize);
        assert!(sender.acknowledged() <= u64::from(size));
    }
    // Without further packets the transfer ends in bounded time.
    while let Some(until) = wait {
        assert!(until.since(now) < Duration::from_secs(600), "never gives up");
        wait = drive(&mut sender, until, blksize);
    }
});
