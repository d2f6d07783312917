#!/usr/bin/env bash
# Proves that rtftp-core is no_std and allocation-free, that its protocol cannot panic, and that it depends on a JSON parser only
# with the feature `disk-config`: builds and runs a program with neither std nor an allocator nor a reachable panic, and checks
# that it does not build when one of them is added.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}/freestanding

for profile in dev release; do
    cargo run --quiet --locked --profile "$profile" --features disk-config
    echo "freestanding ($profile): transferred a file without std and alloc"
done

cargo run --quiet --locked --release --features no-panic
echo "freestanding: no panic is reachable in the sender and the receiver"

must_not_build() { # FEATURES MESSAGE
    local output
    if output=$(cargo build --quiet --locked --release --features "$1" 2>&1); then
        echo "the proof is invalid: it builds with $1" >&2
        return 1
    fi
    grep --quiet --fixed-strings "$2" <<<"$output" || { echo "$output" >&2; return 1; }
    echo "freestanding: does not build with $1"
}
must_not_build add-alloc "no global memory allocator found"
must_not_build add-std "duplicate lang item"
must_not_build no-panic,add-panic "panic_is_reachable"

# Prints the packages that this program is built from.
dependencies() { # ARGUMENT...
    cargo tree --quiet --locked --edges normal --prefix none "$@" | cut --delimiter ' ' --fields 1 | sort --unique
}
grep --quiet --line-regexp serde-json-core <<<"$(dependencies --features disk-config)" || {
    echo "the proof is invalid: no serde-json-core with disk-config" >&2
    exit 1
}
unexpected=$(dependencies | grep --invert-match --line-regexp --extended-regexp \
    'freestanding|rtftp-core|byteorder|hash32|heapless|memchr|nom|stable_deref_trait' || true)
[ -z "$unexpected" ] || { echo "dependencies of rtftp-core without disk-config:" $unexpected >&2; exit 1; }
echo "freestanding: without disk-config the core depends on heapless and nom only"
