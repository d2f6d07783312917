#!/usr/bin/env bash
# Runs all checks and all tests: installs what they need, says what it does, ends with PASSED or FAILED.
set -euo pipefail
cd "$(dirname "$0")/.."

# Nothing is built twice from the same sources here, so keeping notes for that would only cost time and room.
export CARGO_INCREMENTAL=0
# Where a virtual machine cannot use KVM, or /dev/kvm is there and does not work, emulation always does.
export LIBGUESTFS_BACKEND=${LIBGUESTFS_BACKEND:-direct}
export LIBGUESTFS_BACKEND_SETTINGS=${LIBGUESTFS_BACKEND_SETTINGS:-force_tcg}

# libguestfs with its appliance; NBD servers; programs that make disks; TFTP clients; a TFTP server and the network it gets;
# a board for the firmware; a counter of instructions; what building takes.
packages=(
    libguestfs-dev "linux-image-$(dpkg --print-architecture)"
    nbdkit qemu-utils
    fdisk dosfstools mtools e2fsprogs btrfs-progs xz-utils
    curl tftp-hpa busybox atftp
    dnsmasq-base iproute2
    qemu-system-arm
    valgrind
    gcc g++ libc6-dev pkg-config
)

step= started=$SECONDS
trap '[ -z "$step" ] || echo "FAILED: $step"' EXIT

run() { # NAME COMMAND...
    step=$1
    shift
    local since=$SECONDS
    echo "=== $step"
    "$@"
    echo "--- $step: $((SECONDS - since)) s"
}

formatting() {
    local manifest
    for manifest in Cargo.toml fuzz/Cargo.toml tests/freestanding/Cargo.toml tests/firmware/Cargo.toml; do
        cargo fmt --all --check --manifest-path "$manifest"
    done
}

# That the oldest compiler which the manifest promises takes everything; there is no other way to know.
oldest_compiler() {
    local version
    version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if timeout 300 rustup toolchain install "$version" --profile minimal --no-self-update >/dev/null 2>&1; then
        # In a directory of its own: the two compilers would throw away what the other has built.
        CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/oldest CARGO_PROFILE_DEV_DEBUG=0 \
            cargo "+$version" check --quiet --locked --workspace --all-targets
        echo "Rust $version takes the workspace"
    else
        echo "not tested: Rust $version cannot be had from rustup"
    fi
}

# TFTP servers whose packages start them, and exclude each other: nothing to install on somebody's machine for a test.
foreign_server() { # TEST PROGRAM NAME-IN-ITS-VERSION
    local version
    # With atftpd installed, in.tftpd is another name of it.
    version=$(PATH=$PATH:/usr/sbin "$2" --version 2>&1 || true)
    if [[ $version != "$3"* ]]; then
        echo "not tested: $1 is not installed"
    elif [ "$(id -u)" != 0 ]; then
        echo "not tested: $2 wants to be root"
    else
        cargo test --quiet --locked -p rtftp-tests --test get -- --ignored --exact "$1"
    fi
}

# The page in a browser, which is too large to install on somebody's machine for a test.
page() {
    if ! command -v chromium-headless-shell >/dev/null; then
        echo "not tested: chromium-headless-shell is not installed"
    else
        cargo test --quiet --locked -p rtftp-tests --test page -- --ignored
    fi
}

run packages bins/scripts/install-packages.sh "${packages[@]}"
run formatting formatting
run clippy cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
# What no other package turns on.
run clippy-defmt cargo clippy --quiet --locked -p rtftp-core --all-targets --features defmt -- -D warnings
run oldest-compiler oldest_compiler
run docs env RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --all-features --no-deps
# Before the tests: they run the daemon and its helper as users do, from one directory.
run build cargo build --quiet --locked --workspace
run tests cargo test --locked --workspace --no-fail-fast
run tftpd-hpa foreign_server tftpd_hpa in.tftpd tftp-hpa
run atftpd foreign_server atftpd atftpd atftp-
run page page
run instructions cargo bench --quiet --locked -p rtftp-core --bench instructions
run freestanding tests/freestanding/run.sh
run firmware tests/firmware/run.sh
run fuzz fuzz/run.sh 5

step=
echo "PASSED in $((SECONDS - started)) s"
