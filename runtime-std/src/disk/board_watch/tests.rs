use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_channel::mpsc::unbounded;
use smol::future::yield_now;

use super::{super::tests::image, *};
use crate::{
    clock::virtual_time::VirtualTime,
    fs::{BlockDevice, DiskWork, ReadFuture, Turns},
    history::History,
    memory::DiskMemory,
};

/// The byte of the boot sector with the dirty bit.
const DIRTY: usize = 0x25;

/// A disk that its board can change.
#[derive(Debug, Default)]
struct Image(Mutex<Vec<u8>>);

impl BlockDevice for Image {
    fn size(&self) -> u64 {
        self.0.lock().len() as u64
    }

    fn read(&self, offset: u64, len: usize) -> ReadFuture<'_> {
        let bytes = self.0.lock()[offset as usize..][..len].to_vec();
        Box::pin(async { Ok(bytes.into()) })
    }
}

/// A disk with a FAT file system, in place of its actor.
struct Fixture {
    executor: Arc<Executor<'static>>,
    history: History,
    image: Arc<Image>,
    /// The number of times that the disk was read.
    reads: Arc<AtomicUsize>,
    /// The reason why the disk shows nothing.
    refusal: Arc<Mutex<Option<&'static str>>>,
    /// The time until the actor replies.
    delay: Arc<Mutex<Duration>>,
    messages: UnboundedSender<Message>,
    watch: BoardWatch,
}

/// Runs a test in virtual time.
fn test(test: impl AsyncFnOnce(&Fixture)) {
    let time = VirtualTime::start();
    let (messages, mut inbox) = unbounded();
    let fixture = Fixture {
        executor: Arc::new(Executor::new()),
        history: History::new(),
        image: Arc::new(Image(image().into())),
        reads: Arc::default(),
        refusal: Arc::default(),
        delay: Arc::default(),
        messages,
        watch: BoardWatch::default(),
    };
    let (image, reads, refusal, delay) =
        (fixture.image.clone(), fixture.reads.clone(), fixture.refusal.clone(), fixture.delay.clone());
    let actor = fixture.executor.spawn(async move {
        while let Ok(Message::Connection { reply }) = inbox.recv().await {
            reads.fetch_add(1, Relaxed);
            let wait = *delay.lock();
            Timer::after(wait).await;
            let work = DiskWork::new(&Turns::default());
            let connection = Connection { device: image.clone(), memory: DiskMemory::unlimited(), work };
            let _ = reply.send(refusal.lock().map_or(Ok(connection), Err));
        }
    });
    time.run(&fixture.executor.clone(), test(&fixture)).expect("the test ends");
    drop(actor);
}

impl Fixture {
    fn receive(&self, name: &str) -> Arc<RequestRecord> {
        let record = Arc::new(self.history.record_request([10, 0, 0, 5].into(), name.as_bytes()));
        self.watch.file_received(record.clone(), &self.messages, &self.executor);
        record
    }

    fn set_dirty(&self) {
        self.image.0.lock()[DIRTY] |= 1;
    }

    fn reads(&self) -> usize {
        self.reads.load(Relaxed)
    }
}

async fn seconds(seconds: u64) {
    Timer::after(Duration::from_secs(seconds)).await;
    for _ in 0..100 {
        yield_now().await;
    }
}

#[track_caller]
fn assert_mount(record: &RequestRecord, state: MountState, text: &str) {
    let mount = record.mount().expect("a result");
    assert_eq!((mount.state, mount.text.as_str()), (state, text));
}

#[test]
fn reports_a_mount_when_the_disk_is_read_next() {
    test(async |disk| {
        let record = disk.receive("kernel");
        seconds(10).await;
        assert_eq!((record.mount(), disk.reads()), (None, 3));
        disk.set_dirty();
        seconds(3).await;
        assert_mount(&record, MountState::Mounted, "FAT12 mounted within 12 s");
        seconds(200).await;
        assert_eq!(disk.reads(), 4, "the last one");
    });
}

