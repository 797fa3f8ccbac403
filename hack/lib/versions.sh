# Versions and names of what the lab installs. Those of built tools are pinned in hack/tools/*/go.mod and repeated here
# because images and manifests contain them. The pause image is also named by hack/tools/machine/containerd.toml.

KUBERNETES_VERSION=v1.36.3
CAPI_VERSION=v1.14.2
CAPI_TOOL=cluster-api-controller CAPI_MODULE=capi # the program in .lab/bin, and the folder in hack/tools
CAPI_IMAGE=registry.k8s.io/cluster-api/cluster-api-controller
KAMAJI_VERSION=v0.1.0
INFRA_VERSION=v0.1.0

PAUSE_IMAGE=registry.k8s.io/pause:3.10.2
ETCD_IMAGE=gcr.io/etcd-development/etcd:v3.6.16
COREDNS_IMAGE=registry.k8s.io/coredns/coredns:v1.14.2
COREDNS_OLDER='v1.12.1 v1.13.1' # what tenants of Kubernetes 1.34 and 1.35 ask for
KONNECTIVITY_VERSION=v0.36.0
KONNECTIVITY_IMAGES=registry.k8s.io/kas-network-proxy # proxy-server and proxy-agent
METRICS_SERVER_IMAGE=registry.k8s.io/metrics-server/metrics-server:v0.9.0
AGNHOST_IMAGE=registry.k8s.io/e2e-test-images/agnhost:2.63.0
AGNHOST_IMAGE_BEFORE=registry.k8s.io/e2e-test-images/agnhost:2.55
INFRA_IMAGE=capi-kamaji.lab/infra-local:$INFRA_VERSION

# The releases of Cluster API that hack/tools builds.
capi_releases() {
  printf '%s\n' "$CAPI_VERSION"
  sed -n 's/^cluster-api-controller-\(v[^|]*\)|.*/\1/p' "$ROOT/hack/tools/recipes.sh"
}

# Another Cluster API that hack/tools has a folder for, named like its minor version.
capi_select() { # version
  local minor=${1%.*}
  [ "$1" != "$CAPI_VERSION" ] || return 0
  CAPI_VERSION=$1 CAPI_TOOL=cluster-api-controller-$1 CAPI_MODULE=capi-${minor#v}
}
