#!/usr/bin/env bash
# Boots a board from a qcow2 overlay on a golden image, exported by qemu-nbd: tests/stores/qcow2.sh
# Installs qemu-utils and the packages of common.sh, if they are missing; needs root.
source "$(dirname "$0")/common.sh"
begin

make_disk "$work/golden.img"
for board in board5 board6; do
    qemu-img create -q -f qcow2 -F raw -b "$work/golden.img" "$work/$board.qcow2"
done
chmod a-w "$work/golden.img"
sum=$(sha256sum "$work/golden.img")

export_disk qcow2 "$work/board5.qcow2"
serve nbd://127.0.0.1/board5
boot_and_upgrade

interrupt_transfer
stop nbd KILL
export_disk qcow2 "$work/board5.qcow2"
transfer_ends "$kernel_new" "NBD server killed and started again"
stop nbd KILL
refused "NBD server killed"
export_disk qcow2 "$work/board5.qcow2"
recovers "$kernel_new" "NBD server started again"

# The other board on the same image still has the old kernel.
stop nbd
[ "$(sha256sum "$work/golden.img")" = "$sum" ] || fail "the golden image has changed"
export_disk qcow2 "$work/board6.qcow2"
recovers "$kernel_old" "overlay of another board"
passed "qcow2 overlay, qemu-nbd"
