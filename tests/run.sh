#!/usr/bin/env bash
# Runs all checks and tests, or only the named steps: tests/run.sh [STEP...]
# `tests/run.sh --list` lists the steps. Ends with "PASSED" or "FAILED: STEP".
# The first step, `packages`, installs what the others need; it is the only one that installs anything, and asks for sudo if needed.
# tests/long.sh runs the tests that take longer.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/steps.sh

# Incremental builds pay only when the same sources are built again.
export CARGO_INCREMENTAL=0
# Where virtual machines cannot use KVM, or /dev/kvm does not work, emulation always works.
export LIBGUESTFS_BACKEND=${LIBGUESTFS_BACKEND:-direct}
export LIBGUESTFS_BACKEND_SETTINGS=${LIBGUESTFS_BACKEND_SETTINGS:-force_tcg}

steps="
packages        installs what the other steps need
formatting      rustfmt
background      starts what the last steps wait for, in the idle time of the processors
clippy          clippy, without warnings
clippy-core     clippy for the core without features, and with all of them
dependencies    cargo deny: licences, vulnerabilities, duplicate versions
docs            rustdoc, without warnings
crates          cargo package: what would be published on crates.io
tests           unit tests and end-to-end tests
tftpd-hpa       rtftp-get with tftpd-hpa as its server
atftpd          rtftp-get with atftpd as its server
page            the status page in a browser
instructions    instruction counts of the core
freestanding    the core without std, allocator and panic
firmware        the core on an emulated board
oldest-compiler cargo check with the oldest compiler that Cargo.toml promises
fuzz            each fuzz target for 4 seconds
seeds           100,000 seeds of the simulation of disks
"

not_tested() { echo "not tested: $*"; }
oldest_version() { sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml; }
# Before all tests that run the programs: they find them in one directory, as users do.
build() { cargo build --quiet --locked --workspace; }

packages() {
    local names=(
        gcc g++ libc6-dev pkg-config                                      # for building
        libguestfs-dev "linux-image-$(dpkg --print-architecture)"         # libguestfs and its appliance
        nbdkit qemu-utils nbd-server                                      # NBD servers
        fdisk dosfstools mtools e2fsprogs xfsprogs btrfs-progs f2fs-tools xz-utils  # for making disks
        curl openssl tftp-hpa busybox atftp                               # clients, and keys for HTTPS
        dnsmasq-base python3                                              # a TFTP server and an HTTP server
        etcd-server etcd-client                                           # for rtftp-etcd
        iproute2                                                          # network namespaces
        tmux                                                              # a terminal for `rtftp status`
        qemu-system-arm                                                   # a board for the firmware
        valgrind                                                          # counts instructions
    )
    # Boot loaders of PCs are packaged for PCs only.
    [ "$(dpkg --print-architecture)" != amd64 ] || names+=(qemu-system-x86 ipxe-qemu)
    bins/scripts/install-packages.sh "${names[@]}"
    command -v cargo-fuzz >/dev/null || cargo install --quiet --locked cargo-fuzz
    # These need rustup and its server. Without them, the step oldest-compiler is not run, and firmware takes Debian's compiler.
    timeout 300 rustup toolchain install "$(oldest_version)" --profile minimal --no-self-update >/dev/null 2>&1 ||
        echo "rustup did not install Rust $(oldest_version)"
    timeout 300 rustup target add thumbv7em-none-eabihf >/dev/null 2>&1 ||
        echo "rustup did not install the target thumbv7em-none-eabihf"
}

formatting() {
    local manifest
    for manifest in Cargo.toml fuzz/Cargo.toml tests/freestanding/Cargo.toml tests/firmware/Cargo.toml; do
        cargo fmt --all --check --manifest-path "$manifest"
    done
}

check_with_oldest=(
    # In a directory of its own: each compiler would delete what the other one has built.
    env CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/oldest" CARGO_PROFILE_DEV_DEBUG=0
    cargo "+$(oldest_version)" check --quiet --locked --workspace --all-targets
)
build_fuzz_targets=(fuzz/run.sh build)
run_seeds=(
    env DISK_SIMULATION_SEEDS=100000
    timeout 1h cargo test --quiet --locked --profile simulation -p rtftp-runtime --lib disk::simulation::boards -- --nocapture
)

