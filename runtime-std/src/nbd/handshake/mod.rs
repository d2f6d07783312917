//! The handshake phase: greetings, then fixed newstyle negotiation, up to an open export or only to its information.

mod options;
#[cfg(test)]
mod tests;

use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use self::options::{
    IHAVEOPT, INFO_BLOCK_SIZE, INFO_EXPORT, OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_STARTTLS,
    OPT_STRUCTURED_REPLY, REP_ACK, REP_ERR, REP_ERR_TLS_REQD, REP_ERR_UNKNOWN, REP_ERR_UNSUP, REP_INFO, read_array,
    read_reply, send_option,
};
use super::{NbdError, TlsError, wire::Fields};
use crate::text::printable;

const NBDMAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;

/// The handshake flags; those of the client have the same values.
const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;

/// The transmission flags.
const FLAG_READ_ONLY: u16 = 1 << 1;
const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;

/// The number of zeroes after the reply to [`OPT_EXPORT_NAME`], unless `FLAG_NO_ZEROES` is negotiated.
const ZEROES: usize = 124;
/// The maximum of the minimum block size in bytes.
const MAX_MIN_BLOCK: u32 = 1 << 16;
/// The minimum of the largest request in bytes: a read would consist of too many requests. All known servers accept more.
const MIN_MAX_REQUEST: u32 = 4096;
/// The maximum length of a read request in bytes. Servers accept 32 MiB if they do not announce a limit.
const MAX_REQUEST: u32 = 1 << 20;

/// An export, as described by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The size in bytes: at least 1, at most `i64::MAX`.
    pub size: u64,
    /// Whether this connection cannot write to it.
    pub read_only: bool,
    /// Whether all connections see the same data (`NBD_FLAG_CAN_MULTI_CONN`): what another client has flushed is visible.
    pub multi_conn: bool,
    /// The unit of the offset and length of requests in bytes, a power of two.
    pub(super) min_block: u32,
    /// The maximum length of a request in bytes, a multiple of `min_block`.
    pub(super) max_request: u32,
    /// Whether structured replies were negotiated.
    pub(super) structured: bool,
}

/// Negotiates options and opens an export; `no_zeroes` is the result of [`greet`]. The transmission phase follows.
pub(super) async fn open_export(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    name: &str,
    no_zeroes: bool,
) -> Result<Export, NbdError> {
    send_option(stream, OPT_STRUCTURED_REPLY, &[]).await?;
    let structured = match read_reply(stream, OPT_STRUCTURED_REPLY).await? {
        (REP_ACK, _) => true,
        // If the reason concerns all options, such as a required TLS, the next one is refused as well.
        (REP_ERR.., _) => false,
        _ => return Err(NbdError::InvalidReply),
    };
    let export = match query(stream, OPT_GO, name).await? {
        Some(export) => export,
        None => open_by_name(stream, name, no_zeroes).await?,
    };
    Ok(Export { structured, ..export })
}

/// Asks for TLS. If the server agrees, the TLS handshake follows, and then other options.
pub(super) async fn start_tls(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), NbdError> {
    send_option(stream, OPT_STARTTLS, &[]).await?;
    match read_reply(stream, OPT_STARTTLS).await? {
        (REP_ACK, _) => Ok(()),
        (REP_ERR.., _) => Err(TlsError::NotOffered.into()),
        _ => Err(NbdError::InvalidReply),
    }
}

/// Checks that the server has an export, then ends the session. A server without `NBD_OPT_INFO` is assumed to have it.
pub(super) async fn probe_export(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    name: &str,
) -> Result<(), NbdError> {
    query(stream, OPT_INFO, name).await?;
    // Fails if the server closes the connection first.
    let _ = send_option(stream, OPT_ABORT, &[]).await;
    Ok(())
}

/// Exchanges greetings. Returns whether the server omits the zeroes after the reply to [`OPT_EXPORT_NAME`].
pub(super) async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<bool, NbdError> {
    if u64::from_be_bytes(read_array(stream).await?) != NBDMAGIC {
        return Err(NbdError::NotNbd);
    }
    match u64::from_be_bytes(read_array(stream).await?) {
        IHAVEOPT => {}
        OLDSTYLE_MAGIC => return Err(NbdError::OldstyleHandshake),
        _ => return Err(NbdError::NotNbd),
    }
    let flags = u16::from_be_bytes(read_array(stream).await?);
    if flags & FLAG_FIXED_NEWSTYLE == 0 {
        return Err(NbdError::NoFixedNewstyle);
    }
    let supported = flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    stream.write_all(&u32::from(supported).to_be_bytes()).await?;
    stream.flush().await?;
    Ok(flags & FLAG_NO_ZEROES != 0)
}

