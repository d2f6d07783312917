#!/usr/bin/env bash
# Builds a Debian package: bins/pkg/package.sh [rtftp|rtftp-etcd|rtftp-guestfs] [ARCHITECTURE]
# ARCHITECTURE is that of this machine by default; with arm64, a PC builds rtftp for a Raspberry Pi.
# Installs missing Debian packages (only this asks for root). Prints the path of the package.
set -euo pipefail
cd "$(dirname "$0")/../.."

package=${1:-rtftp}
own=$(dpkg --print-architecture)
architecture=${2:-$own}
case $architecture in
amd64) target=x86_64-unknown-linux-gnu gnu=x86-64-linux-gnu ;;
arm64) target=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu ;;
*) echo "$0: expected amd64 or arm64, found $architecture" >&2; exit 2 ;;
esac

packages=(gcc libc6-dev dpkg-dev)
options=()
crate=(--package "$package")
variant=()
case $package in
rtftp) programs=(--bin rtftp --bin rtftp-get) ;;
rtftp-etcd)
    crate=(--package rtftp)
    programs=(--bin rtftp-etcd)
    variant=(--variant etcd)
    ;;
rtftp-guestfs)
    programs=(--bin rtftp-guestfs)
    packages+=(libguestfs-dev pkg-config)
    ;;
*) echo "$0: expected rtftp, rtftp-etcd or rtftp-guestfs, found $package" >&2; exit 2 ;;
esac
if [ "$architecture" != "$own" ]; then
    [ "$package" != rtftp-guestfs ] || { echo "$0: $package links libguestfs, so it can only be built on $architecture" >&2; exit 2; }
    packages+=("gcc-$gnu" "libc6-dev-$architecture-cross")
    options=(--target "$target")
    # The default linker only links for this machine.
    variable=${target//-/_}
    export "CARGO_TARGET_${variable^^}_LINKER=${gnu/x86-64/x86_64}-gcc"
    command -v rustup >/dev/null && rustup --quiet target add "$target" >&2
fi
bins/scripts/install-packages.sh "${packages[@]}" >&2

# If cargo-deb is not installed, builds it once, in the build directory.
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
PATH=$PATH:$tools/bin
if ! command -v cargo-deb >/dev/null; then
    echo "building cargo-deb, which takes some minutes" >&2
    CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --root "$tools" cargo-deb@3.8.0 >&2
    rm -rf "$tools/build"
fi

# In the package, README stands beside the guides. It links to them there; links to files that are not installed become text.
docs=${CARGO_TARGET_DIR:-$PWD/target}${options:+/$target}/release/docs
mkdir -p "$docs"
sed -E 's#\]\(bins/docs/#](#g; s#\[([^]]*)\]\((tests|[A-Z]+\.md)[^)]*\)#\1#g' README.md >"$docs/README.md"

cargo build --release --quiet --locked "${crate[@]}" "${programs[@]}" "${options[@]}"
cargo deb --no-build --quiet --locked "${crate[@]}" "${variant[@]}" "${options[@]}"
