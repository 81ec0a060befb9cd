#!/usr/bin/env bash
# The test command: format and lint, then unit, property and control-plane tests.
#
#   scripts/test.sh [ARGUMENTS of cargo test]
#
# Needs Rust, Go, git, OpenSSH's server and client for the tests of transports, and Prometheus for those of analysis. The
# first run builds Kubernetes' control plane from source (minutes, gigabytes); later runs take what is in target/cluster.
# As root on Linux with some packages of Debian, there is also a real node with Envoy and Prometheus; elsewhere the tests
# that need it are skipped, which is said at the end. With WINDLASS_REAL_NODE=required they fail instead.
set -euo pipefail
cd "$(dirname "$0")/.."

section() {
  printf '\n=== %s (%d s so far)\n' "$1" "$SECONDS"
}

section "the control plane for the tests"
cargo fmt --all --check # the one look that takes no time comes first
cluster=${CARGO_TARGET_DIR:-target}/cluster
tests/cluster/build.sh "$cluster"

section "a real node for the tests"
if lacking=$("$cluster/testcluster" check --real 2>&1); then
  tests/cluster/build.sh "$cluster" real
else
  echo "skipped: $lacking"
fi

scripts/lint.sh

section "tests of the tests' cluster"
(cd tests/cluster && go test ./...)

section "unit, property and control-plane tests"
status=0
skipped=${CARGO_TARGET_DIR:-target}/tmp/skipped
rm -f "$skipped"
cargo test --locked "$@" || status=$?

if [ -s "$skipped" ]; then
  section "tests that were skipped"
  cat "$skipped"
fi
section "$([ $status -eq 0 ] && echo "all tests passed" || echo "tests FAILED")"
exit $status
