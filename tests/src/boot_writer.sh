# Upgrades the boot files below the current directory again and again, as packages do: SEED FIRST-VERSION LAST-VERSION SECONDS
# Runs in dash and in busybox. Contents name the file and its version, so that no two versions are equal.
seed=$1 version=$2 last=$3 end=$(($(date +%s) + $4))

# Sets `n` to a number below $1.
random() {
    seed=$(((seed * 1103515245 + 12345) & 0x7fffffff))
    n=$(((seed >> 8) % $1))
}
content() { yes "$1 version $version" | head -c "$2"; }

step() {
    mkdir -p boot many lib/modules/$version
    # Like dpkg and rpm: a temporary name, a flush, a rename.
    for name in vmlinuz initrd.img System.map config; do
        case $name in config) random 300 ;; System.map) random 100000 ;; *) random 1500000 ;; esac
        size=$((n + 1))
        for target in $name-$version $name; do
            content $name $size >boot/$target.tmp
            sync boot/$target.tmp
            mv boot/$target.tmp boot/$target
            random 2
            [ $n = 0 ] || sync boot
        done
    done
    ln -s vmlinuz-$version boot/latest.new
    mv boot/latest.new boot/latest
    random 900
    ln -sfn "$(content x/ $((n + 2)) | tr -d '\n')" long
    random 2
    [ $n = 0 ] || cp --reflink=auto boot/vmlinuz boot/vmlinuz.bak

    # Modules: many small files that are not flushed.
    random 120
    count=$((n + 20))
    while [ $count -gt 0 ]; do
        random 3000
        printf "%0$((n + 1))d" $version >lib/modules/$version/driver-with-a-rather-long-name-$count.ko
        count=$((count - 1))
    done
    ln -f lib/modules/$version/driver-with-a-rather-long-name-3.ko lib/modules/$version/alias.ko

    # Rewritten in place; appended to; sparse; truncated; two files whose blocks alternate.
    random 9000
    content grub.cfg $((n + 500)) >boot/grub.cfg
    random 2
    [ $n = 0 ] || sync boot/grub.cfg
    content log 777 >>log
    for count in 1 2 3; do
        random 2000
        content sparse 4096 | dd of=sparse bs=4096 seek=$((n * 2)) conv=notrunc 2>/dev/null
    done
    random 100000
    truncate -s $n truncated
    random 300
    at=$n
    for count in 1 2 3 4 5 6 7 8; do
        for name in pieces more-pieces; do
            content $name 4096 | dd of=$name bs=4096 seek=$((at + count * 2)) conv=notrunc 2>/dev/null
            sync $name
        done
    done

    # Names come and go in a large directory.
    random 300
    count=$((n + 100))
    while [ $count -gt 0 ]; do
        random 60
        printf %s $version >"many/$(printf "%0$((n + 8))d" $count)-$version"
        count=$((count - 1))
    done
    removed=
    for name in many/*; do
        random 4
        [ $n != 0 ] || removed="$removed $name"
    done
    rm -f $removed
    rm -rf boot/*-$((version - 3)) lib/modules/$((version - 3))
    random 4
    [ $n != 0 ] || sync
}

while [ $version -le $last ] && [ "$(date +%s)" -lt $end ]; do
    step
    version=$((version + 1))
done
