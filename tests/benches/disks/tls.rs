//! The rows for NBD with TLS, each beside plain NBD with an equal disk and the same program.

use std::fs;

use rtftp_tests::{Authority, Disk, FileSystem, NbdServer, Rtftp, TlsExport, Tree, load_client, noise};
use tempfile::TempDir;

use super::{
    A_GIB, LARGE_SIZE, ROUNDS, SMALL_SIZE, boards, fetch, first_data, memory, read_file, row, unpartitioned_config,
};

/// The number of rounds of the rows that are medians in each round already.
const FEW_ROUNDS: usize = 3;

/// Prints the rows. Server and client verify each other's certificates.
pub(super) fn rows() {
    let authority = Authority::new("benchmark");
    let directories = [(); 3].map(|()| TempDir::new().expect("a directory"));
    let [qemu, nbdkit, client] = directories.each_ref().map(TempDir::path);
    fs::write(client.join("ca-cert.pem"), authority.certificate()).expect("written");
    authority.issue_to(&["board"], 2100, client, "client");
    let parameters = format!("tls-certificates={}", client.display());
    // qemu-nbd locks its image.
    let disks = [disk(), disk()];
    let export =
        |directory| TlsExport { disk: &disks[1], authority: &authority, clients: &authority, end: 2100, directory };
    let secure = [export(qemu).qemu(true), export(nbdkit).nbdkit(&["--tls-verify-peer"])];
    let [qemu, nbdkit] = secure.map(|server| server.with_parameters(&parameters));
    let servers = [[NbdServer::qemu(&disks[0]), qemu], [NbdServer::nbdkit(&disks[0]), nbdkit]];

    row("plain, TLS: disk not connected, request to first DATA: ms", &servers, |pair| {
        both(pair, FEW_ROUNDS, 2, |server| first_data(server, true).as_secs_f64() * 1e3)
    });
    row("plain, TLS: 64 MiB of ext4 in one extent: MB/s", &servers, |pair| {
        both(pair, FEW_ROUNDS, 0, |server| LARGE_SIZE as f64 / read_file(server, "whole") / 1e6)
    });
    for (gro, title) in [(false, ""), (true, ", client with GRO")] {
        let bytes = noise(LARGE_SIZE, 1);
        let serve = |server: &NbdServer| {
            let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--monitor-configs", "false"]);
            daemon.put_disk(&load_client::address(0).to_string(), &unpartitioned_config(server));
            fetch(&daemon, server, gro, &bytes)
        };
        row(&format!("plain, TLS: 64 MiB at 1468/64{title}: MB/s"), &servers, |pair| {
            both(pair, ROUNDS, 0, |server| LARGE_SIZE as f64 / serve(server).seconds / 1e6)
        });
        for (index, process) in ["daemon", "NBD server"].iter().enumerate() {
            let title = format!("plain, TLS: 64 MiB at 1468/64{title}: CPU-s/GiB of the {process}");
            row(&title, &servers, |pair| both(pair, ROUNDS, 2, |server| serve(server).cpu[index] * A_GIB));
        }
    }
    for (index, name) in ["plain", "TLS"].iter().enumerate() {
        let title = format!("{name}: 200 boards from 200 disks, 1 MiB at 1468/16: median, p99");
        row(&title, &servers, |pair| boards(&pair[index], 16));
        row(&format!("{name}: 200 disks, all serving: memory per disk"), &servers, |pair| memory(&pair[index]));
    }
}

fn disk() -> Disk {
    let bytes = noise(LARGE_SIZE, 1);
    let tree = Tree::new().file("whole", &bytes).file("small", &bytes[..SMALL_SIZE]);
    Disk::whole(128, FileSystem::Ext4(&tree))
}

/// Returns the medians of a figure for both servers of a pair, measured in turn.
fn both(pair: &[NbdServer; 2], rounds: usize, decimals: usize, figure: impl Fn(&NbdServer) -> f64) -> String {
    let mut figures = [vec![], vec![]];
    for _ in 0..rounds {
        pair.iter().zip(&mut figures).for_each(|(server, figures)| figures.push(figure(server)));
    }
    let [plain, tls] = figures.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    format!("{plain:.decimals$}, {tls:.decimals$}")
}
