#!/usr/bin/env bash
# Sourced by the other scripts of this directory. Each of them makes a store with the disk of a board, exports it over NBD, and boots from
# it: before and after the owner of the disk installs a new kernel, while the store is away, and afterwards. They need root for mounts
# and network namespaces, and install Debian packages. RTFTP is the daemon, by default target/debug/rtftp; rtftp-get is beside it.
#
# A script calls `begin`, `make_disk`, starts its store and its NBD server, and calls `serve URL`, `boots`, `owner_installs`, `refused`
# and `passed`. The last two lines of the output are a row for the table of bins/docs/scaling.md and "stores: NAME: PASSED".
set -Eeuo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/caller.sh
PATH=$PATH:/usr/sbin:/sbin
store=$(basename "$0" .sh)
RTFTP=$(realpath "${RTFTP:-${CARGO_TARGET_DIR:-target}/debug/rtftp}")
export RTFTP

say() { echo "stores: $store: $*"; }
fail() {
    say "FAILED: $*"
    [ ! -e "$work/rtftp.log" ] || tail -n 20 "$work/rtftp.log"
    [ -z "${STORES_KERNEL:-}" ] || dmesg | tail -n 20
    exit 1
}
not_tested() { say "not tested: $*"; exit 0; }

# Installs packages, and continues in namespaces of its own: all ports are free, and all processes and mounts end with the script.
begin() { # PACKAGE...
    [ "$(id -u)" = 0 ] || exec sudo RTFTP="$RTFTP" "$PWD/tests/stores/$store.sh"
    if [ -z "${STORES_WORK:-}" ]; then
        [ -x "$RTFTP" ] || { say "FAILED: there is no $RTFTP; run cargo build --workspace"; exit 1; }
        bins/scripts/install-packages.sh qemu-utils libnbd-bin jq fdisk e2fsprogs fuse3 iproute2 mount "$@"
        work=$(mktemp -d)
        trap 'rm -rf --one-file-system "$work"' EXIT
        # In the emulated PC, all ports are free anyway.
        local net=--net
        [ -z "${STORES_KERNEL:-}" ] || net=
        STORES_WORK=$work unshare $net --mount --pid --fork --kill-child --mount-proc --propagation private \
            "$PWD/tests/stores/$store.sh" &
        trap "kill -KILL $!; exit 130" INT TERM
        wait $!
        exit
    fi
    work=$STORES_WORK
    trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
    ip link set lo up
}

# Continues in an emulated PC with Debian's kernel if the running one lacks modules.
needs_modules() { # MODULE...
    modprobe --all "$@" >"$work/modprobe.log" 2>&1 || needs_debian_kernel "this kernel has not all of $*"
}
# Continues in an emulated PC with Debian's kernel.
needs_debian_kernel() { # REASON
    [ -z "${STORES_KERNEL:-}" ] || return 0
    [ "$(dpkg --print-architecture)" = amd64 ] || not_tested "$1"
    say "$1: continuing with Debian's in an emulated PC"
    bins/scripts/install-packages.sh qemu-system-x86 linux-image-amd64 busybox cpio kmod
    TMPDIR=$work tests/stores/debian-kernel.sh "tests/stores/$store.sh"
    exit
}

wait_for() { # SECONDS EVENT COMMAND...
    local deadline=$((SECONDS + $1)) event=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || fail "no $event; see $(tail -n 5 "$work"/*.log)"
        sleep 0.1
    done
}

# Starts a program in the background, with its output in NAME.log and its number in the array `pids` as NAME.
declare -A pids=()
start() { # NAME COMMAND...
    local program=$1
    shift
    "$@" >>"$work/$program.log" 2>&1 </dev/null &
    pids[$program]=$!
}
stop() { # NAME [SIGNAL]
    kill -"${2:-TERM}" "${pids[$1]}"
    wait "${pids[$1]}" 2>/dev/null || true
    unset "pids[$1]"
}

