//! Where a client's files are looked for: its own directory, its own disk, the common directory.

use std::{fmt, net::IpAddr, path::PathBuf};

use rtftp_core::RequestPath;

use crate::{
    error::OpenError,
    file::OpenFile,
    local::LocalFile,
    remote::{self, Disks},
};

/// The directory that everything is named in, and the disks that its `.nbd` files describe.
#[derive(Debug)]
pub(crate) struct Roots {
    directory: PathBuf,
    disks: Disks,
}

/// Which root a file is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `<root>/<client>/`
    Client(IpAddr),
    /// The disk of `<root>/<client>.nbd`
    Disk(IpAddr),
    /// `<root>/default/`
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "{client}/"),
            Self::Disk(client) => f.write_str(&remote::file_name(*client)),
            Self::Default => f.write_str("default/"),
        }
    }
}

impl Roots {
    pub(crate) fn new(directory: PathBuf, disks: Disks) -> Self {
        Self { directory, disks }
    }

    /// The disks behind the `.nbd` files.
    pub(crate) fn disks(&self) -> &Disks {
        &self.disks
    }

    /// Opens a file for a client in the first root that has it. What is forbidden or unavailable in one root is not looked for
    /// in the next: the client must not boot something else because its own is not to be had.
    pub(crate) async fn open(
        &self,
        client: IpAddr,
        path: &RequestPath,
    ) -> Result<(OpenFile, Origin), (OpenError, Option<Origin>)> {
        for origin in [Origin::Client(client), Origin::Disk(client), Origin::Default] {
            let opened = match origin {
                Origin::Client(client) => self.open_local(client.to_string(), path).await,
                Origin::Disk(client) => self.disks.open(client, path).await.map(OpenFile::Remote),
                Origin::Default => self.open_local("default".into(), path).await,
            };
            match opened {
                Ok(file) => return Ok((file, origin)),
                Err(OpenError::NotFound) => {}
                Err(error) => return Err((error, Some(origin))),
            }
        }
        Err((OpenError::NotFound, None))
    }

    async fn open_local(&self, directory: String, path: &RequestPath) -> Result<OpenFile, OpenError> {
        let (root, path) = (self.directory.join(directory), path.clone());
        smol::unblock(move || LocalFile::open(&root, &path)).await.map(OpenFile::Local)
    }
}
