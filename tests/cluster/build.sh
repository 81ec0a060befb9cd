#!/usr/bin/env bash
# Builds the test cluster's programs into a directory:
#
#   tests/cluster/build.sh OUT_DIR      (as a rule: target/cluster)
#
# OUT_DIR/testcluster is this module; OUT_DIR/kustomize is the released
# kustomize. What is there and up to date is not built again.
set -euo pipefail

out=${1:?usage: build.sh OUT_DIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")"

# The newest that compiles with the Go release in go.mod; v5.8.3 asks for Go 1.27.
kustomize=v5.8.2
kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)

# Without these the API server would call itself v0.0.0, and so would every
# client in its audit log.
ldflags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  ldflags+=" -X $package.gitVersion=$kubernetes"
  ldflags+=" -X $package.gitMajor=$(cut -d. -f1 <<<"${kubernetes#v}")"
  ldflags+=" -X $package.gitMinor=$(cut -d. -f2 <<<"$kubernetes")"
  ldflags+=" -X $package.gitTreeState=clean"
done

# A line every few seconds, as long as the build's list of compiled packages
# grows, so that nobody takes a build of minutes for one that hangs.
progress() {
  local log=$1 total=$2 name=$3 began=$SECONDS
  while sleep 5; do
    printf '%s: %d of at most %d packages compiled, %d s\n' "$name" "$(grep -c . "$log" || true)" "$total" $((SECONDS - began))
  done
}

# build NAME PACKAGES COMMAND...: runs a go command that has -v among its
# arguments, showing its progress.
build() {
  local name=$1 total=$2 log status=0
  shift 2
  log=$(mktemp)
  progress "$log" "$total" "$name" &
  local watcher=$!
  "$@" 2>"$log" || status=$?
  kill "$watcher" && wait "$watcher" 2>/dev/null || true
  if [ $status -ne 0 ]; then
    cat "$log" >&2
  fi
  rm -f "$log"
  return $status
}

stamp=$(
  {
    go version
    echo "$ldflags"
    # The order must not depend on the machine's locale.
    find . -type f \( -name go.mod -o -name go.sum -o -name '*.go' -o -path './stages/*' \) \
      -not -name '*_test.go' -not -path './yamlgolden/*' | LC_ALL=C sort | xargs sha256sum
  } | sha256sum | cut -d' ' -f1
)
if [ -x "$out/testcluster" ] && [ "$(cat "$out/testcluster.stamp" 2>/dev/null)" = "$stamp" ]; then
  echo "testcluster is up to date"
else
  echo "testcluster: a first build compiles Kubernetes $kubernetes from source: several minutes,"
  echo "  some 3 GB in Go's caches and as much memory; later builds take seconds"
  build testcluster "$(go list -deps . | wc -l)" \
    go build -v -ldflags "$ldflags" -o "$out/testcluster.new" .
  mv "$out/testcluster.new" "$out/testcluster" # in one step: a running cluster keeps the old file
  echo "$stamp" >"$out/testcluster.stamp"
  echo "testcluster is built"
fi

if [ -x "$out/kustomize" ] && [ "$(go version -m "$out/kustomize" 2>/dev/null | awk '$1 == "mod" { print $3 }')" = "$kustomize" ]; then
  echo "kustomize is up to date"
else
  echo "kustomize: compiling $kustomize"
  build kustomize 500 env GOBIN="$out" go install -v "sigs.k8s.io/kustomize/kustomize/v5@$kustomize"
  echo "kustomize is built"
fi