kernel_old=
kernel_new=
# Makes a disk with GPT and ext4, and the kernel `old` on it.
make_disk() { # FILE
    kernel_old=$work/old kernel_new=$work/new
    mkdir -p "$work/tree/boot"
    head -c 4M /dev/urandom >"$kernel_old"
    head -c 5M /dev/urandom >"$kernel_new"
    cp "$kernel_old" "$work/tree/boot/vmlinuz"
    truncate -s 64M "$1"
    echo '1 : start=1MiB' | sfdisk --quiet --label gpt --no-reread --no-tell-kernel "$1"
    mke2fs -q -t ext4 -d "$work/tree" -E offset=1048576 "$1" 62M
}

# Exports a disk, which QEMU can open, on port 10809 as `board5`.
export_disk() { # FORMAT DISK [OPTION...]
    start nbd qemu-nbd --persistent --shared=0 --format="$1" --export-name=board5 --bind=127.0.0.1 "${@:3}" "$2"
    wait_for 60 "NBD server" nbdinfo --size nbd://127.0.0.1/board5
}

describe() { # URL
    echo "{\"url\": \"$1\", \"mounts\": [{\"partition\": 1, \"mountpoint\": \"/\"}], \"backend\": \"native\"}" >"$work/description"
    mv "$work/description" "$work/tftp/127.0.0.1.nbd"
}

# Describes the disk of the board and starts the daemon. It connects disks at the first request.
serve() { # URL
    url=$1
    multi_conn=$(nbdinfo --no-content --json "$url" | jq 'if .exports[0].can_multi_conn then "yes" else "no" end' --raw-output)
    say "CAN_MULTI_CONN: $multi_conn"
    mkdir -p "$work/tftp/default"
    describe "$url"
    start rtftp "$RTFTP" --root-dir "$work/tftp" --listen-ip 127.0.0.1 --view-gap 1 --monitor-configs false --status-socket none
    wait_for 30 "daemon" grep --quiet 'listening on 127.0.0.1:69' "$work/rtftp.log"
    "$RTFTP" check --json "$work/tftp" >"$work/check.json" || fail "rtftp check: $(cat "$work/check.json")"
}

request() { # a new boot, as a pause of --view-gap precedes it
    sleep 1.5
    rm -f "$work/fetched"
    "$(dirname "$RTFTP")/rtftp-get" 127.0.0.1 boot/vmlinuz --trace --output "$work/fetched" 2>"$work/trace"
}
# Prints the milliseconds from the request to the first block of the file.
first_data() { awk '/<- .* DATA 1,/ { printf "%.0f", $1 * 1000; exit }' "$work/trace"; }

# Boots once, and compares the kernel. Sets `latency`.
boots() { # KERNEL WHEN
    request || fail "$2: $(tail -n 1 "$work/trace")"
    cmp --silent "$1" "$work/fetched" || fail "$2: the board got another kernel than the one on its disk"
    latency="$(first_data) ms"
    say "$2: the board gets the kernel on its disk, the first block after $latency"
}

# What the board sees when the store fails over, for the table.
outcomes=()

# Boots once while the store is away: the board must be told that there is an error, but never that there is no file.
refused() { # WHEN
    local since=$SECONDS text
    ! request || fail "$1: the board got a file"
    text=$(sed -n 's/^rtftp-get: .*: ERROR 0 ([^)]*): //p' "$work/trace")
    [ -n "$text" ] || fail "$1: $(tail -n 1 "$work/trace")"
    text="after $((SECONDS - since - 1)) s ERROR 0, \"$text\""
    say "$1: the board gets $text"
    outcomes+=("$1: $text")
}

# Boots until the store is back: each answer is an error as above, or the right kernel.
recovers() { # KERNEL WHEN
    local since=$SECONDS text
    until request; do
        grep --quiet '^rtftp-get: .*: ERROR 0 (' "$work/trace" || fail "$2: $(tail -n 1 "$work/trace")"
        [ $((SECONDS - since)) -lt 180 ] || fail "$2: $(tail -n 1 "$work/trace")"
    done
    cmp --silent "$1" "$work/fetched" || fail "$2: the board got another kernel than the one on its disk"
    text="after $((SECONDS - since - 1)) s the kernel of its disk"
    say "$2: the board gets $text"
    outcomes+=("$2: $text")
}

