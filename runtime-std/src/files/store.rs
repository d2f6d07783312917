//! The file store: looks files up in the roots of a client.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rtftp_core::{
    RequestPath,
    config::disk::{Board, Placeholder},
};
use smol::Executor;

use super::{
    error::OpenError,
    local::LocalFile,
    open_file::OpenFile,
    origin::Origin,
    root_index::{Entries, RootIndex},
    watch,
};
use crate::{
    boot_entries::BootFile,
    client_name::ClientName,
    disk::{BoardDisk, DiskError, DiskState, DiskTimeouts, DiskUsage, Disks, Made, NbdFile},
    guestfs::{HelperTimeouts, Launcher},
    hostnames::{Hostnames, KnownHostnames},
    local_fs::{OpenRoot, SharedRoot},
    memory::Memory,
    net::neighbour::{self, LinkAddress},
};

/// The timeouts of disks, the same as the server's defaults.
const DEFAULT_TIMEOUTS: DiskTimeouts = DiskTimeouts {
    idle: Duration::from_secs(60),
    view_gap: Duration::from_secs(5),
    open: Duration::from_secs(120),
    connect: Duration::from_secs(10),
    reply: Duration::from_secs(10),
};

/// The memory for disks in bytes, the same as the server's default.
const DEFAULT_DISK_MEMORY: usize = 256 << 20;

/// The boards that are configured.
#[derive(Debug, Default)]
pub(crate) struct Boards {
    /// The boards that have a directory or a disk of their own, with the state of the disk if there is one.
    pub(crate) disks: BTreeMap<ClientName, Option<DiskState>>,
    /// The labels in the descriptions of boards and groups.
    pub(crate) labels: HashMap<NbdFile, Arc<str>>,
    pub(crate) hostnames: KnownHostnames,
}

impl Boards {
    /// Returns the label of the first of these files that has one, or else the host name of the first of these clients.
    pub(crate) fn name(
        &self,
        files: impl IntoIterator<Item = NbdFile>,
        clients: impl IntoIterator<Item = ClientName>,
    ) -> Option<String> {
        let hostname = |client| match client {
            ClientName::Ip(ip) => self.hostnames.leases.get(&ip),
            ClientName::Mac(mac) => self.hostnames.ethers.get(&mac),
            ClientName::Serial(_) => None,
        };
        let label = files.into_iter().find_map(|file| self.labels.get(&file)).map(ToString::to_string);
        label.or_else(|| clients.into_iter().find_map(hostname).map(ToString::to_string))
    }
}

/// The files below a root directory: directories and `.nbd` files named after clients, and the common directory `default`.
#[derive(Debug)]
pub struct FileStore {
    index: RootIndex,
    /// The names of the root directory's own path, which some clients put before the name of a file.
    prefix: Option<RequestPath>,
    disks: Disks,
    hostnames: Hostnames,
}

impl FileStore {
    /// Creates a store. Disks connect and disconnect in tasks on the executor, which must be running. A disk
    /// disconnects after 60 s without a request.
    pub fn new(directory: PathBuf, executor: Arc<Executor<'static>>) -> Self {
        let launcher = Launcher::new(HelperTimeouts::default());
        let disks = Disks::new(directory, DEFAULT_TIMEOUTS, launcher, executor, None, Memory::new(DEFAULT_DISK_MEMORY));
        Self::with_disks(disks, Hostnames::default())
    }

    /// Creates a store of the directory that contains the descriptions of these disks, for boards with these host names.
    pub(crate) fn with_disks(disks: Disks, hostnames: Hostnames) -> Self {
        let root = disks.root().path();
        let prefix = RequestPath::parse(root.as_os_str().as_bytes()).ok().filter(|_| root.is_absolute());
        Self { index: RootIndex::default(), prefix, disks, hostnames }
    }

    /// Opens a file in the first root of a client that contains it.
    ///
    /// A root is named after the client's IP address, its MAC address, or a Raspberry Pi serial number at the start of the path, in
    /// this order; for each name the directory is searched before the disk. Then the disks of groups are searched, of the longest prefix
    /// first, then that of `default.nbd`. The common directory is searched last. Replies go to the
    /// addresses, but the serial number is only a claim of the client. A MAC address at the start of the path must be the client's.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError`]. Only a missing file makes the search go on: a client must not boot another file because its own is
    /// forbidden or unavailable.
    pub async fn open(&self, client: SocketAddr, path: &RequestPath) -> Result<OpenFile, OpenError> {
        self.open_below(&self.share_root(), client, path).await
    }

    /// Returns the root directory for requests that have arrived by now, but not for later ones.
    pub(crate) fn share_root(&self) -> Arc<SharedRoot> {
        Arc::new(SharedRoot::new(self.disks.root().clone()))
    }

