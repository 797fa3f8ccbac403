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

# A lab that came up whole, in this boot, and of which something still lives.
lab_alive() {
  local name
  [ -f "$MADE" ] && [ -f "$LAB_STATE/complete" ] && made_this_boot || return 1
  for name in etcd kube-apiserver containerd kubelet; do ! process_alive "$name" || return 0; done
  return 1
}

lab_owner() { cat "$LAB_STATE/owner" 2>/dev/null || true; }

# A living lab of another checkout is somebody's. One whose checkout is gone has no use for it, nor has a finished run
# of CI: the lock is ours, so it is finished.
lab_refuse_others() {
  local owner
  lab_alive || return 0
  owner=$(lab_owner)
  [ "$owner" = "$ROOT" ] || [ ! -d "$owner" ] || [ "${CI:-}" = true ] ||
    die "this machine's lab was started from $owner and is alive; take it down there first (hack/quickstart --down), or say CI=true"
}

# What an earlier run has left: of another boot, cut off half way, or with its processes dead. A living lab of ours is
# kept.
lab_clear_stale() {
  [ -f "$MADE" ] || return 0
  lab_refuse_others
  if lab_alive && [ "$(lab_owner)" = "$ROOT" ]; then return 0; fi
  say 'clearing what an earlier run has left'
  lab_clear
}

# What another kubelet or container runtime has made on this machine and the lab would take for its own.
lab_refuse_foreign() {
  local command
  net_refuse_foreign
  [ ! -f "$LAB_STATE/complete" ] || return 0
  for command in iptables ip6tables; do
    [ -z "$("$command-save" 2>/dev/null | grep -E '^:(KUBE|CNI)-' || true)" ] ||
      die "$command holds chains KUBE-… or CNI-… of another kubelet, kube-proxy or container runtime; the lab would mix with them. Use another machine"
  done
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
    lab_refuse_others
    lab_clear
    say "management cluster: gone after $(duration $((SECONDS - start)))"
  fi
  packages_clear
  rm -rf "$LAB"/*.kubeconfig "$LAB"/*.yaml "$LAB/state" "$LAB/machine-rootfs" "$LAB/repository"
}

# The management cluster's processes, and those that the quickstart has started beside them.
lab_status() {
  local name names=("${LAB_PROCESSES[@]}") broken=0
  ! lab_alive || [ "$(lab_owner)" = "$ROOT" ] || say "this machine's lab was started from $(lab_owner)"
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
