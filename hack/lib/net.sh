# The network of the lab: one bridge. 10.88.0.1 is the host, pods of the management cluster use 10.88.1.1–10.88.15.254,
# networks outside of the lab, which the machine host makes, 10.88.32.0/24, machines 10.88.64.0/18. Nothing is forwarded to
# other networks.

LAB_BRIDGE=cni0
LAB_HOST=10.88.0.1

net_up() {
  local setting
  net_refuse_foreign
  made link "$LAB_BRIDGE"
  ip link show dev "$LAB_BRIDGE" >/dev/null 2>&1 || ip link add "$LAB_BRIDGE" address 0a:58:0a:58:00:01 type bridge
  ip address replace "$LAB_HOST/16" dev "$LAB_BRIDGE"
  ip link set "$LAB_BRIDGE" up
  for setting in "${LAB_SYSCTLS[@]}"; do made_sysctl "${setting%%=*}" "${setting#*=}"; done
  net_rule ACCEPT FORWARD -i "$LAB_BRIDGE"
  net_rule ACCEPT FORWARD -o "$LAB_BRIDGE"
  # Packets to addresses that the lab does not know, as those of machines outside, vanish as they do beyond a router. The
  # last rule that is made is the first that is asked.
  net_rule DROP FORWARD -i "$LAB_BRIDGE" ! -o "$LAB_BRIDGE" -m conntrack --ctstate NEW
}

# A bridge of that name that is not recorded belongs to something else, whatever its address: other container tools use the
# name too.
net_refuse_foreign() {
  ! ip link show dev "$LAB_BRIDGE" >/dev/null 2>&1 || is_made link "$LAB_BRIDGE" ||
    die "the network link «$LAB_BRIDGE» exists and was not made by the lab. If nothing uses it (ip link show master" \
      "$LAB_BRIDGE), remove it with: ip link delete dev $LAB_BRIDGE; or use another machine"
}

# Before the rules of others, as a firewall of the host, Docker's for example, would drop what is accepted here.
net_rule() { # target, chain, what it matches
  local target=$1 chain=$2
  shift 2
  set -- "$@" -m comment --comment capi-kamaji-lab -j "$target"
  made rule filter "$chain" "$@"
  iptables -w -C "$chain" "$@" 2>/dev/null || iptables -w -I "$chain" "$@"
}
