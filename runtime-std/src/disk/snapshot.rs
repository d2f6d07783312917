//! A look at a disk through either backend, and the files it opens.

use std::{fmt, sync::Arc};

use rtftp_core::RequestPath;

use crate::{
    error::{OpenError, Unavailable},
    fs::{self, ResolveError},
    guestfs::shared::{SharedAppliance, SharedFile},
};

/// A disk as it is at one moment.
#[derive(Debug)]
pub(crate) enum Contents {
    Native(fs::MountedDisk),
    Guestfs(SharedAppliance),
}

/// Why a look at a disk did not give what was wanted.
#[derive(Debug, Clone)]
pub(crate) enum DiskError {
    /// It may be over in a moment: the owner is writing, the connection was lost.
    Transient(Unavailable),
    /// It will be the same in a moment.
    Permanent(OpenError),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(why) => why.fmt(f),
            Self::Permanent(error) => error.fmt(f),
        }
    }
}

impl From<fs::Error> for DiskError {
    fn from(error: fs::Error) -> Self {
        let passing = !matches!(error, fs::Error::Unsupported(_));
        let why = unreadable(error);
        if passing { Self::Transient(why) } else { Self::Permanent(why.into()) }
    }
}

fn unreadable(error: fs::Error) -> Unavailable {
    Unavailable { to_client: "the disk of this client cannot be read", reason: error.to_string() }
}

/// An open file of a [`Contents`], which it keeps. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Opened {
    Native { disk: Arc<dyn fs::BlockDevice>, file: Arc<fs::FileMap> },
    Guestfs(Arc<SharedFile>),
}

impl Contents {
    /// Opens a regular file.
    pub(super) async fn open(&self, path: &RequestPath) -> Result<Opened, DiskError> {
        match self {
            Self::Native(view) => match view.find_file(path).await {
                Ok(file) => Ok(Opened::Native { disk: view.device().clone(), file: file.into() }),
                Err(ResolveError::NotFound) => Err(DiskError::Permanent(OpenError::NotFound)),
                Err(ResolveError::FileSystem(error)) => Err(error.into()),
                Err(error) => Err(DiskError::Permanent(OpenError::Forbidden(error.to_string()))),
            },
            Self::Guestfs(appliance) => match appliance.open(path).await {
                Ok(file) => Ok(Opened::Guestfs(file.into())),
                Err(OpenError::Unavailable(why)) if !appliance.is_alive() => Err(DiskError::Transient(why)),
                Err(error) => Err(DiskError::Permanent(error)),
            },
        }
    }

    /// Whether another file could be opened, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        match self {
            Self::Native(view) => view.device().is_alive(),
            Self::Guestfs(appliance) => appliance.is_alive(),
        }
    }

    /// Whether somebody writes to the disk, as far as is known.
    pub(super) fn is_in_use(&self) -> bool {
        match self {
            Self::Native(view) => !view.in_use().is_empty(),
            Self::Guestfs(_) => false,
        }
    }
}

impl Opened {
    /// The size when it was opened, in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Native { file, .. } => file.size,
            Self::Guestfs(file) => file.size(),
        }
    }

    /// Reads up to `len` bytes from `offset` on, into memory that nobody uses any more if it can.
    pub(super) async fn read_into(&self, spare: Vec<u8>, offset: u64, len: u32) -> Result<Vec<u8>, Unavailable> {
        match self {
            Self::Native { disk, file } => {
                file.read_into(spare, &**disk, offset, len as usize).await.map_err(unreadable)
            }
            Self::Guestfs(file) => file.read(offset, len).await,
        }
    }

    /// Whether `other`, which was opened by the same path in another look, is known to be the same file, and unchanged. Of what
    /// libguestfs opens that is not known: it shows a file as it was when the appliance first read it.
    pub(super) fn is_unchanged(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Native { file, .. }, Self::Native { file: other, .. }) if file == other)
    }
}
