use std::fs;

use smol::block_on;

use super::*;

const SERIAL: ClientName = ClientName::Serial(0x9ffe_fdef);

/// A store with these files. Each file contains its own path.
fn store(files: &[&str]) -> (tempfile::TempDir, FileStore) {
    let top = tempfile::tempdir().expect("a directory");
    for file in files {
        let path = top.path().join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        fs::write(path, file).expect("written");
    }
    let store = FileStore::new(top.path().to_owned(), Arc::new(Executor::new()));
    (top, store)
}

fn localhost() -> (ClientName, SocketAddr) {
    let client = SocketAddr::from(([127, 0, 0, 1], 1234));
    (ClientName::Ip(client.ip()), client)
}

fn open(store: &FileStore, path: &str) -> Result<OpenFile, OpenError> {
    let path = RequestPath::parse(path.as_bytes()).expect("a path");
    block_on(store.disks.executor().run(store.open(localhost().1, &path)))
}

#[track_caller]
fn assert_origin(store: &FileStore, path: &str, origin: Origin) {
    assert_eq!(open(store, path).expect(path).origin(), origin, "{path}");
}

#[track_caller]
fn assert_not_found(store: &FileStore, path: &str) {
    let error = open(store, path).expect_err(path);
    assert!(matches!(error, OpenError::NotFound { .. }), "{path}: {error}");
}

#[test]
fn searches_ip_address_then_serial_number_then_default() {
    let (files, ip) = (["127.0.0.1/9ffefdef/f", "9ffefdef/f", "default/9ffefdef/f"], localhost().0);
    let origins = [Origin::Client(ip), Origin::Client(SERIAL), Origin::Default];
    let (top, store) = store(&files);
    for (file, origin) in files.iter().zip(origins) {
        assert_origin(&store, "9ffefdef/f", origin);
        assert_eq!(open(&store, "9ffefdef/f").expect("found").size(), file.len() as u64);
        fs::remove_file(top.path().join(file)).expect("removed");
    }
    assert_not_found(&store, "9ffefdef/f");
}

#[test]
fn searches_directory_before_disk_of_each_name() {
    let files = ["127.0.0.1/9ffefdef/f", "127.0.0.1.nbd", "9ffefdef/f", "9ffefdef.nbd", "default/9ffefdef/f"];
    let (top, store) = store(&files);
    for (pair, name) in files.chunks(2).zip([localhost().0, SERIAL]) {
        assert_origin(&store, "9ffefdef/f", Origin::Client(name));
        fs::remove_file(top.path().join(pair[0])).expect("removed");
        // The description is invalid.
        let error = open(&store, "9ffefdef/f").expect_err("the disk is searched");
        assert!(
            matches!(error, OpenError::Disk { origin: Origin::Disk(disk), .. } if disk == NbdFile::Client(name)),
            "{error}"
        );
        fs::remove_file(top.path().join(pair[1])).expect("removed");
    }
    assert_origin(&store, "9ffefdef/f", Origin::Default);
}

#[test]
fn serial_number_names_a_root_only_as_first_component() {
    let (_top, store) = store(&["9ffefdef/f", "default/9FFEFDEF/f", "default/dir/f"]);
    assert_origin(&store, "9ffefdef/f", Origin::Client(SERIAL));
    for path in ["f", "9ffefdef", "x/9ffefdef/f", "9ffefdef/../9ffefdee/f"] {
        assert_not_found(&store, path);
    }
    assert_origin(&store, "9FFEFDEF/f", Origin::Default);
    assert_origin(&store, "dir/f", Origin::Default);
}

#[test]
fn reports_missing_root_directory() {
    let (top, store) = store(&["default/f"]);
    fs::remove_dir_all(top.path()).expect("removed");
    let error = open(&store, "f").expect_err("the root was removed");
    assert!(matches!(error, OpenError::RootDirectory { .. }), "{error}");
    assert!(error.to_string().contains(top.path().to_str().expect("UTF-8")), "{error}");
}

#[test]
fn reads_ranges_and_metadata_of_open_files() {
    let (top, store) = store(&["default/f"]);
    let content: Vec<u8> = (0..700_000).map(|at| (at / 7) as u8).collect();
    fs::write(top.path().join("default/f"), &content).expect("written");
    let modified = fs::metadata(top.path().join("default/f")).and_then(|metadata| metadata.modified()).ok();
    let mut file = open(&store, "f").expect("found");
    assert_eq!((file.size(), file.modified(), file.snapshot_age()), (700_000, modified, None));
    for (offset, len) in [(0, 1), (123_456, 1000), (0, 700_000), (699_990, 100), (700_000, 100), (1_000_000, 1)] {
        let mut buf = vec![0; len];
        let mut done = 0;
        while let read @ 1.. = block_on(file.read_at((offset + done) as u64, &mut buf[done..])).expect("readable") {
            done += read;
        }
        let rest = content.get(offset..).unwrap_or_default();
        assert!(buf[..done] == rest[..len.min(rest.len())], "{len} bytes from {offset}");
    }
}
