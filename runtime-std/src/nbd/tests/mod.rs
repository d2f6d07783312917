//! Tests of whole connections against scripted servers.

mod connection;
mod faults;
mod reads;

use super::NbdClient;
use crate::fs::{BlockDevice, Buffer};

/// The last request of a client that disconnects.
const DISC: &[u8] = b"\x25\x60\x95\x13\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Reads several ranges at once. Returns the bytes or the error texts.
async fn read_all(nbd: &NbdClient, ranges: &[(u64, usize)]) -> Vec<Result<Vec<u8>, String>> {
    let pending: Vec<_> = ranges.iter().map(|&(offset, len)| nbd.read(offset, len)).collect();
    let mut read = vec![];
    for future in pending {
        read.push(future.await.map(Buffer::into_vec).map_err(|error| error.to_string()));
    }
    read
}
