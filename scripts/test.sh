#!/usr/bin/env bash
# The test command: format and lint, then unit, property and control-plane tests.
#
#   scripts/test.sh [ARGUMENTS of cargo test]
#
# Needs Rust, Go, git, and for the tests of transports OpenSSH's server and client. The first run builds Kubernetes'
# control plane from source (minutes, gigabytes); later runs take what is in target/cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

section() {
  printf '\n=== %s (%d s so far)\n' "$1" "$SECONDS"
}

section "the control plane for the tests"
cargo fmt --all --check # the one look that takes no time comes first
tests/cluster/build.sh "${CARGO_TARGET_DIR:-target}/cluster"

scripts/lint.sh

section "unit, property and control-plane tests"
status=0
cargo test --locked "$@" || status=$?

section "$([ $status -eq 0 ] && echo "all tests passed" || echo "tests FAILED")"
exit $status
