//! Disks read through `FileStore`, as a protocol other than TFTP would.

use std::{fs, net::SocketAddr, sync::Arc};

use rtftp_runtime::{
    files::{FileStore, OpenError},
    rtftp_core::RequestPath,
    smol::{Executor, block_on},
};
use rtftp_tests::{Disk, DiskConfig, FileSystem, NbdServer, Tree, noise};

fn path(path: &str) -> RequestPath {
    RequestPath::parse(path.as_bytes()).expect("a path")
}

#[test]
fn reads_files_of_a_disk_and_reports_missing_ones() {
    let kernel = noise(1_000_000, 5);
    let disk = Disk::whole(16, FileSystem::Ext4(&Tree::new().file("kernel", &kernel)));
    let server = NbdServer::nbdkit(&disk);
    let root = tempfile::TempDir::new().expect("a directory");
    let description = DiskConfig::new(server.url()).partition(0, "/").to_string();
    fs::write(root.path().join("10.0.0.5.nbd"), description).expect("written");
    let client = SocketAddr::from(([10, 0, 0, 5], 1234));
    let executor = Arc::new(Executor::new());
    let store = FileStore::new(root.path().to_owned(), executor.clone());
    block_on(executor.run(async {
        let mut file = store.open(client, &path("kernel")).await.expect("opened");
        assert_eq!((file.size(), file.origin().to_string()), (1_000_000, "10.0.0.5.nbd".into()));
        assert!(file.snapshot_age().is_some());
        let (mut received, mut buf) = (Vec::new(), vec![0; 1 << 20]);
        while let len @ 1.. = file.read_at(received.len() as u64, &mut buf).await.expect("readable") {
            received.extend_from_slice(&buf[..len]);
        }
        assert!(received == kernel, "{} bytes received", received.len());
        let error = store.open(client, &path("missing")).await.expect_err("missing");
        assert!(matches!(error, OpenError::NotFound { .. }), "{error}");
        store.close().await;
    }));
}
