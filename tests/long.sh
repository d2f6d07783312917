#!/usr/bin/env bash
# Runs the tests that take longer than tests/run.sh, or only the named ones: tests/long.sh [TEST...]
# `tests/long.sh --list` lists them. They need root for Debian systems that they make, and ask for sudo. Ends with "PASSED" or "FAILED: TEST".
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/steps.sh

tests="
package        the Debian package: install, serve, upgrade, remove
package-arm64  the package for arm64 on an emulated machine
bookworm       README, CONTRIBUTING and guides on a clean Debian 12
trixie         the same on a clean Debian 13
fuzz           each fuzz target for 10 minutes
"

package() { tests/package.sh; }
package-arm64() { tests/package-arm64.sh; }
bookworm() { tests/clean-debian.sh bookworm; }
trixie() { tests/clean-debian.sh trixie; }
fuzz() { fuzz/run.sh 600; }

run_steps "$tests" "$@"
