#!/usr/bin/env bash
# Builds a Debian package, or the programs that need no C library: bins/pkg/package.sh [rtftp|rtftp-etcd|rtftp-guestfs|static] [ARCHITECTURE]
# ARCHITECTURE is that of this machine by default; with arm64, or armhf for 32 bits, a PC builds rtftp for a Raspberry Pi 2 or newer.
# Installs missing Debian packages (only this asks for root). Prints the path of the package, or of the tarball for `static`.
set -euo pipefail
cd "$(dirname "$0")/../.."

package=${1:-rtftp}
own=$(dpkg --print-architecture)
architecture=${2:-$own}
case $architecture in
amd64) target=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu ;;
arm64) target=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu ;;
armhf) target=armv7-unknown-linux-gnueabihf gnu=arm-linux-gnueabihf ;;
*) echo "$0: expected amd64, arm64 or armhf, found $architecture" >&2; exit 2 ;;
esac

packages=(gcc libc6-dev dpkg-dev)
options=()
crate=rtftp-server
variant=()
case $package in
rtftp) programs=(--bin rtftp --bin rtftp-get) ;;
rtftp-etcd) programs=(--bin rtftp-etcd) variant=(--variant etcd) ;;
rtftp-guestfs)
    crate=rtftp-guestfs
    programs=(--bin rtftp-guestfs)
    packages+=(libguestfs-dev pkg-config)
    ;;
static)
    target=${target/gnu/musl}
    programs=(--bins)
    ;;
*) echo "$0: expected rtftp, rtftp-etcd, rtftp-guestfs or static, found $package" >&2; exit 2 ;;
esac
if [ "$architecture" != "$own" ]; then
    [ "$package" != rtftp-guestfs ] || { echo "$0: $package links libguestfs, so it can only be built on $architecture" >&2; exit 2; }
    packages+=("gcc-${gnu/_/-}" "libc6-dev-$architecture-cross")
fi
if [ "$architecture" != "$own" ] || [ "$package" = static ]; then
    options=(--target "$target")
    # The default compiler and linker only work for this machine. Rust brings the C library of static programs.
    variable=${target//-/_}
    export "CARGO_TARGET_${variable^^}_LINKER=$gnu-gcc" "CC_$variable=$gnu-gcc"
    command -v rustup >/dev/null && rustup --quiet target add "$target" >&2
fi
bins/scripts/install-packages.sh "${packages[@]}" >&2

# If cargo-deb is not installed, builds it once, in the build directory.
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
PATH=$PATH:$tools/bin
if [ "$package" != static ] && ! command -v cargo-deb >/dev/null; then
    echo "building cargo-deb, which takes some minutes" >&2
    CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --root "$tools" cargo-deb@3.8.0 >&2
    rm -rf "$tools/build"
fi

cargo build --release --quiet --locked --package "$crate" "${programs[@]}" "${options[@]}"

# In the package, README stands beside the guides. It links to them there; links to files that are not installed become text.
built=${CARGO_TARGET_DIR:-$PWD/target}${options:+/$target}/release
docs=$built/docs
mkdir -p "$docs"
sed -E 's#\]\(bins/docs/#](#g; s#\[([^]]*)\]\((tests|[A-Z]+\.md)[^)]*\)#\1#g' README.md >"$docs/README.md"
bins/pkg/copyright.sh "$crate" "${options[@]}" >"$docs/copyright"

if [ "$package" != static ]; then
    cargo deb --no-build --quiet --locked --package "$crate" "${variant[@]}" "${options[@]}"
    exit
fi
name=rtftp-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)-$architecture
rm -rf "${built:?}/$name"
mkdir "$built/$name"
cp -r "$built"/{rtftp,rtftp-get,rtftp-etcd} "$docs"/{README.md,copyright} CHANGELOG.md LICENSE-* bins/{docs,man,completions} bins/pkg/systemd "$built/$name"
tar --create --gzip --owner 0 --group 0 --file "$built/$name.tar.gz" --directory "$built" "$name"
echo "$built/$name.tar.gz"
