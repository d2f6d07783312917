//! Arbitrary messages of an NBD server: each read returns exactly the requested bytes or an error of one line.
#![no_main]

#[path = "../../runtime-std/src/nbd/script/stream.rs"]
mod stream;

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rtftp_runtime::{fs::BlockDevice, nbd::NbdClient};
use smol::{Executor, block_on};

use self::stream::ScriptedStream;

fn is_one_line(message: &str) -> bool {
    !message.is_empty() && !message.contains(char::is_control)
}

async fn read_from(messages: Vec<u8>, executor: &Executor<'static>) {
    let server = ScriptedStream::new(messages, vec![]);
    let nbd = match NbdClient::from_stream(server, "disk", Duration::from_secs(60), executor).await {
        Ok(nbd) => nbd,
        Err(error) => return assert!(is_one_line(&error.to_string()), "{error}"),
    };
    // The cookies of the requests are 1, 2, 3, ...
    let size = nbd.size();
    let ranges = [(0, 16), (size / 2, 5), (size - 1, 1), (0, 3000), (size, 1)];
    let reads = ranges.map(|(offset, len)| (len, nbd.read(offset, len)));
    for (len, read) in reads {
        match read.await {
            Ok(bytes) => assert_eq!(bytes.len(), len),
            Err(error) => assert!(is_one_line(&error.to_string()), "{error}"),
        }
    }
}

fuzz_target!(|messages: &[u8]| {
    let executor = Executor::new();
    block_on(executor.run(read_from(messages.to_vec(), &executor)));
});
