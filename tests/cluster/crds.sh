#!/usr/bin/env bash
# Copies the CRDs that routes are checked against out of the Go modules that
# publish them:
#
#   tests/cluster/crds.sh OUT_DIR      (as a rule: target/crds)
#
# OUT_DIR/gateway-old and gateway-new hold those of the Gateway API: the oldest
# and the newest release that routers are tried with, the old one with its
# experimental fields; gateway-experimental holds the newest HTTPRoute with
# its own. OUT_DIR/istio.yaml holds Istio's, OUT_DIR/keda.yaml the
# ScaledObject of KEDA, OUT_DIR/contour.yaml Contour's, OUT_DIR/monitors.yaml
# the PodMonitor of the Prometheus Operator. What is there is not copied again.
set -euo pipefail

out=${1:?usage: crds.sh OUT_DIR}
gateway_old=v1.3.0
# Later releases ask for a newer Go than the one in go.mod.
gateway_new=v1.6.3
istio=v1.31.1
keda=v2.21.0
# The one that runs on a real node.
contour=v1.33.8
monitors=v0.85.0

versions="$gateway_old $gateway_new+experimental $istio $keda $contour $monitors"
if [ "$(cat "$out/versions" 2>/dev/null)" = "$versions" ]; then
  exit
fi

# The folder of a module at a version, fetched when it is not there.
module() {
  (cd / && go mod download -json "$1@$2") | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'
}

# take FOLDER FILE...: copies files into a folder of OUT_DIR, writable.
take() {
  local folder=$out/$1
  shift
  mkdir -p "$folder"
  install -m 644 "$@" "$folder"
}

old=$(module sigs.k8s.io/gateway-api "$gateway_old")
new=$(module sigs.k8s.io/gateway-api "$gateway_new")
take gateway-old "$old"/config/crd/experimental/*_{httproutes,grpcroutes}.yaml
take gateway-new "$new"/config/crd/standard/*_{httproutes,grpcroutes}.yaml
take gateway-experimental "$new"/config/crd/experimental/*_httproutes.yaml
take . "$(module istio.io/api "$istio")/kubernetes/customresourcedefinitions.gen.yaml"
mv "$out/customresourcedefinitions.gen.yaml" "$out/istio.yaml"
take . "$(module github.com/kedacore/keda/v2 "$keda")/config/crd/bases/keda.sh_scaledobjects.yaml"
mv "$out/keda.sh_scaledobjects.yaml" "$out/keda.yaml"
take . "$(module github.com/projectcontour/contour "$contour")/examples/contour/01-crds.yaml"
mv "$out/01-crds.yaml" "$out/contour.yaml"
crd=monitoring.coreos.com_podmonitors.yaml
take . "$(module github.com/prometheus-operator/prometheus-operator "$monitors")/example/prometheus-operator-crd/$crd"
mv "$out/$crd" "$out/monitors.yaml"
echo "$versions" >"$out/versions"
