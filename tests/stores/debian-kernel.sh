#!/usr/bin/env bash
# Runs a script of this directory in an emulated PC with Debian's kernel, for stores that the running kernel lacks:
# tests/stores/debian-kernel.sh SCRIPT. The PC has the files of this machine, and writes to its memory only.
set -euo pipefail
script=$(realpath "$1")
version=$(ls /lib/modules | sort --version-sort | tail -n 1)
[ -e "/boot/vmlinuz-$version" ]
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work"/root/{bin,modules,proc,sys,dev,host,memory,system}
cp /bin/busybox "$work/root/bin/"
ldd /bin/busybox | grep --only-matching '/[^ ]*' | cpio --quiet -pdL "$work/root"
number=100
for module in virtio_pci 9pnet_virtio 9p overlay; do
    while read -r _ file; do
        cp "$file" "$work/root/modules/$((number++))-$(basename "$file")"
    done < <(modprobe --set-version "$version" --show-depends "$module" | grep ^insmod)
done
cat >"$work/root/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod \$module 2>/dev/null; done
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host
mount -t tmpfs memory /memory
mkdir /memory/files /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/files,workdir=/memory/work system /system
mount -t proc proc /system/proc
mount -t sysfs sys /system/sys
mount -t devtmpfs dev /system/dev
mount -t tmpfs run /system/run
exec switch_root /system /bin/bash -c '
    export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin HOME=/root TMPDIR=/run STORES_KERNEL=debian RTFTP=$RTFTP
    modprobe --all fuse loop ext4
    $script </dev/null
    echo o >/proc/sysrq-trigger
    sleep 60'
END
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"
timeout 1800 qemu-system-x86_64 -machine q35 -accel tcg -cpu max -smp 2 -m 2G -nodefaults -no-user-config -display none \
    -kernel "/boot/vmlinuz-$version" -initrd "$work/initrd" -append "console=ttyS0 quiet loglevel=2 panic=-1 no_timer_check" -no-reboot -serial stdio \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap </dev/null | sed --unbuffered 's#\r##g' | tee "$work/output"
grep --quiet ': PASSED$' "$work/output"
