//! The `.nbd` files that describe disks.

use std::{
    fs::File,
    io::{self, IoSliceMut, Read},
    sync::Arc,
};

use rtftp_core::config::disk::MAX_CONFIG;
use rustix::io::preadv2;

use crate::{client_name::ClientName, local_fs::OpenRoot};

/// Returns the name of the file that describes the disk of a client.
pub(crate) fn file_name(client: ClientName) -> String {
    format!("{client}.nbd")
}

/// Returns the client whose disk a file of this name describes.
///
/// # Errors
///
/// `None` if the name is not that of an `.nbd` file. `Some` with the right name if it spells a client in a form other than the
/// canonical one, which is the only one looked for.
pub(crate) fn parse_file_name(name: &str) -> Result<ClientName, Option<String>> {
    let client = name.strip_suffix(".nbd").ok_or(None)?;
    ClientName::parse(client).map_err(|canonical| canonical.map(file_name))
}

/// Reads the description of a client's disk. Of a file larger than [`MAX_CONFIG`], reads one byte more than that.
///
/// # Errors
///
/// The errors of the file; also if it is not a regular one. [`io::ErrorKind::TimedOut`] if its file system does not answer.
pub(crate) async fn read_description(root: &OpenRoot, client: ClientName) -> io::Result<Vec<u8>> {
    const MAX_LEN: usize = MAX_CONFIG + 1;
    let file = root.open_named(&file_name(client)).await?;
    if !file.metadata().is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if file.is_local() {
        let mut content = vec![0; usize::try_from(file.metadata().len()).map_or(MAX_LEN, |len| len.min(MAX_LEN))];
        let flags = file.kind().nonblocking_read_flags();
        if preadv2(file.file(), &mut [IoSliceMut::new(&mut content)], 0, flags) == Ok(content.len()) {
            return Ok(content);
        }
    }
    let read = |file: &File| {
        let mut content = vec![];
        file.take(MAX_LEN as u64).read_to_end(&mut content)?;
        Ok(content)
    };
    Arc::new(file).run(read).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_canonical_client_names() {
        for (name, client) in [
            ("10.0.0.1.nbd", "10.0.0.1"),
            ("fe80::1.nbd", "fe80::1"),
            ("dc-a6-32-01-36-c2.nbd", "dc-a6-32-01-36-c2"),
            ("9ffefdef.nbd", "9ffefdef"),
        ] {
            assert_eq!(parse_file_name(name), Ok(ClientName::parse(client).expect("a name")));
        }
        for (name, canonical) in [
            ("FE80::1.nbd", "fe80::1.nbd"),
            ("::ffff:10.0.0.1.nbd", "10.0.0.1.nbd"),
            ("dc:a6:32:01:36:c2.nbd", "dc-a6-32-01-36-c2.nbd"),
        ] {
            assert_eq!(parse_file_name(name), Err(Some(canonical.to_owned())), "{name}");
        }
        for name in ["10.0.0.1", "10.0.0.1.nbd~", ".10.0.0.1.nbd.swp", "9ffefdef.NBD", "board.nbd", ".nbd", ""] {
            assert_eq!(parse_file_name(name), Err(None), "{name}");
        }
    }
}
