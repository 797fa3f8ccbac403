# How each pinned tool is built: which module, which package, which linker flags.
# Sourced by hack/tools/build. A tool's recipe and the flags are part of the key of the tool cache: a change builds anew.

# name | module folder under hack/tools | module that gives the version | main package | kind, in the order they are built
# The kind `test` is the binary of the package's tests.
TOOL_RECIPES='
etcd|etcd|go.etcd.io/etcd/server/v3|go.etcd.io/etcd/server/v3
etcdctl|etcd|go.etcd.io/etcd/etcdctl/v3|go.etcd.io/etcd/etcdctl/v3
pause|pause|-|.
kube-apiserver|kubernetes|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-apiserver
kubectl|kubernetes|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kubectl
kube-controller-manager|kubernetes|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-controller-manager
kube-scheduler|kubernetes|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-scheduler
kubelet|kubernetes|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kubelet
kube-proxy|kubernetes|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-proxy
kubeadm|kubeadm|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kubeadm
registry|registry|github.com/distribution/distribution/v3|github.com/distribution/distribution/v3/cmd/registry
coredns|coredns|github.com/coredns/coredns|github.com/coredns/coredns
agnhost|kubernetes|k8s.io/kubernetes|k8s.io/kubernetes/test/images/agnhost
clusterctl|capi|sigs.k8s.io/cluster-api|sigs.k8s.io/cluster-api/cmd/clusterctl
cluster-api-controller|capi|sigs.k8s.io/cluster-api|sigs.k8s.io/cluster-api/core
proxy-server|konnectivity|sigs.k8s.io/apiserver-network-proxy|sigs.k8s.io/apiserver-network-proxy/cmd/server
proxy-agent|konnectivity|sigs.k8s.io/apiserver-network-proxy|sigs.k8s.io/apiserver-network-proxy/cmd/agent
metrics-server|metrics-server|sigs.k8s.io/metrics-server|sigs.k8s.io/metrics-server/cmd/metrics-server
proxy-server-v0.34.0|konnectivity-0.34|sigs.k8s.io/apiserver-network-proxy|sigs.k8s.io/apiserver-network-proxy/cmd/server
proxy-agent-v0.34.0|konnectivity-0.34|sigs.k8s.io/apiserver-network-proxy|sigs.k8s.io/apiserver-network-proxy/cmd/agent
kube-apiserver-v1.35.4|kubernetes-1.35|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-apiserver
kube-controller-manager-v1.35.4|kubernetes-1.35|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-controller-manager
kube-scheduler-v1.35.4|kubernetes-1.35|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-scheduler
kube-proxy-v1.35.4|kubernetes-1.35|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-proxy
kubelet-v1.35.4|kubernetes-1.35|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kubelet
kube-apiserver-v1.34.4|kubernetes-1.34|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-apiserver
kube-controller-manager-v1.34.4|kubernetes-1.34|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-controller-manager
kube-scheduler-v1.34.4|kubernetes-1.34|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-scheduler
kubelet-v1.34.4|kubernetes-1.34|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kubelet
kube-proxy-v1.34.4|kubernetes-1.34|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kube-proxy
kubelet-v1.33.13|kubernetes-1.33|k8s.io/kubernetes|k8s.io/kubernetes/cmd/kubelet
cluster-api-controller-v1.13.6|capi-1.13|sigs.k8s.io/cluster-api|sigs.k8s.io/cluster-api
ginkgo|conformance|github.com/onsi/ginkgo/v2|github.com/onsi/ginkgo/v2/ginkgo
e2e.test|conformance|k8s.io/kubernetes|k8s.io/kubernetes/test/e2e|test
'

# Linker flags that give a binary the version its upstream release reports.
tool_ldflags() { # module version
  local module=$1 version=$2 package major minor
  IFS=. read -r major minor _ <<<"${version#v}"
  printf -- '-s -w'
  case $module in
    k8s.io/kubernetes)
      for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        printf -- ' -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s -X %s.gitTreeState=clean' \
          "$package" "$version" "$package" "$major" "$package" "$minor" "$package"
      done ;;
    sigs.k8s.io/cluster-api)
      package=sigs.k8s.io/cluster-api/version
      printf -- ' -X %s.gitVersion=%s -X %s.gitMajor=%s -X %s.gitMinor=%s -X %s.gitTreeState=clean' \
        "$package" "$version" "$package" "$major" "$package" "$minor" "$package" ;;
    sigs.k8s.io/metrics-server)
      printf -- ' -X k8s.io/client-go/pkg/version.gitVersion=%s' "$version" ;;
    github.com/distribution/distribution/v3)
      printf -- ' -X github.com/distribution/distribution/v3/version.version=%s' "$version" ;;
  esac
}
