#!/usr/bin/env bash
# Runs the tests that take longer than tests/run.sh, or only the named ones: tests/long.sh [TEST...]
# `tests/long.sh --list` lists them. They need root for Debian systems that they make, and ask for sudo. Ends with "PASSED" or "FAILED: TEST".
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/steps.sh

tests="
package        the Debian package: install, serve, upgrade, remove
package-arm    the packages for arm64 and armhf on emulated machines
releases       the packages of a release, built on Debian 11, on Debian 11 to 13 and Ubuntu 22.04 and 24.04
crates         the crates that would be published, built from their packages
bookworm       README, CONTRIBUTING and guides on a clean Debian 12
trixie         the same on a clean Debian 13
two-servers    200 boards boot while one of two servers fails: keepalived, anycast
kubernetes     the manifests for Kubernetes, rendered by kubectl and compared with its schemas
http-boot      PCs boot over HTTP and HTTPS: UEFI firmware, GRUB, iPXE, PXELINUX
vsock          a disk over nbd+vsock:// in a virtual machine
disk-boot      Debian, Rocky, openSUSE, U-Boot and signed images boot with generated menus
large-fleet    50,000 boards that boot, in the history, in rtftp status and on the page
board-disks    a board that does not mount its disk after a boot
etcd           clusters that lose members, and 10,000 descriptions of disks in etcd
power-cuts     hundreds of XFS and btrfs disks after a power cut, against Linux and GRUB; transfers from disks in use
stores         disks in qcow2, LVM-thin, Ceph, iSCSI, NVMe/TCP and volumes, behind NBD, before and after they fail over
safeguards     the simulation of disks with 10,000 seeds; and that it fails without each of thirteen safeguards
soak           ten minutes of all attacks at the same time
monitoring     promtool on metrics, alert rules and their tests
fuzz           each fuzz target for 10 minutes
"

package() { tests/package.sh; }
package-arm() { tests/package-arm.sh arm64 && tests/package-arm.sh armhf; }
releases() { tests/releases.sh; }
crates() { cargo package --quiet --locked --allow-dirty --workspace --exclude rtftp-tests; }
bookworm() { tests/clean-debian.sh bookworm; }
trixie() { tests/clean-debian.sh trixie; }
# Network namespaces need root.
two-servers() {
    bins/scripts/install-packages.sh keepalived iproute2 qemu-utils e2fsprogs
    [ "$(id -u)" = 0 ] || local -x CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=sudo CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=sudo
    cargo build --quiet --locked --workspace
    cargo test --quiet --locked -p rtftp-tests --test two_servers -- --ignored --nocapture --test-threads 1
}
kubernetes() { tests/kubernetes.sh; }
http-boot() {
    # That of Debian 12 has no HTTPS.
    [ "$(. /etc/os-release && echo "${VERSION_ID:-}")" = 12 ] || set -- ipxe
    boots http_boot "$@"
}
vsock() {
    local machine
    machine=$(dpkg --print-architecture)
    bins/scripts/install-packages.sh busybox e2fsprogs nbdkit xz-utils "linux-image-$machine" \
        "qemu-system-$([ "$machine" = amd64 ] && echo x86 || echo arm)" qemu-utils
    cargo build --quiet --locked --workspace
    cargo test --quiet --locked -p rtftp-tests --test vsock -- --ignored
}
disk-boot() {
    boots disk_boot dosfstools mtools xfsprogs btrfs-progs busybox xz-utils linux-image-amd64 sbsigntool systemd-boot-efi binutils \
        qemu-system-arm u-boot-qemu binutils-aarch64-linux-gnu
}
large-fleet() {
    bins/scripts/install-packages.sh nbdkit e2fsprogs chromium-headless-shell
    cargo build --quiet --locked --workspace
    cargo test --quiet --locked -p rtftp-tests --test large_fleet -- --ignored --nocapture fifty_thousand
}
board-disks() {
    local machine
    machine=$(dpkg --print-architecture)
    bins/scripts/install-packages.sh busybox dosfstools mtools e2fsprogs xfsprogs btrfs-progs xz-utils fdisk "linux-image-$machine" \
        "qemu-system-$([ "$machine" = amd64 ] && echo x86 || echo arm)" qemu-utils
    cargo build --quiet --locked --workspace
    cargo test --quiet --locked -p rtftp-tests --test board_disks -- --include-ignored
}
# Runs the ignored tests of a file that boots PCs: boots FILE PACKAGE...
boots() {
    if [ "$(dpkg --print-architecture)" != amd64 ]; then
        echo "not tested: the boot loaders are packaged for amd64 only"
        return
    fi
    bins/scripts/install-packages.sh qemu-system-x86 ipxe-qemu ovmf pxelinux syslinux-common grub-efi-amd64-bin grub-common \
        dnsmasq-base iproute2 qemu-utils fdisk e2fsprogs openssl gcc libc6-dev "${@:2}"
    # Network namespaces need root.
    [ "$(id -u)" = 0 ] || local -x CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=sudo
    cargo build --quiet --locked --workspace
    cargo test --quiet --locked -p rtftp-tests --test "$1" -- --ignored --test-threads 1
}
etcd() {
    bins/scripts/install-packages.sh etcd-server etcd-client
    cargo build --quiet --locked --workspace
    cargo test --quiet --locked -p rtftp-tests --test etcd -- --ignored --nocapture --test-threads 1
}
# Mounting images needs root.
power-cuts() {
    local names=(qemu-utils xfsprogs btrfs-progs fdisk busybox grub-common "linux-image-$(dpkg --print-architecture)")
    [ "$(dpkg --print-architecture)" != amd64 ] || names+=(qemu-system-x86)
    [ "$(dpkg --print-architecture)" = amd64 ] || names+=(qemu-system-arm)
    bins/scripts/install-packages.sh "${names[@]}"
    [ "$(id -u)" = 0 ] || local -x CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=sudo CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=sudo
    cargo build --quiet --locked --workspace
    # Each test has a virtual machine and disks in memory.
    cargo test --quiet --locked -p rtftp-tests --test power_cuts -- --ignored --nocapture --test-threads 2
}
stores() {
    local script
    cargo build --quiet --locked --workspace
    for script in qcow2 volumes lvm-thin ceph-rbd iscsi nvme-tcp; do "tests/stores/$script.sh"; done
}
safeguards() {
    bins/scripts/install-packages.sh xz-utils
    tests/safeguards.sh 10000
}
soak() {
    cargo build --quiet --locked --workspace
    SOAK_SECONDS=600 cargo test --quiet --locked -p rtftp-tests --test soak -- --nocapture
}
monitoring() {
    bins/scripts/install-packages.sh prometheus
    cargo build --quiet --locked --workspace
    cargo test --quiet --locked -p rtftp-tests --test metrics -- --ignored
}
fuzz() { fuzz/run.sh 600; }

run_steps "$tests" "$@"
