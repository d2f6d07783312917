#!/bin/sh
# Stands in for rtftp-guestfs in the tests of client.rs; the name it is called by, that of a symbolic link, tells what goes wrong.

say() { printf "$1"; }
hello() { say 'H\0\0\0\021rtftp-guestfs\0\0\0\002'; }
# Reads the frame of the start request but for the description, and sets $emulate.
start() {
    dd bs=1 count=5 of=/dev/null 2>/dev/null
    emulate=$(dd bs=1 count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
    len=$(dd bs=1 count=4 2>/dev/null | od -An -tu1 | awk '{print $3 * 256 + $4}')
    dd bs=1 count="$len" 2>/dev/null >>"${0%/*}/folders"
    echo >>"${0%/*}/folders"
}
ready() { hello; start; say '1\0\0\0\0002\0\0\0\0003\0\0\0\0'; }
# Never ends by itself, whatever happens to stdin.
linger() { exec sleep 1000; }

# A child of the helper, as qemu is one; the test looks up whether it is gone.
sleep 1000 </dev/null >/dev/null 2>&1 &
echo "$!" >>"${0%/*}/children"

case ${0##*/} in
    silent) linger ;;
    garbage) say 'HTTP/1.1 200 OK' && linger ;;
    confused) say 'N\0\0\0\0' && linger ;;
    old) say 'H\0\0\0\021rtftp-guestfs\0\0\0\000' && linger ;;
    missing-library)
        echo "rtftp-guestfs: error while loading shared libraries: libguestfs.so.0: cannot open shared object file" >&2
        exit 127 ;;
    hung-server) hello; start; linger ;;
    lost)
        hello; start
        echo 'qemu-img: warning: nothing' >&2
        echo 'qemu-img: /tmp/x/overlay1.qcow2: Failed to connect: Connection refused' >&2
        echo 'libguestfs: closing' >&2
        say 'L\0\0\0\007no disk'; linger ;;
    hung-mount) hello; start; say '1\0\0\0\0002\0\0\0\000'; linger ;;
    broken-kvm)
        hello; start; say '1\0\0\0\000'
        [ "$emulate" = 1 ] && { say '2\0\0\0\0003\0\0\0\000'; exec cat >/dev/null; }
        echo '    -machine accel=kvm:tcg \' >&2; echo 'SeaBIOS' >&2; linger ;;
    slow-kvm)
        hello; start; say '1\0\0\0\000'
        echo '    -machine accel=kvm:tcg \' >&2
        echo '[    0.000000] Linux version 6.1' >&2
        for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 0.5; printf . >&2; done
        [ "$emulate" = 0 ] && say '2\0\0\0\0003\0\0\0\000'; exec cat >/dev/null ;;
    broken-both) hello; start; say '1\0\0\0\000L\0\0\0\010no start'; linger ;;
    endless-line)
        hello; start
        head -c 3000000 /dev/zero | tr '\0' x >&2
        say '1\0\0\0\0002\0\0\0\0003\0\0\0\000'; exec cat >/dev/null ;;
    hung-read) ready; linger ;;
    half-answer) ready; say 'D\0\0\001\000half'; linger ;;
    too-much) ready; say 'D\0\0\0\011123456789'; linger ;;
    dies) ready; exit 0 ;;
    works) ready; say 'O\0\0\0\014\0\0\0\007\0\0\0\0\0\0\0\003D\0\0\0\003abcE\0\0\0\003I/OC\0\0\0\000N\0\0\0\000F\0\0\0\001xT\0\0\0\014f\0\0\0\0\0\0\0\003\0\001a'; exec cat >/dev/null ;;
esac
