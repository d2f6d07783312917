#!/usr/bin/env bash
# Proves that neither end of a transfer can panic on a Cortex-M4, and measures both. Then builds the firmware and runs it on an
# emulated board, where it fetches a file from the daemon with and without loss. Prints "NOT TESTED" if the target or the emulator
# is not available; everything else is an error.
set -euo pipefail
cd "$(dirname "$0")"
daemon=${CARGO_TARGET_DIR:-$PWD/../../target}/debug/rtftp
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}/firmware
target=thumbv7em-none-eabihf
# The longest run, in seconds: several losses in a row cause long timeouts.
deadline=120

not_tested() {
    echo "firmware: NOT TESTED: $*" >&2
    exit 0
}

[ -x "$daemon" ] || { echo "$daemon is missing: run cargo build first" >&2; exit 1; }
# Built for this machine, so before the shell is set up for the target.
cargo build --quiet --locked --package decode
decode=$CARGO_TARGET_DIR/debug/decode
source ./toolchain.sh || not_tested "no compiler for $target (rustup target add $target)"

build() { # PROFILE ARGUMENT...
    cargo build --quiet --locked --target $target "${build_std[@]}" --profile "$@"
}

# Prints "TEXT: NUMBER bytes". Fails if that is over the limit, which leaves some room over the figures in the core's README.
at_most() { # LIMIT NUMBER TEXT
    echo "firmware: $3: $2 bytes"
    [ "$2" -le "$1" ] || { echo "expected at most $1" >&2; exit 1; }
}

build proof --package footprint --features no-panic
echo "firmware: no panic is reachable in the sender and the receiver"
if output=$(build proof --package footprint --features no-panic,add-panic 2>&1); then
    echo "the proof is invalid: it builds with a panic" >&2
    exit 1
fi
grep --quiet panic_is_reachable <<<"$output" || { echo "$output" >&2; exit 1; }

# One after the other: only one of them builds the core with defmt.
build release --package footprint
build release --package firmware
programs=$CARGO_TARGET_DIR/$target/release
firmware=$programs/firmware
# The following programs are those of this machine.
unset LD_LIBRARY_PATH

# Prints the size of code, constants and initialised data, without those of a program that does nothing.
code() { # PROGRAM
    size "$programs/$1" "$programs/empty" | awk 'NR == 2 { bytes = $1 + $2 } NR == 3 { print bytes - $1 - $2 }'
}
# The compilers from rustup and from Debian differ by up to 2 KiB.
at_most 15360 "$(code sender)" "code of the sender"
at_most 12288 "$(code receiver)" "code of the receiver"

command -v qemu-system-arm >/dev/null || not_tested "qemu-system-arm is not installed"

work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

mkdir -p "$work/root/default"
head -c 1000003 /dev/urandom >"$work/root/default/image.bin"
# gzip ends with the CRC-32 of its input.
crc=$(gzip -1 -c "$work/root/default/image.bin" | tail -c 8 | od -An -tx4 -N4 --endian=little | tr -d ' ')

: >"$work/log"
"$daemon" --root-dir "$work/root" --listen-ip 127.0.0.1 --listen-port 0 2>>"$work/log" &
server=$!
# The daemon logs its port.
port=
for _ in {1..100}; do
    port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/log")
    [ -z "$port" ] || break
    sleep 0.1
done
[ -n "$port" ] || { echo "the daemon does not listen, its log:" >&2; cat "$work/log" >&2; exit 1; }

# Runs the board and prints its log as text.
board() { # FILE LOSS SEED
    # In QEMU's user network 10.0.2.2 is this host. It needs no privileges and no device.
    timeout "$deadline" qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none \
        -semihosting-config "enable=on,target=native,arg=$port,arg=$1,arg=$2,arg=$3" \
        -netdev user,id=net,ipv6=off -net nic,model=lan9118,netdev=net -kernel "$firmware" 2>>"$work/log" |
        "$decode" "$firmware"
}

# Checks that whole lines of the log match.
expect() { # LINE...
    local line
    for line; do
        if ! grep --quiet --line-regexp --regexp "$line" <<<"$log"; then
            echo "expected: $line" >&2
            echo "$log" >&2
            cat "$work/log" >&2
            exit 1
        fi
    done
}

fetches() { # LOSS SEED FRAMES-LOST
    local took
    log=$(board image.bin "$1" "$2") || { echo "$log" >&2; cat "$work/log" >&2; exit 1; }
    # The second line is a type of the core in defmt's format.
    expect "info requesting image\.bin" \
        "info options: RequestedOptions { blksize: Some(1428), windowsize: Some(4), timeout: None, tsize: true }" \
        "info received 1000003 bytes crc32 $crc" \
        "info took [0-9]* ms ([0-9]* kB/s), $3 frames lost, [0-9]* retransmissions"
    took=$(sed --quiet "s/^info took/took/p" <<<"$log")
    echo "firmware, $1 % loss: 1000003 bytes, correct, $took"
}

# Prints a number from the log of the last run.
number() { # BEFORE-IT
    sed --quiet "s/^info .*$1 \([0-9]*\) bytes.*/\1/p" <<<"$log"
}

fetches 0 1 0
at_most 448 "$(number "state: Sender")" "state of the sender"
at_most 720 "$(number "state: Receiver")" "state of the receiver"
at_most 1024 "$(number "stack: Sender")" "stack of the sender"
at_most 1536 "$(number "stack: Receiver")" "stack of the receiver"
at_most 32768 "$(number "stack: the whole program")" "stack of the whole program"
fetches 5 1 "[1-9][0-9]*"
fetches 5 2 "[1-9][0-9]*"

# The test must be able to fail.
if log=$(board missing.bin 0 1); then
    echo "received a missing file: $log" >&2
    exit 1
fi
expect "error PeerError(ErrorCode(1)) after 0 bytes"
echo "firmware: a missing file is reported"
