#!/usr/bin/env bash
# Makes the Debian package and does with it what an administrator does, in a Debian of its own: installs it, has it serve on port 69
# with the rights that its units give, upgrades, removes and purges it. Ends with "package: PASSED".
# Needs root, for that Debian and for port 69 in a network of its own. The first run takes minutes, as it gets the Debian.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "package: it needs root" >&2; exit 1; }
PATH=$PATH:/usr/sbin:/sbin

bins/scripts/install-packages.sh debootstrap lintian mandoc man-db zsh fish systemd

say() { echo "package: $*"; }
fail() { echo "package: FAILED: $*" >&2; exit 1; }

say "manual pages and completions have no mistakes"
for page in bins/man/*; do
    said=$(mandoc -T lint -W warning "$page") || fail "$page: $said"
    said=$(LC_ALL=C.UTF-8 man --local-file --warnings "$page" 2>&1 >/dev/null)
    [ -z "$said" ] || fail "$page: $said"
done
for completion in bins/completions/_*; do zsh -n "$completion"; done
for completion in bins/completions/*.fish; do fish --no-execute "$completion"; done
said=$(fish --no-config --command 'source bins/completions/rtftp.fish; complete --do-complete "rtftp --log-level "' | cut -f 1)
[ "$(echo $said)" = "debug error info trace warn" ] || fail "fish offers for --log-level: $said"

say "the package is made, and is one"
package=$(bins/pkg/package.sh)
lintian --fail-on error,warning --no-tag-display-limit "$package" 2>/dev/null || fail "lintian has found the above"
version=$(dpkg-deb --field "$package" Version)
[ "$(sed -n '1s/.*(\(.*\)).*/\1/p' bins/pkg/debian/changelog)" = "$version" ] || fail "bins/pkg/debian/changelog does not begin with $version"

work=$(mktemp -d)
daemon=
clean_up() {
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
root=$work/root

debian=${CARGO_TARGET_DIR:-$PWD/target}/package/bookworm-$(dpkg --print-architecture).tar
if [ ! -e "$debian" ]; then
    say "getting a Debian, which takes minutes; it is kept in $debian"
    mkdir -p "$(dirname "$debian")"
    debootstrap --variant=minbase bookworm "$root" >"$work/log" 2>&1 || fail "debootstrap: $(tail -n 3 "$work/log")"
    tar --create --file "$work/debian.tar" --directory "$root" .
    mv "$work/debian.tar" "$debian"
    rm -rf "$root"
fi
mkdir "$root"
tar --extract --file "$debian" --directory "$root"
cp "$package" "$root/rtftp.deb"

# dpkg and the maintainer scripts, as in a container: there is no systemd.
in_debian() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
have() { [ -e "$root$1" ] || [ -L "$root$1" ] || fail "$2: $1 is missing"; }
have_not() { if [ -e "$root$1" ] || [ -L "$root$1" ]; then fail "$2: $1 is there"; fi; }
wanted=/etc/systemd/system/multi-user.target.wants/rtftp.service
wanted_socket=/etc/systemd/system/sockets.target.wants/rtftp.socket

say "installing it"
in_debian dpkg --install /rtftp.deb >"$work/log" 2>&1 || fail "$(cat "$work/log")"
[ "$(in_debian rtftp --version)" = "rtftp $version" ] || fail "this is not version $version"
size=$(stat --format %s "$root/usr/bin/rtftp")
[ "$size" -lt $((3 << 20)) ] || fail "the daemon has $size bytes, more than 3 MiB"
have /srv/tftp/default "after installation"
have $wanted "after installation"
have $wanted_socket "after installation"
in_debian bash -c '. /usr/share/bash-completion/completions/rtftp && complete -p rtftp' >"$work/log" || fail "no completion"

say "serving as its units do"
unit() { sed -n "s/^$2=//p" "$root/usr/lib/systemd/system/rtftp.$1"; }
user=$(unit service User)
port=$(unit socket ListenDatagram)
[ "$port" = 69 ] || fail "the socket unit opens $port"
echo hello >"$root/srv/tftp/default/hello"
# What systemd makes of the units, in a network with nothing but a loopback device: the socket is opened, and the first request starts
# the daemon, as a user that has no rights.
serve="set -a; $(unit service Environment); . /etc/default/rtftp; exec setpriv --reuid=$user --regid=$user --init-groups
    --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all $(unit service ExecStart)"
unshare --net sh -c 'ip link set lo up && exec systemd-socket-activate --datagram --listen="$1" chroot "$0" sh -c "$2"' \
    "$root" "$port" "$(echo $serve)" 2>"$work/log" &
daemon=$!
for _ in {1..100}; do
    ! grep --quiet 'Listening on .*:69' "$work/log" || break
    kill -0 $daemon 2>/dev/null || break
    sleep 0.1
done
fetch() { nsenter --net --target $daemon chroot "$root" rtftp-get "$1" hello --output - 2>"$work/get"; }
for address in 127.0.0.1 ::1; do
    [ "$(fetch $address)" = hello ] || fail "from $address: $(cat "$work/get" "$work/log")"
done
runs_as=$(awk '/^Uid:/ {print $2, $3, $4, $5}' /proc/$daemon/status | tr ' ' '\n' | sort --unique)
[ "$runs_as" = "$(in_debian id --user rtftp)" ] || fail "it runs as user $runs_as"
rights=$(awk '/^CapEff:/ {print $2}' /proc/$daemon/status)
[ "$rights" = 0000000000000000 ] || fail "it has the capabilities $rights"
kill $daemon
wait $daemon || fail "it ended with $?: $(cat "$work/log")"
daemon=

say "upgrading it"
echo 'RTFTP_OPTS="--log-level debug"' >"$root/etc/default/rtftp"
mv "$root/srv/tftp/default" "$root/srv/tftp/10.0.0.5"
rm "$root$wanted" "$root$wanted_socket"
in_debian dpkg --install /rtftp.deb >"$work/log" 2>&1 || fail "$(cat "$work/log")"
grep --quiet debug "$root/etc/default/rtftp" || fail "the upgrade lost the options"
have /srv/tftp/10.0.0.5/hello "after the upgrade"
have_not /srv/tftp/default "after the upgrade, though it had been taken away"
have_not $wanted "after the upgrade, though the service had been disabled"
have_not $wanted_socket "after the upgrade, though the socket had been disabled"

say "removing and purging it"
in_debian dpkg --remove rtftp >"$work/log" 2>&1 || fail "$(cat "$work/log")"
have_not /usr/bin/rtftp "after removal"
have /etc/default/rtftp "after removal"
have /srv/tftp/10.0.0.5/hello "after removal"
in_debian dpkg --purge rtftp >"$work/log" 2>&1 || fail "$(cat "$work/log")"
have /srv/tftp/10.0.0.5/hello "after the purge"
left=$(find "$root"/{etc,usr,var} -name '*rtftp*')
[ -z "$left" ] || fail "the purge left $left"

say "installing it again, where there is something to serve already"
in_debian dpkg --install /rtftp.deb >"$work/log" 2>&1 || fail "$(cat "$work/log")"
have_not /srv/tftp/default "in a directory of the administrator's"
have $wanted "after a new installation"

say "PASSED ($(basename "$package"), daemon of $size bytes)"