# The other steps often use one processor only, or wait.
background() {
    start fuzz "${build_fuzz_targets[@]}"
    ! has_oldest_compiler || start oldest-compiler "${check_with_oldest[@]}"
    start seeds "${run_seeds[@]}"
}

declare -A pids
log_of() { echo "${CARGO_TARGET_DIR:-target}/$1.log"; }
# Starts a job with the lowest priority: start JOB COMMAND...
start() {
    mkdir -p "${CARGO_TARGET_DIR:-target}"
    nice -n 19 "${@:2}" >"$(log_of "$1")" 2>&1 &
    pids[$1]=$!
}
# Waits for a job, which starts now if it was not started; prints its log if it fails: finish JOB COMMAND...
finish() {
    [ -n "${pids[$1]:-}" ] || start "$@"
    wait "${pids[$1]}" || { cat "$(log_of "$1")" >&2; return 1; }
}

seeds() {
    finish seeds "${run_seeds[@]}"
    grep ' seeds in ' "$(log_of seeds)"
}

clippy() { cargo clippy --quiet --locked --workspace --all-targets -- -D warnings; }
clippy-core() {
    cargo clippy --quiet --locked -p rtftp-core --all-targets -- -D warnings
    cargo clippy --quiet --locked -p rtftp-core --all-targets --all-features -- -D warnings
}

# RUSTUP_AUTO_INSTALL=0: do not download it here.
has_oldest_compiler() { RUSTUP_AUTO_INSTALL=0 rustc "+$(oldest_version)" --version >/dev/null 2>&1; }
oldest-compiler() {
    if has_oldest_compiler; then
        finish oldest-compiler "${check_with_oldest[@]}"
        echo "Rust $(oldest_version) compiles the workspace"
    else
        not_tested "Rust $(oldest_version) is not installed"
    fi
}

# cargo-deny takes minutes to build, so the step `packages` does not install it.
dependencies() {
    if ! command -v cargo-deny >/dev/null; then
        not_tested "cargo-deny is not installed"
        return
    fi
    cargo deny --locked check --hide-inclusion-graph licenses bans sources
    if cargo deny --locked fetch db >/dev/null 2>&1; then
        cargo deny --locked check advisories
    else
        not_tested "the database of vulnerabilities is not available"
    fi
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --workspace --all-features --no-deps; }

# tests/long.sh also builds what it packages.
crates() { cargo package --quiet --locked --allow-dirty --workspace --exclude rtftp-tests --no-verify; }

tests() {
    build
    cargo test --locked --workspace --no-fail-fast
}

# The packages of these servers start them and conflict with each other, so the step `packages` does not install them.
foreign_server() { # TEST PROGRAM START-OF-ITS-VERSION
    local version
    # With atftpd installed, in.tftpd is another name of it. `env` runs the program, not the function of that name below.
    version=$(env PATH="$PATH:/usr/sbin" "$2" --version 2>&1 || true)
    if [[ $version != "$3"* ]]; then
        not_tested "$1 is not installed"
    elif [ "$(id -u)" != 0 ]; then
        not_tested "$2 needs root"
    else
        build
        cargo test --quiet --locked -p rtftp-tests --test get -- --ignored --exact "$1"
    fi
}
tftpd-hpa() { foreign_server tftpd_hpa in.tftpd tftp-hpa; }
atftpd() { foreign_server atftpd atftpd atftp-; }

# A browser is too large for the step `packages`.
page() {
    if ! command -v chromium-headless-shell >/dev/null; then
        not_tested "chromium-headless-shell is not installed"
        return
    fi
    build
    cargo test --quiet --locked -p rtftp-tests --test page --test fleet -- --ignored
    cargo test --quiet --locked -p rtftp-tests --test large_fleet -- --ignored five_thousand
}

instructions() { cargo bench --quiet --locked -p rtftp-core --bench instructions; }
freestanding() { tests/freestanding/run.sh; }

firmware() {
    build
    tests/firmware/run.sh
}

fuzz() {
    finish fuzz "${build_fuzz_targets[@]}"
    fuzz/run.sh 4
}

run_steps "$steps" "$@"
