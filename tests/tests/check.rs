//! `rtftp check`: reports on disks, descriptions, names and files.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    time::{Duration, Instant},
};

use nix::unistd::geteuid;
use rtftp_core::config::uri::NbdUri;
use rtftp_runtime::nbd::NbdClient;
use rtftp_tests::{
    AppliancePermit, Disk, DiskConfig, FileSystem, NbdServer, OwnerMachine, Rtftp, Tree, binary, board_config,
    board_disk, certificate_table, closed_port, efi_program, http_client::HttpClient, noise, poll_until,
    rtftp_check::CheckResult, run_with_bad_arguments, silent_server, sparse_image::expand_to,
};
use serde_json::{Value, json};
use smol::Executor;
use tempfile::TempDir;

/// Builds the disk of a Raspberry Pi: a boot partition with FAT32, a root partition with ext4.
fn pi() -> Disk {
    let boot = Tree::new().file("kernel8.img", noise(90_000, 1)).file("overlays/a.dtbo", noise(10_000, 2));
    let root = Tree::new().file("etc/shadow", "secret").directory("boot").link("vmlinuz", "boot/kernel8.img");
    Disk::mbr(&[(1, 40, FileSystem::VfatWith(&boot, &["-F", "32", "-s", "1"])), (2, 16, FileSystem::Ext4(&root))])
}

/// Returns a root directory without problems: one client with a disk, one with a directory, and `default`.
fn good(server: &NbdServer) -> Tree {
    let config = board_config(server).tftp_root("/boot").to_string();
    Tree::new().file("10.0.0.5.nbd", config).file("default/pxelinux.0", "loader").file("10.0.0.6/vmlinuz", "kernel")
}

