# The lab's network: one bridge. 10.88.0.1 is the host; pods of the management cluster take 10.88.1.1–10.88.15.254,
# machines 10.88.64.0/18. Nothing is forwarded to the outside.

LAB_BRIDGE=cni0
LAB_HOST=10.88.0.1

net_up() {
  local key
  if ! ip link show dev "$LAB_BRIDGE" >/dev/null 2>&1; then
    made link "$LAB_BRIDGE"
    ip link add "$LAB_BRIDGE" address 0a:58:0a:58:00:01 type bridge
  elif ! ip -o -4 address show dev "$LAB_BRIDGE" | grep -q " $LAB_HOST/16 "; then
    die "a network link «$LAB_BRIDGE» is there that is not the lab's; remove it or use another machine"
  fi
  ip address replace "$LAB_HOST/16" dev "$LAB_BRIDGE"
  ip link set "$LAB_BRIDGE" up
  made_sysctl net.ipv4.ip_forward 1
  made_sysctl net.bridge.bridge-nf-call-iptables 1
  # Several systemd machines and kubelets share one root user.
  made_sysctl fs.inotify.max_user_instances 8192
  # What the kubelet of the management node sets.
  for key in vm.overcommit_memory=1 vm.panic_on_oom=0 kernel.panic=10 kernel.panic_on_oops=1; do
    made_sysctl "${key%=*}" "${key#*=}"
  done
  net_rule filter FORWARD -i "$LAB_BRIDGE"
  net_rule filter FORWARD -o "$LAB_BRIDGE"
}

# Accepts what a host with a firewall of its own (Docker's, say) would drop.
net_rule() {
  local table=$1 chain=$2
  shift 2
  set -- "$@" -m comment --comment capi-kamaji-lab -j ACCEPT
  made rule "$table" "$chain" "$@"
  iptables -w -t "$table" -C "$chain" "$@" 2>/dev/null || iptables -w -t "$table" -I "$chain" "$@"
}
