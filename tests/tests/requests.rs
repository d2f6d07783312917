//! The read requests of real firmware, byte for byte, and the daemon's reply to each.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, path::PathBuf};

use rtftp_core::{Packet, RequestPath, wire::packet::Mode};
use rtftp_tests::{
    Answer, Rtftp, noise,
    raw_client::{error, rrq},
};

/// The size of every file in bytes.
const SIZE: usize = 5000;

/// The client, its datagram, and the OACK in reply; without one the reply is DATA 1.
type Request = (&'static str, &'static [u8], Option<&'static [u8]>);

/// Requests captured on the wire.
const CAPTURED: [Request; 21] = [
    (
        "iPXE",
        b"\x00\x01boot.ipxe\x00octet\x00blksize\x001432\x00tsize\x000\x00",
        Some(b"\x00\x06blksize\x001432\x00tsize\x005000\x00"),
    ),
    (
        "PXELINUX",
        b"\x00\x01ldlinux.c32\x00octet\x00tsize\x000\x00blksize\x001408\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x001408\x00"),
    ),
    (
        "EDK2, the size",
        b"\x00\x01grub/x86_64-efi/core.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00windowsize\x004\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x001468\x00windowsize\x004\x00"),
    ),
    (
        "EDK2, the file",
        b"\x00\x01grub/x86_64-efi/core.efi\x00octet\x00blksize\x001468\x00windowsize\x004\x00",
        Some(b"\x00\x06blksize\x001468\x00windowsize\x004\x00"),
    ),
    (
        "GRUB",
        b"\x00\x01/grub/x86_64-efi/normal.mod\x00octet\x00blksize\x001024\x00tsize\x000\x00",
        Some(b"\x00\x06blksize\x001024\x00tsize\x005000\x00"),
    ),
    ("U-Boot", b"\x00\x01f1\x00octet\x00timeout\x005\x00blksize\x001468\x00", Some(b"\x00\x06blksize\x001468\x00")),
    (
        "U-Boot, tftpblocksize 512",
        b"\x00\x01f512\x00octet\x00timeout\x005\x00blksize\x00512\x00",
        Some(b"\x00\x06blksize\x00512\x00"),
    ),
    (
        "U-Boot, tftpwindowsize 4",
        b"\x00\x01f1468\x00octet\x00timeout\x005\x00blksize\x001468\x00windowsize\x004\x00",
        Some(b"\x00\x06blksize\x001468\x00windowsize\x004\x00"),
    ),
    (
        "U-Boot, 512 and 8",
        b"\x00\x01big40m\x00octet\x00timeout\x005\x00blksize\x00512\x00windowsize\x008\x00",
        Some(b"\x00\x06blksize\x00512\x00windowsize\x008\x00"),
    ),
    (
        "U-Boot, 1468 and 64",
        b"\x00\x01big40m\x00octet\x00timeout\x005\x00blksize\x001468\x00windowsize\x0064\x00",
        Some(b"\x00\x06blksize\x001468\x00windowsize\x0064\x00"),
    ),
    (
        "U-Boot, tftptimeout 1000",
        b"\x00\x01vmlinuz\x00octet\x00timeout\x001\x00blksize\x001468\x00windowsize\x008\x00",
        Some(b"\x00\x06blksize\x001468\x00windowsize\x008\x00"),
    ),
    (
        "curl",
        b"\x00\x01f0\x00octet\x00tsize\x000\x00blksize\x00512\x00timeout\x005\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x00512\x00"),
    ),
    (
        "curl --tftp-blksize 1428",
        b"\x00\x01f0\x00octet\x00tsize\x000\x00blksize\x001428\x00timeout\x005\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x001428\x00"),
    ),
    (
        "curl --max-time 4",
        b"\x00\x01f513\x00octet\x00tsize\x000\x00blksize\x00512\x00timeout\x001\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x00512\x00"),
    ),
    ("curl --tftp-no-options, tftp-hpa, atftp, tftpy", b"\x00\x01f0\x00octet\x00", None),
    ("busybox", b"\x00\x01f0\x00octet\x00tsize\x000\x00", Some(b"\x00\x06tsize\x005000\x00")),
    (
        "busybox -b 1468",
        b"\x00\x01f0\x00octet\x00blksize\x001468\x00tsize\x000\x00",
        Some(b"\x00\x06blksize\x001468\x00tsize\x005000\x00"),
    ),
    (
        "busybox -b 16384",
        b"\x00\x01f0\x00octet\x00blksize\x0016384\x00tsize\x000\x00",
        Some(b"\x00\x06blksize\x0016384\x00tsize\x005000\x00"),
    ),
    (
        "atftp, three options",
        b"\x00\x01f0\x00octet\x00tsize\x000\x00timeout\x003\x00blksize\x001428\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x001428\x00"),
    ),
    (
        "atftp, windows",
        b"\x00\x01f0\x00octet\x00blksize\x001428\x00windowsize\x008\x00",
        Some(b"\x00\x06blksize\x001428\x00windowsize\x008\x00"),
    ),
    (
        "tftpy",
        b"\x00\x01f0\x00octet\x00blksize\x001428\x00tsize\x000\x00",
        Some(b"\x00\x06blksize\x001428\x00tsize\x005000\x00"),
    ),
];

