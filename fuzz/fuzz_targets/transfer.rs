//! Both ends over a network that does as it likes with the first packets and then behaves: the file arrives as it is.
#![no_main]

use std::{collections::VecDeque, time::Duration};

use libfuzzer_sys::fuzz_target;
use rtftp_core::{
    Instant, Outcome, Output, Packet, Receiver, Sender,
    transfer::io::{BlockSink, WriteFailed},
    wire::options::{Limits, RequestedOptions, negotiate},
};

/// What comes must be the file, in order.
struct Checked<'a> {
    file: &'a [u8],
    came: usize,
}

impl BlockSink for Checked<'_> {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        assert_eq!(offset, self.came as u64, "out of order");
        assert_eq!(bytes, &self.file[self.came..][..bytes.len()], "not the file");
        self.came += bytes.len();
        Ok(())
    }
}

/// The datagrams on their way in one direction.
type Wire = VecDeque<Vec<u8>>;

/// How many datagrams get lost: so few that nobody is right to give up.
const LOSSES: usize = 8;

/// Sends what an end has to say; the network's next whims decide what becomes of it.
fn transmit(buf: &[u8], segment: usize, wire: &mut Wire, whims: &mut impl Iterator<Item = u8>) {
    for datagram in buf.chunks(segment) {
        match whims.next().unwrap_or(0) % 8 {
            // Lost, doubled, or overtaking what is before it.
            1 => {}
            2 => wire.extend([datagram.to_vec(), datagram.to_vec()]),
            3 => wire.push_front(datagram.to_vec()),
            _ => wire.push_back(datagram.to_vec()),
        }
    }
}

fuzz_target!(|input: (u16, u8, u8, bool, Vec<u8>)| {
    let (size, blksize, windowsize, with_options, whims) = input;
    let file: Vec<u8> = (0..u32::from(size) % 5000).map(|at| (at ^ (at >> 8)) as u8).collect();
    let wanted = RequestedOptions {
        blksize: Some(u16::from(blksize) + 8),
        windowsize: Some(u16::from(windowsize).max(1)),
        tsize: true,
        timeout: None,
    };
    let wanted = if with_options { wanted } else { RequestedOptions::default() };
    let mut now = Instant::from_micros(0);
    let mut receiver = Receiver::new(now, b"file", wanted).expect("a short name");
    let mut sender: Option<Sender> = None;
    let mut sink = Checked { file: &file, came: 0 };
    let (mut to_server, mut to_client) = (Wire::new(), Wire::new());
    let mut lost = 0;
    let mut whims = whims.into_iter().filter(|whim| {
        lost += usize::from(whim % 8 == 1);
        whim % 8 != 1 || lost <= LOSSES
    });
    let mut buf = [0; 4096];
    for _ in 0..200_000 {
        // Each end says what it has to say, then the next datagram arrives or time passes.
        let mut waits = vec![];
        let mut over = 0;
        match receiver.poll(now, &mut buf) {
            Output::Transmit(t) => {
                transmit(&buf[..t.len], t.segment, &mut to_server, &mut whims);
                continue;
            }
            Output::Wait(until) => waits.push(until),
            Output::Finished(Outcome::Complete) => over += 1,
            other => panic!("the client ends with {other:?}"),
        }
        match sender.as_mut().map(|sender| sender.poll(now, &mut &file[..], &mut buf)) {
            Some(Output::Transmit(t)) => {
                transmit(&buf[..t.len], t.segment, &mut to_client, &mut whims);
                continue;
            }
            Some(Output::Wait(until)) => waits.push(until),
            Some(Output::Finished(Outcome::Complete)) => over += 1,
            // Its last packets may all be lost: then it never knows.
            Some(Output::Finished(Outcome::TimedOut)) if receiver.is_delivered() => over += 1,
            Some(other) => panic!("the server ends with {other:?}"),
            None => {}
        }
        if over == 2 || over == 1 && sink.came == file.len() && waits.is_empty() {
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
                (_, None) => panic!("the client speaks to nobody"),
            }
        } else if let Some(datagram) = to_client.pop_front() {
            receiver.handle(now, &datagram, &mut sink);
        } else {
            now = waits.into_iter().min().expect("somebody waits");
            continue;
        }
        now = now.after(Duration::from_micros(50));
    }
    assert!(receiver.is_delivered() || matches!(receiver.poll(now, &mut buf), Output::Finished(Outcome::Complete)));
    assert_eq!(sink.came, file.len(), "the file is whole");
});
