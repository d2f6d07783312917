//! Option haggling: the messages that negotiate options. Names are those of the protocol, without the prefix `NBD_`.

use std::io;

use smol::{
    future::yield_now,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
};

use crate::nbd::{NbdError, wire::Fields};

pub(super) const IHAVEOPT: u64 = u64::from_be_bytes(*b"IHAVEOPT");

pub(super) const OPT_EXPORT_NAME: u32 = 1;
pub(super) const OPT_ABORT: u32 = 2;
pub(super) const OPT_STARTTLS: u32 = 5;
pub(super) const OPT_INFO: u32 = 6;
pub(super) const OPT_GO: u32 = 7;
pub(super) const OPT_STRUCTURED_REPLY: u32 = 8;

pub(super) const REP_ACK: u32 = 1;
pub(super) const REP_INFO: u32 = 3;
/// The first of the error replies.
pub(super) const REP_ERR: u32 = 1 << 31;
pub(super) const REP_ERR_UNSUP: u32 = REP_ERR + 1;
pub(super) const REP_ERR_TLS_REQD: u32 = REP_ERR + 5;
pub(super) const REP_ERR_UNKNOWN: u32 = REP_ERR + 6;

pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// The maximum length of the data of an option reply in bytes. The longest strings have 4,096.
pub(super) const MAX_REPLY_LEN: u32 = 8192;

/// Sends an option with its data.
pub(super) async fn send_option(
    stream: &mut (impl AsyncWrite + Unpin),
    option: u32,
    data: &[u8],
) -> Result<(), NbdError> {
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let message = [&IHAVEOPT.to_be_bytes()[..], &option.to_be_bytes(), &len.to_be_bytes(), data].concat();
    stream.write_all(&message).await?;
    Ok(stream.flush().await?)
}

/// Reads one reply to an option. Returns its type and its data.
pub(super) async fn read_reply(stream: &mut (impl AsyncRead + Unpin), option: u32) -> Result<(u32, Vec<u8>), NbdError> {
    // A server that sends replies without a pause must not starve the deadline.
    yield_now().await;
    let header: [u8; 20] = read_array(stream).await?;
    let mut fields = Fields(&header);
    let (magic, replied_option) = (fields.u64()?, fields.u32()?);
    let (reply_type, len) = (fields.u32()?, fields.u32()?);
    if magic != REPLY_MAGIC || replied_option != option || len > MAX_REPLY_LEN {
        return Err(NbdError::InvalidReply);
    }
    let mut data = vec![0; len as usize];
    read(stream, &mut data).await?;
    Ok((reply_type, data))
}

/// Reads an array of bytes.
pub(super) async fn read_array<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], NbdError> {
    let mut bytes = [0; N];
    read(stream, &mut bytes).await?;
    Ok(bytes)
}

/// Fills the whole buffer.
async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<(), NbdError> {
    stream.read_exact(buffer).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => NbdError::Closed,
        _ => error.into(),
    })
}
