#!/usr/bin/env bash
# Boots a board from an iSCSI disk of tgt, exported by qemu-nbd, which is the initiator: tests/stores/iscsi.sh
# Installs tgt, qemu-block-extra and the packages of common.sh, if they are missing; needs root.
source "$(dirname "$0")/common.sh"
begin tgt qemu-block-extra

export TGT_IPC_SOCKET=$work/tgt
target=iqn.2026-11.org.example:boards
admin() { tgtadm --lld iscsi "$@"; }
start_target() {
    start tgt tgtd --foreground --iscsi portal=127.0.0.1:3260
    wait_for 10 "target" admin --op show --mode target
    # The access comes last: an initiator finds all or nothing.
    admin --op new --mode target --tid 1 --targetname "$target"
    admin --op new --mode logicalunit --tid 1 --lun 1 --backing-store "$work/board5.img"
    admin --op bind --mode target --tid 1 --initiator-address ALL
}

make_disk "$work/board5.img"
start_target
export_disk raw "iscsi://127.0.0.1/$target/1"
serve nbd://127.0.0.1/board5
boot_and_upgrade
# The board at one NBD server, rtftp at another.
second_server seen raw "iscsi://127.0.0.1/$target/1"
outcomes+=("seen through a second NBD server: $seen")

interrupt_transfer
stop tgt KILL
start_target
transfer_ends "$kernel_new" "target killed and started again"

stop tgt KILL
refused "target killed"
start_target
recovers "$kernel_new" "target started again"
passed "iSCSI (tgt), qemu-nbd"