    /// Opens a file as [`open`](Self::open) does.
    pub(crate) async fn open_below(
        &self,
        root: &SharedRoot,
        client: SocketAddr,
        path: &RequestPath,
    ) -> Result<OpenFile, OpenError> {
        let directory_error = |error| OpenError::RootDirectory { path: self.disks.root().path().to_owned(), error };
        let root = root.open().await.map_err(directory_error)?;
        let entries = self.index.entries(root).await.map_err(directory_error)?;
        let mut search = Search {
            root,
            entries: &entries,
            disks: &self.disks,
            hostnames: &self.hostnames,
            client,
            searched: vec![],
            generators: vec![],
        };
        if let Some(file) = search.open(path).await? {
            return Ok(file);
        }
        if let Some(path) = self.without_prefix(path) {
            search.searched.clear();
            if let Some(file) = search.open(&path).await? {
                return Ok(file);
            }
        }
        search.generate().await
    }

    /// Returns a path without the path of the root directory, or of the common directory, at its start.
    fn without_prefix(&self, path: &RequestPath) -> Option<RequestPath> {
        let rest = path.as_bytes().strip_prefix(self.prefix.as_ref()?.as_bytes())?.strip_prefix(b"/")?;
        RequestPath::parse(rest.strip_prefix(b"default/").unwrap_or(rest)).ok()
    }

    /// Opens the root directory and reads its entries, as each request does.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened or read.
    pub async fn check_root(&self) -> io::Result<()> {
        self.entries().await.map(drop)
    }

    /// Returns the entries of the root directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be opened or read.
    pub(crate) async fn entries(&self) -> io::Result<Arc<Entries>> {
        let root = self.disks.root().open().await?;
        self.index.entries(&root).await
    }

    /// Watches the root directory, and connects disks as their descriptions appear. Never returns.
    ///
    /// Watching only saves clients the time to connect: [`open`](Self::open) reads the description itself.
    pub async fn watch(&self) {
        watch::watch(&self.disks).await;
    }

    /// Reads the root directory and all disk descriptions again, and connects the disks.
    pub async fn reload(&self) {
        self.index.clear();
        watch::reload(&self.disks).await;
    }

    /// Returns whether a directory or a description was named after this address when the root directory was last read.
    pub(crate) fn describes(&self, ip: IpAddr) -> bool {
        let (entries, name) = (self.index.last(), ClientName::Ip(ip.to_canonical()));
        entries.has_directory(name) || entries.has_disk(name)
    }

    /// Returns the host names of boards.
    pub(crate) async fn hostnames(&self) -> KnownHostnames {
        self.hostnames.all().await
    }

    /// Returns the boards that are configured: those whose disks are known, and those with an entry in the root directory. Takes some
    /// milliseconds if there are thousands.
    pub(crate) fn boards(&self, entries: Option<&Entries>, hostnames: KnownHostnames) -> Boards {
        let (states, labels) = self.disks.boards();
        let mut disks: BTreeMap<_, _> = states.into_iter().map(|(name, state)| (name, Some(state))).collect();
        if let Some(entries) = entries {
            for name in entries.clients() {
                disks.entry(name).or_insert_with(|| entries.has_disk(name).then_some(DiskState::Idle));
            }
        }
        Boards { disks, labels, hostnames }
    }

    /// Returns the disks, and the memory for what is read from them.
    pub(crate) fn disk_usage(&self) -> DiskUsage {
        self.disks.usage()
    }

    /// Disconnects all disks, and waits until their helper processes have ended.
    pub async fn close(&self) {
        self.disks.close().await;
    }
}

/// The search for the file of a request.
struct Search<'s> {
    root: &'s OpenRoot,
    entries: &'s Entries,
    disks: &'s Disks,
    hostnames: &'s Hostnames,
    client: SocketAddr,
    /// The roots without the file.
    searched: Vec<Origin>,
    /// The disks without the file, if it is one that can be generated from them.
    generators: Vec<(NbdFile, BoardDisk, BootFile)>,
}

