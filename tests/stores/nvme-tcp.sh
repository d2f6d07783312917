#!/usr/bin/env bash
# Boots a board from a disk behind NVMe/TCP, with the kernel as target and as initiator, exported by qemu-nbd: tests/stores/nvme-tcp.sh
# This happens in an emulated PC with Debian's kernel: an initiator connects again in the first network namespace only.
# Installs nvme-cli and the packages of common.sh, if they are missing; needs root.
source "$(dirname "$0")/common.sh"
begin nvme-cli
needs_debian_kernel "NVMe/TCP uses the network of this machine's kernel"
modprobe --all nvmet-tcp nvme-tcp

nqn=nqn.2026-11.org.example:board5
mountpoint --quiet /sys/kernel/config || mount -t configfs config /sys/kernel/config
address=10.0.0.9
ip address add "$address/32" dev lo
nvmet=/sys/kernel/config/nvmet
subsystem=$nvmet/subsystems/$nqn
port=$nvmet/ports/4420
clean_up() {
    nvme disconnect --nqn="$nqn" || true
    rm -f "$port/subsystems/$nqn"
    rmdir "$port" || true
    echo 0 >"$subsystem/namespaces/1/enable"
    rmdir "$subsystem/namespaces/1" "$subsystem" || true
} >"$work/nvme.log" 2>&1
trap clean_up EXIT

make_disk "$work/board5.img"
mkdir "$subsystem" "$subsystem/namespaces/1" "$port"
echo 1 >"$subsystem/attr_allow_any_host"
echo "$work/board5.img" >"$subsystem/namespaces/1/device_path"
echo 1 >"$subsystem/namespaces/1/buffered_io"
echo 1 >"$subsystem/namespaces/1/enable"
echo tcp >"$port/addr_trtype"
echo ipv4 >"$port/addr_adrfam"
echo $address >"$port/addr_traddr"
echo 4420 >"$port/addr_trsvcid"
ln -s "$subsystem" "$port/subsystems/$nqn"
nvme connect --transport=tcp --traddr=$address --trsvcid=4420 --nqn="$nqn" --reconnect-delay=1 >"$work/nvme.log" 2>&1
disk() { ls -d /sys/class/nvme/nvme*/nvme*n1 2>/dev/null | while read -r path; do
    ! grep --quiet --line-regexp "$nqn" "$path/../subsysnqn" || echo "/dev/$(basename "$path" | sed 's/c[0-9]*n/n/')"
done | grep .; }
wait_for 30 "disk of the initiator" disk
# Without the cache of this machine, the owner may be at any other one.
export_disk raw "$(disk)" --cache=none
serve nbd://127.0.0.1/board5
boot_and_upgrade

# The network to the target is interrupted.
ip address del "$address/32" dev lo
refused "target not reachable"
ip address add "$address/32" dev lo
recovers "$kernel_new" "target reachable again"
stop nbd
passed "NVMe/TCP, qemu-nbd --cache=none"
