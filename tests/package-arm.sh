#!/usr/bin/env bash
# Builds the package for an ARM machine and runs its programs on an emulated one with Debian's kernel: tests/package-arm.sh [arm64|armhf]
# The daemon serves on port 69, rtftp-get fetches a file. Prints "package-arm: arm64: PASSED" at the end. Keeps what it downloads from Debian in
# the build directory. QEMU's user-mode emulation does not suffice: it does not implement openat2(2).
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/caller.sh
# Needs no root, except for installing packages.
if under_sudo; then
    as_caller "$PWD/tests/package-arm.sh" "$@"
    exit
fi

architecture=${1:-arm64}
case $architecture in
arm64) kernel=linux-image-arm64 machine=(qemu-system-aarch64 -M virt -cpu cortex-a72) ;;
armhf) kernel=linux-image-armmp machine=(qemu-system-arm -M virt -cpu cortex-a15) ;;
*) echo "$0: expected arm64 or armhf, found $architecture" >&2; exit 2 ;;
esac
say() { echo "package-arm: $architecture: $*"; }

bins/scripts/install-packages.sh qemu-system-arm cpio
package=$(bins/pkg/package.sh rtftp "$architecture")

pieces=${CARGO_TARGET_DIR:-$PWD/target}/package/$architecture
if [ ! -e "$pieces/complete" ]; then
    say "downloading a kernel and a C library"
    mkdir -p "$pieces"/{lists/partial,cache/archives/partial}
    # Package lists of its own: those of this machine stay unchanged.
    cat >"$pieces/apt.conf" <<END
APT { Architecture "$architecture"; Architectures "$architecture"; }
Dir { State::Lists "$pieces/lists"; Cache "$pieces/cache"; }
END
    export APT_CONFIG=$pieces/apt.conf
    apt-get -qq update
    kernel=$(apt-cache depends $kernel | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p')
    (cd "$pieces" && apt-get -qq download "$kernel" busybox-static libc6 libgcc-s1)
    unset APT_CONFIG
    touch "$pieces/complete"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg --extract "$pieces"/linux-image-*.deb "$work/kernel"
# The packages of newer releases have no files in /bin and /lib.
mkdir -p "$work"/root/usr/{bin,lib,sbin}
ln -s usr/{bin,lib,sbin} "$work/root/"
for deb in "$pieces"/{busybox-static,libc6,libgcc-s1}_*.deb "$package"; do
    dpkg --extract "$deb" "$work/root"
done
mkdir -p "$work"/root/{dev,proc,srv/tftp/default}
head -c 3000000 /dev/urandom >"$work/root/srv/tftp/default/file"
cat >"$work/root/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
ip link set lo up
rtftp --version
rtftp --root-dir /srv/tftp 2>&1 &
for _ in $(seq 100); do
    ! netstat -lun | grep -q ':69 ' || break
    sleep 0.1
done
rtftp-get 127.0.0.1 file --quiet --verify /srv/tftp/default/file
echo "rtftp-get: $?"
kill %1
wait %1
echo "rtftp: $?"
poweroff -f
END
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio --create --format=newc --quiet) >"$work/initrd"

# A machine that hangs would run for ever.
timeout 300 "${machine[@]}" -m 512 -nographic -nic none -no-reboot \
    -kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/initrd" -append "console=ttyAMA0 quiet panic=-1" |
    tr --delete '\r' >"$work/said" || { cat "$work/said" >&2; exit 1; }
for line in "rtftp $(dpkg-deb --field "$package" Version)" "rtftp-get: 0" "rtftp: 0"; do
    grep --quiet --fixed-strings --line-regexp "$line" "$work/said" ||
        { say "FAILED: no \`$line\` in:" >&2; cat "$work/said" >&2; exit 1; }
done
say "PASSED ($(basename "$package"), daemon of $(stat --format %s "$work/root/usr/bin/rtftp") bytes)"