impl Search<'_> {
    /// Opens a file in the first root that contains it. Returns `None` if none does.
    async fn open(&mut self, path: &RequestPath) -> Result<Option<OpenFile>, OpenError> {
        if let Some(file) = self.open_named(ClientName::Ip(self.client.ip()), path).await? {
            return Ok(Some(file));
        }
        let mac = if self.entries.has_mac_names() { mac_name(self.client).await? } else { None };
        if let Some(mac) = mac
            && let Some(file) = self.open_named(mac, path).await?
        {
            return Ok(Some(file));
        }
        // The MAC address of another machine opens nothing.
        if let Some((name, rest)) = ClientName::split_prefix(path)
            && (matches!(name, ClientName::Serial(_)) || mac == Some(name))
            && let Some(file) = self.open_named(name, &rest).await?
        {
            return Ok(Some(file));
        }
        for file in self.entries.groups_of(self.client.ip()) {
            let opened = self.open_in_group(file, path).await;
            if let Some(file) = self.found(opened)? {
                return Ok(Some(file));
            }
        }
        if self.entries.has_default() {
            let opened = self.open_local(Origin::Default, "default", path).await;
            return self.found(opened);
        }
        Ok(None)
    }

    /// Opens a file in the directory or on the disk of this name. Returns `None` if neither contains it.
    async fn open_named(&mut self, name: ClientName, path: &RequestPath) -> Result<Option<OpenFile>, OpenError> {
        if self.entries.has_directory(name) {
            let opened = self.open_local(Origin::Client(name), &name.to_string(), path).await;
            if let Some(file) = self.found(opened)? {
                return Ok(Some(file));
            }
        }
        // Opening a file of a known disk also disconnects the disk if its description was removed.
        let file = NbdFile::Client(name);
        if self.entries.has_disk(name) || self.disks.contains(file) {
            let disk = self.disks.disk(self.root, file).await;
            let opened = self.open_on_disk(file, disk, path).await;
            return self.found(opened);
        }
        Ok(None)
    }

    /// Generates the file, which no root contains, from the boot entries of the first disk that has any.
    async fn generate(self) -> Result<OpenFile, OpenError> {
        for (nbd_file, disk, boot_file) in self.generators {
            let origin = Origin::Disk(nbd_file);
            let generated = self.disks.generate(&disk, boot_file).await;
            match generated.map_err(|error| OpenError::disk(origin, error))? {
                None => {}
                Some(Made::Menu(file)) => return Ok(OpenFile::generated(file, origin)),
                Some(Made::Image(file, title)) => return Ok(OpenFile::on_disk(*file, origin, Some(title))),
            }
        }
        Err(OpenError::NotFound { searched: self.searched })
    }

    async fn open_local(&self, origin: Origin, directory: &str, path: &RequestPath) -> Result<OpenFile, OpenError> {
        match LocalFile::open(self.root, directory, path).await {
            Ok(file) => Ok(OpenFile::local(file, origin)),
            Err(error) => Err(OpenError::local(origin, error)),
        }
    }

    /// Opens a file on the disk of a description, and notes the disk if the file can be generated from it.
    async fn open_on_disk(
        &mut self,
        file: NbdFile,
        disk: Result<BoardDisk, DiskError>,
        path: &RequestPath,
    ) -> Result<OpenFile, OpenError> {
        let disk_error = |error| OpenError::disk(Origin::Disk(file), error);
        let disk = disk.map_err(disk_error)?;
        let opened = self.disks.open(&disk, path).await;
        let opened = opened.map(|opened| OpenFile::on_disk(opened, Origin::Disk(file), disk.boot_entry(path)));
        self.generators.extend(BootFile::of(path).map(|boot_file| (file, disk, boot_file)));
        opened.map_err(disk_error)
    }

    /// Opens a file on the disk that a group describes for this client.
    async fn open_in_group(&mut self, file: NbdFile, path: &RequestPath) -> Result<OpenFile, OpenError> {
        let disk_error = |error| OpenError::disk(Origin::Disk(file), error);
        let group = self.disks.group(self.root, file).await.map_err(disk_error)?;
        let needs_hostname = group.uses(Placeholder::Hostname);
        let needs_mac = group.uses(Placeholder::Mac) || needs_hostname && self.hostnames.need_mac();
        let mac = match if needs_mac { mac_name(self.client).await? } else { None } {
            Some(ClientName::Mac(mac)) => Some(mac),
            _ => None,
        };
        let ip = self.client.ip().to_canonical();
        let hostname = if needs_hostname { self.hostnames.find(ip, mac).await } else { None };
        let prefix = ClientName::split_prefix(path).filter(|_| group.uses(Placeholder::Serial));
        let (serial, path) = match &prefix {
            Some((ClientName::Serial(serial), rest)) => (Some(*serial), rest),
            _ => (None, path),
        };
        let board = Board { ip, mac, hostname: hostname.as_deref(), serial };
        let disk = self.disks.disk_in_group(&group, &board);
        self.open_on_disk(file, disk, path).await
    }

    /// Turns a missing file into `None`, and notes its root.
    fn found(&mut self, opened: Result<OpenFile, OpenError>) -> Result<Option<OpenFile>, OpenError> {
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(OpenError::NotFound { searched }) => {
                self.searched.extend(searched);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns the name of a client after its MAC address, or `None` if it has none that the kernel can find.
async fn mac_name(client: SocketAddr) -> Result<Option<ClientName>, OpenError> {
    // On another thread, because the kernel may block while another program changes the network configuration.
    let address = match smol::unblock(move || neighbour::link_address(client)).await {
        Ok(LinkAddress::Unresolved) => neighbour::resolve(client).await,
        address => address,
    };
    match address {
        Ok(LinkAddress::Mac(mac)) => Ok(Some(ClientName::Mac(mac))),
        // Replies to an unresolved client do not arrive either.
        Ok(LinkAddress::Unresolved | LinkAddress::None) => Ok(None),
        Err(error) => Err(OpenError::LinkAddress(error)),
    }
}

#[cfg(test)]
mod tests;
