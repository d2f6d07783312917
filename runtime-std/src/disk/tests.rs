//! Tests of disks against an NBD server in this process.

mod memory;

use std::{task::Poll, time::Duration};

use rtftp_core::{BlockReader, ReadFailed, wire::packet::DATA_HEADER};
use smol::{
    Timer, block_on,
    channel::{Receiver, Sender, bounded, unbounded},
    future::{or, poll_fn, yield_now, zip},
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    client_name::ClientName,
    guestfs::{HelperError, HelperTimeouts},
    nbd::script::{SIMPLE, simple_reply},
};

const BOARD: NbdFile = NbdFile::Client(ClientName::Ip(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5))));
const SECTOR: usize = 512;
/// The size in bytes of the file on the disk: several chunks of a [`RemoteFile`].
const FILE_LEN: usize = 700_000;
const CLUSTER: usize = 128 * SECTOR;
const ROOT_DIRECTORY: usize = 2 * SECTOR;
const DATA: usize = 3 * SECTOR;

/// Returns the contents of the file.
fn content() -> Vec<u8> {
    (0..FILE_LEN).map(|at| (at / 7 + at / 1000) as u8).collect()
}

/// Returns a disk with a FAT12 file system and the file KERNEL.
pub(super) fn image() -> Vec<u8> {
    let clusters = FILE_LEN.div_ceil(CLUSTER);
    let mut image = vec![0; DATA + clusters * CLUSTER];
    let sectors = (image.len() / SECTOR) as u16;
    image[..3].copy_from_slice(b"\xeb\x3c\x90");
    image[11..13].copy_from_slice(&(SECTOR as u16).to_le_bytes());
    // Sectors per cluster, reserved sectors, FATs, entries of the root directory.
    image[13..19].copy_from_slice(&[128, 1, 0, 1, 16, 0]);
    image[19..21].copy_from_slice(&sectors.to_le_bytes());
    // The medium, sectors per FAT.
    image[21..24].copy_from_slice(&[0xf8, 1, 0]);
    image[510..512].copy_from_slice(b"\x55\xaa");
    let mut fat = vec![0xff8, 0xfff];
    fat.extend(3..2 + clusters as u16);
    fat.push(0xfff);
    for (index, entry) in fat.into_iter().enumerate() {
        let at = SECTOR + index * 3 / 2;
        let shift = index % 2 * 4;
        let both = u16::from_le_bytes([image[at], image[at + 1]]) | (entry << shift);
        image[at..at + 2].copy_from_slice(&both.to_le_bytes());
    }
    image[ROOT_DIRECTORY..ROOT_DIRECTORY + 11].copy_from_slice(b"KERNEL     ");
    image[ROOT_DIRECTORY + 26] = 2;
    image[ROOT_DIRECTORY + 28..ROOT_DIRECTORY + 32].copy_from_slice(&(FILE_LEN as u32).to_le_bytes());
    image[DATA..DATA + FILE_LEN].copy_from_slice(&content());
    image
}

/// An event of the server.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Connected,
    Disconnected,
}

/// An NBD server and a client's disk on it.
struct Fixture {
    executor: Arc<Executor<'static>>,
    image: Arc<Mutex<Vec<u8>>>,
    events: Receiver<Event>,
    /// Each message makes the server close a connection.
    close: Sender<()>,
    disk: Disk,
}

const MINUTE: Duration = Duration::from_secs(60);

/// Runs a test with a disk whose server has this image.
fn with_disk(image: Vec<u8>, idle: Duration, view_gap: Duration, test: impl AsyncFnOnce(Fixture)) {
    with_memory(Memory::unlimited(), image, idle, view_gap, test);
}

/// Runs a test like [`with_disk`], within this memory.
fn with_memory(memory: Memory, image: Vec<u8>, idle: Duration, view_gap: Duration, test: impl AsyncFnOnce(Fixture)) {
    let executor = Arc::new(Executor::new());
    block_on(executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let image = Arc::new(Mutex::new(image));
        let (event, events) = unbounded();
        let (close, closing) = bounded(1);
        executor.spawn(accept(listener, image.clone(), event, closing)).detach();
        let json = description(&format!("nbd://127.0.0.1:{port}/disk"));
        let disk = disk(&json, &executor, idle, view_gap, memory);
        test(Fixture { executor: executor.clone(), image, events, close, disk }).await;
    }));
}

