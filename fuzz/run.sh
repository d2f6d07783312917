#!/usr/bin/env bash
# Builds the fuzz targets with stable Rust and runs each for some seconds, starting from its corpus: fuzz/run.sh [SECONDS]
# `fuzz/run.sh build` only builds them.
# Discards new inputs; keeps an input that crashes a target in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-5}

command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: run tests/run.sh packages" >&2; exit 1; }
# The targets contain no unsafe code, so a sanitizer would find nothing, and a build without one needs no nightly Rust.
cargo fuzz build --fuzz-dir . --sanitizer none
[ "$seconds" != build ] || exit 0
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT

run() { # TARGET
    mkdir "$found/$1"
    if ! cargo fuzz run --fuzz-dir . --sanitizer none "$1" "$found/$1" "corpus/$1" -- \
        -max_total_time="$seconds" -timeout=30 >"$found/$1.log" 2>&1; then
        cat "$found/$1.log" >&2
        echo "fuzz: $1 failed" >&2
        return 1
    fi
    # libFuzzer's last line: the number of runs and the time.
    echo "fuzz: $1: $(grep '^Done ' "$found/$1.log")"
}
export -f run
export found seconds
# Each runs on one processor.
cargo fuzz list --fuzz-dir . | xargs --max-procs "$(nproc)" --replace bash -c 'run {}'
