//! An NBD server that records in which order its client writes and flushes, to construct disks as a power cut leaves them; and plays
//! such a recording to a client that reads.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    thread,
};

use parking_lot::Mutex;

use crate::{
    hostile_nbd::{
        OPT_GO, REP_ACK, REP_ERR_UNSUP, REP_INFO,
        messages::{greeting, info_export, option_reply, simple_reply},
    },
    nbd::listener,
    power_cut::Operation,
};

/// The option of the handshake that ends the connection (`NBD_OPT_ABORT`).
const OPT_ABORT: u32 = 2;
/// The flags of the export: it has flags, and supports flushes and writes with FUA.
const FLAGS: u16 = 0b1101;
/// Commands.
const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
/// The flag of a write that must be durable before the reply.
const FUA: u16 = 1;
const EINVAL: u32 = 22;

/// A server with a disk in memory, which runs as long as the test.
#[derive(Debug, Clone)]
pub struct RecordingNbdServer {
    url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    disk: Vec<u8>,
    operations: Vec<Operation>,
    playing: Playing,
}

/// Operations of another client that are applied while the disk is read.
#[derive(Debug, Default)]
struct Playing {
    operations: Arc<[Operation]>,
    /// The number of the next operation.
    next: usize,
    /// One is applied before each read whose number is a multiple of this.
    every: usize,
    reads: usize,
}

impl Playing {
    fn before_read(&mut self, disk: &mut [u8]) {
        self.reads += 1;
        if self.reads.is_multiple_of(self.every)
            && let Some(operation) = self.operations.get(self.next)
        {
            operation.apply(disk);
            self.next += 1;
        }
    }
}

impl RecordingNbdServer {
    /// Exports a disk.
    pub fn start(disk: Vec<u8>) -> Self {
        let (listener, address) = listener();
        let server = Self {
            url: format!("nbd://{address}/"),
            state: Arc::new(Mutex::new(State { disk, operations: Vec::new(), playing: Playing::default() })),
        };
        let accepting = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let server = accepting.clone();
                // An error means that the client has closed the connection.
                thread::spawn(move || stream.and_then(|stream| server.serve(stream)));
            }
        });
        server
    }

    /// Returns the NBD URI.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the number of operations until now.
    pub fn len(&self) -> usize {
        self.state.lock().operations.len()
    }

    /// Returns whether nothing was written or flushed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all operations until now, and forgets them.
    pub fn take_operations(&self) -> Vec<Operation> {
        std::mem::take(&mut self.state.lock().operations)
    }

    /// Replaces the disk. No client should use it meanwhile.
    pub fn replace_disk(&self, disk: Vec<u8>) {
        self.state.lock().disk = disk;
    }

    /// Applies an operation, from number `next` on, before every so many reads from now on.
    pub fn play(&self, operations: Arc<[Operation]>, next: usize, every: usize) {
        self.state.lock().playing = Playing { operations, next, every, reads: 0 };
    }

    /// Stops to apply operations, and returns the number of the next one.
    pub fn stop_playing(&self) -> usize {
        std::mem::take(&mut self.state.lock().playing).next
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.write_all(&greeting(3))?;
        receive::<4>(&mut stream)?;
        let size = self.state.lock().disk.len() as u64;
        loop {
            receive::<8>(&mut stream)?;
            let option = u32::from_be_bytes(receive(&mut stream)?);
            let len = u32::from_be_bytes(receive(&mut stream)?);
            io::copy(&mut (&stream).take(len.into()), &mut io::sink())?;
            let reply = match option {
                OPT_ABORT => return stream.write_all(&option_reply(option, REP_ACK, &[])),
                OPT_GO => {
                    let export = option_reply(option, REP_INFO, &info_export(size, FLAGS));
                    [export, option_reply(option, REP_ACK, &[])].concat()
                }
                _ => option_reply(option, REP_ERR_UNSUP, &[]),
            };
            stream.write_all(&reply)?;
            if option == OPT_GO {
                break;
            }
        }
        while self.handle_request(&mut stream)? {}
        Ok(())
    }

    /// Handles one request after the other, so that a flush covers all writes before it. Returns `false` at the end.
    fn handle_request(&self, stream: &mut TcpStream) -> io::Result<bool> {
        receive::<4>(stream)?;
        let flags = u16::from_be_bytes(receive(stream)?);
        let command = u16::from_be_bytes(receive(stream)?);
        let cookie = u64::from_be_bytes(receive(stream)?);
        let offset = u64::from_be_bytes(receive(stream)?);
        let len = u32::from_be_bytes(receive(stream)?) as usize;
        let mut written = vec![0; if command == WRITE { len } else { 0 }];
        stream.read_exact(&mut written)?;
        let mut state = self.state.lock();
        let State { disk, operations, playing, .. } = &mut *state;
        if command == READ {
            playing.before_read(disk);
        }
        let range = disk.get_mut(offset as usize..).and_then(|rest| rest.get_mut(..len));
        let (error, data) = match (command, range) {
            (READ, Some(range)) => (0, range.to_vec()),
            (WRITE, Some(range)) => {
                range.copy_from_slice(&written);
                operations.push(Operation::Write { offset, bytes: written, is_durable: flags & FUA != 0 });
                (0, Vec::new())
            }
            (FLUSH, _) => {
                operations.push(Operation::Flush);
                (0, Vec::new())
            }
            (DISCONNECT, _) => return Ok(false),
            _ => (EINVAL, Vec::new()),
        };
        drop(state);
        stream.write_all(&simple_reply(error, cookie, &data))?;
        Ok(true)
    }
}

fn receive<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}
