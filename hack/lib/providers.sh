# Cluster API and its providers, installed by the real clusterctl from a provider repository of local folders.

PROVIDERS=$LAB/repository

clusterctl() {
  # clusterctl looks for no newer release of itself.
  CLUSTERCTL_DISABLE_VERSIONCHECK=true LAB_MACHINES_TOKEN=$(cat "$LAB_DATA/machines.token") \
    "$LAB_BIN/clusterctl" --config "$PROVIDERS/clusterctl.yaml" "$@"
}

providers_repository() {
  rm -rf "$PROVIDERS"
  mkdir -p "$PROVIDERS/infrastructure-local/$INFRA_VERSION"
  providers_core "$PROVIDERS/cluster-api/$CAPI_VERSION"
  product_xtask components --out "$PROVIDERS"
  "$PRODUCT_BIN/infra-local" print components --image "$INFRA_IMAGE" \
    >"$PROVIDERS/infrastructure-local/$INFRA_VERSION/infrastructure-components.yaml"
  "$PRODUCT_BIN/infra-local" print metadata >"$PROVIDERS/infrastructure-local/$INFRA_VERSION/metadata.yaml"
  cp templates/cluster/local.yaml "$PROVIDERS/infrastructure-local/$INFRA_VERSION/cluster-template.yaml"
  # The flavor `class`, and the ClusterClass that clusterctl adds to its output because the flavor names it.
  cp templates/cluster/cluster-template-local-class.yaml \
    "$PROVIDERS/infrastructure-local/$INFRA_VERSION/cluster-template-class.yaml"
  cp templates/cluster/clusterclass-kamaji-local.yaml "$PROVIDERS/infrastructure-local/$INFRA_VERSION/"
  cp templates/cluster/cluster-template-local-virtual.yaml \
    "$PROVIDERS/infrastructure-local/$INFRA_VERSION/cluster-template-virtual.yaml"
  cat >"$PROVIDERS/clusterctl.yaml" <<EOF
providers:
- {name: cluster-api, type: CoreProvider, url: "$PROVIDERS/cluster-api/$CAPI_VERSION/core-components.yaml"}
- {name: kamaji, type: ControlPlaneProvider, url: "$PROVIDERS/control-plane-kamaji/$KAMAJI_VERSION/control-plane-components.yaml"}
- {name: kamaji, type: BootstrapProvider, url: "$PROVIDERS/bootstrap-kamaji/$KAMAJI_VERSION/bootstrap-components.yaml"}
- {name: local, type: InfrastructureProvider, url: "$PROVIDERS/infrastructure-local/$INFRA_VERSION/infrastructure-components.yaml"}
cert-manager: {externallyProvisioned: "true", timeout: 2m}
# Gates of Cluster API: ClusterClasses, and the taints of a topology.
CLUSTER_TOPOLOGY: "true"
EXP_MACHINE_TAINT_PROPAGATION: "true"
EOF
}

# The manifests of Cluster API, rendered from the module that its binary is built from.
providers_core() { # directory
  local module manifests
  module=$(go list -C "hack/tools/$CAPI_MODULE" -mod=readonly -m -f '{{.Dir}}' sigs.k8s.io/cluster-api)
  manifests=$module/core/config/default
  [ -d "$manifests" ] || manifests=$module/config/default # where they are before Cluster API 1.14
  mkdir -p "$1"
  "$LAB_BIN/kubectl" kustomize "$manifests" |
    sed -E "s#image: .*/cluster-api-controller:.*#image: $CAPI_IMAGE:$CAPI_VERSION#; s#imagePullPolicy: Always#imagePullPolicy: IfNotPresent#" \
      >"$1/core-components.yaml"
  cp "$module/metadata.yaml" "$1/metadata.yaml"
  chmod 0644 "$1/metadata.yaml"
}

providers_up() {
  local installed key kind flag provider missing=()
  providers_repository >>"$STEP_LOG" 2>&1 || { tail -n 20 "$STEP_LOG" >&2; die 'creating the provider repository failed'; }
  key=$(find "$PROVIDERS" -name '*-components.yaml' | sort | xargs sha256sum | sha256sum)
  # Before the first `clusterctl init` the kind does not exist: no provider is installed.
  installed=$(kubectl get providers.clusterctl.cluster.x-k8s.io -A -o 'jsonpath={range .items[*]}{.type}{"\n"}{end}' 2>/dev/null || true)
  # clusterctl refuses to install a provider again: after an interrupted init only the missing ones are installed.
  while read -r kind flag provider; do
    grep -qx "$kind" <<<"$installed" || missing+=("$flag" "$provider")
  done <<EOF
CoreProvider --core cluster-api:$CAPI_VERSION
BootstrapProvider --bootstrap kamaji:$KAMAJI_VERSION
ControlPlaneProvider --control-plane kamaji:$KAMAJI_VERSION
InfrastructureProvider --infrastructure local:$INFRA_VERSION
EOF
  if ((${#missing[@]})); then
    step 'clusterctl init' clusterctl init --kubeconfig "$LAB/management.kubeconfig" --wait-providers "${missing[@]}"
  fi
  if [ -n "$installed" ] && [ "$key" != "$(cat "$LAB_STATE/components" 2>/dev/null)" ]; then
    step 'updating the installed providers to the components of this checkout' providers_again
  fi
  printf '%s\n' "$key" >"$LAB_STATE/components"
}

providers_again() {
  {
    clusterctl generate provider --control-plane "kamaji:$KAMAJI_VERSION" && echo --- &&
      clusterctl generate provider --bootstrap "kamaji:$KAMAJI_VERSION" && echo --- &&
      clusterctl generate provider --infrastructure "local:$INFRA_VERSION"
  } | kubectl apply --server-side --force-conflicts --field-manager clusterctl -f -
}

# Every provider has a Deployment with at least one replica, and all replicas are updated and available.
providers_available() {
  kubectl get deployments -A -l cluster.x-k8s.io/provider -o json | jq -e '
    ([.items[].metadata.labels["cluster.x-k8s.io/provider"]] | unique | length) >= 4 and
    all(.items[]; .spec.replicas > 0 and .status.observedGeneration == .metadata.generation
      and (.status.availableReplicas // 0) >= .spec.replicas and (.status.updatedReplicas // 0) >= .spec.replicas)'
}
