#!/usr/bin/env bash
# Boots a board from a clone of a golden image in Ceph (RBD), exported by qemu-nbd: tests/stores/ceph-rbd.sh
# Makes a cluster with one monitor and one OSD, which needs 2 GB of memory and disk space. The OSD is killed and started again.
# Installs ceph-mon, ceph-osd, ceph-common, qemu-block-extra and the packages of common.sh, if they are missing; needs root.
source "$(dirname "$0")/common.sh"
begin ceph-mon ceph-osd ceph-common qemu-block-extra uuid-runtime

fsid=$(uuidgen) osd=$(uuidgen)
export CEPH_CONF=$work/ceph.conf
cat >"$CEPH_CONF" <<END
[global]
fsid = $fsid
mon host = v2:127.0.0.1:3300
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
mon data = $work/mon
mon allow pool size one = true
mon osd min down reporters = 1
mon data avail crit = 1
osd data = $work/osd
osd objectstore = bluestore
osd class dir = $(dpkg --listfiles ceph-base ceph-osd | sed -n 's#/libcls_rbd.so$##p')
osd memory target = 939524096
bluestore block size = 2147483648
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
rbd default clone format = 2
run dir = $work
admin socket = $work/\$name.asok
pid file =
log to file = false
log to stderr = true
END
mkdir "$work/mon" "$work/osd"
monmaptool --create --fsid "$fsid" --addv a v2:127.0.0.1:3300 "$work/monmap" >"$work/monmaptool.log"
ceph-mon --mkfs -i a --monmap "$work/monmap" >"$work/mkfs.log" 2>&1
start mon ceph-mon -f -i a
wait_for 60 "monitor" timeout 10 ceph mon stat
ceph osd set-require-min-compat-client mimic >"$work/ceph.log" 2>&1
ceph osd new "$osd" >>"$work/ceph.log"
ceph-osd --mkfs -i 0 --osd-uuid "$osd" >>"$work/mkfs.log" 2>&1
start osd ceph-osd -f -i 0
is_up() { ceph osd stat --format json | jq --exit-status '.num_up_osds == 1'; }
wait_for 60 "OSD" is_up
ceph osd pool create boards >>"$work/ceph.log" 2>&1
rbd pool init boards

make_disk "$work/golden.img"
rbd import --no-progress "$work/golden.img" boards/golden
rbd snap create --no-progress boards/golden@1
rbd clone boards/golden@1 boards/board5
export_disk raw "rbd:boards/board5:conf=$CEPH_CONF"
serve nbd://127.0.0.1/board5
boot_and_upgrade
# The board at one NBD server, rtftp at another: librbd must not cache what rtftp reads.
second_server default raw "rbd:boards/board5:conf=$CEPH_CONF"
second_server writeback raw "rbd:boards/board5:conf=$CEPH_CONF:rbd_cache_policy=writeback"
second_server none raw "rbd:boards/board5:conf=$CEPH_CONF:rbd_cache_policy=writeback" --cache=none
outcomes+=("seen through a second NBD server: $default, with rbd_cache_policy=writeback $writeback, with --cache=none $none")

interrupt_transfer
stop osd KILL
start osd ceph-osd -f -i 0
transfer_ends "$kernel_new" "OSD killed and started again"
stop osd KILL
refused "OSD killed"
start osd ceph-osd -f -i 0
recovers "$kernel_new" "OSD started again"

# Another machine takes over the export.
stop nbd KILL
refused "NBD server killed"
export_disk raw "rbd:boards/board5:conf=$CEPH_CONF"
recovers "$kernel_new" "another NBD server has taken over"
passed "Ceph RBD clone, qemu-nbd"
