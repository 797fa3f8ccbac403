# Starts the management cluster, shows its status and stops it.

LAB_PROCESSES=(registry etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy dns)
LAB_TOOLS=(etcd etcdctl pause kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy registry
  coredns agnhost proxy-server proxy-agent)

lab_root() { [ "$(id -u)" = 0 ] || die 'the lab creates containers, network links and mounts: run this as root'; }

lab_up() {
  local start=$SECONDS
  mkdir -p "$LAB_BIN" "$LAB_LOGS" "$CACHE"
  export STEP_LOG=$LAB_LOGS/setup.log
  packages_install
  lab_clear_stale
  lab_refuse_foreign
  hack/tools/build "${LAB_TOOLS[@]}"
  [ -f "$MADE" ] || rm -f "$LAB"/audit*.log
  mkdir -p "$LAB_STATE" "$LAB_RUN"
  printf '%s\n' "$ROOT" >"$LAB_STATE/owner"
  ln -sfn "$LAB_STATE" "$LAB/state"
  net_up
  pki_up
  (umask 077 && cp "$LAB_PKI/admin.kubeconfig" "$LAB/management.kubeconfig")
  registry_up
  step 'images into the local registry' registry_images
  controlplane_up
  node_up
  WAIT_LOG=$LAB_LOGS/kubelet.log wait_for 'the management node' 120 node_ready
  addons_up
  wait_for "the management cluster's DNS" 120 addons_ready
  touch "$LAB_STATE/complete"
  say "management cluster: up after $(duration $((SECONDS - start))); kubeconfig .lab/management.kubeconfig"
}

# The lab was started completely, since the last boot, and at least one of its processes runs.
lab_alive() {
  local name
  [ -f "$MADE" ] && [ -f "$LAB_STATE/complete" ] && made_this_boot || return 1
  for name in etcd kube-apiserver containerd kubelet; do ! process_alive "$name" || return 0; done
  return 1
}

lab_owner() { cat "$LAB_STATE/owner" 2>/dev/null || true; }

# Refuses to touch a running lab of another checkout, unless that checkout no longer exists, or CI=true says that no one
# uses it: this process holds the lock, so no other run does.
lab_refuse_others() {
  local owner
  lab_alive || return 0
  owner=$(lab_owner)
  [ "$owner" = "$ROOT" ] || [ ! -d "$owner" ] || [ "${CI:-}" = true ] ||
    die "the lab of this machine was started from $owner and is running; take it down there first (hack/quickstart --down), or set CI=true"
}

# Removes what an earlier run has left: from before the last boot, interrupted, or with its processes dead. A running lab
# of this checkout is kept.
lab_clear_stale() {
  [ -f "$MADE" ] || return 0
  lab_refuse_others
  if lab_alive && [ "$(lab_owner)" = "$ROOT" ]; then return 0; fi
  say 'removing what an earlier run has left'
  lab_clear
}

# Refuses a machine on which another kubelet or container runtime has made what the lab would take for its own.
lab_refuse_foreign() {
  local command
  net_refuse_foreign
  [ ! -f "$LAB_STATE/complete" ] || return 0
  for command in iptables ip6tables; do
    [ -z "$("$command-save" 2>/dev/null | grep -E '^:(KUBE|CNI)-' || true)" ] ||
      die "$command has chains KUBE-… or CNI-… of another kubelet, kube-proxy or container runtime, which the lab would change; use another machine"
  done
  ! { compgen -G '/sys/fs/cgroup/*/kubepods*' || compgen -G '/sys/fs/cgroup/kubepods*'; } >/dev/null ||
    die 'another kubelet has made cgroups on this machine; use another machine'
}

lab_clear() {
  undo_all || die "not everything was removed; what is left is listed in $MADE"
  rm -rf --one-file-system "$LAB_RUN" "$LAB_DATA"
}

lab_down() {
  local start=$SECONDS
  if [ ! -f "$MADE" ]; then
    say 'nothing to take down'
  else
    lab_refuse_others
    lab_clear
    say "management cluster: removed after $(duration $((SECONDS - start)))"
  fi
  packages_clear
  rm -rf "$LAB"/*.kubeconfig "$LAB"/*.yaml "$LAB/state" "$LAB"/machine-rootfs* "$LAB/repository"
}

# Lists the processes of the management cluster and those that the quickstart has started.
lab_status() {
  local name names=("${LAB_PROCESSES[@]}") broken=0
  ! lab_alive || [ "$(lab_owner)" = "$ROOT" ] || say "the lab of this machine was started from $(lab_owner)"
  while read -r name; do
    [[ " ${names[*]} " == *" $name "* ]] || names+=("$name")
  done < <(awk '$1 == "process" { print $5 }' "$MADE" 2>/dev/null)
  for name in "${names[@]}"; do
    if process_alive "$name"; then
      printf '%-26s pid %s\n' "$name" "$(process_record "$name" | cut -d' ' -f1)"
    else
      printf '%-26s not running\n' "$name"
      broken=1
    fi
  done
  ((broken)) || { kubectl get nodes && kubectl get pods -A; } || broken=1
  return "$broken"
}

lab_push() {
  (($# == 2)) || die 'usage: hack/lab push <image> <binary>'
  local name
  name=$(basename "$2")
  image_push "$1" --user 65532:65532 --entrypoint "/$name" "$name=$2"
}
