#!/usr/bin/env bash
# Format, clippy, go vet, and cargo deny where it is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

section() {
  printf '\n=== %s (%d s so far)\n' "$1" "$SECONDS"
}

section "format"
cargo fmt --all --check
badly=$(gofmt -l tests/cluster)
if [ -n "$badly" ]; then
  printf 'gofmt would change:\n%s\n' "$badly"
  exit 1
fi

section "clippy"
cargo clippy --locked --all-targets -- -D warnings

section "go vet"
(cd tests/cluster && go vet ./...)

section "cargo deny"
if cargo deny --version >/dev/null 2>&1; then
  cargo deny --log-level error check bans licenses sources
else
  echo "skipped: cargo-deny is not installed (cargo install --locked cargo-deny)"
fi