fn description(url: &str) -> String {
    format!(r#"{{"url": "{url}", "mounts": [{{"partition": 0, "mountpoint": "/"}}]}}"#)
}

fn disk(json: &str, executor: &Arc<Executor<'static>>, idle: Duration, view_gap: Duration, memory: Memory) -> Disk {
    let launcher = Launcher::with_helper("/nonexistent".into(), HelperTimeouts::default());
    let timeouts = DiskTimeouts { idle, view_gap, open: MINUTE, connect: MINUTE, reply: MINUTE };
    let backend = Arc::new(Backend::new("/nonexistent".into(), launcher, timeouts, executor.clone(), None, memory));
    Disk::new(Connector::new("test.nbd".into(), BOARD.description(json.as_bytes().into()), backend))
}

async fn accept(listener: TcpListener, image: Arc<Mutex<Vec<u8>>>, event: Sender<Event>, close: Receiver<()>) {
    while let Ok((client, _)) = listener.accept().await {
        event.try_send(Event::Connected).expect("the test");
        let closed = async {
            let _ = close.recv().await;
        };
        or(serve(client, &image), closed).await;
        event.try_send(Event::Disconnected).expect("the test");
    }
}

/// Serves reads until the client disconnects.
async fn serve(mut client: TcpStream, image: &Mutex<Vec<u8>>) {
    let len = image.lock().len() as u64;
    SIMPLE.open(&mut client, len).await;
    let mut request = [0; 28];
    while client.read_exact(&mut request).await.is_ok() && request[7] == 0 {
        let cookie = u64::from_be_bytes(request[8..16].try_into().expect("8 bytes"));
        let offset = u64::from_be_bytes(request[16..24].try_into().expect("8 bytes")) as usize;
        let len = u32::from_be_bytes(request[24..].try_into().expect("4 bytes")) as usize;
        let reply = simple_reply(0, cookie, &image.lock()[offset..offset + len]);
        if client.write_all(&reply).await.is_err() {
            return;
        }
    }
}

fn kernel() -> RequestPath {
    RequestPath::parse(b"KERNEL").expect("a path")
}

/// Reads the next part of a file, as a transfer does.
async fn read(file: &mut RemoteFile, offset: usize) -> Result<Vec<u8>, ReadFailed> {
    let mut buf = vec![0; 100_000];
    loop {
        if let Some(len) = file.read_at(offset as u64, &mut buf)? {
            buf.truncate(len);
            return Ok(buf);
        }
        poll_fn(|context| file.poll_ready(context)).await;
    }
}

/// Reads from `bytes.len()` to the end of a file.
async fn read_rest(file: &mut RemoteFile, mut bytes: Vec<u8>) -> Result<Vec<u8>, ReadFailed> {
    while bytes.len() < FILE_LEN {
        bytes.extend(read(file, bytes.len()).await?);
    }
    Ok(bytes)
}

#[test]
fn connects_on_demand_and_disconnects_when_idle() {
    let (idle, view_gap) = (Duration::from_millis(30), Duration::from_millis(10));
    with_disk(image(), idle, view_gap, async |Fixture { events, disk, .. }| {
        assert!(events.is_empty(), "a new disk is not connected");
        for _ in 0..2 {
            let mut file = RemoteFile::open(&disk, &kernel()).await.expect("a file");
            assert_eq!(events.recv().await, Ok(Event::Connected));
            assert!(read_rest(&mut file, vec![]).await.expect("its bytes") == content());
            drop(file);
            assert_eq!(events.recv().await, Ok(Event::Disconnected));
        }
    });
}

#[test]
fn connects_in_the_background() {
    with_disk(image(), MINUTE, MINUTE, async |Fixture { events, disk, .. }| {
        disk.connect();
        assert_eq!(events.recv().await, Ok(Event::Connected));
        RemoteFile::open(&disk, &kernel()).await.expect("a file");
        assert!(events.is_empty(), "the same connection");
        drop(disk);
        assert_eq!(events.recv().await, Ok(Event::Disconnected));
    });
}

#[test]
fn requests_of_one_boot_share_a_snapshot() {
    with_disk(image(), MINUTE, MINUTE, async |Fixture { disk, .. }| {
        let first = disk.snapshot(false).await.expect("a snapshot");
        let second = disk.snapshot(false).await.expect("a snapshot");
        assert!(Arc::ptr_eq(&first, &second));
        let refreshed = disk.snapshot(true).await.expect("a snapshot");
        assert!(!Arc::ptr_eq(&first, &refreshed));
    });
}

#[test]
fn next_boot_sees_changes() {
    with_disk(image(), MINUTE, Duration::ZERO, async |Fixture { image, disk, .. }| {
        let initrd = RequestPath::parse(b"INITRD").expect("a path");
        let error = RemoteFile::open(&disk, &initrd).await.expect_err("no such file");
        assert!(matches!(error, DiskError::NotFound));
        image.lock()[ROOT_DIRECTORY..ROOT_DIRECTORY + 6].copy_from_slice(b"INITRD");
        RemoteFile::open(&disk, &initrd).await.expect("a file");
    });
}

#[test]
fn growth_of_the_disk_is_seen_on_a_new_connection() {
    let short = image()[..SECTOR].to_vec();
    with_disk(short, MINUTE, MINUTE, async |Fixture { image, events, disk, .. }| {
        disk.snapshot(false).await.expect_err("a file system beyond the end");
        assert_eq!(events.recv().await, Ok(Event::Connected));
        *image.lock() = self::image();
        let started = std::time::Instant::now();
        RemoteFile::open(&disk, &kernel()).await.expect("a file");
        println!("the new size is seen after {:?}", started.elapsed());
        assert_eq!(events.recv().await, Ok(Event::Disconnected));
        assert_eq!(events.recv().await, Ok(Event::Connected));
    });
}

#[test]
fn reconnects_after_the_connection_is_lost() {
    with_disk(image(), MINUTE, MINUTE, async |Fixture { events, close, disk, .. }| {
        RemoteFile::open(&disk, &kernel()).await.expect("a file");
        close.send(()).await.expect("the server");
        for expected in [Event::Connected, Event::Disconnected] {
            assert_eq!(events.recv().await, Ok(expected));
        }
        // From the old snapshot until the end of the connection has been noticed.
        let open = async {
            loop {
                RemoteFile::open(&disk, &kernel()).await.expect("a file");
                yield_now().await;
            }
        };
        assert_eq!(or(events.recv(), open).await, Ok(Event::Connected));
    });
}

#[test]
fn transfer_continues_after_the_connection_is_lost() {
    with_disk(image(), MINUTE, MINUTE, async |Fixture { events, close, disk, .. }| {
        let mut file = RemoteFile::open(&disk, &kernel()).await.expect("a file");
        let start = read(&mut file, 0).await.expect("its first bytes");
        close.send(()).await.expect("the server");
        for expected in [Event::Connected, Event::Disconnected] {
            assert_eq!(events.recv().await, Ok(expected));
        }
        assert!(read_rest(&mut file, start).await.expect("its bytes") == content());
        assert_eq!(events.recv().await, Ok(Event::Connected));
    });
}

#[test]
fn transfer_fails_if_the_file_changes() {
    with_disk(image(), MINUTE, MINUTE, async |Fixture { image, disk, .. }| {
        let mut file = RemoteFile::open(&disk, &kernel()).await.expect("a file");
        let start = read(&mut file, 0).await.expect("its first bytes");
        // The time of the last change.
        image.lock()[ROOT_DIRECTORY + 22] ^= 1;
        let expected = ReadFailed(DiskError::Changed.to_client());
        assert_eq!(read_rest(&mut file, start).await.expect_err("a changed file"), expected);
    });
}

#[test]
fn unreachable_server_fails_all_requests() {
    let executor = Arc::new(Executor::new());
    block_on(executor.run(async {
        let json = description("nbd+unix:///disk?socket=/nonexistent/nbd.sock");
        let disk = disk(&json, &executor, MINUTE, MINUTE, Memory::unlimited());
        let (first, second) = zip(disk.snapshot(false), disk.snapshot(false)).await;
        for result in [first, second] {
            let error = result.expect_err("no server");
            assert!(matches!(error, DiskError::Connect { .. }) && !error.is_transient(), "{error}");
        }
    }));
}

#[test]
fn damaged_disk_is_a_transient_error() {
    let mut damaged = image();
    // The chain of the file ends early.
    damaged[SECTOR + 3..SECTOR + 5].fill(0xff);
    with_disk(damaged, MINUTE, MINUTE, async |Fixture { image, executor, disk, .. }| {
        let snapshot = disk.snapshot(false).await.expect("a snapshot");
        let error = snapshot.open(&kernel()).await.expect_err("a damaged file");
        assert!(error.is_transient(), "{error}");
        let path = kernel();
        let mut open = Box::pin(RemoteFile::open(&disk, &path));
        let is_waiting = poll_fn(|context| Poll::Ready(open.as_mut().poll(context).is_pending())).await;
        assert!(is_waiting);
        while executor.try_tick() {}
        *image.lock() = self::image();
        open.await.expect("a repaired file");
    });
}

#[test]
fn unsupported_file_system_starts_the_helper() {
    with_disk(vec![0; 1 << 20], MINUTE, MINUTE, async |Fixture { disk, .. }| {
        let error = disk.snapshot(false).await.expect_err("no helper");
        assert!(matches!(error, DiskError::Start(HelperError::Spawn { .. })), "{error}");
    });
}
