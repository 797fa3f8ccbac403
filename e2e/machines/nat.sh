#!/bin/sh
# Makes or removes the network of machines behind a NAT: a network namespace with a bridge for machines and a link to the
# lab's bridge. `up` may be repeated, also after an earlier one was interrupted; `down` also removes what is half made.
#   up <namespace file> <link> <bridge of the lab> <its address> <outer address/prefix> <gateway of the machines/prefix>
#   down <namespace file> <link>
set -eu
action=$1 namespace=$2 link=$3

inside() { nsenter --net="$namespace" -- "$@"; }
is_there() { "$@" >/dev/null 2>&1; }

up() {
    bridge=$1 host=$2 uplink=$3 gateway=$4
    if ! is_there inside true; then
        : >"$namespace"
        unshare --net="$namespace" true
    fi
    inside sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 net.ipv4.ip_forward=1
    # First the rules, then the links: nothing gets in before. Of the lab's bridge, machines reach only the host: the
    # endpoint is a Service, of which the host knows the way.
    inside iptables-restore <<EOF
*nat
-A POSTROUTING -o uplink -j MASQUERADE
COMMIT
*filter
-A INPUT -i uplink -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i uplink -j DROP
-A FORWARD -i uplink -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i uplink -j DROP
-A FORWARD -o uplink -d $host -j ACCEPT
-A FORWARD -o uplink -d $uplink -j REJECT
COMMIT
EOF
    inside ip link set lo up
    # With an address of its own, the bridge keeps it when machines come and go.
    is_there inside ip link show dev machines || inside ip link add machines address 02:00:00:00:00:01 type bridge
    inside ip address replace "$gateway" dev machines
    inside ip link set machines up
    # An end without the other is of another namespace that had this name.
    if ! is_there inside ip link show dev uplink; then
        ! is_there ip link show dev "$link" || ip link delete dev "$link"
        ip link add "$link" type veth peer name uplink netns "$namespace"
    fi
    ip link set "$link" master "$bridge" up
    inside ip address replace "$uplink" dev uplink
    inside ip link set uplink up
    inside ip route replace default via "$host" dev uplink
}

# The namespace exists for as long as one of its sockets waits for an answer, so its link is removed explicitly.
down() {
    ! is_there ip link show dev "$link" || ip link delete dev "$link"
    if is_there inside true; then
        umount "$namespace" 2>/dev/null || umount -l "$namespace"
    fi
    rm -f "$namespace"
}

shift 3
"$action" "$@"
