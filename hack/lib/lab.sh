# Bringing the management cluster up, looking at it, taking it down.

LAB_PROCESSES=(registry etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy dns)
LAB_TOOLS=(etcd etcdctl pause kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy registry
  coredns agnhost)

lab_root() { [ "$(id -u)" = 0 ] || die 'the lab makes containers, network links and mounts: run this as root'; }

lab_up() {
  local start=$SECONDS
  mkdir -p "$LAB_BIN" "$LAB_LOGS" "$CACHE"
  export STEP_LOG=$LAB_LOGS/setup.log
  packages_install
  hack/tools/build "${LAB_TOOLS[@]}"
  lab_clear_stale
  lab_refuse_foreign_node
  [ -f "$MADE" ] || rm -f "$LAB"/audit*.log
  mkdir -p "$LAB_STATE" "$LAB_RUN"
  printf '%s\n' "$ROOT" >"$LAB_STATE/owner"
  boot_id >"$LAB_STATE/boot"
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

# What an earlier run has left: of another boot, cut off half way, or with its processes dead. A lab that is alive is
# kept, unless it belongs to another checkout: one that is gone has no use for it, nor has a finished run of CI (the lock
# is ours, so it is finished); a living one is somebody's.
lab_clear_stale() {
  local owner
  [ -f "$MADE" ] || return 0
  owner=$(cat "$LAB_STATE/owner" 2>/dev/null || true)
  if [ -f "$LAB_STATE/complete" ] && [ "$(cat "$LAB_STATE/boot" 2>/dev/null)" = "$(boot_id)" ] && lab_any_alive; then
    [ "$owner" != "$ROOT" ] || return 0
    [ ! -d "$owner" ] || [ "${CI:-}" = true ] ||
      die "this machine's lab was started from $owner; take it down first (hack/lab down, from either checkout)"
  fi
  say 'clearing what an earlier run has left'
  lab_clear
}

lab_any_alive() {
  local name
  for name in etcd kube-apiserver containerd kubelet; do ! process_alive "$name" || return 0; done
  return 1
}

lab_refuse_foreign_node() {
  [ ! -f "$LAB_STATE/complete" ] || return 0
  ! iptables-save 2>/dev/null | grep -q '^:KUBE-' ||
    die 'iptables holds chains of another kubelet or kube-proxy; the lab would mix with it. Use another machine'
  ! { compgen -G '/sys/fs/cgroup/*/kubepods*' || compgen -G '/sys/fs/cgroup/kubepods*'; } >/dev/null ||
    die 'another kubelet has made cgroups on this machine; use another machine'
}

lab_clear() {
  undo_all || die "something is left; it is recorded in $MADE"
  rm -rf --one-file-system "$LAB_RUN" "$LAB_DATA"
}

lab_down() {
  local start=$SECONDS
  if [ ! -f "$MADE" ]; then
    say 'nothing to take down'
  else
    lab_clear
    say "management cluster: gone after $(duration $((SECONDS - start)))"
  fi
  rm -rf "$LAB"/*.kubeconfig "$LAB"/*.yaml "$LAB/state" "$LAB/machine-root" "$LAB/repository"
}

lab_status() {
  local name healthy=0
  for name in "${LAB_PROCESSES[@]}"; do
    if process_alive "$name"; then
      printf '%-26s pid %s\n' "$name" "$(process_record "$name" | cut -d' ' -f1)"
    else
      printf '%-26s not running\n' "$name"
      healthy=1
    fi
  done
  ((healthy)) || { kubectl get nodes && kubectl get pods -A; } || healthy=1
  return "$healthy"
}

lab_push() {
  (($# == 2)) || die 'usage: hack/lab push <image> <binary>'
  local name
  name=$(basename "$2")
  image_push "$1" --user 65532:65532 --entrypoint "/$name" "$name=$2"
}
