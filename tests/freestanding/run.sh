#!/usr/bin/env bash
# Proves that rtftp-core is no_std and allocation-free and that its protocol cannot panic: builds and runs a program that has
# neither std nor an allocator nor a way to panic, and checks that it does not build when one of them sneaks in.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}/freestanding

for profile in dev release; do
    cargo run --quiet --locked --profile "$profile"
    echo "freestanding ($profile): built without std and alloc, transferred a file"
done

cargo run --quiet --locked --release --features no-panic
echo "freestanding: no panic can be reached in the protocol, neither in the sender nor in the receiver"

must_not_build() { # FEATURES MESSAGE
    local said
    if said=$(cargo build --quiet --locked --release --features "$1" 2>&1); then
        echo "the proof proves nothing: it builds with $1" >&2
        return 1
    fi
    grep --quiet --fixed-strings "$2" <<<"$said" || { echo "$said" >&2; return 1; }
    echo "freestanding: does not build when $1, as it should be"
}
must_not_build alloc-sneaks-in "no global memory allocator found"
must_not_build std-sneaks-in "duplicate lang item"
must_not_build no-panic,panic-sneaks-in "a_panic_can_be_reached"
