# Versions and names of what the lab installs. Those of built tools are pinned in hack/tools/*/go.mod and repeated here
# because images and manifests contain them. The pause image is also named by hack/tools/machine/containerd.toml.

KUBERNETES_VERSION=v1.36.3
CAPI_VERSION=v1.14.2
KAMAJI_VERSION=v0.1.0
INFRA_VERSION=v0.1.0

PAUSE_IMAGE=registry.k8s.io/pause:3.10.2
ETCD_IMAGE=gcr.io/etcd-development/etcd:v3.6.16
COREDNS_IMAGE=registry.k8s.io/coredns/coredns:v1.14.2
KONNECTIVITY_VERSION=v0.36.0
KONNECTIVITY_IMAGES=registry.k8s.io/kas-network-proxy # proxy-server and proxy-agent
METRICS_SERVER_IMAGE=registry.k8s.io/metrics-server/metrics-server:v0.9.0
AGNHOST_IMAGE=registry.k8s.io/e2e-test-images/agnhost:2.63.0
AGNHOST_IMAGE_BEFORE=registry.k8s.io/e2e-test-images/agnhost:2.55
CAPI_IMAGE=registry.k8s.io/cluster-api/cluster-api-controller:$CAPI_VERSION
INFRA_IMAGE=capi-kamaji.lab/infra-local:$INFRA_VERSION
