#!/usr/bin/env bash
# Builds the Debian package and uses it as an administrator does, in a Debian made for it: installs it, serves on port 69 with the
# rights that its units grant, upgrades, removes and purges it. Prints "package: PASSED" at the end. For packages that were built
# before, on another release of Debian or Ubuntu: tests/package.sh SUITE RTFTP.deb RTFTP-ETCD.deb
# Needs root, for that Debian and for port 69 in a network namespace, and restarts itself with sudo. The first run takes minutes,
# because it downloads that Debian.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/caller.sh
become_root "$PWD/tests/package.sh" "$@"
PATH=$PATH:/usr/sbin:/sbin

bins/scripts/install-packages.sh debootstrap iproute2 libcap2-bin lintian mandoc man-db zsh fish systemd

say() { echo "package: $*"; }
fail() { echo "package: FAILED: $*" >&2; exit 1; }

say "checking manual pages and completions"
for page in bins/man/*; do
    said=$(mandoc -T lint -W warning "$page") || fail "$page: $said"
    said=$(LC_ALL=C.UTF-8 man --local-file --warnings "$page" 2>&1 >/dev/null)
    [ -z "$said" ] || fail "$page: $said"
done
for completion in bins/completions/_*; do zsh -n "$completion"; done
for completion in bins/completions/*.fish; do fish --no-execute "$completion"; done
said=$(fish --no-config --command 'source bins/completions/rtftp.fish; complete --do-complete "rtftp --log-level "' | cut -f 1)
[ "$(echo $said)" = "debug error info trace warn" ] || fail "fish completes --log-level with: $said"

suite=${1:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
package=${2:-}
etcd_package=${3:-}
if [ -z "$package" ]; then
    say "building the packages"
    package=$(as_caller bins/pkg/package.sh)
    etcd_package=$(as_caller bins/pkg/package.sh rtftp-etcd)
fi
lintian --fail-on error,warning --no-tag-display-limit "$package" 2>/dev/null || fail "lintian: see above"
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

debian=${CARGO_TARGET_DIR:-$PWD/target}/package/$suite-$(dpkg --print-architecture).tar
if [ ! -e "$debian" ]; then
    say "downloading $suite, which takes minutes; kept in $debian"
    as_caller mkdir -p "$(dirname "$debian")"
    # adduser: the package depends on it, and not every minimal Debian has it.
    source=()
    # Debian has no keys of Ubuntu's packages; HTTPS authenticates the server. All releases of Ubuntu have one script.
    [[ $suite != jammy && $suite != noble ]] || source=(https://archive.ubuntu.com/ubuntu /usr/share/debootstrap/scripts/gutsy --no-check-gpg)
    debootstrap --variant=minbase --include=adduser "${source[@]:2}" "$suite" "$root" "${source[@]:0:2}" >"$work/log" 2>&1 || fail "debootstrap: $(tail -n 3 "$work/log")"
    tar --create --file "$work/debian.tar" --directory "$root" .
    mv "$work/debian.tar" "$debian"
    rm -rf "$root"
fi
mkdir "$root"
tar --extract --file "$debian" --directory "$root"
cp "$package" "$root/rtftp.deb"

# dpkg and the maintainer scripts run without systemd, as in a container.
in_debian() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
expect_present() { [ -e "$root$1" ] || [ -L "$root$1" ] || fail "$2: $1 is missing"; }
expect_absent() { if [ -e "$root$1" ] || [ -L "$root$1" ]; then fail "$2: $1 exists"; fi; }
wanted=/etc/systemd/system/multi-user.target.wants/rtftp.service
wanted_socket=/etc/systemd/system/sockets.target.wants/rtftp.socket

say "installing it"
in_debian dpkg --install /rtftp.deb >"$work/log" 2>&1 || fail "$(cat "$work/log")"
[ "$(in_debian rtftp --version)" = "rtftp $version" ] || fail "rtftp --version does not print $version"
size=$(stat --format %s "$root/usr/bin/rtftp")
# A third of it is TLS.
[ "$size" -lt $((7 << 20)) ] || fail "the daemon has $size bytes, more than 7 MiB"
expect_present /srv/tftp/default "after installation"
expect_present /usr/lib/systemd/system/rtftp-http.socket "after installation"
for wants in sockets.target rtftp.service; do
    expect_absent /etc/systemd/system/$wants.wants/rtftp-http.socket "after installation, although it is off by default"
done
expect_present $wanted "after installation"
expect_present $wanted_socket "after installation"
in_debian bash -c '. /usr/share/bash-completion/completions/rtftp && complete -p rtftp' >"$work/log" || fail "no completion"

say "checking the links of the installed documentation"
for file in "$root"/usr/share/doc/rtftp/*.md; do
    while read -r link; do
        [ -e "$(dirname "$file")/$link" ] || fail "$(basename "$file") links to $link, which is not installed"
    done < <(grep --only-matching --perl-regexp '\]\(\K[^)#]+' "$file" | grep --invert-match --extended-regexp '^(https?|mailto):')
done

say "checking the units"
mkdir "$work/units"
cp "$root"/usr/lib/systemd/system/rtftp* "$work/units"
# Only the program and the manual page are missing here.
sed -i -e 's#^ExecStart=/usr/bin/rtftp#ExecStart=/bin/true#' -e /^Documentation=/d "$work"/units/*
said=$(systemd-analyze verify "$work"/units/* 2>&1) && [ -z "$said" ] || fail "systemd-analyze: $said"
[ "$(sed -n 's/^Service=//p' "$work/units/rtftp-http.socket")" = rtftp.service ] || fail "rtftp-http.socket starts another service"

say "serving as its units do"
unit() { sed -n "s/^$2=//p" "$root/usr/lib/systemd/system/rtftp.$1"; }
user=$(unit service User)
port=$(unit socket ListenDatagram)
[ "$port" = 69 ] || fail "the socket unit opens $port"
echo hello >"$root/srv/tftp/default/hello"
# As systemd does with the units, in a network namespace with a loopback device only: opens the socket, and at the first request
# starts the daemon, as a user without capabilities. Before Debian 12, setpriv needs /proc.
serve="set -a; $(unit service Environment); . /etc/default/rtftp; exec setpriv --reuid=$user --regid=$user --init-groups
    --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all $(unit service ExecStart)"
unshare --net --mount sh -c 'ip link set lo up && mount -t proc proc "$0/proc" &&
    exec systemd-socket-activate --datagram --listen="$1" chroot "$0" sh -c "$2"' \
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

say "serving as its container does, without the right to open port 69"
# As the Containerfile does, with the tools of this machine; the user exists already, under another number.
recipe=bins/pkg/Containerfile
id=$(sed -n 's/^USER \([0-9]*\):.*/\1/p' $recipe)
in_debian sh -c "$(sed -n 's#^    && \(install --directory.*\) \\$#\1#p' $recipe)"
chown "$id" "$root/run/rtftp"
setcap "$(sed -n 's#.* setcap \([^ ]*\) /usr/bin/rtftp.*#\1#p' $recipe)" "$root/usr/bin/rtftp"
read -ra command <<<"$(sed -n 's/^ENTRYPOINT \[\(.*\)\]/\1/p' $recipe | tr -d '",')"
in_container=(chroot "$root" setpriv --reuid="$id" --regid="$id" --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs)
unshare --net --mount sh -c 'ip link set lo up && mount -t proc proc "$0/proc" && exec "$@"' "$root" "${in_container[@]}" "${command[@]}" --listen-port 6969 2>"$work/log" &
daemon=$!
for _ in {1..100}; do
    ! grep --quiet 'listening on .*:6969' "$work/log" || break
    kill -0 $daemon 2>/dev/null || break
    sleep 0.1
