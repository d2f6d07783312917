#!/usr/bin/env bash
# Runs the commands of README and guides on a clean Debian, as a new user would: tests/clean-debian.sh bookworm|trixie [COMMAND]
# Makes a minimal Debian with debootstrap, with an ordinary user who has sudo and the Rust of the calling user's rustup, and clones
# the committed state of this repository there. Runs every line of the ```sh blocks of README and guides, or only COMMAND.
# Prints "clean-debian: SUITE: PASSED" at the end, and before it each command that cannot run there, with the reason.
#
# Needs root, for debootstrap and for mounts of its own. Takes the mirror, its keys and its settings from this machine's apt.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/caller.sh
suite=${1:?expected a Debian release: bookworm or trixie}
command=${2:-}
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
echo "127.0.0.1 localhost $(hostname)" >"$root/etc/hosts"
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

# Runs a shell command as the user, in the home directory or the clone, in mount and process namespaces of its own.
# Not in a chroot: below one, the kernel refuses to make user namespaces, and a test needs one.
in_debian() { # COMMAND
    unshare --mount --pid --fork --propagation private bash -c '
        mount --bind "$0" "$0"
        mount -t proc proc "$0/proc"
        mount --rbind /sys "$0/sys"
        mount --rbind /dev "$0/dev"
        mkdir -p "$0/outside"
        cd "$0"
        pivot_root . outside
        umount --lazy /outside
        exec env --ignore-environment "$3" HOME="/home/$1" USER="$1" LANG=C.UTF-8 SHELL=/bin/bash \
            PATH="/home/$1/.cargo/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games" \
            LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS="$4" \
            setpriv --reuid "$1" --regid "$1" --init-groups bash -c "cd; cd rtftp 2>/dev/null; $2"
    ' "$root" "$user" "$1" "RUSTUP_AUTO_INSTALL=${RUSTUP_AUTO_INSTALL:-1}" "${LIBGUESTFS_BACKEND_SETTINGS:-force_tcg}" </dev/null
}

# The lines of the ```sh blocks of a file, without their comments.
commands() { # FILE
    awk '/^```/ { block = $0 == "```sh"; next } block' "$1" | sed 's/ \+# .*//; /^#/d; /^$/d'
}

# Why a command cannot run in this Debian; empty if it can.
reason() { # COMMAND
    case $1 in
    *podman*) echo "no container registry" ;;
    *systemctl*) echo "systemd is not running" ;;
    esac
}

run() { # COMMAND
    local line=$1 why since=$SECONDS
    why=$(reason "$line")
    if [ -n "$why" ]; then
        say "not run: $line ($why)"
        return
    fi
    # The address is that of the page on which the command stands.
    line=${line/git clone REPOSITORY/git clone --quiet \/repository.git}
    # A script has nobody to ask.
    line=${line//apt install/apt-get install --quiet --quiet --yes}
    say "\$ $line"
    in_debian "$line" >"$work/log" 2>&1 || { cat "$work/log"; fail "$line"; }
    tail -n 3 "$work/log" | sed 's/^/    /'
    say "took $((SECONDS - since)) s"
}

if [ -n "$command" ]; then
    run "sudo apt-get update"
    run "sudo apt install git curl build-essential"
    run "git clone REPOSITORY rtftp"
    run "$command"
else
    # On an installed Debian the package lists are there.
    run "sudo apt-get update"
    for file in README.md bins/docs/*.md; do
        say "$file"
        while read -r line; do run "$line"; done < <(commands $file)
    done
fi
say "PASSED"
