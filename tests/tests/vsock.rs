//! A disk behind vsock, the network between a virtual machine and its host. Everything runs in a virtual machine, whose kernel connects
//! vsock with itself; `tests/long.sh vsock` runs this test.

use std::path::Path;

use rtftp_tests::{Disk, FileSystem, NbdServer, OwnerMachine, Tree, binary, noise, run};

/// Returns the path of nbdkit, and that of the plugin that serves a file.
fn nbdkit() -> [String; 2] {
    let config = String::from_utf8(run("nbdkit", ["--dump-config"]).stdout).expect("text");
    let directory = config.lines().find_map(|line| line.strip_prefix("plugindir=")).expect("a directory");
    let program = ["/usr/bin/nbdkit", "/usr/sbin/nbdkit"].into_iter().find(|path| Path::new(path).exists());
    [program.expect("nbdkit of the distribution").to_owned(), format!("{directory}/nbdkit-file-plugin.so")]
}

#[test]
#[ignore = "takes 60 s"]
fn boots_from_a_disk_behind_vsock() {
    let disk = Disk::whole(32, FileSystem::Ext4(&Tree::new().file("kernel", noise(5_000_003, 7))));
    let server = NbdServer::nbdkit(&disk);
    let own = ["rtftp", "rtftp-get"].map(|name| binary(name).display().to_string());
    let programs: Vec<String> = own.into_iter().chain(nbdkit()).collect();
    let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
    let mut machine = OwnerMachine::boot_at(server.url(), 512, &["vsock_loopback"], &programs);
    machine.run(
        "set -e
        ip link set lo up
        mkdir -p /srv/default /vda /run
        mount -t ext4 -o ro,noload /dev/vda /vda
        nbdkit --readonly --vsock --port 10810 /bin/nbdkit-file-plugin.so /dev/vda
        describe() { echo '{\"url\": \"nbd+vsock://1:'$1'/\", \"mounts\": [{\"mountpoint\": \"/\"}]}' >/srv/127.0.0.1.nbd; }
        describe 10811",
    );
    let (code, refused) = machine.run_unchecked("rtftp check /srv");
    assert_eq!(code, 1, "{refused}");
    assert!(
        refused.contains("127.0.0.1.nbd: nbd+vsock://1:10811/: Connection reset by peer (os error 104)"),
        "{refused}"
    );
    let output = machine.run(
        "set -e
        sed -i s/10811/10810/ /srv/127.0.0.1.nbd
        rtftp check /srv
        rtftp --listen-ip 127.0.0.1 --root-dir /srv >/tmp/log 2>&1 &
        tries=0
        until rtftp-get 127.0.0.1 kernel -o /tmp/kernel; do
            tries=$((tries + 1))
            [ $tries -lt 20 ] || { cat /tmp/log; exit 1; }
            sleep 1
        done
        cmp /tmp/kernel /vda/kernel",
    );
    assert!(output.contains("no problems"), "{output}");
}
