#!/usr/bin/env bash
# Boots a board from an LVM-thin snapshot of a golden volume, exported by qemu-nbd: tests/stores/lvm-thin.sh
# Without dm-thin in the running kernel, this happens in an emulated PC with Debian's kernel.
# Installs lvm2, thin-provisioning-tools and the packages of common.sh, if they are missing; needs root.
source "$(dirname "$0")/common.sh"
begin lvm2 thin-provisioning-tools
needs_modules dm-thin-pool loop

# Neither the volume groups of this machine nor its udev take part.
export LVM_SYSTEM_DIR=$work/lvm LVM_SUPPRESS_FD_WARNINGS=1
activate() {
    device=$(losetup --find --show "$work/volumes")
    mkdir -p "$LVM_SYSTEM_DIR"
    cat >"$LVM_SYSTEM_DIR/lvm.conf" <<END
devices { use_devicesfile = 0 obtain_device_list_from_udev = 0 external_device_info_source = "none" filter = [ "a|^$device\$|", "r|.*|" ] }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
global { locking_dir = "$work/lvm" event_activation = 0 }
END
    [ $# = 0 ] || vgcreate --quiet "$1" "$device"
    vgchange --quiet --activate y
}
deactivate() {
    vgchange --quiet --activate n stores
    losetup --detach "$device"
}

make_disk "$work/golden.img"
truncate -s 400M "$work/volumes"
{
    activate stores
    lvcreate --type thin-pool --name pool --size 300M stores
    lvcreate --thin --name golden --virtualsize 64M stores/pool
    dd if="$work/golden.img" of=/dev/stores/golden bs=1M conv=fsync
    lvcreate --snapshot --setactivationskip n --name board5 stores/golden
} >"$work/lvm.log" 2>&1
export_disk raw /dev/stores/board5
serve nbd://127.0.0.1/board5
boot_and_upgrade

interrupt_transfer
stop nbd KILL
deactivate >>"$work/lvm.log" 2>&1
activate >>"$work/lvm.log" 2>&1
export_disk raw /dev/stores/board5
transfer_ends "$kernel_new" "volume group deactivated and activated"
stop nbd KILL
deactivate >>"$work/lvm.log" 2>&1
refused "NBD server killed, volume group deactivated"
activate >>"$work/lvm.log" 2>&1
export_disk raw /dev/stores/board5
recovers "$kernel_new" "volume group activated, NBD server started again"
cmp --silent "$work/golden.img" /dev/stores/golden || fail "the golden volume has changed"
stop nbd
deactivate >>"$work/lvm.log" 2>&1
passed "LVM-thin snapshot, qemu-nbd"