/// Requests reconstructed from the clients' sources, documents and logs.
const DESCRIBED: [Request; 9] = [
    ("Raspberry Pi 3 boot ROM", b"\x00\x01bootcode.bin\x00octet\x00", None),
    ("bootcode.bin", b"\x00\x0112345678/start.elf\x00octet\x00tsize\x000\x00", Some(b"\x00\x06tsize\x005000\x00")),
    (
        "Raspberry Pi 4 EEPROM",
        b"\x00\x0112345678/start4.elf\x00octet\x00tsize\x000\x00blksize\x001024\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x001024\x00"),
    ),
    (
        "barebox",
        b"\x00\x01zImage\x00octet\x00timeout\x005\x00blksize\x001432\x00tsize\x000\x00windowsize\x0064\x00",
        Some(b"\x00\x06blksize\x001432\x00tsize\x005000\x00windowsize\x0064\x00"),
    ),
    (
        "U-Boot with lwIP",
        b"\x00\x01Image\x00octet\x00tsize\x000\x00blksize\x001468\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x001468\x00"),
    ),
    (
        "iPXE, multicast",
        b"\x00\x01boot.ipxe\x00octet\x00blksize\x001432\x00tsize\x000\x00multicast\x00\x00",
        Some(b"\x00\x06blksize\x001432\x00tsize\x005000\x00"),
    ),
    (
        "Windows boot manager",
        b"\x00\x01\\boot\\x64\\wdsmgfw.efi\x00octet\x00tsize\x000\x00blksize\x001456\x00windowsize\x004\x00",
        Some(b"\x00\x06tsize\x005000\x00blksize\x001456\x00windowsize\x004\x00"),
    ),
    (
        "shim, a name with invalid bytes",
        b"\x00\x01loader/\xffUSB\x00octet\x00blksize\x00512\x00",
        Some(b"\x00\x06blksize\x00512\x00"),
    ),
    (
        "another spelling",
        b"\x00\x01f0\x00OCTET\x00BlkSize\x001000\x00TSIZE\x000\x00",
        Some(b"\x00\x06BlkSize\x001000\x00TSIZE\x005000\x00"),
    ),
];

/// The ERROR packets that clients send after a size query.
const PROBE_ERRORS: [(&str, &[u8]); 6] = [
    ("EDK2", b"\x00\x05\x00\x08User aborted the transfer\x00"),
    ("GRUB", b"\x00\x05\x00\x00closed\x00"),
    ("busybox", b"\x00\x05\x00\x00read error\x00"),
    ("PXELINUX", b"\x00\x05\x00\x00No error, file close\x00"),
    ("iPXE", b"\x00\x05\x00\x00TFTP Aborted\x00"),
    ("Raspberry Pi", b"\x00\x05\x00\x00Early terminate\x00"),
];

/// Returns the path of the requested file below its root.
fn path_of(datagram: &[u8]) -> PathBuf {
    let Ok(Packet::ReadRequest(request)) = Packet::parse(datagram) else { panic!("{}", datagram.escape_ascii()) };
    assert_eq!(request.mode, Mode::Octet);
    PathBuf::from(OsStr::from_bytes(RequestPath::parse(request.file).expect("a path").as_bytes()))
}

/// Returns the block size after this reply.
fn blksize(answer: &Answer) -> usize {
    let Answer::Oack(options) = answer else { return 512 };
    let option = options.iter().find(|(name, _)| name.eq_ignore_ascii_case("blksize"));
    option.map_or(512, |(_, value)| value.parse().expect("a number"))
}

#[test]
fn replies_to_real_requests_byte_for_byte() {
    let daemon = Rtftp::start();
    let file = noise(SIZE, 7);
    for (name, datagram, oack) in CAPTURED.iter().chain(&DESCRIBED) {
        let path = daemon.path("default").join(path_of(datagram));
        fs::create_dir_all(path.parent().expect("a path below the root")).expect("make a directory");
        fs::write(path, &file).expect("write a file");
        let mut client = daemon.client("127.0.0.7");
        let first = client.exchange(datagram);
        let data = if let Some(oack) = oack {
            assert_eq!(first, Answer::parse(oack), "{name}");
            client.acknowledge(0)
        } else {
            first.clone()
        };
        assert_eq!(data, Answer::Data(1, file[..blksize(&first).min(SIZE)].into()), "{name}");
        client.reply(&error(0, "enough"));
    }
}

#[test]
fn records_size_query_as_probe() {
    let daemon = Rtftp::start();
    daemon.put("default/f", noise(SIZE, 7));
    for (nth, (name, error)) in PROBE_ERRORS.iter().enumerate() {
        let from = format!("127.0.0.{}", 10 + nth);
        let mut client = daemon.client(&from);
        assert_eq!(client.exchange(&rrq("f", &[("tsize", "0")])), Answer::oack(&[("tsize", "5000")]), "{name}");
        client.reply(error);
        let line = daemon.logged(&[&from, "default/"]);
        assert!(line.contains("INFO") && line.ends_with(", probe"), "{name}: {line}");
    }
}
