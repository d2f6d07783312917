#!/usr/bin/env bash
# Prepares the current shell for building for $target: sets the environment of cargo and the array `build_std` of its arguments.
# Sourced by run.sh. Fails if no compiler for the target is available.
#
# Uses the compiler from rustup if it has the target. Otherwise uses Debian's compiler, whose source package contains the core
# library: unpacks its packages into the build directory and installs nothing.

build_std=()

use_debian_compiler() { # DIRECTORY
    local root=$1 std llvm required missing package
    if [ ! -e "$root/complete" ]; then
        std=$(apt-cache depends libstd-rust-web-dev | grep --only-matching 'libstd-rust-web-[0-9]\S*') || return
        llvm=$(apt-cache depends "$std" | grep --only-matching 'libllvm[0-9]\S*') || return
        required=(rustc-web rust-web-src libstd-rust-web-dev "$std" "$llvm" binutils-arm-none-eabi)
        # The libraries of these packages that this machine lacks, libz3-4 for example.
        missing=$(apt-get --simulate --no-install-recommends install "${required[@]}" | sed -n 's/^Inst \(\S*\) .*/\1/p') || return
        mkdir -p "$root/packages"
        (
            cd "$root/packages"
            printf '%s\n' "${required[@]}" $missing | sort --unique | xargs apt-get -qq download 2>&1
        ) || return
        for package in "$root"/packages/*.deb; do
            dpkg -x "$package" "$root" || return
        done
        rm -r "$root/packages"
        touch "$root/complete"
    fi
    export LD_LIBRARY_PATH=$root/usr/lib/$(uname -m)-linux-gnu RUSTC=$root/usr/bin/rustc
    # Building the core library is a feature of nightly compilers; this variable enables it in a stable one.
    export RUSTC_BOOTSTRAP=1
    # The compiler comes without a linker for the target.
    export CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER=$root/usr/bin/arm-none-eabi-ld
    build_std=(-Zbuild-std=core)
}

[ -d "$(rustc --print target-libdir --target "$target")" ] || use_debian_compiler "$CARGO_TARGET_DIR/compiler"
