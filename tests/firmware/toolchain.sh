#!/usr/bin/env bash
# Makes the rest of this shell able to build for the target: sets what cargo reads, and the array `build_std` of its arguments.
# Sourced by run.sh, with `target` set. Fails when the target cannot be had.
#
# A compiler that rustup gave may have the target. If not, Debian's compiler comes with the sources of the core library: its
# packages are unpacked into the build directory, nothing is installed.

build_std=()

use_debian_compiler() { # DIRECTORY
    local root=$1 std llvm package
    if [ ! -e "$root/complete" ]; then
        std=$(apt-cache depends libstd-rust-web-dev | grep --only-matching 'libstd-rust-web-[0-9]\S*') || return
        llvm=$(apt-cache depends "$std" | grep --only-matching 'libllvm[0-9]\S*') || return
        mkdir -p "$root/packages"
        (
            cd "$root/packages"
            apt-get -qq download rustc-web rust-web-src libstd-rust-web-dev "$std" "$llvm" binutils-arm-none-eabi 2>&1
        ) || return
        for package in "$root"/packages/*.deb; do
            dpkg -x "$package" "$root" || return
        done
        rm -r "$root/packages"
        touch "$root/complete"
    fi
    export LD_LIBRARY_PATH=$root/usr/lib/$(uname -m)-linux-gnu RUSTC=$root/usr/bin/rustc
    # Building the core library is a feature of nightly compilers; this lets another one do it.
    export RUSTC_BOOTSTRAP=1
    # That compiler comes without a linker for the target.
    export CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER=$root/usr/bin/arm-none-eabi-ld
    build_std=(-Zbuild-std=core)
}

[ -d "$(rustc --print target-libdir --target "$target")" ] || use_debian_compiler "$CARGO_TARGET_DIR/compiler"