/// Sends [`OPT_INFO`] or [`OPT_GO`]. Returns `None` if the server does not support the option.
async fn query(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    option: u32,
    name: &str,
) -> Result<Option<Export>, NbdError> {
    let name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
    // One information request; INFO_EXPORT is always sent.
    let requests = [1u16.to_be_bytes(), INFO_BLOCK_SIZE.to_be_bytes()];
    let data = [&name_len.to_be_bytes()[..], name.as_bytes(), requests.as_flattened()].concat();
    send_option(stream, option, &data).await?;
    let mut size_and_flags = None;
    let mut block_sizes = BlockSizes::default();
    loop {
        match read_reply(stream, option).await? {
            (REP_INFO, data) => {
                let mut fields = Fields(&data);
                match fields.u16()? {
                    INFO_EXPORT => size_and_flags = Some(parse_export(fields)?),
                    INFO_BLOCK_SIZE => block_sizes = BlockSizes::parse(fields)?,
                    _ => {}
                }
            }
            (REP_ACK, _) => {
                let size_and_flags = size_and_flags.ok_or_else(|| NbdError::MissingSize(name.to_owned()))?;
                return validate(name, size_and_flags, block_sizes).map(Some);
            }
            (REP_ERR_UNSUP, _) => return Ok(None),
            (REP_ERR_UNKNOWN, _) => return Err(NbdError::UnknownExport(name.to_owned())),
            (REP_ERR_TLS_REQD, _) => return Err(NbdError::TlsRequired),
            (code @ REP_ERR.., text) => {
                let text = printable(&text);
                return Err(NbdError::ExportRefused { export: name.to_owned(), code, text });
            }
            _ => return Err(NbdError::InvalidReply),
        }
    }
}

/// Opens an export with [`OPT_EXPORT_NAME`], the option of servers without [`OPT_GO`].
async fn open_by_name(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    name: &str,
    no_zeroes: bool,
) -> Result<Export, NbdError> {
    send_option(stream, OPT_EXPORT_NAME, name.as_bytes()).await?;
    let reply: [u8; 10] = read_array(stream).await.map_err(|error| match error {
        NbdError::Closed => NbdError::ExportClosed(name.to_owned()),
        error => error,
    })?;
    if !no_zeroes {
        read_array::<ZEROES>(stream).await?;
    }
    validate(name, parse_export(Fields(&reply))?, BlockSizes::default())
}

/// Validates the description of an export.
fn validate(name: &str, (size, flags): (u64, u16), block_sizes: BlockSizes) -> Result<Export, NbdError> {
    if size == 0 || i64::try_from(size).is_err() {
        return Err(NbdError::InvalidSize { export: name.to_owned(), size });
    }
    let BlockSizes { min, preferred, max } = block_sizes;
    let are_powers = min.is_power_of_two() && preferred.is_power_of_two();
    if !are_powers || min > MAX_MIN_BLOCK || max < min.max(MIN_MAX_REQUEST) {
        return Err(NbdError::InvalidBlockSize { min, preferred, max });
    }
    let max = max.min(MAX_REQUEST);
    Ok(Export {
        size,
        read_only: flags & FLAG_READ_ONLY != 0,
        multi_conn: flags & FLAG_CAN_MULTI_CONN != 0,
        min_block: min,
        max_request: max - max % min,
        structured: false,
    })
}

/// Parses the size and the transmission flags.
fn parse_export(mut fields: Fields<'_>) -> Result<(u64, u16), NbdError> {
    let export = (fields.u64()?, fields.u16()?);
    fields.end()?;
    Ok(export)
}

/// The block sizes of an export in bytes.
struct BlockSizes {
    /// The unit of the offset and length of requests.
    min: u32,
    /// The unit that the server reads most efficiently, which is not used.
    preferred: u32,
    /// The maximum length of a request.
    max: u32,
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self { min: 1, preferred: 4096, max: MAX_REQUEST }
    }
}

impl BlockSizes {
    fn parse(mut fields: Fields<'_>) -> Result<Self, NbdError> {
        let sizes = Self { min: fields.u32()?, preferred: fields.u32()?, max: fields.u32()? };
        fields.end()?;
        Ok(sizes)
    }
}
