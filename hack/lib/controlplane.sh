# The control plane of the management cluster as plain processes: the API server on the address of the bridge, because pods
# must reach it; etcd, controller manager and scheduler on loopback.

LAB_SERVICES=10.128.0.0/16 # apart from 10.96.0.0/16, which workload clusters use
LAB_API_SERVICE=10.128.0.1
LAB_DNS_SERVICE=10.128.0.10

controlplane_up() {
  process_start etcd "$LAB_BIN/etcd" --name lab --data-dir "$LAB_DATA/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 \
    --listen-peer-urls http://127.0.0.1:23800 --initial-advertise-peer-urls http://127.0.0.1:23800 \
    --initial-cluster lab=http://127.0.0.1:23800 --quota-backend-bytes 4294967296
  WAIT_LOG=$LAB_LOGS/etcd.log wait_for 'etcd of the management cluster' 60 curl -sf http://127.0.0.1:23790/health

  # The audit log has the metadata of every request: tests count the requests of a client by user and user agent.
  cat >"$LAB_DATA/audit-policy.yaml" <<'EOF'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/healthz*", "/readyz*", "/livez*"]
- level: Metadata
EOF
  process_start kube-apiserver "$LAB_BIN/kube-apiserver" --bind-address "$LAB_HOST" --advertise-address "$LAB_HOST" \
    --secure-port 6443 --etcd-servers http://127.0.0.1:23790 --service-cluster-ip-range "$LAB_SERVICES" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --enable-bootstrap-token-auth --client-ca-file "$LAB_PKI/ca.crt" \
    --tls-cert-file "$LAB_PKI/apiserver.crt" --tls-private-key-file "$LAB_PKI/apiserver.key" \
    --kubelet-certificate-authority "$LAB_PKI/ca.crt" --kubelet-preferred-address-types InternalIP \
    --kubelet-client-certificate "$LAB_PKI/apiserver-kubelet-client.crt" \
    --kubelet-client-key "$LAB_PKI/apiserver-kubelet-client.key" \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$LAB_PKI/sa.pub" --service-account-signing-key-file "$LAB_PKI/sa.key" \
    --requestheader-client-ca-file "$LAB_PKI/ca.crt" --requestheader-allowed-names front-proxy-client \
    --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
    --requestheader-extra-headers-prefix X-Remote-Extra- \
    --proxy-client-cert-file "$LAB_PKI/front-proxy-client.crt" --proxy-client-key-file "$LAB_PKI/front-proxy-client.key" \
    --audit-policy-file "$LAB_DATA/audit-policy.yaml" --audit-log-path "$LAB/audit.log" --audit-log-maxsize 2000
  WAIT_LOG=$LAB_LOGS/kube-apiserver.log wait_for 'the management API server' 120 kubectl get --raw /readyz

  process_start kube-controller-manager "$LAB_BIN/kube-controller-manager" --kubeconfig "$LAB_PKI/kcm.kubeconfig" \
    --authentication-kubeconfig "$LAB_PKI/kcm.kubeconfig" --authorization-kubeconfig "$LAB_PKI/kcm.kubeconfig" \
    --bind-address 127.0.0.1 --leader-elect=false --use-service-account-credentials \
    --root-ca-file "$LAB_PKI/ca.crt" --service-account-private-key-file "$LAB_PKI/sa.key" \
    --flex-volume-plugin-dir "$LAB_DATA/kubelet/volume-plugins" \
    --cluster-signing-cert-file "$LAB_PKI/ca.crt" --cluster-signing-key-file "$LAB_PKI/ca.key"
  process_start kube-scheduler "$LAB_BIN/kube-scheduler" --kubeconfig "$LAB_PKI/scheduler.kubeconfig" \
    --authentication-kubeconfig "$LAB_PKI/scheduler.kubeconfig" --authorization-kubeconfig "$LAB_PKI/scheduler.kubeconfig" \
    --bind-address 127.0.0.1 --leader-elect=false
}

kubectl() { "$LAB_BIN/kubectl" --kubeconfig "$LAB/management.kubeconfig" "$@"; }
