#!/usr/bin/env bash
# The demo on kind: builds the operator's image, installs everything, and asks a served model for a completion.
# Needs docker, kind, kubectl and helm. `hack/kind/demo.sh delete` removes the cluster.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly cluster=${KIND_CLUSTER:-moe-operator}
readonly namespace=serving
readonly lws=https://github.com/kubernetes-sigs/lws/releases/download/v0.9.0/manifests.yaml
readonly engine=vllm/vllm-openai-cpu:v0.32.0

for tool in docker kind kubectl helm; do
  command -v "$tool" > /dev/null || { echo "$tool is needed and not on PATH" >&2; exit 1; }
done
if [[ ${1:-} == delete ]]; then
  exec kind delete cluster --name "$cluster"
fi

kube() { kubectl --context "kind-$cluster" "$@"; }
step() { printf '\n--- %s\n' "$*"; }

step "cluster $cluster"
kind get clusters | grep -qx "$cluster" || kind create cluster --name "$cluster" --config hack/kind/cluster.yaml
docker build -t moe-operator:kind .
docker pull "$engine"
kind load docker-image --name "$cluster" moe-operator:kind "$engine"

step "LeaderWorkerSet"
kube apply --server-side -f "$lws"
kube -n lws-system rollout status deployment/lws-controller-manager --timeout=5m

step "operator"
for chart in moe-operator-crds moe-operator; do
  settings=()
  [[ $chart == moe-operator ]] && settings=(--set image.tag=kind --set image.pullPolicy=Never)
  helm --kube-context "kind-$cluster" upgrade --install "$chart" "charts/$chart" \
    -n moe-system --create-namespace --wait --timeout 5m "${settings[@]}"
done

step "weights"
kube create namespace "$namespace" --dry-run=client -o yaml | kube apply -f -
kube -n "$namespace" create configmap tiny-moe-source --dry-run=client -o yaml \
  --from-file=hack/engine/__init__.py --from-file=hack/engine/store.py --from-file=hack/engine/tiny_model.py \
  | kube apply -f -
kube -n "$namespace" apply -f hack/kind/weights.yaml
kube -n "$namespace" wait --for=condition=Complete job/tiny-moe-weights --timeout=5m

step "model"
kube -n "$namespace" apply -f manifests/examples/tiny-cpu.yaml
kube -n "$namespace" wait --for=condition=Ready modeldeployment/tiny --timeout=20m
kube -n "$namespace" get modeldeployments

step "completion"
kube -n "$namespace" port-forward service/tiny 8000:8000 > /dev/null &
readonly forward=$!
trap 'kill "$forward"' EXIT
curl --silent --show-error --fail --retry 20 --retry-delay 1 --retry-connrefused \
  http://127.0.0.1:8000/v1/completions \
  -H 'Content-Type: application/json' \
  -d '{"model": "tiny-moe", "prompt": "The quick brown fox", "max_tokens": 16, "ignore_eos": true}'
echo
echo "delete the cluster with: hack/kind/demo.sh delete"