done
[ "$(fetch 127.0.0.1:6969)" = hello ] || fail "in the container: $(cat "$work/get" "$work/log")"
nsenter --mount --target $daemon "${in_container[@]}" rtftp status >"$work/status" 2>&1 || fail "rtftp status in the container: $(cat "$work/status")"
grep --quiet 'hello complete' "$work/status" || fail "rtftp status in the container prints: $(cat "$work/status")"
kill $daemon
wait $daemon || fail "in the container it ended with $?: $(cat "$work/log")"
daemon=

say "upgrading it"
echo 'RTFTP_OPTS="--log-level debug"' >"$root/etc/default/rtftp"
mv "$root/srv/tftp/default" "$root/srv/tftp/10.0.0.5"
rm "$root$wanted" "$root$wanted_socket"
in_debian dpkg --install /rtftp.deb >"$work/log" 2>&1 || fail "$(cat "$work/log")"
grep --quiet debug "$root/etc/default/rtftp" || fail "the upgrade lost the options"
expect_present /srv/tftp/10.0.0.5/hello "after the upgrade"
expect_absent /srv/tftp/default "after the upgrade, although it had been removed"
expect_absent $wanted "after the upgrade, although the service had been disabled"
expect_absent $wanted_socket "after the upgrade, although the socket had been disabled"

say "removing and purging it"
in_debian dpkg --remove rtftp >"$work/log" 2>&1 || fail "$(cat "$work/log")"
expect_absent /usr/bin/rtftp "after removal"
expect_present /etc/default/rtftp "after removal"
expect_present /srv/tftp/10.0.0.5/hello "after removal"
in_debian dpkg --purge rtftp >"$work/log" 2>&1 || fail "$(cat "$work/log")"
expect_present /srv/tftp/10.0.0.5/hello "after the purge"
left=$(find "$root"/{etc,usr,var} -name '*rtftp*')
[ -z "$left" ] || fail "the purge left $left"

say "installing it again, with an existing /srv/tftp"
in_debian dpkg --install /rtftp.deb >"$work/log" 2>&1 || fail "$(cat "$work/log")"
expect_absent /srv/tftp/default "in the existing /srv/tftp"
expect_present $wanted "after a new installation"

say "installing rtftp-etcd"
lintian --fail-on error,warning --no-tag-display-limit "$etcd_package" 2>/dev/null || fail "lintian: see above"
cp "$etcd_package" "$root/rtftp-etcd.deb"
in_debian dpkg --install /rtftp-etcd.deb >"$work/log" 2>&1 || fail "$(cat "$work/log")"
[ "$(in_debian rtftp-etcd --version)" = "rtftp-etcd $version" ] || fail "rtftp-etcd --version does not print $version"
in_debian id --user rtftp-etcd >/dev/null || fail "the user rtftp-etcd is missing"
expect_absent /etc/systemd/system/multi-user.target.wants/rtftp-etcd.service "after installation, although it is off by default"
cp "$root/usr/lib/systemd/system/rtftp-etcd.service" "$work/units"
sed -i -e 's#^ExecStart=/usr/bin/rtftp-etcd#ExecStart=/bin/true#' -e /^Documentation=/d "$work/units/rtftp-etcd.service"
said=$(systemd-analyze verify "$work/units/rtftp-etcd.service" 2>&1) && [ -z "$said" ] || fail "systemd-analyze: $said"
in_debian dpkg --purge rtftp-etcd >"$work/log" 2>&1 || fail "$(cat "$work/log")"
left=$(find "$root"/{etc,usr,var} -name '*rtftp-etcd*')
[ -z "$left" ] || fail "the purge of rtftp-etcd left $left"

say "PASSED ($(basename "$package") on $suite, daemon of $size bytes)"
