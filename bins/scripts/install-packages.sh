#!/usr/bin/env bash
# Installs the named Debian packages that are missing: bins/scripts/install-packages.sh NAME...
# Says nothing and asks for no rights when all of them are there already.
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

# A qemu-utils newer than the distribution's own (from backports, say) keeps every qemu-system package out, and so libguestfs:
# they come from one source and must be of one version. Then the version that goes with qemu-system is asked for.
pins=()
if installed qemu-utils; then
    here=$(dpkg-query -W -f '${Version}' qemu-utils)
    emulator=$(apt-cache policy qemu-system-common | awk '/Candidate:/ {print $2}')
    if dpkg --compare-versions "$here" gt "$emulator"; then
        pins=(--allow-downgrades "qemu-utils=$emulator")
    fi
fi
apt install --yes --no-install-recommends "${pins[@]}" "${missing[@]}" || { cat "$log" >&2; exit 1; }
