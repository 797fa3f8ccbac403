# The only node of the management cluster: containerd, kubelet and kube-proxy with their own directories, sockets and
# configuration.

LAB_NODE=management
LAB_CONTAINERD=$LAB_RUN/containerd/containerd.sock

node_up() {
  node_containerd
  node_kubelet
  node_kube_proxy
  node_dns
}

node_containerd() {
  local directory
  for directory in "${LAB_DIRECTORIES[@]}"; do made_directory "$directory"; done
  # Removed after the pods have ended: their last packets need them.
  made chains KUBE-
  made chains CNI-
  made veths "$LAB_BRIDGE"
  made mounts "$LAB_RUN"
  made mounts "$LAB_DATA"
  made containers "$LAB_CONTAINERD"
  mkdir -p "$LAB_DATA/cni" "$LAB_RUN/containerd"
  registry_hosts_file "$LAB_DATA/certs.d"
  cat >"$LAB_DATA/containerd.toml" <<EOF
version = 2
root = "$LAB_DATA/containerd"
state = "$LAB_RUN/containerd/state"
oom_score = 0

[grpc]
  address = "$LAB_CONTAINERD"

[plugins."io.containerd.internal.v1.opt"]
  path = "$LAB_DATA/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  # Without CAP_SYS_RESOURCE a sandbox may not lower its OOM score.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  sandbox_image = "$PAUSE_IMAGE"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$LAB_DATA/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$LAB_DATA/certs.d"
EOF
  cat >"$LAB_DATA/cni/10-lab.conflist" <<EOF
{
  "cniVersion": "0.4.0", "name": "lab",
  "plugins": [
    {"type": "bridge", "bridge": "$LAB_BRIDGE", "isGateway": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "dataDir": "$LAB_RUN/cni",
       "ranges": [[{"subnet": "10.88.0.0/16", "rangeStart": "10.88.1.1", "rangeEnd": "10.88.15.254", "gateway": "$LAB_HOST"}]],
       "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
EOF
  process_start containerd containerd --config "$LAB_DATA/containerd.toml"
  WAIT_LOG=$LAB_LOGS/containerd.log wait_for 'containerd' 30 ctr --address "$LAB_CONTAINERD" version
}

node_kubelet() {
  made cgroup kubepods
  # Pods use only the DNS of the cluster: the lab queries no server outside.
  printf 'nameserver %s\n' "$LAB_DNS_SERVICE" >"$LAB_DATA/resolv.conf"
  cat >"$LAB_DATA/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $LAB_HOST
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $LAB_PKI/ca.crt}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
clusterDNS: [$LAB_DNS_SERVICE]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$LAB_CONTAINERD
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
maxPods: 250
podLogsDir: $LAB_DATA/pod-logs
registryPullQPS: 0
resolvConf: $LAB_DATA/resolv.conf
serializeImagePulls: false
tlsCertFile: $LAB_PKI/kubelet.crt
tlsPrivateKeyFile: $LAB_PKI/kubelet.key
volumePluginDir: $LAB_DATA/kubelet/volume-plugins
EOF
  process_start kubelet "$LAB_BIN/kubelet" --config "$LAB_DATA/kubelet.yaml" --kubeconfig "$LAB_PKI/kubelet.kubeconfig" \
    --root-dir "$LAB_DATA/kubelet" --hostname-override "$LAB_NODE" --node-ip "$LAB_HOST"
}

node_kube_proxy() {
  cat >"$LAB_DATA/kube-proxy.yaml" <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: $LAB_NODE
clientConnection: {kubeconfig: $LAB_PKI/kube-proxy.kubeconfig}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
nodePortAddresses: [$LAB_HOST/32]
iptables:
  masqueradeAll: true
  localhostNodePorts: false
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
EOF
  process_start kube-proxy "$LAB_BIN/kube-proxy" --config "$LAB_DATA/kube-proxy.yaml"
}

node_ready() {
  [ "$(kubectl get node "$LAB_NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')" = True ]
}

# A DNS server on the bridge for machines, because nodes need one that is not loopback. It answers every query with
# NXDOMAIN. Names of a cluster are resolved by that cluster's DNS.
node_dns() {
  cat >"$LAB_DATA/Corefile" <<EOF
.:53 {
  bind $LAB_HOST
  errors
  template ANY ANY {
    rcode NXDOMAIN
  }
}
EOF
  process_start dns "$LAB_BIN/coredns" -conf "$LAB_DATA/Corefile"
}

# Kills the shims that a containerd of the lab has left, found by the socket they were started for, and so their pods.
containers_end() { # socket
  local pid tries
  for tries in 1 2 3 4 5; do
    for pid in $(containers_shims "$1"); do kill -KILL "$pid" 2>/dev/null || true; done
    [ -n "$(containers_shims "$1")" ] || return 0
    sleep 0.2
  done
  return 1
}

containers_shims() {
  local file
  for file in /proc/[0-9]*/cmdline; do
    # shellcheck disable=SC2002  # cat, as the process may be gone by now
    if cat "$file" 2>/dev/null | tr '\0' ' ' | grep -q -- "^[^ ]*containerd-shim[^ ]* .*-address $1 "; then
      file=${file#/proc/}
      echo "${file%/cmdline}"
    fi
  done
}