#[test]
fn reports_disks_and_directories_without_problems() {
    let disk = pi();
    let server = NbdServer::qemu(&disk);
    let root = good(&server).file("10.0.0.7.nbd", board_config(&server).to_string());
    let checked = CheckResult::of(&root, &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let url = server.url();
    assert_eq!(
        checked.row("10.0.0.5"),
        format!("10.0.0.5 {url} yes 1 FAT32, 2 ext4 2 on /, 1 on /boot (native) 2, 100.0 kB kernel8.img, 90.0 kB no"),
        "{}",
        checked.stdout
    );
    // Without tftp_root, the files of both partitions are counted.
    assert!(checked.row("10.0.0.7").ends_with("3, 100.0 kB boot/kernel8.img, 90.0 kB no"), "{}", checked.stdout);
    assert_eq!(checked.row("default/"), "default/ - - - - 1, 6 B pxelinux.0, 6 B -");
    assert_eq!(checked.row("10.0.0.6/"), "10.0.0.6/ - - - - 1, 6 B vmlinuz, 6 B -");
    assert!(checked.stdout.ends_with("\nno problems\n"), "{}", checked.stdout);

    let checked = CheckResult::of(&root, &["--json"]);
    assert_eq!(checked.code, Some(0));
    let document = checked.json();
    assert_eq!((&document["well"], &document["mistakes"]), (&Value::Bool(true), &json!([])));
    let disk = &document["clients"][0]["disk"];
    assert_eq!((&disk["url"], &disk["reachable"], &disk["backend"]), (&json!(url), &json!(true), &json!("native")));
    let content_type = "application/vnd.efi-img";
    let kernel = json!({ "path": "kernel8.img", "bytes": 90_000, "content_type": content_type, "url": null });
    assert_eq!((&disk["files"]["kernel"], &document["http"]), (&kernel, &Value::Null));
    assert_eq!((&disk["files"]["count"], &disk["files"]["incomplete"]), (&json!(2), &Value::Null));
    assert_eq!(disk["partitions"][1]["bytes"], 16 << 20);
}

#[test]
fn names_the_subvolumes_of_a_btrfs() {
    let disk = Disk::raw(&expand_to(include_bytes!("../../fuzz/images/btrfs"), 32 << 20));
    let server = NbdServer::qemu(&disk);
    let config = DiskConfig::new(server.url()).subvolume(0, "@/nested", "/").backend("native").to_string();
    let root = Tree::new().file("10.0.0.5.nbd", config).file("default/pxelinux.0", "loader");
    let checked = CheckResult::of(&root, &[]);
    let expected = "yes whole disk btrfs (@, @/nested, snapshot) the whole disk @/nested on / (native) 1, 7 B";
    assert!(checked.row("10.0.0.5").contains(expected), "{}", checked.stdout);
    let disk = &CheckResult::of(&root, &["--json"]).json()["clients"][0]["disk"];
    assert_eq!(disk["partitions"][0]["subvolumes"], json!(["@", "@/nested", "snapshot"]));
    assert_eq!(disk["mounts"][0]["subvolume"], "/@/nested");
}

/// Returns a file that starts as an EFI program does.
fn kernel() -> Vec<u8> {
    let mut program = noise(5000, 7);
    program[..2].copy_from_slice(b"MZ");
    program[0x3c..0x40].copy_from_slice(&0x80u32.to_le_bytes());
    program[0x80..0x84].copy_from_slice(b"PE\0\0");
    program
}

#[test]
fn shows_urls_that_the_daemon_serves() {
    let tree = Tree::new().file("boot/vmlinuz", kernel()).file("vmlinuz.old", "old");
    let disk = Disk::whole(16, FileSystem::Ext4(&tree));
    let server = NbdServer::qemu(&disk);
    let config = DiskConfig::new(server.url()).device("/dev/sda", "/").to_string();
    let root = Tree::new()
        .file("127.0.0.5.nbd", config)
        .file("127.0.0.6/a b+c/vmlinuz-6.1", "kernel")
        .file("127.0.0.7/x.efi", "loader")
        .file("default/readme", "no kernel");
    for prefix in ["", "/boot"] {
        let daemon = Rtftp::start_with("127.0.0.1", 3600, &["--http", "127.0.0.1:0", "--http-prefix", prefix]);
        let copied = Command::new("cp").arg("-a").arg(root.path().join(".")).arg(daemon.path("")).status();
        assert!(copied.is_ok_and(|status| status.success()));
        let line = daemon.logged(&["serving files over HTTP on "]);
        let address = line.split(" on ").nth(1).expect("an address");
        let checked = CheckResult::of(&root, &["--http", address, "--http-prefix", prefix, "--json"]);
        assert_eq!(checked.code, Some(0), "{}", checked.stdout);
        let document = checked.json();
        assert_eq!(document["http"], json!({ "url": format!("http://{address}{prefix}/"), "prefix": prefix }));
        let of = |directory: usize| document["directories"][directory]["files"]["kernel"].clone();
        for (from, kernel, path, content_type) in [
            ("127.0.0.5", document["clients"][0]["disk"]["files"]["kernel"].clone(), "boot/vmlinuz", "application/efi"),
            ("127.0.0.6", of(0), "a%20b%2Bc/vmlinuz-6.1", "application/octet-stream"),
            ("127.0.0.7", of(1), "x.efi", "application/efi"),
        ] {
            let url = format!("http://{address}{prefix}/{path}");
            assert_eq!((&kernel["url"], &kernel["content_type"]), (&json!(url), &json!(content_type)), "{from}");
            let target = url.strip_prefix(&format!("http://{address}")).expect("its server");
            let mut client = HttpClient::connect(from, address.parse().expect("an address"));
            let response = client.request("GET", target, &[]).expect("a response");
            assert_eq!((response.status, response.header("Content-Type")), (200, Some(content_type)), "{url}");
            assert_eq!(response.body.len(), kernel["bytes"], "{url}");
        }
        assert_eq!(of(2), Value::Null);
        let text = CheckResult::of(&root, &["--http", address, "--http-prefix", prefix]).stdout;
        let row = format!("127.0.0.7/  http://{address}{prefix}/x.efi ");
        assert!(text.contains(&row) && text.contains(&format!("http://{address}{prefix}/... ")), "{text}");
        assert_eq!(text.contains("/boot is removed from the start of paths"), !prefix.is_empty(), "{text}");
    }
}

#[test]
fn reports_each_problem_on_a_line_of_its_own() {
    let (disk, empty) = (pi(), Disk::whole(16, FileSystem::Nothing));
    let (server, whole) = (NbdServer::nbdkit(&disk), NbdServer::nbdkit(&empty));
    let silent = NbdServer::nbdkit_with(&disk, "delay", &["rdelay=3600"]);
    let hung = silent_server();
    let refused = closed_port();
    let config = board_config(&server);
    let root = good(&server)
        .file("10.0.0.10.nbd", DiskConfig::new(&refused).partition(1, "/").to_string())
        .file("10.0.0.11.nbd", DiskConfig::new(&hung).partition(1, "/").to_string())
        .file("10.0.0.12.nbd", config.clone().partition(7, "/srv").to_string())
        .file("10.0.0.13.nbd", "{\n  \"url\": nonsense\n}\n")
        .file("10.0.0.14.nbd", config.clone().tftp_root("/tftp").to_string())
        .file("10.0.0.15.nbd", DiskConfig::new(whole.url()).device("/dev/sda", "/").backend("native").to_string())
        .directory("10.0.0.16.nbd")
        .file("10.0.0.17.nbd", board_config(&silent).to_string())
        .file("010.0.0.17.nbd", config.to_string())
        .directory("boards")
        .link("default/passwd", "/etc/passwd");
    let started = Instant::now();
    let checked = CheckResult::of(&root, &["--open-limit", "4", "--read-limit", "5"]);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert_eq!(checked.code, Some(1));
    let problems = [
        "010.0.0.17.nbd: ignored: rename to 10.0.0.17.nbd".to_owned(),
        "boards/: ignored: expected a client name, such as 10.0.0.5, or default".to_owned(),
        "default/: passwd: forbidden: a symbolic link leads out of the root".to_owned(),
        format!("10.0.0.10.nbd: {refused}: Connection refused (os error 111)"),
        format!(
            "10.0.0.11.nbd: {hung}: no greeting within 4 s: the server hangs, or it serves one connection at a time, and \
             another client has it (qemu-nbd: --shared=0)"
        ),
        "10.0.0.12.nbd: partition 7: not found; the disk has partitions 1, 2".to_owned(),
        "10.0.0.13.nbd: line 2, column 10: url: expected a string, found nonsense".to_owned(),
        "10.0.0.14.nbd: tftp_root /tftp: not found in partition 2 on /, partition 1 on /boot".to_owned(),
        "10.0.0.15.nbd: /dev/sda: no known file system".to_owned(),
        "10.0.0.16.nbd: not a regular file".to_owned(),
        "10.0.0.17.nbd: lost the connection to the NBD server: no reply within 5 s".to_owned(),
    ];
    assert_eq!(checked.problems(), problems, "{}", checked.stdout);
    assert!(checked.row("10.0.0.5").ends_with("kernel8.img, 90.0 kB no"), "{}", checked.stdout);
    assert!(checked.row("10.0.0.10").contains("no: Connection refused (os error 111)"), "{}", checked.stdout);
    assert!(checked.row("10.0.0.12").contains("yes 1 FAT32, 2 ext4 2 on /, 1 on /boot, 7 on /srv - - no"));
    assert!(checked.row("10.0.0.15").contains("yes whole disk unknown /dev/sda on / - - -"));

    let checked = CheckResult::of(&root, &["--open-limit", "4", "--read-limit", "5", "--json"]);
    assert_eq!(checked.code, Some(1));
    let document = checked.json();
    assert_eq!(document["well"], false);
    let reported = document["mistakes"].as_array().expect("a list").iter();
    let reported = reported.map(|problem| {
        let [name, what] = ["name", "mistake"].map(|key| problem[key].as_str().expect("text"));
        format!("{name}: {what}")
    });
    assert_eq!(reported.collect::<Vec<_>>(), problems);
    let of = |address: &str| {
        let clients = document["clients"].as_array().expect("a list");
        clients.iter().find(|client| client["client"] == address).expect("the client")["disk"].clone()
    };
    assert_eq!(of("10.0.0.10")["unreachable"], "Connection refused (os error 111)");
    assert_eq!(of("10.0.0.12")["backend"], Value::Null);
    assert_eq!(of("10.0.0.13"), Value::Null);
}

#[test]
fn reports_servers_that_serve_one_connection_at_a_time() {
    let disk = pi();
    for server in [NbdServer::qemu_single(&disk), NbdServer::nbdkit_with(&disk, "limit", &["limit=1"])] {
        let checked = CheckResult::of(&good(&server), &[]);
        let problem = format!(
            "10.0.0.5.nbd: {}/: serves one connection at a time, so that rtftp and the board exclude each other: allow several \
             (qemu-nbd: --shared=0)",
            server.url()
        );
        assert_eq!(checked.problems(), [problem], "{}", checked.stdout);
        assert!(
            checked.row("10.0.0.5").ends_with("(native) 2, 100.0 kB kernel8.img, 90.0 kB no"),
            "{}",
            checked.stdout
        );
        assert_eq!(checked.code, Some(1));

        // While the board is connected, nobody else is served.
        let (url, executor) = (NbdUri::parse(server.url()).expect("a URI"), Executor::new());
        // The server may still be closing the connection of the last check.
        let _board = poll_until("a free connection", Duration::from_secs(20), || {
            smol::block_on(executor.run(NbdClient::connect(&url, Duration::from_secs(5), &executor))).ok()
        });
        let checked = CheckResult::of(&good(&server), &[]);
        let [problem] = checked.problems()[..] else { panic!("{}", checked.stdout) };
        assert!(
            problem.contains("no greeting within 5 s") || problem.contains("closed the connection before its greeting"),
            "{problem}"
        );
        assert!(problem.contains("one connection at a time"), "{problem}");
    }
}

#[test]
fn reports_partitions_that_are_mounted_elsewhere() {
    let disk = board_disk(1);
    let server = NbdServer::qemu(&disk);
    let root = good(&server);
    let mut owner = OwnerMachine::boot(&server);
    let in_use = || {
        let checked = CheckResult::of(&root, &["--json"]);
        assert_eq!(checked.code, Some(0), "a partition in use is not a problem: {}", checked.stdout);
        let disk = &checked.json()["clients"][0]["disk"];
        [0, 1].map(|index| disk["partitions"][index]["in_use"].clone())
    };
    assert_eq!(in_use(), [false, false]);
    owner.run("mkdir /mnt/1 /mnt/2; mount -t ext4 /dev/vda2 /mnt/2; sync");
    assert_eq!(in_use(), [false, true]);
    owner.run("mount -t vfat /dev/vda1 /mnt/1; sync");
    owner.write("/mnt/1/kernel8.img", b"new");
    owner.run("sync");
    assert_eq!(in_use(), [true, true]);
    let checked = CheckResult::of(&root, &[]);
    assert!(checked.row("10.0.0.5").ends_with("kernel8.img, 3 B 1, 2"), "{}", checked.stdout);
    owner.run("umount /mnt/1 /mnt/2");
    assert_eq!(in_use(), [false, false]);
}

#[test]
fn shows_boot_entries_and_the_signers_of_efi_programs() {
    let signed = efi_program(&[(".text", b"code")], &certificate_table("Boot Signer"));
    let tree = Tree::new()
        .file("boot/vmlinuz-6.1.0-10", efi_program(&[], b""))
        .file("boot/initrd.img-6.1.0-10", "initrd")
        .file("boot/vmlinuz-6.1.0-9", "kernel")
        .file("boot/efi/EFI/BOOT/BOOTX64.EFI", signed)
        .file("etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT=quiet\nGRUB_CMDLINE_LINUX=\"a=\\\"b c\\\"\"\n")
        .file("etc/fstab", "UUID=7 / ext4 defaults 0 1\n");
    let disk = Disk::whole(32, FileSystem::Ext4(&tree));
    let server = NbdServer::nbdkit(&disk);
    let config = || DiskConfig::new(server.url()).partition(0, "/");
    let boot = r#"{"append": "nbdroot=nas,{ip}", "remove": ["quiet"]}"#;
    let root = Tree::new()
        .file("default.nbd", config().boot(boot).to_string())
        .file("10.0.0.5.nbd", config().boot(r#"{"default": "6.2"}"#).to_string())
        .directory("default");
    let checked = CheckResult::of(&root, &[]);
    let expected = "
default: boot entries
  * 6.1.0-10: Linux 6.1.0-10
      boot/vmlinuz-6.1.0-10, boot/initrd.img-6.1.0-10
      root=UUID=7 ro a=\"b c\" nbdroot=nas,10.0.0.1
      from boot/vmlinuz-6.1.0-10, etc/default/grub, root= of etc/fstab
    6.1.0-9: Linux 6.1.0-9
  default: the first entry
  command lines: without quiet, with nbdroot=nas,10.0.0.1, as boot in the description says
  boot/vmlinuz-6.1.0-10, etc/default/grub, root= of etc/fstab left out: iPXE would change its command line
  boot/vmlinuz-6.1.0-9, etc/default/grub, root= of etc/fstab left out: iPXE would change its command line
  boot/vmlinuz-6.1.0-10: not signed
  boot/efi/EFI/BOOT/BOOTX64.EFI: signed by Boot Signer
";
    assert!(checked.stdout.contains(expected), "{}", checked.stdout);
    assert_eq!(checked.code, Some(1));
    assert_eq!(
        checked.problems(),
        ["10.0.0.5.nbd: boot.default: no boot entry 6.2; the first entry is the default instead"]
    );
}

#[test]
fn counts_files_of_a_disk_read_through_libguestfs() {
    let _permit = AppliancePermit::acquire();
    let tree =
        Tree::new().file("boot/vmlinuz", noise(5000, 1)).file("boot/efi/grubx64.efi", "loader").link("now", "boot");
    let disk = Disk::whole(128, FileSystem::F2fs(&tree.file("etc/shadow", "secret")));
    let server = NbdServer::nbdkit(&disk);
    let config = DiskConfig::new(server.url()).device("/dev/sda", "/").tftp_root("/now").to_string();
    let checked = CheckResult::of(&Tree::new().file("10.0.0.5.nbd", config).directory("default"), &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let (row, url) = (checked.row("10.0.0.5"), server.url());
    let expected = "yes whole disk F2FS /dev/sda on / (guestfs) 2, 5.0 kB vmlinuz, 5.0 kB -";
    assert_eq!(row, format!("10.0.0.5 {url}/ {expected}"));
}

#[test]
fn reports_a_missing_helper() {
    let disk = Disk::whole(128, FileSystem::F2fs(&Tree::new().file("vmlinuz", "kernel")));
    let server = NbdServer::nbdkit(&disk);
    let config = DiskConfig::new(server.url()).device("/dev/sda", "/").to_string();
    let root = Tree::new().file("10.0.0.5.nbd", config).directory("default");
    let alone = TempDir::new().expect("a temporary directory");
    let program = alone.path().join("rtftp");
    fs::copy(binary("rtftp"), &program).expect("a copy");
    let checked = CheckResult::run(&["env".as_ref(), "PATH=/nowhere".as_ref(), program.as_os_str()], &root, &[]);
    assert_eq!(checked.code, Some(1));
    let [problem] = checked.problems()[..] else { panic!("{}", checked.stdout) };
    assert!(problem.starts_with("10.0.0.5.nbd: this disk requires libguestfs, and the helper program"), "{problem}");
    assert!(checked.row("10.0.0.5").contains("whole disk F2FS"), "{}", checked.stdout);
}

#[test]
fn reports_a_missing_default_directory_and_a_missing_root() {
    let root = Tree::new();
    let checked = CheckResult::of(&root, &[]);
    assert_eq!(checked.code, Some(1));
    assert_eq!(checked.problems(), ["default/: not found: create it for the files of all clients"]);

    let nowhere = run_with_bad_arguments(["check", "/nowhere/at/all"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nowhere/at/all"));
    assert!(nowhere.stdout.is_empty());
}

#[test]
fn reports_files_without_read_permission() {
    let root = Tree::new().file("default/secret", "secret").file("10.0.0.5.nbd", "{}").file("10.0.0.6/file", "file");
    for (name, mode) in [("default/secret", 0o200), ("10.0.0.5.nbd", 0o200), ("10.0.0.6", 0o300)] {
        fs::set_permissions(root.path().join(name), Permissions::from_mode(mode)).expect("a mode");
    }
    let program = binary("rtftp");
    let mut words: Vec<&OsStr> = vec![program.as_os_str()];
    if geteuid().is_root() {
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"].map(OsStr::new).to_vec();
        words.push(program.as_os_str());
    }
    let checked = CheckResult::run(&words, &root, &[]);
    assert_eq!(checked.code, Some(1));
    assert_eq!(
        checked.problems(),
        [
            "10.0.0.6/: Permission denied (os error 13)",
            "default/: secret: forbidden: the server may not read it: permission denied",
            "10.0.0.5.nbd: Permission denied (os error 13)",
        ]
    );
}

#[test]
fn wrong_arguments_exit_with_2() {
    for args in [&["check"][..], &["check", "/tmp", "/tmp"], &["check", "/tmp", "--colour"], &["check", "-r"]] {
        let refused = run_with_bad_arguments(args);
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.stdout.is_empty() && stderr.ends_with("\nTry `rtftp check --help`.\n"), "{args:?}: {stderr}");
    }
    let help = run_with_bad_arguments(["check", "--help"]);
    assert!(help.status.success());
    let text = String::from_utf8_lossy(&help.stdout);
    for option in ["--json", "--root-dir", "--open-limit", "--read-limit", "Exit code 0"] {
        assert!(text.contains(option), "{option} not found in\n{text}");
    }
}
