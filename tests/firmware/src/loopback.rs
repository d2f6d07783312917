//! Runs a transfer between a sender and a receiver on the board, without a network, to measure the stack of each.

use core::time::Duration;

use rtftp_core::{
    BlockReader, BlockSink, Instant, Outcome, Output, Packet, ReadFailed, Receiver, Sender, WriteFailed,
    transfer::receiver::MAX_REQUEST,
    wire::options::{Limits, negotiate},
};

use crate::{CONFIG, stack};

/// The largest stack that can be measured, in bytes. Filling it takes time.
const MAX_STACK: usize = 4096;

/// The size of the file, in bytes.
const SIZE: u64 = 100_000;

/// The stack that calls to each state machine use, in bytes.
#[derive(Default)]
pub struct Stack {
    pub sender: usize,
    pub receiver: usize,
}

/// Transfers a file from a sender to a receiver. Returns `None` if it does not arrive.
pub fn run() -> Option<Stack> {
    let mut stack = Stack::default();
    let (mut now, mut packet, mut buf) = (Instant::from_micros(0), [0; MAX_REQUEST], [0; 1432]);
    let mut receiver = measure(&mut stack.receiver, || Receiver::new(now, b"file", CONFIG)).ok()?;
    let Output::Transmit(request) = measure(&mut stack.receiver, || receiver.poll(now, &mut packet)) else {
        return None;
    };
    let mut sender = measure(&mut stack.sender, || {
        let Packet::ReadRequest(request) = Packet::parse(packet.get(..request.len)?).ok()? else { return None };
        let (settings, granted) = negotiate(request.options, &Limits::default(), Some(SIZE));
        Some(Sender::new(now, settings, granted, Some(SIZE)))
    })?;
    let mut sink = Count(0);
    loop {
        now = now.after(Duration::from_millis(1));
        match measure(&mut stack.sender, || sender.poll(now, &mut Zeros, &mut buf)) {
            Output::Transmit(data) => {
                measure(&mut stack.receiver, || receiver.handle(now, &buf[..data.len], &mut sink));
            }
            Output::Finished(outcome) => return (outcome == Outcome::Complete && sink.0 == SIZE).then_some(stack),
            Output::Wait(_) | Output::NeedData => {}
        }
        if let Output::Transmit(ack) = measure(&mut stack.receiver, || receiver.poll(now, &mut packet)) {
            measure(&mut stack.sender, || sender.handle(now, &packet[..ack.len]));
        }
    }
}

/// Runs a call and raises `deepest` to the stack that it uses.
fn measure<T>(deepest: &mut usize, call: impl FnOnce() -> T) -> T {
    let (result, used) = stack::measure(MAX_STACK, call);
    *deepest = used.max(*deepest);
    result
}

/// A file of zeros.
struct Zeros;

impl BlockReader for Zeros {
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<Option<usize>, ReadFailed> {
        let len = buf.len().min(SIZE.saturating_sub(offset) as usize);
        buf[..len].fill(0);
        Ok(Some(len))
    }
}

/// A sink that counts bytes.
struct Count(u64);

impl BlockSink for Count {
    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), WriteFailed> {
        self.0 += bytes.len() as u64;
        Ok(())
    }
}