#[test]
fn reports_after_two_minutes_that_nothing_was_mounted() {
    test(async |disk| {
        let record = disk.receive("kernel");
        seconds(119).await;
        assert_eq!(record.mount(), None);
        seconds(300).await;
        assert_mount(&record, MountState::Unchanged, "FAT12 not mounted read-write within 120 s");
        assert!(disk.reads() < 20, "{} reads", disk.reads());
        // Too late to belong to the boot.
        disk.set_dirty();
        seconds(300).await;
        assert_mount(&record, MountState::Unchanged, "FAT12 not mounted read-write within 120 s");
    });
}

#[test]
fn reads_each_disk_less_often_while_many_boot() {
    test(async |disk| {
        let _others: Vec<_> = (0..1000).map(|_| disk.watch.watched.enter()).collect();
        let kernel = disk.receive("kernel");
        for _ in 0..15 {
            seconds(1).await;
            disk.receive("initrd");
        }
        assert_eq!(disk.reads(), 1, "the first one");
        seconds(134).await;
        assert_mount(&kernel, MountState::Unchanged, "FAT12 not mounted read-write within 120 s");
        assert_eq!(disk.reads(), 7);
    });
    test(async |disk| {
        drop(disk.watch.watched.enter());
        disk.receive("kernel");
        seconds(200).await;
        assert!(disk.reads() > 10 && disk.watch.watched.count() == 0);
    });
}

#[test]
fn time_counts_from_the_last_file_of_a_boot() {
    test(async |disk| {
        let kernel = disk.receive("kernel");
        for number in 0..20 {
            seconds(1).await;
            disk.receive(&format!("overlay{number}"));
        }
        assert!(disk.reads() < 7, "{} reads", disk.reads());
        seconds(7).await;
        disk.set_dirty();
        seconds(2).await;
        assert_mount(&kernel, MountState::Mounted, "FAT12 mounted within 8 s");
        // A file that the running system requests.
        disk.receive("update");
        seconds(200).await;
        assert_mount(&kernel, MountState::Mounted, "FAT12 mounted within 8 s");
    });
}

#[test]
fn next_boot_ends_the_watch_of_the_one_before() {
    test(async |disk| {
        let first = disk.receive("kernel");
        seconds(40).await;
        let second = disk.receive("kernel");
        seconds(1).await;
        assert_mount(&first, MountState::Unchanged, "FAT12 not mounted read-write within 40 s");
        disk.set_dirty();
        seconds(4).await;
        assert_mount(&second, MountState::Mounted, "FAT12 mounted within 4 s");
        assert_mount(&first, MountState::Unchanged, "FAT12 not mounted read-write within 40 s");
    });
}

#[test]
fn claims_nothing_that_is_not_known() {
    test(async |disk| {
        disk.set_dirty();
        let record = disk.receive("kernel");
        seconds(5).await;
        assert_mount(&record, MountState::Unknown, "nothing on the disk shows whether it is mounted");
    });
    test(async |disk| {
        *disk.refusal.lock() = Some("several boards may use the disk");
        let record = disk.receive("kernel");
        seconds(1).await;
        assert_mount(&record, MountState::Unknown, "several boards may use the disk");
    });
    test(async |disk| {
        let record = disk.receive("kernel");
        seconds(5).await;
        *disk.refusal.lock() = Some("the disk is disconnected");
        seconds(5).await;
        assert_mount(&record, MountState::Unknown, "the disk is disconnected");
    });
    test(async |disk| {
        *disk.delay.lock() = Duration::from_secs(2);
        let record = disk.receive("kernel");
        disk.set_dirty();
        seconds(5).await;
        assert_mount(&record, MountState::Unknown, "the disk was too slow to be looked at before");
    });
}

#[test]
fn keeps_only_the_newest_files_while_the_disk_is_slow() {
    test(async |disk| {
        drop(disk.receive("kernel"));
        seconds(1).await;
        *disk.delay.lock() = Duration::from_secs(60);
        seconds(4).await;
        assert_eq!(disk.reads(), 2, "the disk is being read");
        let records: Vec<_> = (0..1000).map(|number| Arc::downgrade(&disk.receive(&number.to_string()))).collect();
        let kept: Vec<_> = (0..1000).filter(|number| records[*number].strong_count() > 0).collect();
        assert_eq!(kept, (1000 - MAX_WAITING..1000).collect::<Vec<_>>());
    });
}
