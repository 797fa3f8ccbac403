# Builds what this repository has for the lab: the binary of the providers, the local infrastructure provider and the
# services on the host. All are static and built with the profile `lab` (no LTO) in a target directory outside the checkout.

PRODUCT_TRIPLE=x86_64-unknown-linux-gnu
PRODUCT_TARGET=${CARGO_TARGET_DIR:-$CACHE/target}
PRODUCT_BIN=$PRODUCT_TARGET/$PRODUCT_TRIPLE/lab

product_build() {
  target_taken "$PRODUCT_TARGET"
  step 'building the providers (Rust)' env RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR="$PRODUCT_TARGET" \
    nice cargo build --locked --profile lab --target "$PRODUCT_TRIPLE" -p capi-kamaji -p e2e -p xtask --bins
}

product_xtask() { "$PRODUCT_BIN/xtask" "$@"; }

# When an image changes under the same tag, it is removed from the node and its Deployments are restarted.
product_push() {
  local image before
  PRODUCT_IMAGE=$(product_xtask image-name)
  for image in "$PRODUCT_IMAGE=$PRODUCT_BIN/capi-kamaji" "$INFRA_IMAGE=$PRODUCT_BIN/infra-local"; do
    before=$(image_digest "${image%%=*}")
    step "image ${image%%=*}" lab_push "${image%%=*}" "${image#*=}"
    [ -z "$before" ] || [ "$before" = "$(image_digest "${image%%=*}")" ] || product_replaced "${image%%=*}"
  done
}

product_replaced() { # image
  ctr --address "$LAB_CONTAINERD" -n k8s.io images rm "$1" >/dev/null 2>&1 || true
  local deployment
  kubectl get deployments -A -o json 2>/dev/null |
    jq -r --arg image "$1" '.items[] | select(any(.spec.template.spec.containers[]; .image == $image)) | "\(.metadata.namespace) \(.metadata.name)"' |
    while read -r namespace deployment; do
      kubectl -n "$namespace" rollout restart "deployment/$deployment" >/dev/null
    done
}

# Binaries that run on the host are copied from the target directory to a name with a hash of their content: a new build
# changes the command line, and the old binary can still take down what it has made.
product_host_binary() { # name -> path
  local path
  path=$LAB_DATA/bin/$1-$(sha256sum <"$PRODUCT_BIN/$1" | cut -c1-12)
  mkdir -p "$LAB_DATA/bin"
  [ -x "$path" ] || { cp "$PRODUCT_BIN/$1" "$path.part" && mv "$path.part" "$path"; }
  printf '%s\n' "$path"
}

product_machine_host_answers() { process_alive lab-machines && curl -sf "http://$LAB_HOST:7780/healthz"; }

# The stand-in for cert-manager and the machine host.
product_host_services() {
  local machines root images name
  images=(--image "default=$(readlink -f "$LAB/machine-rootfs")")
  for root in "$LAB"/machine-rootfs-v* "$LAB"/machine-rootfs-kubeadm; do
    [ ! -e "$root" ] || images+=(--image "${root##*/machine-rootfs-}=$(readlink -f "$root")")
  done
  for root in "$LAB"/machine-disk*; do
    name=${root##*/machine-disk}
    [ ! -e "$root" ] || images+=(--image "virtual$name=$(readlink -f "$root")")
  done
  machines=$(product_host_binary lab-machines)
  [ -s "$LAB_DATA/machines.token" ] || (umask 077 && head -c 24 /dev/urandom | base64 -w0 >"$LAB_DATA/machines.token")
  made machines "$machines" "$LAB_DATA/machines"
  process_start lab-machines "$machines" run --state "$LAB_DATA/machines" --token-file "$LAB_DATA/machines.token" \
    "${images[@]}" --mirror "http://$LAB_REGISTRY"
  process_start lab-cert-issuer env "KUBECONFIG=$LAB_PKI/admin.kubeconfig" "$(product_host_binary lab-cert-issuer)"
  WAIT_LOG=$LAB_LOGS/lab-machines.log wait_for 'the machine host' 30 product_machine_host_answers
  WAIT_LOG=$LAB_LOGS/lab-cert-issuer.log wait_for 'the certificate issuer' 60 \
    product_certificates_served
}

product_certificates_served() {
  process_alive lab-cert-issuer &&
    kubectl wait --for=condition=Established --timeout=1s crd/certificates.cert-manager.io crd/issuers.cert-manager.io
}
