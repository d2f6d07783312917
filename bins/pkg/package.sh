#!/usr/bin/env bash
# Makes a Debian package: bins/pkg/package.sh [rtftp|rtftp-guestfs] [ARCHITECTURE]
# ARCHITECTURE is that of this machine unless given; with arm64, rtftp is built for a Raspberry Pi on a PC.
# Installs what is missing (that alone asks for root), prints the path of the package.
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
case $package in
rtftp) ;;
rtftp-guestfs) packages+=(libguestfs-dev pkg-config) ;;
*) echo "$0: expected rtftp or rtftp-guestfs, found $package" >&2; exit 2 ;;
esac
if [ "$architecture" != "$own" ]; then
    [ "$package" = rtftp ] || { echo "$0: $package is built on $architecture itself: it links libguestfs" >&2; exit 2; }
    packages+=("gcc-$gnu" "libc6-dev-$architecture-cross")
    options=(--target "$target")
    # The linker of this machine makes programs of this machine only.
    variable=${target//-/_}
    export "CARGO_TARGET_${variable^^}_LINKER=${gnu/x86-64/x86_64}-gcc"
    command -v rustup >/dev/null && rustup --quiet target add "$target" >&2
fi
bins/scripts/install-packages.sh "${packages[@]}" >&2

# Where it is not installed it is built, once, into the build directory.
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
PATH=$PATH:$tools/bin
if ! command -v cargo-deb >/dev/null; then
    echo "building cargo-deb, which takes some minutes" >&2
    CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --root "$tools" cargo-deb@3.8.0 >&2
    rm -rf "$tools/build"
fi

cargo deb --quiet --locked --package "$package" "${options[@]}"
