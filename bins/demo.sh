#!/usr/bin/env bash
# Shows rtftp at work: a board's disk behind a real NBD server, and a TFTP client that fetches the kernel from it.
# Installs what is missing (that alone asks for root), leaves nothing behind, ends with "demo: success" or "demo: FAILED: ...".
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { echo "demo: FAILED: $*"; trap - ERR; exit 1; }
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

work=$(mktemp -d)
pids=()
clean_up() {
    local pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap clean_up EXIT

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        kill -0 "${pids[@]}" 2>/dev/null || fail "a program ended while the demo waited for $what"
        [ $SECONDS -lt $deadline ] || fail "waited in vain for $what"
        sleep 0.1
    done
}

say "Installing what is missing: libguestfs, an NBD server, tools that make a disk, a TFTP client"
bins/install-packages.sh libguestfs-dev "linux-image-$(dpkg --print-architecture)" \
    qemu-utils fdisk dosfstools mtools e2fsprogs curl procps gcc libc6-dev pkg-config

say "Building the daemon, and the helper that opens disks through libguestfs"
cargo build --release --quiet --locked -p rtftp -p rtftp-guestfs
binaries=${CARGO_TARGET_DIR:-target}/release

say "Making the disk of a board: an MBR, /boot on vfat with an 8 MiB kernel, / on ext4"
mkdir -p "$work/boot" "$work/root/boot" "$work/tftp"
head -c 8M /dev/urandom >"$work/boot/kernel8.img"
echo "console=serial0,115200 root=/dev/nbd0p2" >"$work/boot/cmdline.txt"
disk=$work/board.img
truncate -s 98M "$disk"
printf 'label: dos\n1 : start=1MiB, size=64MiB, type=c\n2 : start=65MiB, size=32MiB\n' |
    sfdisk --quiet --no-reread --no-tell-kernel "$disk"
mkfs.vfat --offset 2048 "$disk" 65536 >/dev/null 2>&1
mcopy -i "$disk@@1M" "$work/boot/"* ::
mke2fs -q -t ext4 -d "$work/root" -E offset=$((65 << 20)) "$disk" 32M
sfdisk --list --quiet "$disk"

say "Exporting it with qemu-nbd, as the machine that owns it would"
qemu-nbd --persistent --shared=0 --format=raw --export-name=board --socket="$work/nbd.sock" "$disk" 2>"$work/nbd.log" &
pids+=($!)
wait_for 10 "the NBD server" test -S "$work/nbd.sock"

say "Starting rtftp with an empty root directory, on a port that needs no rights; its log is shown as it comes"
"$binaries/rtftp" --listen-ip 127.0.0.1 --listen-port 0 --root-dir "$work/tftp" --idle-timeout 5 2> >(tee "$work/log" >&2) &
pids+=($!)
wait_for 10 "the port" grep -q 'listening on 127.0.0.1:' "$work/log"
port=$(sed -n 's/.*listening on 127.0.0.1:\([0-9]*\).*/\1/p' "$work/log")

say "Describing the disk in 127.0.0.1.nbd: the daemon sees the new file and connects the disk by itself"
cat >"$work/description" <<END
{
  "url": "nbd+unix:///board?socket=$work/nbd.sock",
  "mounts": [
    {"partition": 2, "mountpoint": "/"},
    {"partition": 1, "mountpoint": "/boot"}
  ],
  "tftp_root": "/boot"
}
END
cat "$work/description"
mv "$work/description" "$work/tftp/127.0.0.1.nbd"
[ -w /dev/kvm ] || echo "(There is no KVM here: the appliance is emulated, which takes some ten seconds longer.)"
echo "(Where there is a KVM that does not work, the daemon notices and emulates.)"
wait_for 180 "the disk" grep -q '127.0.0.1.nbd: connected' "$work/log"

fetch_kernel() { # compares what a client gets with what the board has
    rm -f "$work/fetched"
    curl --silent --show-error --max-time 180 --tftp-blksize 1428 --output "$work/fetched" \
        "tftp://127.0.0.1:$port/kernel8.img" || fail "curl could not fetch the kernel"
    (cd "$work" && sha256sum boot/kernel8.img fetched)
    cmp --silent "$work/boot/kernel8.img" "$work/fetched" || fail "what was fetched is not what is on the disk"
}

say "Fetching the kernel with curl, as the board's firmware would"
fetch_kernel

say "Nobody asks for five seconds: the disk is let go"
wait_for 60 "the disk to be let go" grep -q '127.0.0.1.nbd: let go' "$work/log"

say "The owner installs a new kernel on its disk; the next request gets that one, from a disk that is connected again"
head -c 8M /dev/urandom >"$work/boot/kernel8.img"
mcopy -o -i "$disk@@1M" "$work/boot/kernel8.img" ::
fetch_kernel

say "Stopping rtftp: it ends at once and leaves no process behind"
kill "${pids[1]}"
wait "${pids[1]}" || fail "rtftp ended with code $?"
unset 'pids[1]'
nothing_left() { ! pgrep --full -- "$work/" | grep --quiet --invert-match --line-regexp "${pids[0]}"; }
wait_for 10 "the end of all that rtftp had started" nothing_left
echo
echo "demo: success"
