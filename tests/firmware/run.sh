#!/usr/bin/env bash
# Proves that neither end of a transfer can panic on a Cortex-M4, and says what each takes. Then builds the firmware and has it
# fetch a file from the daemon, over a good link and over one that loses frames, on an emulated board. Says "not tested" where
# the target or the emulator cannot be had; any other trouble is an error.
set -euo pipefail
cd "$(dirname "$0")"
daemon=${CARGO_TARGET_DIR:-$PWD/../../target}/debug/rtftp
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}/firmware
target=thumbv7em-none-eabihf
# Seconds for one run: bad luck in a row makes the last retransmissions wait long.
deadline=120

not_tested() {
    echo "firmware: NOT TESTED: $*" >&2
    exit 0
}

[ -x "$daemon" ] || { echo "$daemon is missing: run cargo build first" >&2; exit 1; }
# For this machine, so before the shell is made to build for another.
cargo build --quiet --locked --package decode
decode=$CARGO_TARGET_DIR/debug/decode
source ./toolchain.sh || not_tested "there is no compiler for $target (rustup target add $target)"

build() { # PROFILE ARGUMENT...
    cargo build --quiet --locked --target $target "${build_std[@]}" --profile "$@"
}

# Says "TEXT: NUMBER bytes" and fails when that is more than the core's README lets expect.
at_most() { # LIMIT NUMBER TEXT
    echo "firmware: $3: $2 bytes"
    [ "$2" -le "$1" ] || { echo "expected at most $1: is that intended?" >&2; exit 1; }
}

build proof --package alone --features no-panic
echo "firmware: no panic can be reached in the sender or the receiver"
if said=$(build proof --package alone --features no-panic,panic-sneaks-in 2>&1); then
    echo "the proof proves nothing: it builds with a panic" >&2
    exit 1
fi
grep --quiet a_panic_can_be_reached <<<"$said" || { echo "$said" >&2; exit 1; }

# Not both at once: the core of the one has defmt.
build release --package alone
build release --package firmware
output=$CARGO_TARGET_DIR/$target/release
firmware=$output/firmware
# The programs below are the machine's own.
unset LD_LIBRARY_PATH

# Code, constants and what is initialised, without what a program that does nothing has.
code() { # PROGRAM
    size "$output/$1" "$output/empty" | awk 'NR == 2 { bytes = $1 + $2 } NR == 3 { print bytes - $1 - $2 }'
}
at_most 12288 "$(code sender)" "code of the sender"
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
# gzip ends with the CRC-32 of what went in.
crc=$(gzip -1 -c "$work/root/default/image.bin" | tail -c 8 | od -An -tx4 -N4 --endian=little | tr -d ' ')

# Before anybody looks into it.
: >"$work/log"
"$daemon" --root-dir "$work/root" --listen-ip 127.0.0.1 --listen-port 0 2>>"$work/log" &
server=$!
# The daemon says which port it got.
port=
for _ in {1..100}; do
    port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/log")
    [ -z "$port" ] || break
    sleep 0.1
done
[ -n "$port" ] || { echo "the daemon does not listen:" >&2; cat "$work/log" >&2; exit 1; }

# Writes the board's log as text.
board() { # FILE LOSS SEED
    # QEMU's user network takes the board's 10.0.2.2 for this host; it needs no rights and no device.
    timeout "$deadline" qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none \
        -semihosting-config "enable=on,target=native,arg=$port,arg=$1,arg=$2,arg=$3" \
        -netdev user,id=net,ipv6=off -net nic,model=lan9118,netdev=net -kernel "$firmware" 2>>"$work/log" |
        "$decode" "$firmware"
}

# Looks for whole lines of the log.
expect() { # LINE...
    local line
    for line; do
        if ! grep --quiet --line-regexp --regexp "$line" <<<"$said"; then
            echo "expected: $line" >&2
            echo "$said" >&2
            cat "$work/log" >&2
            exit 1
        fi
    done
}

fetches() { # LOSS SEED FRAMES-LOST
    local took
    said=$(board image.bin "$1" "$2") || { echo "$said" >&2; cat "$work/log" >&2; exit 1; }
    # The second line is a type of the core, as it tells of itself to defmt.
    expect "info asking for image\.bin" \
        "info options: RequestedOptions { blksize: Some(1428), windowsize: Some(4), timeout: None, tsize: true }" \
        "info received 1000003 bytes crc32 $crc" \
        "info took [0-9]* ms ([0-9]* kB/s), $3 frames lost, [0-9]* packets repeated"
    took=$(sed --quiet "s/^info took/took/p" <<<"$said")
    echo "firmware, $1 % loss: 1000003 bytes, right, $took"
}

# Finds a number in the log of the last run.
number() { # BEFORE-IT
    sed --quiet "s/^info .*$1 \([0-9]*\) bytes.*/\1/p" <<<"$said"
}

fetches 0 1 0
at_most 336 "$(number "state: Sender")" "state of the sender"
at_most 720 "$(number "state: Receiver")" "state of the receiver"
at_most 1024 "$(number "stack: Sender")" "stack of the sender"
at_most 1536 "$(number "stack: Receiver")" "stack of the receiver"
at_most 32768 "$(number "stack: the whole program")" "stack of the whole program"
fetches 5 1 "[1-9][0-9]*"
fetches 5 2 "[1-9][0-9]*"

# A verdict that is always "received" would prove nothing.
if said=$(board missing.bin 0 1); then
    echo "a file that is not there came: $said" >&2
    exit 1
fi
expect "error PeerError(ErrorCode(1)) after 0 bytes"
echo "firmware: a file that is not there is reported"
