#!/usr/bin/env bash
# Runs the commands of README and guides on a clean Debian, as a new user would: tests/clean-debian.sh bullseye|bookworm|trixie [COMMAND|--without-tests]
# Makes a minimal Debian with debootstrap, with an ordinary user who has sudo and the Rust of the calling user's rustup, and clones
# the committed state of this repository there. Runs every line of the ```sh blocks of README, CONTRIBUTING and guides, or only COMMAND,
# whose packages it keeps in clean-debian/SUITE of the build directory. --without-tests: all but the README's test command.
# Prints "clean-debian: SUITE: PASSED" at the end, and before it each command that cannot run there, with the reason.
#
# Needs root, for debootstrap and for mounts of its own. Takes the mirror, its keys and its settings from this machine's apt.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/caller.sh
suite=${1:?expected a Debian release: bullseye, bookworm or trixie}
command=${2:-}
without_tests=
[ "$command" != --without-tests ] || without_tests=yes command=
become_root "$0" "$@"
PATH=$PATH:/usr/sbin:/sbin

say() { echo "clean-debian: $suite: $*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

bins/scripts/install-packages.sh debootstrap git

kept=${CARGO_TARGET_DIR:-$PWD/target}/clean-debian
work=$(mktemp -d)
root=$work/root
trap 'rm -rf --one-file-system "$work"' EXIT
as_caller mkdir -p "$kept"

# What apt on this machine uses from Debian, one line each: URI, suite.
sources() {
    local own
    own=$(. /etc/os-release && echo "$VERSION_CODENAME")
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sed -n "s#^\(\S*/debian\S*\) $own\(\S*\) main\$#\1 $suite\2#p" | sort --unique
}

if [ ! -e "$kept/$suite.tar" ]; then
    say "making a minimal Debian, kept in $kept/$suite.tar"
    mirror=$(sources | sed -n "s/ $suite\$//p")
    [ -n "$mirror" ] || fail "apt knows no Debian mirror on this machine"
    debootstrap --variant=minbase --include=ca-certificates,sudo "$suite" "$root" "$mirror" >"$work/log" 2>&1 ||
        fail "debootstrap: $(tail -n 3 "$work/log")"
    sources | sed 's/^/deb /; s/$/ main/' >"$root/etc/apt/sources.list"
    tar --create --file "$work/debian.tar" --directory "$root" .
    mv "$work/debian.tar" "$kept/$suite.tar"
    rm -rf "$root"
fi
mkdir "$root"
tar --extract --file "$kept/$suite.tar" --directory "$root"

# The way of this machine to the network: proxies, certificates, names. A new user has these, too.
apt-config dump --no-empty --format '%F "%v";%n' Acquire | grep -E '^Acquire::(https?|Check-)' >"$root/etc/apt/apt.conf.d/10network" || true
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
printf '127.0.0.1 localhost %s\n10.0.0.1 nas nas1 nas2\n' "$(hostname)" >"$root/etc/hosts"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# Installing a package that brings certificates makes that file anew.
cp -L /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/" 2>/dev/null || true

# The user, with rustup as its installer leaves it: one toolchain, and no tools beside it.
user=newcomer
chroot "$root" useradd --create-home --shell /bin/bash $user
echo "$user ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$user"
home=$root/home/$user
caller_home=$(as_caller printenv HOME)
toolchain=$(as_caller rustup show active-toolchain | cut -d ' ' -f 1)
mkdir -p "$home"/.cargo/bin "$home"/.rustup/toolchains
cp -a "$caller_home"/.cargo/bin/{rustup,cargo,cargo-clippy,cargo-fmt,clippy-driver,rustc,rustdoc,rustfmt} "$home/.cargo/bin/"
cp "$caller_home/.cargo/config.toml" "$home/.cargo/" 2>/dev/null || true
cp "$caller_home/.rustup/settings.toml" "$home/.rustup/"
cp -a "$caller_home/.rustup/toolchains/$toolchain" "$home/.rustup/toolchains/"
sed -i "s/^default_toolchain.*/default_toolchain = \"$toolchain\"/" "$home/.rustup/settings.toml"

git clone --quiet --bare . "$work/repository.git"
git -C "$work/repository.git" log -1 --format='%h %s' | sed "s/^/clean-debian: $suite: commit /"
mv "$work/repository.git" "$root/repository.git"
chroot "$root" chown -R $user: /home/$user /repository.git

# What README's examples refer to, in a network of its own: the addresses, the NBD server `nas` with the disk of 10.0.0.5, files for all
# clients, the daemon with the permissions that its unit gives, and a boot of 10.0.0.5.
mkdir "$root/srv/disks"
cat >"$root/services.sh" <<'END'
set -e
ip link set lo up
ip address add 10.0.0.1/24 dev lo
ip address add 10.0.0.5/24 dev lo
[ "$1" = daemon ] || exit 0
cd /tmp
if [ ! -e /srv/disks/board5.img ]; then
    head -c 8M /dev/urandom >kernel8.img
    echo "arm_64bit=1" >config.txt
    truncate -s 66M disk.img
    echo '1 : start=1MiB, size=64MiB, type=c' | sfdisk --quiet disk.img
    mkfs.vfat --offset 2048 disk.img 65536
    mcopy -i disk.img@@1M kernel8.img config.txt ::
    mv disk.img /srv/disks/board5.img
    ln /srv/disks/board5.img /srv/disks/board5
    mkdir -p /srv/tftp/default/boot
    mkdir -p /srv/tftp/default/grub
    cp config.txt /srv/tftp/default/config.txt
    cp config.txt /srv/tftp/default/grub/grub.cfg
    cp kernel8.img /srv/tftp/default/vmlinuz
    cp kernel8.img /srv/tftp/default/boot/vmlinuz
    cp kernel8.img /srv/tftp/default/initrd.img
    cp kernel8.img ~newcomer/rtftp/initrd.img
fi
nbdkit file dir=/srv/disks
install -d -o rtftp -g rtftp /run/rtftp
setpriv --reuid rtftp --regid rtftp --init-groups --inh-caps +net_bind_service --ambient-caps +net_bind_service \
    rtftp --root-dir /srv/tftp --http 80 --status-listen 10.0.0.1:8080 2>/tmp/rtftp.log &
for _ in {1..100}; do
    ! rtftp status >/dev/null 2>&1 || break
    sleep 0.1
done
curl --silent --show-error --interface 10.0.0.5 --output /dev/null tftp://10.0.0.1/config.txt
END

# Runs a shell command as the user, in the home directory or the clone, in mount and process namespaces of its own.
# With SERVICES, in a network of its own, too, with what services.sh starts. Its processes end with the command.
# Not in a chroot: below one, the kernel refuses to make user namespaces, and a test needs one.
in_debian() { # COMMAND [SERVICES]
    unshare --mount --pid --fork --propagation private ${2:+--net} bash -c '
        set -e
        mount --bind "$0" "$0"
        mount -t proc proc "$0/proc"
        mount --rbind /sys "$0/sys"
        mount --rbind /dev "$0/dev"
        mkdir -p "$0/outside"
        cd "$0"
        pivot_root . outside
        umount --lazy /outside
        [ -z "$5" ] || env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin bash /services.sh "$5"
        exec env --ignore-environment "$3" HOME="/home/$1" USER="$1" LANG=C.UTF-8 SHELL=/bin/bash \
            PATH="/home/$1/.cargo/bin:/usr/local/bin:/usr/bin:/bin" \
            LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS="$4" \
            setpriv --reuid "$1" --regid "$1" --init-groups bash -c "cd; cd rtftp 2>/dev/null; $2"
    ' "$root" "$user" "$1" "RUSTUP_AUTO_INSTALL=${RUSTUP_AUTO_INSTALL:-1}" "${LIBGUESTFS_BACKEND_SETTINGS:-force_tcg}" "${2:-}" \
        </dev/null
}

# The lines of the ```sh blocks of a file, without their comments.
commands() { # FILE
    awk '/^```/ { block = $0 == "```sh"; next } block' "$1" | sed 's/ \+# .*//; /^#/d; /^$/d'
}

run() { # COMMAND
    local line=$1 services= since=$SECONDS
    case $line in
    *podman*)
        say "not run: $line (no container registry)"
        return
        ;;
    *https://boot.example.org*)
        say "not run: $line (that server does not exist)"
        return
        ;;
    *systemctl* | *systemd-sysusers* | *journalctl*)
        say "not run: $line (systemd is not running)"
        return
        ;;
    # The address of the page that shows the command.
    'git clone REPOSITORY'*) line="git clone --quiet /repository.git${line#git clone REPOSITORY}" ;;
    ./tests/run.sh) [ -z "$without_tests" ] || line="tests/run.sh packages" ;;
    # A script cannot answer questions.
    'sudo apt install'*) line="sudo apt-get install --quiet --quiet --yes${line#sudo apt install}" ;;
    target/release/rtftp*) line="timeout --signal INT --preserve-status 3 $line" services=network ;;
    *'status --follow'*) line="timeout --preserve-status 3 $line || [ \$? = 143 ]" services=daemon ;;
    *'rtftp status'* | *'rtftp check'* | rtftp-get*) services=daemon ;;
    esac
    say "\$ $line"
    in_debian "$line" $services >"$work/log" 2>&1 || { cat "$work/log"; fail "$line"; }
    { echo "\$ $line" && cat "$work/log"; } >>"$kept/$suite.log"
    tail -n 3 "$work/log" | sed 's/^/    /'
    say "took $((SECONDS - since)) s"
}

say "all output is in $kept/$suite.log"
: >"$kept/$suite.log"
# On an installed Debian the package lists exist.
run "sudo apt-get update"
if [ -n "$command" ]; then
    run "sudo apt install git curl build-essential"
    run "git clone REPOSITORY rtftp"
    run "$command"
    as_caller mkdir -p "$kept/$suite"
    cp "$home"/rtftp/target/debian/*.deb "$kept/$suite/" 2>/dev/null || true
else
    for file in README.md CONTRIBUTING.md bins/docs/*.md; do
        say "$file"
        while read -r line; do run "$line"; done < <(commands "$file")
    done
fi
say "PASSED"
