//! Both ends of a transfer on this board, without a network between them: what the core takes by itself.

use core::time::Duration;

use rtftp_core::{
    BlockReader, BlockSink, Instant, Outcome, Output, Packet, ReadFailed, Receiver, Sender, WriteFailed,
    transfer::receiver::MAX_REQUEST,
    wire::options::{Limits, negotiate},
};

use crate::{OPTIONS, stack};

/// More than any call takes, in bytes: filling it takes time.
const MOST: usize = 4096;

/// The length of the file, in bytes.
const LEN: u64 = 100_000;

/// How deep the stack got in calls to either machine, in bytes.
#[derive(Default)]
pub struct Stack {
    pub sender: usize,
    pub receiver: usize,
}

/// Sends a file from a sender to a receiver; `None` when it does not arrive.
pub fn run() -> Option<Stack> {
    let mut stack = Stack::default();
    let (mut now, mut packet, mut buf) = (Instant::from_micros(0), [0; MAX_REQUEST], [0; 1432]);
    let mut receiver = on(&mut stack.receiver, || Receiver::new(now, b"file", OPTIONS)).ok()?;
    let Output::Transmit(request) = on(&mut stack.receiver, || receiver.poll(now, &mut packet)) else { return None };
    let mut sender = on(&mut stack.sender, || {
        let Packet::ReadRequest(request) = Packet::parse(packet.get(..request.len)?).ok()? else { return None };
        let (settings, granted) = negotiate(request.options, &Limits::default(), Some(LEN));
        Some(Sender::new(now, settings, granted, Some(LEN)))
    })?;
    let mut sink = Count(0);
    loop {
        now = now.after(Duration::from_millis(1));
        match on(&mut stack.sender, || sender.poll(now, &mut Zeros, &mut buf)) {
            Output::Transmit(data) => {
                on(&mut stack.receiver, || receiver.handle(now, &buf[..data.len], &mut sink));
            }
            Output::Finished(outcome) => return (outcome == Outcome::Complete && sink.0 == LEN).then_some(stack),
            Output::Wait(_) | Output::NeedData => {}
        }
        if let Output::Transmit(ack) = on(&mut stack.receiver, || receiver.poll(now, &mut packet)) {
            on(&mut stack.sender, || sender.handle(now, &packet[..ack.len]));
        }
    }
}

fn on<T>(deepest: &mut usize, call: impl FnOnce() -> T) -> T {
    let (result, used) = stack::used_by(MOST, call);
    *deepest = used.max(*deepest);
    result
}

/// A file that takes no room.
struct Zeros;

impl BlockReader for Zeros {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let len = buf.len().min(LEN.saturating_sub(offset) as usize);
        buf[..len].fill(0);
        Ok(Some(len))
    }
}

/// How many bytes came.
struct Count(u64);

impl BlockSink for Count {
    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        self.0 += bytes.len() as u64;
        Ok(())
    }
}
