//! The appliance: a virtual machine of libguestfs with the disk mounted, and the files opened in it.

use std::{collections::HashMap, io, path::Path};

use guestfs::{AddDriveOptArgs, Handle};
use rtftp_core::{
    config::{disk::DiskConfig, uri::NbdServer},
    wire::path::RequestPath,
};
use rtftp_runtime::{
    fs::resolve::{ResolveError, Root},
    guestfs::wire::{self, Reply, Step},
};
use smol::block_on;

use crate::{call_error::CallError, mounted::Mounted};

/// The memory of the virtual machine in MiB. The memory used on the host hardly depends on it.
const MEMORY: i32 = 512;

/// The virtual machine with the disk mounted.
pub(crate) struct Appliance {
    mounted: Mounted,
    root: Root,
    /// The paths of the open files by identifier: libguestfs has no handles for files.
    files: HashMap<u32, String>,
    next_id: u32,
}

impl Appliance {
    /// Connects to the NBD server, launches the virtual machine and mounts the disk. Calls `report` after each step.
    ///
    /// # Errors
    ///
    /// A text for the administrator.
    pub(crate) fn start(
        description: &[u8],
        directory: &Path,
        emulate: bool,
        mut report: impl FnMut(Step) -> io::Result<()>,
    ) -> Result<Self, String> {
        let config = DiskConfig::parse(description).map_err(|error| error.to_string())?;
        if config.url.tls.is_some() {
            return Err("libguestfs cannot connect with TLS (nbds://)".to_owned());
        }
        if let NbdServer::Vsock { .. } = config.url.server {
            return Err("libguestfs cannot connect over vsock (nbd+vsock://)".to_owned());
        }
        let guestfs = Handle::create().map_err(|_| "libguestfs cannot create a handle".to_owned())?;
        configure(&guestfs, directory, emulate).map_err(|error| CallError::from(error).message)?;
        add_drive(&guestfs, &config).map_err(|error| match CallError::from(error).message {
            // This message contains the name of a temporary file; the reason is on stderr.
            message if message.starts_with("qemu-img: ") => "cannot connect to the NBD server".to_owned(),
            message => format!("cannot connect to the NBD server: {message}"),
        })?;
        report(Step::Connected).map_err(|error| error.to_string())?;
        guestfs
            .launch()
            .map_err(|error| format!("the appliance does not start: {}", CallError::from(error).message))?;
        report(Step::Launched).map_err(|error| error.to_string())?;

        let mut mounted = Mounted { guestfs, raid_problem: None };
        mounted.start_arrays();
        for mount in &config.mounts {
            mounted.mount(mount)?;
        }
        let root = block_on(Root::find(&mut mounted, &config.tftp_root))
            .map_err(|error| format!("tftp_root {}: {error}", config.tftp_root))?;
        // From here on errors have messages of their own; a line for each call would only cost time.
        let _ = mounted.guestfs.set_verbose(false);
        Ok(Self { mounted, root, files: HashMap::new(), next_id: 0 })
    }

    /// Opens a regular file by its path below `tftp_root`.
    pub(crate) fn open(&mut self, path: &[u8]) -> Reply {
        let Ok(path) = RequestPath::parse(path) else { return Reply::NotFound };
        let (path, size) = match block_on(self.root.file(&mut self.mounted, &path)) {
            Ok(found) => found,
            Err(ResolveError::NotFound) => return Reply::NotFound,
            Err(ResolveError::FileSystem(reason)) => return self.failed(reason),
            Err(error) => return Reply::Forbidden(error.to_string()),
        };
        let Ok(path) = String::from_utf8(path) else { return Reply::NotFound };
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.files.insert(id, path);
        Reply::Opened { id, size }
    }

    /// Reads a part of an open file.
    pub(crate) fn read(&mut self, id: u32, offset: u64, len: u32) -> Reply {
        let Some(path) = self.files.get(&id) else { return Reply::Failed(format!("file {id} is not open")) };
        // No file extends beyond the maximum of an i64.
        let Ok(offset) = i64::try_from(offset) else { return Reply::Data(Vec::new()) };
        let Ok(len) = i32::try_from(len.min(wire::MAX_READ)) else { return Reply::Data(Vec::new()) };
        match self.mounted.guestfs.pread(path, len, offset) {
            Ok(data) => Reply::Data(data),
            Err(error) => self.failed(CallError::from(error).message),
        }
    }

    /// Closes a file.
    pub(crate) fn close(&mut self, id: u32) -> Reply {
        self.files.remove(&id);
        Reply::Closed
    }

    /// Lists the directory at a path below `tftp_root`, links resolved.
    pub(crate) fn list(&self, path: &[u8]) -> Reply {
        match self.mounted.list(&[self.root.path(), b"/", path].concat()) {
            Ok(entries) => Reply::Listed(entries),
            Err(reason) => self.failed(reason),
        }
    }

    /// Returns the reply to a failed request: it depends on whether the virtual machine is still running.
    fn failed(&self, reason: String) -> Reply {
        if self.mounted.guestfs.is_ready().unwrap_or(false) { Reply::Failed(reason) } else { Reply::Lost(reason) }
    }
}

fn configure(guestfs: &Handle, directory: &Path, emulate: bool) -> Result<(), guestfs::Error> {
    // The daemon uses stderr to detect a hanging appliance and to explain failures.
    guestfs.set_verbose(true)?;
    // For overlays and the like. The prepared appliance stays in the directory that all programs share.
    guestfs.set_tmpdir(directory.to_str())?;
    // A machine started by libvirt would not be in this process group.
    if std::env::var_os("LIBGUESTFS_BACKEND").is_none() {
        guestfs.set_backend("direct")?;
    }
    if emulate {
        guestfs.set_backend_setting("force_tcg", "1")?;
    }
    // It ends qemu when this process dies, as the end of the process group does.
    guestfs.set_recovery_proc(false)?;
    guestfs.set_network(false)?;
    guestfs.set_memsize(MEMORY)
}

fn add_drive(guestfs: &Handle, config: &DiskConfig) -> Result<(), guestfs::Error> {
    let server = match &config.url.server {
        NbdServer::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        NbdServer::Tcp { host, port } => format!("{host}:{port}"),
        NbdServer::Unix(path) => format!("unix:{path}"),
        NbdServer::Vsock { cid, port } => format!("vsock:{cid}:{port}"),
    };
    let servers = [server.as_str()];
    let options = AddDriveOptArgs {
        // Writes go to a temporary overlay, so that a file system that was not unmounted can be mounted: its journal is replayed.
        readonly: Some(true),
        // Detection of the format would trust the first bytes of the disk.
        format: Some("raw"),
        protocol: Some("nbd"),
        server: Some(&servers),
        ..AddDriveOptArgs::default()
    };
    guestfs.add_drive(&config.url.export, options)
}
