#!/usr/bin/env bash
# Demonstrates rtftp: exports a board's disk with an NBD server, and fetches the kernel from it with a TFTP client.
# With the argument `guestfs`, `/` is on F2FS, which rtftp reads through libguestfs and its virtual machine.
# Installs missing Debian packages (only this asks for root) and removes all its files. Ends with "demo: success" or "demo: FAILED: ...".
set -euo pipefail
case "$*" in
'' | guestfs) with=${1:-native} ;;
*) echo "Usage: $0 [guestfs]" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/../.."
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

wait_for() { # SECONDS EVENT COMMAND...: waits until the command succeeds
    local limit=$1 event=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        kill -0 "${pids[@]}" 2>/dev/null || fail "a program exited while the demo waited for $event"
        [ $SECONDS -lt $deadline ] || fail "timed out after $limit s waiting for $event"
        sleep 0.1
    done
}

packages=(qemu-utils fdisk dosfstools mtools e2fsprogs curl procps gcc libc6-dev)
crates=(-p rtftp-server)
if [ $with = guestfs ]; then
    packages+=(libguestfs-dev "linux-image-$(dpkg --print-architecture)" f2fs-tools pkg-config)
    crates+=(-p rtftp-guestfs)
fi

say "Installing missing packages: an NBD server, tools that create a disk, a TFTP client"
bins/scripts/install-packages.sh "${packages[@]}"

say "Building the daemon: the first time, this takes some minutes"
cargo build --release --locked "${crates[@]}"
binaries=${CARGO_TARGET_DIR:-target}/release

say "Creating the disk of a board: an MBR, /boot on vfat with an 8 MiB kernel, and /"
mkdir -p "$work/boot" "$work/root/boot" "$work/tftp"
head -c 8M /dev/urandom >"$work/boot/kernel8.img"
echo "console=serial0,115200 root=/dev/nbd0p2" >"$work/boot/cmdline.txt"
disk=$work/board.img
truncate -s 194M "$disk"
printf 'label: dos\n1 : start=1MiB, size=64MiB, type=c\n2 : start=65MiB, size=128MiB\n' |
    sfdisk --quiet --no-reread --no-tell-kernel "$disk"
mkfs.vfat --offset 2048 "$disk" 65536 >/dev/null 2>&1
mcopy -i "$disk@@1M" "$work/boot/"* ::
if [ $with = guestfs ]; then
    truncate -s 128M "$work/root.img"
    mkfs.f2fs -q "$work/root.img"
    sload.f2fs -f "$work/root" "$work/root.img" >"$work/sload.log"
    dd if="$work/root.img" of="$disk" bs=1M seek=65 conv=notrunc,sparse status=none
else
    mke2fs -q -t ext4 -d "$work/root" -E offset=$((65 << 20)) "$disk" 128M
fi
sfdisk --list --quiet "$disk"

say "Exporting the disk with qemu-nbd"
qemu-nbd --persistent --shared=0 --format=raw --export-name=board --socket="$work/nbd.sock" "$disk" 2>"$work/nbd.log" &
pids+=($!)
wait_for 10 "the NBD server" test -S "$work/nbd.sock"

say "Starting rtftp with an empty root directory, on an unprivileged port; its log follows"
"$binaries/rtftp" --listen-ip 127.0.0.1 --listen-port 0 --root-dir "$work/tftp" --view-gap 2 \
    --status-socket "$work/status.sock" --status-listen 0 2> >(tee "$work/log" >&2) &
pids+=($!)
wait_for 10 "the port" grep -q 'listening on 127.0.0.1:' "$work/log"
port=$(sed -n 's/.*listening on 127.0.0.1:\([0-9]*\).*/\1/p' "$work/log")
wait_for 10 "the status page" grep -q 'status page at ' "$work/log"
page=$(sed -n 's/.*status page at //p' "$work/log")

say "Describing the disk in 127.0.0.1.nbd: the daemon detects the new file and connects the disk"
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
[ $with = native ] || echo "(A virtual machine starts: this takes seconds with KVM, up to a minute without.)"
wait_for 180 "the disk" grep -q '127.0.0.1.nbd: connected' "$work/log"

fetch_kernel() { # and compare it with the one on the disk
    rm -f "$work/fetched"
    curl --silent --show-error --max-time 180 --tftp-blksize 1428 --output "$work/fetched" \
        "tftp://127.0.0.1:$port/kernel8.img" || fail "curl could not fetch the kernel"
    (cd "$work" && sha256sum boot/kernel8.img fetched)
    cmp --silent "$work/boot/kernel8.img" "$work/fetched" || fail "the fetched file differs from the one on the disk"
}

say "Fetching the kernel with curl, as the board's firmware does"
fetch_kernel

say "The board installs a new kernel on its disk and boots: it gets the new one"
head -c 8M /dev/urandom >"$work/boot/kernel8.img"
mcopy -o -i "$disk@@1M" "$work/boot/kernel8.img" ::
sleep 2 # --view-gap: after this pause, the next request is a new boot.
fetch_kernel

say "rtftp check: the description, the disk and the files that the board can fetch"
mkdir "$work/tftp/default"
"$binaries/rtftp" check "$work/tftp"

say "rtftp status: the boots of all boards, then those of this one, file by file"
"$binaries/rtftp" status --once --socket "$work/status.sock"
echo
"$binaries/rtftp" status --once --socket "$work/status.sock" 127.0.0.1

say "The status page shows the same in a browser, at $page while rtftp runs; its metrics for Prometheus begin with"
metrics=$(curl --silent --show-error --fail "${page}metrics") || fail "the status page does not answer"
grep --max-count 6 '^rtftp_' <<<"$metrics"

say "Stopping rtftp: it exits and leaves no process behind"
kill "${pids[1]}"
wait "${pids[1]}" || fail "rtftp ended with code $?"
unset 'pids[1]'
nothing_left() { ! pgrep --full -- "$work/" | grep --quiet --invert-match --line-regexp "${pids[0]}"; }
wait_for 10 "the exit of all processes of rtftp" nothing_left
echo
echo "demo: success"