# Starts a transfer and keeps it waiting in the middle, until `transfer_ends`.
interrupt_transfer() {
    mkfifo "$work/pipe"
    sleep 1.5
    # The client stops when the pipe with its trace is full.
    "$(dirname "$RTFTP")/rtftp-get" 127.0.0.1 boot/vmlinuz --trace --output "$work/interrupted" 2>"$work/pipe" &
    pids[transfer]=$!
    exec 9<"$work/pipe"
    grep --quiet --max-count 1 ' DATA 1,' <&9 || fail "no transfer started"
}
transfer_ends() { # KERNEL WHEN
    local text
    cat <&9 >"$work/interrupted.trace"
    if wait "${pids[transfer]}"; then
        cmp --silent "$1" "$work/interrupted" || fail "$2: a running transfer is complete, but wrong"
        text="a running transfer completes"
    else
        text=$(sed -n 's/^rtftp-get: .*: ERROR 0 ([^)]*): //p' "$work/interrupted.trace")
        [ -n "$text" ] || fail "$2: a running transfer: $(tail -n 1 "$work/interrupted.trace")"
        text="a running transfer ends with ERROR 0, \"$text\""
    fi
    exec 9<&-
    rm "$work/pipe"
    say "$2: $text"
    outcomes+=("$2: $text")
}

# Exports the disk a second time, read-only, for rtftp only. RESULT becomes `yes` or `no`: whether a boot sees what the owner then writes
# through the first server.
second_server() { # RESULT FORMAT DISK [OPTION...]
    local -n result=$1
    start second qemu-nbd --persistent --shared=0 --read-only --format="$2" --export-name=board5 --bind=127.0.0.1 --port=10810 "${@:4}" "$3"
    wait_for 60 "second NBD server" nbdinfo --size nbd://127.0.0.1:10810/board5
    describe nbd://127.0.0.1:10810/board5
    boots "$kernel_new" "second NBD server"
    owner_mounts
    owner_installs "$kernel_old"
    result=no
    if request; then
        ! cmp --silent "$kernel_old" "$work/fetched" || result=yes
        [ $result = yes ] || cmp --silent "$kernel_new" "$work/fetched" || fail "second NBD server: the board got neither kernel"
    fi
    say "second NBD server: the board gets the kernel that the owner installed: $result"
    owner_installs "$kernel_new"
    owner_unmounts
    stop second
    describe "$url"
}

# The owner: a Linux kernel that has the export mounted, as the board has it. It stays mounted.
owner_mounts() {
    mkdir -p "$work/nbd" "$work/mnt"
    start owner nbdfuse "$work/nbd/disk" "$url"
    wait_for 30 "disk of the owner" test -s "$work/nbd/disk"
    mount -o loop,offset=1048576,sizelimit=$((62 << 20)) "$work/nbd/disk" "$work/mnt"
}
# Installs the kernel as dpkg does.
owner_installs() { # KERNEL
    cp "$1" "$work/mnt/boot/vmlinuz.dpkg-new"
    sync "$work/mnt/boot/vmlinuz.dpkg-new"
    mv "$work/mnt/boot/vmlinuz.dpkg-new" "$work/mnt/boot/vmlinuz"
    sync "$work/mnt/boot"
}
owner_unmounts() {
    umount "$work/mnt"
    fusermount3 -u "$work/nbd"
    wait "${pids[owner]}" || true
    unset "pids[owner]"
}

# The part that all stores have in common, after `serve`: boots, an upgrade by the owner, and the next boot.
boot_and_upgrade() {
    boots "$kernel_old" "first boot, disk not connected"
    cold=$latency
    boots "$kernel_old" "second boot"
    warm=$latency
    owner_mounts
    owner_installs "$kernel_new"
    boots "$kernel_new" "boot after the owner installed a kernel"
    owner_unmounts
}

passed() { # ENGINE
    local IFS=';'
    echo "| $1 | $multi_conn | yes | $(sed 's/;/; /g' <<<"${outcomes[*]}") | $cold, $warm |"
    say PASSED
}
