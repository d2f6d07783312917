#!/usr/bin/env bash
# Installs the missing ones of the named Debian packages: bins/scripts/install-packages.sh NAME...
# Prints nothing and does not call sudo if all of them are installed.
set -euo pipefail

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=()
for package in "$@"; do
    installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "as root, run: apt-get install ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" >"$log" 2>&1; }

echo "installing ${missing[*]}"
apt update || { cat "$log" >&2; exit 1; }

# All QEMU packages must have the same version. If qemu-utils is newer than the qemu-system packages that apt offers (from
# backports, for example), libguestfs cannot be installed: then installs the qemu-utils of their version.
pins=()
if installed qemu-utils; then
    here=$(dpkg-query -W -f '${Version}' qemu-utils)
    emulator=$(apt-cache policy qemu-system-common | awk '/Candidate:/ {print $2}')
    if dpkg --compare-versions "$here" gt "$emulator"; then
        pins=(--allow-downgrades "qemu-utils=$emulator")
    fi
fi
apt install --yes --no-install-recommends "${pins[@]}" "${missing[@]}" || { cat "$log" >&2; exit 1; }
