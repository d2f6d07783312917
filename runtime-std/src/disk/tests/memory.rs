//! Files of a disk are read within the memory for it.

use super::*;

/// Reads a whole file as a transfer does that sends windows of `window` blocks of `block` bytes, each of them twice.
async fn read_in_windows(file: &mut RemoteFile, block: usize, window: usize) -> Vec<u8> {
    let (mut all, mut packets) = (vec![], vec![0; (block + DATA_HEADER) * window]);
    while all.len() < FILE_LEN {
        let start = all.len();
        for _ in 0..2 {
            all.truncate(start);
            while all.len() < FILE_LEN.min(start + window * block) {
                let mut count = (start + window * block - all.len()).div_ceil(block);
                let read = loop {
                    let buf = &mut packets[..count * (block + DATA_HEADER)];
                    match file.read_blocks(all.len() as u64, block, buf).expect("readable") {
                        Some(read) => break read,
                        None if count > 1 => count /= 2,
                        None => poll_fn(|context| file.poll_ready(context)).await,
                    }
                };
                for (packet, len) in packets.chunks(block + DATA_HEADER).zip((0..read).step_by(block)) {
                    all.extend_from_slice(&packet[DATA_HEADER..DATA_HEADER + block.min(read - len)]);
                }
            }
        }
    }
    all
}

#[test]
fn reads_with_little_memory() {
    // The shares of the disk suffice for chunks of 256, 64 and 16 KiB.
    for (limit, largest) in [(16 << 20, 860_000), (2 << 20, 300_000), (600 << 10, 170_000)] {
        for (block, window) in [(512, 1), (1468, 100), (65_464, 1), (32_768, 16)] {
            let memory = Memory::new(limit);
            with_memory(memory.clone(), image(), MINUTE, MINUTE, async |test| {
                let mut file = RemoteFile::open(&test.disk, &kernel()).await.expect("the file");
                assert!(read_in_windows(&mut file, block, window).await == content(), "{limit}: {window} of {block}");
                assert!(test.disk.memory().used() <= largest, "{limit}: {} bytes", test.disk.memory().used());
            });
            drop(memory.disk().reserve(limit / 4).expect("everything has been returned"));
        }
    }
}

#[test]
fn all_files_that_could_be_opened_can_be_read_to_their_ends() {
    let memory = Memory::new(8 << 20);
    with_memory(memory.clone(), image(), MINUTE, MINUTE, async |test| {
        let mut files = vec![];
        let error = loop {
            match RemoteFile::open(&test.disk, &kernel()).await {
                Ok(file) => files.push(file),
                Err(error) => break error,
            }
        };
        assert!(error.is_out_of_memory() && files.len() > 20, "{error} after {} files", files.len());
        for (index, file) in files.iter_mut().enumerate() {
            assert!(read_in_windows(file, 1468, 10).await == content(), "file {index} of many");
        }
    });
    drop(memory.disk().reserve(2 << 20).expect("everything has been returned"));
}

#[test]
fn unused_snapshot_is_dropped_when_memory_is_short() {
    let memory = Memory::new(8 << 20);
    with_memory(memory, image(), MINUTE, MINUTE, async |test| {
        drop(RemoteFile::open(&test.disk, &kernel()).await.expect("the file"));
        let used = test.disk.memory().used();
        assert!(used > 0, "the snapshot is kept for the next request");
        let others = 7 << 18;
        let _others = test.disk.memory().reserve(others).expect("memory");
        let dropped = async {
            while test.disk.memory().used() > others {
                Timer::after(Duration::from_millis(10)).await;
            }
            true
        };
        let timeout = async {
            Timer::after(Duration::from_secs(10)).await;
            false
        };
        assert!(or(dropped, timeout).await, "{used} bytes are still in use");
    });
}

#[test]
fn without_memory_the_request_is_refused_and_others_are_served() {
    let memory = Memory::new(4 << 20);
    with_memory(memory, image(), MINUTE, MINUTE, async |test| {
        let mut served = RemoteFile::open(&test.disk, &kernel()).await.expect("the file");
        let left = 1 << 20;
        let hog = (0..left).rev().step_by(4096).find_map(|bytes| test.disk.memory().reserve(bytes).ok()).expect("some");
        let error = RemoteFile::open(&test.disk, &kernel()).await.map(|_| ()).expect_err("no memory");
        assert_eq!(error.to_client(), "the server is short of memory, try again");
        assert!(error.to_string().contains("--disk-memory"), "{error}");
        assert!(read_in_windows(&mut served, 1468, 10).await == content());
        drop(hog);
        RemoteFile::open(&test.disk, &kernel()).await.expect("memory again");
    });
}

#[test]
fn idle_disk_occupies_little_memory() {
    let executor = Arc::new(Executor::new());
    let launcher = Launcher::with_helper("/nonexistent".into(), HelperTimeouts::default());
    let timeouts = DiskTimeouts { idle: MINUTE, view_gap: MINUTE, open: MINUTE, connect: MINUTE, reply: MINUTE };
    let backend =
        Arc::new(Backend::new("/nonexistent".into(), launcher, timeouts, executor, None, Memory::unlimited()));
    let connector = Connector::new("test.nbd".into(), BOARD.description(b"{}"[..].into()), backend);
    let (_messages, inbox) = futures_channel::mpsc::unbounded();
    let log = Arc::new(super::error_log::DiskLog::new("test.nbd".into()));
    let task = super::actor::DiskActor::new(connector, log).run(inbox);
    let size = size_of_val(&task);
    assert!(size < 1100, "the task of a disk reserves {size} bytes");
}
