//! The file arrives unchanged over a network that loses, duplicates and reorders the first packets and then works.
#![no_main]

use std::{collections::VecDeque, time::Duration};

use libfuzzer_sys::fuzz_target;
use rtftp_core::{
    Instant, Outcome, Output, Packet, Receiver, ReceiverConfig, Sender,
    transfer::io::{BlockSink, WriteFailed},
    wire::options::{Limits, RequestedOptions, negotiate},
};

/// A sink that accepts only the bytes of the file, in order.
struct CheckedSink<'a> {
    file: &'a [u8],
    received: usize,
}

impl BlockSink for CheckedSink<'_> {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        assert_eq!(offset, self.received as u64, "out of order");
        assert_eq!(bytes, &self.file[self.received..][..bytes.len()], "differs from the file");
        self.received += bytes.len();
        Ok(())
    }
}

/// The datagrams in flight in one direction.
type Wire = VecDeque<Vec<u8>>;

/// The most lost datagrams: few enough that neither end may give up. An unverified client gets its first packet six times.
const MAX_LOSSES: usize = 5;

/// Sends datagrams; the next fault decides what happens to each.
fn transmit(buf: &[u8], segment: usize, wire: &mut Wire, faults: &mut impl Iterator<Item = u8>) {
    for datagram in buf.chunks(segment) {
        match faults.next().unwrap_or(0) % 8 {
            // Lost, duplicated, or ahead of the others.
            1 => {}
            2 => wire.extend([datagram.to_vec(), datagram.to_vec()]),
            3 => wire.push_front(datagram.to_vec()),
            _ => wire.push_back(datagram.to_vec()),
        }
    }
}

fuzz_target!(|input: (u16, u8, u8, bool, Vec<u8>)| {
    let (size, blksize, windowsize, with_options, faults) = input;
    let file: Vec<u8> = (0..u32::from(size) % 5000).map(|at| (at ^ (at >> 8)) as u8).collect();
    let options = RequestedOptions {
        blksize: Some(u16::from(blksize) + 8),
        windowsize: Some(u16::from(windowsize).max(1)),
        tsize: true,
        timeout: None,
    };
    let options = if with_options { options } else { RequestedOptions::default() };
    let config = ReceiverConfig { options, ..ReceiverConfig::default() };
    let mut now = Instant::from_micros(0);
    let mut receiver = Receiver::new(now, b"file", config).expect("a short name");
    let mut sender: Option<Sender> = None;
    let mut sink = CheckedSink { file: &file, received: 0 };
    let (mut to_server, mut to_client) = (Wire::new(), Wire::new());
    let mut lost = 0;
    let mut faults = faults.into_iter().filter(|fault| {
        lost += usize::from(fault % 8 == 1);
        fault % 8 != 1 || lost <= MAX_LOSSES
    });
    let mut buf = [0; 4096];
    for _ in 0..200_000 {
        // Each end sends until it waits; then the next datagram arrives or time passes.
        let mut waits = vec![];
        let mut finished = 0;
        match receiver.poll(now, &mut buf) {
            Output::Transmit(t) => {
                transmit(&buf[..t.len], t.segment, &mut to_server, &mut faults);
                continue;
            }
            Output::Wait(until) => waits.push(until),
            Output::Finished(Outcome::Complete) => finished += 1,
            other => panic!("the client ends with {other:?}"),
        }
        match sender.as_mut().map(|sender| sender.poll(now, &mut &file[..], &mut buf)) {
            Some(Output::Transmit(t)) => {
                transmit(&buf[..t.len], t.segment, &mut to_client, &mut faults);
                continue;
            }
            Some(Output::Wait(until)) => waits.push(until),
            Some(Output::Finished(Outcome::Complete)) => finished += 1,
            // The last ACK may be lost every time.
            Some(Output::Finished(Outcome::TimedOut)) if receiver.is_delivered() => finished += 1,
            Some(other) => panic!("the server ends with {other:?}"),
            None => {}
        }
        if finished == 2 || finished == 1 && sink.received == file.len() && waits.is_empty() {
            break;
        }
        if let Some(datagram) = to_server.pop_front() {
            match (Packet::parse(&datagram), &mut sender) {
                (Ok(Packet::ReadRequest(request)), None) => {
                    let size = Some(file.len() as u64);
                    let (settings, granted) = negotiate(request.options, &Limits::default(), size);
                    sender = Some(Sender::new(now, settings, granted, size));
                }
                (Ok(Packet::ReadRequest(_)), Some(_)) => {}
                (_, Some(sender)) => sender.handle(now, &datagram),
                (_, None) => panic!("a packet before the request"),
            }
        } else if let Some(datagram) = to_client.pop_front() {
            receiver.handle(now, &datagram, &mut sink);
        } else {
            now = waits.into_iter().min().expect("one end waits");
            continue;
        }
        now = now.after(Duration::from_micros(50));
    }
    assert!(receiver.is_delivered() || matches!(receiver.poll(now, &mut buf), Output::Finished(Outcome::Complete)));
    assert_eq!(sink.received, file.len(), "the file is complete");
});
