#!/usr/bin/env bash
# Builds the packages on Debian 11, as a release does, and installs and uses them on each release of Debian and Ubuntu that they are for.
# Prints "releases: PASSED" at the end. Needs root, for these systems, and restarts itself with sudo.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/caller.sh
become_root "$PWD/tests/releases.sh"

tests/clean-debian.sh bullseye 'bins/pkg/package.sh && bins/pkg/package.sh rtftp-etcd'
built=${CARGO_TARGET_DIR:-$PWD/target}/clean-debian/bullseye
for suite in bullseye bookworm trixie jammy noble; do
    tests/package.sh $suite "$built"/rtftp_*.deb "$built"/rtftp-etcd_*.deb
done
echo "releases: PASSED"
