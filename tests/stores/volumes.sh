#!/usr/bin/env bash
# Boots a board from a volume as Incus has them: tests/stores/volumes.sh
# One qemu-storage-daemon exports the volumes of all instances, each under the name of its instance, on a Unix socket.
# Installs qemu-utils and the packages of common.sh, if they are missing; needs root.
source "$(dirname "$0")/common.sh"
begin

volumes=$work/volumes
socket=$work/boards.sock
export_volumes() {
    local options=() board
    for board in board5 board6; do
        options+=(
            --blockdev "driver=file,node-name=$board,filename=$volumes/$board.img"
            --export "type=nbd,id=$board,node-name=$board,name=$board,writable=on"
        )
    done
    rm -f "$socket"
    start nbd qemu-storage-daemon --nbd-server "addr.type=unix,addr.path=$socket,max-connections=0" "${options[@]}"
    wait_for 30 "NBD server" nbdinfo --size "nbd+unix:///board5?socket=$socket"
}

mkdir "$volumes"
make_disk "$volumes/board5.img"
cp "$volumes/board5.img" "$volumes/board6.img"
export_volumes
serve "nbd+unix:///board5?socket=$socket"
boot_and_upgrade

interrupt_transfer
stop nbd KILL
export_volumes
transfer_ends "$kernel_new" "storage daemon killed and started again"
stop nbd KILL
refused "storage daemon killed"
export_volumes
recovers "$kernel_new" "storage daemon started again"
passed "volumes, qemu-storage-daemon on a Unix socket"
