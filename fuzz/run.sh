#!/usr/bin/env bash
# Builds the fuzz targets on stable Rust and gives each its corpus and a few seconds: fuzz/run.sh [SECONDS]
# What is found beyond the corpus is thrown away; a crash stays in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-5}

command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz
# The targets forbid unsafe code, so there is nothing for a sanitizer to find, and without one no nightly Rust is needed.
cargo fuzz build --fuzz-dir . --sanitizer none
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
for target in $(cargo fuzz list --fuzz-dir .); do
    mkdir "$found/$target"
    if ! cargo fuzz run --fuzz-dir . --sanitizer none "$target" "$found/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -timeout=5 >"$found/log" 2>&1; then
        cat "$found/log" >&2
        echo "fuzz: $target failed" >&2
        exit 1
    fi
    # libFuzzer's own last line: how many runs in how many seconds.
    echo "fuzz: $target: $(grep '^Done ' "$found/log")"
done
