# A workload cluster through Cluster API: created from clusterctl's template, waited for, shown, and described when it
# fails.

CLUSTER_NAMESPACE=default

# With the flavor `class` the cluster is one of the ClusterClass kamaji-local, otherwise it has none; with `virtual` its
# workers are virtual machines.
cluster_apply() { # name, workers, flavor or nothing
  local manifest=$LAB/$1.yaml class flavor=() is_of_class=
  [ "$3" != class ] || is_of_class=yes
  class=$(kubectl -n "$CLUSTER_NAMESPACE" get cluster "$1" --ignore-not-found -o 'jsonpath={.kind} {.spec.topology.classRef.name}')
  case $class in
    'Cluster ') [ -z "$is_of_class" ] || die "cluster $1 exists and is of no ClusterClass; choose another --name" ;;
    'Cluster '*) [ -n "$is_of_class" ] || die "cluster $1 exists and is of the ClusterClass ${class#* }; add --class or choose another --name" ;;
  esac
  [ -z "$3" ] || flavor=(--flavor "$3")
  if [ -n "$is_of_class" ]; then
    # clusterctl installs the class with its first cluster, and leaves out one that is there.
    if kubectl -n "$CLUSTER_NAMESPACE" get clusterclass kamaji-local >/dev/null 2>&1; then
      kubectl -n "$CLUSTER_NAMESPACE" apply -f templates/cluster/clusterclass-kamaji-local.yaml
    fi
  fi
  clusterctl generate cluster "$1" --kubeconfig "$LAB/management.kubeconfig" --infrastructure "local:$INFRA_VERSION" \
    --target-namespace "$CLUSTER_NAMESPACE" --kubernetes-version "$KUBERNETES_VERSION" --control-plane-machine-count 1 \
    --worker-machine-count "$2" ${flavor[@]+"${flavor[@]}"} >"$manifest"
  kubectl apply -f "$manifest"
  # A topology with sizes for an autoscaler leaves the number of its workers alone once they are there.
  [ -z "$is_of_class" ] || ! kubectl -n "$CLUSTER_NAMESPACE" get machinedeployment "$1-md-0" >/dev/null 2>&1 ||
    kubectl -n "$CLUSTER_NAMESPACE" scale machinedeployment "$1-md-0" --replicas "$2"
}

cluster_wait() { # name, workers, flavor or nothing
  local name=$1 workers=$2 boot=240
  # The processors of virtual machines are emulated.
  [ "${3:-}" != virtual ] || boot=900
  wait_for "cluster $name: infrastructure" 120 cluster_is "$name" InfrastructureReady &&
    wait_for "cluster $name: control plane answers" 420 cluster_is "$name" ControlPlaneInitialized &&
    wait_for "cluster $name: kubeconfig" 60 cluster_kubeconfig "$name" &&
    wait_for "cluster $name: $workers machines with bootstrap data" 120 cluster_machines "$name" "$workers" bootstrap &&
    wait_for "cluster $name: $workers machines booted" 180 cluster_machines "$name" "$workers" infrastructure &&
    wait_for "cluster $name: $workers nodes registered" "$boot" cluster_machines "$name" "$workers" node &&
    wait_for "cluster $name: $workers nodes Ready" 180 cluster_nodes "$name" "$workers" &&
    wait_for "cluster $name: Available" 240 cluster_is "$name" Available
}

cluster_is() { # name, condition
  [ "$(kubectl -n "$CLUSTER_NAMESPACE" get cluster "$1" -o "jsonpath={.status.conditions[?(@.type==\"$2\")].status}")" = True ]
}

cluster_kubeconfig() { # name
  local file=$LAB/$1.kubeconfig
  (umask 077 && kubectl -n "$CLUSTER_NAMESPACE" get secret "$1-kubeconfig" -o 'jsonpath={.data.value}' | base64 -d >"$file.part")
  [ -s "$file.part" ] || return 1
  mv "$file.part" "$file"
}

cluster_machines() { # name, how many, up to which stage
  local stage
  case $3 in
    bootstrap) stage='.spec.bootstrap.dataSecretName' ;;
    infrastructure) stage='.status.initialization.infrastructureProvisioned' ;;
    node) stage='.status.nodeRef.name' ;;
  esac
  kubectl -n "$CLUSTER_NAMESPACE" get machines -l "cluster.x-k8s.io/cluster-name=$1" -o json |
    jq -e "[.items[] | select($stage)] | length == $2"
}

cluster_nodes() { # name, how many
  cluster_kubectl "$1" get nodes -o json |
    jq -e "[.items[] | select(any(.status.conditions[]; .type == \"Ready\" and .status == \"True\"))] | length >= $2"
}

cluster_kubectl() { # name, arguments...
  local name=$1
  shift
  "$LAB_BIN/kubectl" --kubeconfig "$LAB/$name.kubeconfig" "$@"
}

cluster_show() { # name, flavor or nothing
  local edit=''
  [ "$2" != class ] || edit=$'\n'"  kubectl edit cluster $1                # spec.topology: version, replicas, variables"
  cluster_kubectl "$1" get nodes -o wide
  cat <<EOF

The cluster's kubeconfig:  .lab/$1.kubeconfig
The management cluster's:  .lab/management.kubeconfig
kubectl and clusterctl:    .lab/bin/

Next steps:
  export PATH=\$PWD/.lab/bin:\$PATH KUBECONFIG=\$PWD/.lab/management.kubeconfig
  clusterctl describe cluster $1 --show-conditions all
  kubectl get kamajicontrolplanes,tenantcontrolplanes,kamajiconfigs,machines
  kubectl scale machinedeployment -l cluster.x-k8s.io/cluster-name=$1 --replicas 3$edit
  kubectl --kubeconfig .lab/$1.kubeconfig get pods -A -o wide
  kubectl delete cluster $1
  hack/quickstart --down
EOF
}

# Prints why a cluster is not ready: its conditions, warning events, and the last log lines of the providers.
cluster_explain() { # name
  local kind namespace pod
  {
    printf '\n--- clusterctl describe cluster %s\n' "$1"
    clusterctl describe cluster "$1" --kubeconfig "$LAB/management.kubeconfig" -n "$CLUSTER_NAMESPACE" --show-conditions all
    for kind in datastores tenantcontrolplanes kamajicontrolplanes kamajiconfigs localclusters localmachines; do
      printf '\n--- %s\n' "$kind"
      kubectl get "$kind" -A -o json | jq -r '.items[] | .metadata as $m | (.status.conditions // [])[]
        | "\($m.namespace // "-")/\($m.name)  \(.type)=\(.status)  \(.reason // "")  \(.message // "")"'
    done
    printf '\n--- warnings\n'
    kubectl get events -A --field-selector type=Warning --sort-by .lastTimestamp | tail -n 15
    printf '\n--- pods\n'
    kubectl get pods -A -o wide
    for namespace in capi-kamaji-control-plane-system capi-kamaji-bootstrap-system; do
      printf '\n--- last log lines of %s\n' "$namespace"
      for pod in $(kubectl -n "$namespace" get pods -o name); do kubectl -n "$namespace" logs "$pod" --tail 20; done
    done
    printf '\n--- last log lines of the machine host (.lab/logs/lab-machines.log)\n'
    tail -n 10 "$LAB_LOGS/lab-machines.log"
  } >&2 2>&1 || true
}
