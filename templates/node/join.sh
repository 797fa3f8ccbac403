#!/bin/sh
# Joins this machine to its cluster. It runs at every boot, and every step can be repeated. The first failure is reported
# and ends the run. No token is ever printed: do not trace this script.
#
# What stands between `# only with NAME` and `# end` is left out of the bootstrap data where the value NAME is empty or
# false.
set -eu
umask 077
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin
LC_ALL=C
export PATH LC_ALL

stage=/etc/kamaji/bootstrap
# Exists until the machine is a Node, and is deleted afterwards.
credential=$stage/bootstrap.conf
certificate=/var/lib/kubelet/pki/kubelet-client-current.pem
kubeconfig=/etc/kubernetes/kubelet.conf
marker=/var/lib/kamaji/joined
# Holds the UID of the config that the kubelet's state on this disk belongs to.
owner=/var/lib/kamaji/config
retry=kamaji-join.timer
name=
@PLAN@

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf 'kamaji-join: %s\n' "$*"; }
# Seconds since the boot. The time of day jumps when the clock is set for the first time.
now() { cut -d. -f1 /proc/uptime; }
start() { deadline=$(($(now) + JOIN_TIMEOUT)); }
late() { [ "$(now)" -ge "$deadline" ]; }
start

# One line of harmless characters, without anything that looks like a token.
clean() {
    tr -c 'A-Za-z0-9 .,:;=_/()@+-' ' ' | sed -e 's/[a-z0-9]\{6\}\.[a-z0-9]\{16\}/(token)/g' | tail -c 900
}

# shellcheck disable=SC2086 # two words or none
request() { # curl arguments
    curl -sS --max-time 10 --cacert "$stage/ca.crt" ${TLS_NAME:+--connect-to ::$SERVER_HOST:$SERVER_PORT} "$@"
}
url=https://${TLS_NAME:-$SERVER_HOST}:$SERVER_PORT

token() { sed -n "s/^ *token: ['\"]*\([a-z0-9.]*\)['\"]*\$/\1/p" "$credential"; }
with_token() { printf 'header = "Authorization: Bearer %s"\n' "$(token)" | request -K - "$@"; }

# Reports to the control plane why this machine does not join, as an Event in the workload cluster. However often the join
# is tried, the same is not reported twice in a row.
report() { # reason message
    have curl || return 0
    report=$(printf '%s' "$1 $2" | tr -d 0-9)
    [ "$(cat /run/kamaji-join 2>/dev/null)" != "$report" ] || return 0
    time=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    random=$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
    id=$(cat /etc/machine-id 2>/dev/null || :)
    body='{"apiVersion":"v1","kind":"Event","metadata":{"namespace":"kamaji-bootstrap","name":"'$(token | cut -d. -f1).$random'"}'
    body=$body',"involvedObject":{"apiVersion":"bootstrap.cluster.x-k8s.io/v1alpha1","kind":"KamajiConfig"'
    body=$body',"namespace":"kamaji-bootstrap","name":"'$CONFIG_NAME'"},"type":"Warning"'
    body=$body',"reason":"'$1'","message":"'$2'","firstTimestamp":"'$time'","lastTimestamp":"'$time'"'
    body=$body',"reportingComponent":"kamaji-join","reportingInstance":"'$id'"}'
    ! with_token -H 'Content-Type: application/json' -f -o /dev/null -d "$body" \
        "$url/api/v1/namespaces/kamaji-bootstrap/events" || printf '%s' "$report" >/run/kamaji-join
}

give_up() { systemctl stop --no-block $retry 2>/dev/null || :; }

fail() { # reason message
    trap '' TERM
    trap - EXIT
    text=$(printf '%s' "$2" | clean)
    say "failed: $1: $text"
    # The machine is not a Node yet. A kubelet that keeps running could still join, without the sentinel file and the
    # post-join commands, and after the failure was reported. Without its configuration it does not start at the next boot
    # either, until this script starts it. A shutdown is not reported as a failure.
    [ "$1" != TokenMissing ] || give_up
    if [ -s "$credential" ]; then
        systemctl stop --no-block kubelet.service || :
        rm -f /var/lib/kubelet/config.yaml /etc/kubernetes/bootstrap-kubelet.conf || :
        [ "$(systemctl is-system-running)" = stopping ] || report "$1" "$text" || :
    fi 2>/dev/null
    exit 1
}
trap 'fail JoinTimeout "stopped before the join: joinTimeout is $JOIN_TIMEOUT s; set a longer one"' TERM
trap 'fail JoinFailed "a step failed: see journalctl -u kamaji-join"' EXIT

# Writes a temporary file and renames it, so that nobody ever reads half a file, also after a loss of power.
put() { # source target mode
    (umask 022 && mkdir -p "${2%/*}")
    cp "$1" "$2.kamaji"
    chmod "$3" "$2.kamaji"
    sync "$2.kamaji" 2>/dev/null || :
    mv -f "$2.kamaji" "$2"
    if have restorecon; then restorecon -F "$2" 2>/dev/null || :; fi
}

succeed() {
    (umask 022 && mkdir -p /run/cluster-api && printf 'success\n' >/run/cluster-api/bootstrap-success.complete)
}

wipe() {
    for file in "$credential" /etc/kubernetes/bootstrap-kubelet.conf; do
        if [ -f "$file" ]; then
            shred -u "$file" 2>/dev/null || rm -f "$file"
        fi
    done
}

kubelet_log() { journalctl -u kubelet.service -n 20 --no-pager -o cat 2>/dev/null | clean; }

run_all() { # folder reason
    for command in "$stage/$1"/*; do
        number=${command##*/}
        ran=/var/lib/kamaji/$1.$number
        if [ ! -f "$command" ] || [ -f "$ran" ]; then continue; fi
        left=$((deadline - $(now)))
        code=124
        if [ "$left" -gt 0 ]; then
            code=0
            timeout -k 10 "$left" sh -eu "$command" || code=$?
        fi
        if [ "$code" != 0 ]; then
            ! late || fail JoinTimeout "$1: command $number did not end within joinTimeout ($JOIN_TIMEOUT s)"
            fail "$2" "command $number exited with $code"
        fi
        # Before the join, every boot runs all commands again. After it, each command runs until it succeeded once.
        [ "$1" = pre.d ] || : >"$ran"
    done
}

# Masks the units first: without --all, systemctl does not list units of swap that is already off, and without --full it
# cuts their names.
swap_off() {
    [ "$SWAP" = off ] || return 0
    systemctl list-units --all --full --plain --no-legend --type=swap |
        while read -r unit _; do systemctl mask "$unit" || :; done
    if grep -qs '^[^#].*[[:space:]]swap[[:space:]]' /etc/fstab; then
        sed -i '/^[^#].*[[:space:]]swap[[:space:]]/s/^/# kamaji: /' /etc/fstab
    fi
    ! swapped || swapoff -a
    ! swapped
}
swapped() { grep -qs / /proc/swaps; }

# Writes the marker before the token is deleted: after a crash between them the machine knows that it joined.
finish() { # message
    if [ ! -s "$marker" ]; then
        mkdir -p /var/lib/kamaji
        printf 'config=%s\nnode=%s\ntime=%s\n' "$CONFIG_UID" "$name" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$marker.kamaji"
        mv -f "$marker.kamaji" "$marker"
    fi
    wipe
    give_up
    succeed
    say "$1"
    start
    run_all post.d PostJoinFailed
    trap - EXIT
    exit
}

# --- a disk with an earlier life: what the kubelet keeps there is that of another machine
if [ -s "$credential" ] && [ "$(cat $owner 2>/dev/null)" != "$CONFIG_UID" ]; then
    systemctl stop kubelet.service 2>/dev/null || :
    rm -rf "$kubeconfig" "${certificate%/*}" /var/lib/kubelet/*_manager_state "${marker%/*}"
    printf '%s\n' "$CONFIG_UID" >"$stage/config"
    put "$stage/config" $owner 0600
fi

# --- already joined: a reboot, a crash before the marker reached the disk, or cloud-init with another instance id
if { [ -s "$marker" ] || [ ! -s "$credential" ]; } && [ -s "$certificate" ] &&
    { ! have openssl || openssl x509 -noout -checkend 0 -in "$certificate" >/dev/null 2>&1; }; then
    swap_off || say "warning: swap is on"
    systemctl start --no-block kubelet.service
    finish "already joined"
fi
[ -s "$credential" ] || fail TokenMissing "neither a token nor a valid certificate: delete the Machine to get a new one"

# Tries again after a failure. It is stopped after the join, and when the token has ended.
{ (umask 022 && printf '[Timer]\nOnUnitInactiveSec=5min\n' >/run/systemd/system/$retry) && systemctl daemon-reload &&
    systemctl start --no-block $retry; } || say "warning: no $retry"

# --- name, provider ID and address of this machine
fact() { sed -n "s/^$1=//p" "$stage/node.facts" | head -n 1; }
# only with FACTS
# A value of several lines would be more facts.
[ "$(sed 's/=.*//' "$stage/node.facts" | tr '\n' ' ')" = "$FACTS " ] ||
    fail NodeNameInvalid "the instance metadata gives a value of several lines for a template of nodeRegistration"
# end
name=$(fact nodename)
if [ "$NAME_SOURCE" = Hostname ]; then name=$(uname -n); fi
name=$(printf '%s' "$name" | tr '[:upper:]' '[:lower:]')
case $name in
'' | localhost | localhost.* | *ci_missing_jinja_var*) fail NodeNameInvalid "no usable node name from nameSource $NAME_SOURCE: $name" ;;
esac
# The name is also a label of the Node.
if [ "${#name}" -gt 63 ] || ! printf '%s\n' "$name" |
    grep -Eqx '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'; then
    fail NodeNameInvalid "$name is not a DNS name (RFC 1123) of at most 63 characters"
fi
provider=$(fact providerid)
case $provider in
*CI_MISSING_JINJA_VAR*) fail NodeNameInvalid "the instance metadata lacks a value of nodeRegistration.providerID.template" ;;
*[!A-Za-z0-9:/._-]*) fail NodeNameInvalid "$provider is not a provider ID" ;;
esac
address=$(fact nodeip)
# only with NODE_IP_INTERFACE
until address=$(ip -o "$NODE_IP_FAMILY" address show dev "$NODE_IP_INTERFACE" scope global 2>/dev/null |
    awk '{ sub("/.*", "", $4); print $4; exit }') && [ -n "$address" ]; do
    late && fail NodeAddressMissing "no address on interface $NODE_IP_INTERFACE"
    sleep 2
done
# end
case $address in
*[!0-9a-fA-F:.,]*) fail NodeAddressMissing "$address is not an IP address" ;;
esac
say "node $name"

# only with LABEL_TEMPLATES
labels=
number=0
for key in $LABEL_TEMPLATES; do
    value=$(fact "label$number")
    number=$((number + 1))
    case $value in
    *CI_MISSING_JINJA_VAR*) fail NodeLabelInvalid "the instance metadata lacks a value of nodeRegistration.labelTemplates for $key" ;;
    esac
    printf '%s\n' "$value" | grep -Eqx '[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?' ||
        fail NodeLabelInvalid "nodeRegistration.labelTemplates for $key give $value, which no label can have as its value"
    labels=${labels:+$labels,}$key=$value
done
# end
# only with SET_HOSTNAME
if [ "$(uname -n)" != "$name" ]; then
    (umask 022 && printf '%s\n' "$name" >/etc/hostname)
    hostname "$name" 2>/dev/null || hostnamectl set-hostname "$name"
    awk -v name="$name" '{ sub("#.*", ""); for (i = 2; i <= NF; i++) if ($i == name) found = 1 } END { exit !found }' \
        /etc/hosts || printf '127.0.1.1 %s\n' "$name" >>/etc/hosts
fi
# end

run_all pre.d PreJoinFailed

# --- tools, control groups, memory, ports
for tool in mount systemctl awk sed; do have "$tool" || fail ComponentMissing "no $tool"; done
for tool in iptables conntrack; do have "$tool" || say "warning: no $tool"; done
if [ "$CGROUP_V1" = fail ] && [ "$(stat -f -c %T /sys/fs/cgroup 2>/dev/null)" != cgroup2fs ]; then
    fail CgroupV1 "this kubelet does not run with cgroup v1: use an image with cgroup v2, or set kubelet.cgroupV1: Allow"
fi
memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
[ "${memory:-1024}" -ge 900 ] || fail MemoryTooSmall "$memory MiB of memory, 1 GiB is needed"
[ -s /etc/machine-id ] || say "warning: no machine-id"
# A container has no firmware tables; an empty ID is not unique.
uuid=/sys/class/dmi/id/product_uuid
[ ! -r $uuid ] || grep -q . $uuid || say "warning: $uuid is empty"
if have ss && ss -Hltn 2>/dev/null | awk '{ print $4 }' | grep -q ':10250$' && ! systemctl -q is-active kubelet.service; then
    fail PortInUse "port 10250 is in use"
fi

# --- kubelet and its version
kubelet=
for path in $KUBELET_PATHS; do
    if [ -x "$path" ]; then
        kubelet=$path
        break
    fi
done
[ -n "$kubelet" ] || fail ComponentMissing "no kubelet at $KUBELET_PATHS"
core() { printf '%s' "$1" | sed -e 's/^v//' -e 's/[-+].*//'; }
found=$("$kubelet" --version 2>/dev/null | awk '{ print $2 }') || :
# only with EXACT
# Cluster API compares all of it.
[ "${found#v}" = "$VERSION" ] ||
    fail KubeletVersionMismatch "the kubelet is ${found#v}, spec.version of the Machine is $VERSION: use an image of exactly that version, or set spec.versionCheck: Minor"
# end
found=$(core "$found")
desired=$(core "$VERSION")
if [ "$VERSION_CHECK" != Off ] && [ "$found" != "$desired" ]; then
    problem="the kubelet is $found, spec.version of the Machine is $desired"
    if [ "$VERSION_CHECK" = Exact ] || [ "${found%.*}" != "${desired%.*}" ]; then fail KubeletVersionMismatch "$problem"; fi
    say "warning: $problem"
fi

# --- kernel modules and settings: what is wrong and cannot be changed here is reported
for module in $MODULES; do
    file=$(printf '%s' "$module" | tr - _)
    if [ -d "/sys/module/$file" ] || modprobe "$module" 2>/dev/null; then continue; fi
    problem="kernel module $module cannot be loaded"
    case $module in
    overlay) grep -qw overlay /proc/filesystems || fail KernelModuleMissing "$problem" ;;
    br_netfilter) [ -d /proc/sys/net/bridge ] || say "warning: $problem" ;;
    nf_conntrack) [ -d /proc/sys/net/netfilter ] || say "warning: $problem" ;;
    *) fail KernelModuleMissing "$problem" ;;
    esac
done
# shellcheck disable=SC2086 # words are meant to be split
printf '%s\n' $MODULES >"$stage/modules"
put "$stage/modules" /etc/modules-load.d/kamaji.conf 0644

words() { printf '%s' "$*"; }
# shellcheck disable=SC2046,SC2086 # words are meant to be split
while read -r key _ value; do
    [ -n "$key" ] || continue
    file=/proc/sys/$(printf '%s' "$key" | tr . /)
    current() { words $(cat "$file" 2>/dev/null); }
    [ "$(current)" != "$(words $value)" ] || continue
    (printf '%s' "$value" >"$file") 2>/dev/null || :
    [ "$(current)" != "$(words $value)" ] || continue
    problem="sysctl $key is '$(current)' and cannot be set to $value"
    group=$key
    case $key in vm.* | kernel.*) group=protect ;; esac
    case " $SYSCTL_REQUIRED " in
    *" $key "* | *" $group "*) fail SysctlNotSet "$problem" ;;
    esac
    say "warning: $problem"
done <<END
$SYSCTLS
END
printf '%s\n' "$SYSCTLS" >"$stage/sysctl"
put "$stage/sysctl" /etc/sysctl.d/90-kamaji.conf 0644
# Reserves the ports of the kubelet and of kube-proxy: an outgoing connection could take them first.
ports=/proc/sys/net/ipv4/ip_local_reserved_ports
if [ -w $ports ] && ! grep -q 10248-10250 $ports; then
    taken=$(cat $ports)
    (printf '%s' "${taken:+$taken,}10248-10250,10256" >$ports) 2>/dev/null || :
fi

if ! swap_off; then
    [ "$SWAP_FATAL" = false ] || fail SwapOn "swap cannot be turned off: set os.swap: Keep"
    say "warning: swap is on"
fi

# --- container runtime
socket=${CRI_SOCKET#unix://}
answers() {
    [ -S "$socket" ] || return 1
    if have crictl; then
        crictl --runtime-endpoint "$CRI_SOCKET" --timeout 5s version >/dev/null 2>&1
    elif have ctr && [ "${socket##*/}" = containerd.sock ]; then
        ctr --address "$socket" --timeout 5s version >/dev/null 2>&1
    fi
}
until answers; do
    systemctl start --no-block containerd.service 2>/dev/null || [ "$socket" != /run/containerd/containerd.sock ] ||
        fail ComponentMissing "no containerd.service"
    late && fail RuntimeUnavailable "no container runtime answers at $CRI_SOCKET"
    sleep 2
done

# --- the API server, its certificate, the clock
skewed() { # headers
    theirs=$(printf '%s\n' "$1" | tr -d '\r' | sed -n 's/^[Dd]ate: //p' | head -n 1)
    theirs=$(date -d "${theirs:-now}" +%s 2>/dev/null) || return 1
    off=$(($(date +%s) - theirs))
    [ "$off" -gt 300 ] || [ "$off" -lt -300 ]
}
looks=0
while have curl; do
    code=0
    headers=$(with_token -D - -o /dev/null -w 'status %{http_code}' "$url/healthz" 2>&1) || code=$?
    reason=APIServerUnreachable
    problem="$url: $headers"
    case $code in
    51 | 60)
        reason=CertificateUntrusted
        problem="the certificate of $url is not signed by a CA of the cluster"
        # Reads only the date; no credential is sent.
        headers=$(request -k -D - -o /dev/null "$url/healthz" 2>/dev/null) || :
        ;;
    esac
    if skewed "$headers"; then
        reason=ClockSkew
        problem="the clock is $off s off that of the API server"
        # Clocks are often set late in a boot.
        looks=$((looks + 1))
        [ "$looks" != 10 ] || report $reason "$problem"
    elif [ "$code" = 0 ]; then
        # A token that was used is deleted: the certificate counts.
        if [ -s "$certificate" ] || [ "${headers##*status }" != 401 ]; then break; fi
        reason=TokenMissing
        problem="the API server no longer accepts the token: delete the Machine to get a new one"
    fi
    late && fail $reason "$problem"
    sleep 3
done

# --- files of the kubelet, then the kubelet
put "$stage/ca.crt" /etc/kubernetes/pki/ca.crt 0644
{
    printf 'apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n'
    if [ -n "$provider" ]; then printf 'providerID: "%s"\n' "$provider"; fi
    if [ "$RESOLV_CONF" = auto ] && systemctl -q is-active systemd-resolved.service && [ -s /run/systemd/resolve/resolv.conf ]; then
        printf 'resolvConf: /run/systemd/resolve/resolv.conf\n'
    fi
} >"$stage/20-node.conf"
put "$stage/20-node.conf" /etc/kubernetes/kubelet.conf.d/20-node.conf 0600
cat >"$stage/config.yaml" <<'CONFIG'
@CONFIG@
CONFIG
put "$stage/config.yaml" /var/lib/kubelet/config.yaml 0600
mkdir -p "${certificate%/*}"
chmod 0700 "${certificate%/*}"
if ! systemctl cat kubelet.service >/dev/null 2>&1; then
    printf '[Unit]\nDescription=kubelet\n[Service]\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n' >"$stage/kubelet.service"
    put "$stage/kubelet.service" /etc/systemd/system/kubelet.service 0600
fi
cat >"$stage/unit.tpl" <<'UNIT'
@DROP_IN@
UNIT
sed -e "s|^ExecStart=@KUBELET@|ExecStart=$kubelet|" -e "s|^  --hostname-override=@NODENAME@|  --hostname-override=$name|" \
    "$stage/unit.tpl" >"$stage/90-kamaji.conf"
if [ -n "$address" ]; then
    sed -i "s|^  --node-ip=@NODEIP@|  --node-ip=$address|" "$stage/90-kamaji.conf"
else
    sed -i '/^  --node-ip=@NODEIP@/d' "$stage/90-kamaji.conf"
fi
# only with LABEL_TEMPLATES
sed -i "s|^  --node-labels=@LABELS@|  --node-labels=$labels|" "$stage/90-kamaji.conf"
# end
put "$stage/90-kamaji.conf" /etc/systemd/system/kubelet.service.d/90-kamaji.conf 0600

# only with TLS_NAME
# Without a certificate the kubelet writes its kubeconfig at each start, from the one with the token but without the name
# that the certificate of the API server is checked for. With a certificate it only reads the file.
name_server() {
    ! grep -qs tls-server-name "$kubeconfig" || return 0
    sed "/^ *token: /{s|token: .*|client-certificate: $certificate|p;s|certificate:|key:|;}" "$credential" >"$stage/kubelet.conf"
    put "$stage/kubelet.conf" "$kubeconfig" 0600
    # A kubelet that crashed since then reads its own.
    [ "$(systemctl show -p NRestarts --value kubelet.service)" = 0 ] || systemctl restart --no-block kubelet.service
}
[ ! -s "$certificate" ] || name_server
# end
# From here on a kubelet that starts by itself has the flags of the drop-in, and may have the token.
systemctl daemon-reload
put "$credential" /etc/kubernetes/bootstrap-kubelet.conf 0600
systemctl enable kubelet.service >/dev/null 2>&1 || :
systemctl restart --no-block kubelet.service

healthy() {
    systemctl -q is-active kubelet.service || return 1
    [ -n "$HEALTHZ" ] && have curl || return 0
    curl -fsS --noproxy '*' --max-time 3 -o /dev/null "http://$HEALTHZ/healthz" 2>/dev/null
}
# A kubelet whose Node is refused has a certificate and is healthy.
registered() {
    have curl || return 0
    [ "$(request --cert "$certificate" -o /dev/null -w '%{http_code}' "$url/api/v1/nodes/$name" 2>/dev/null)" = 200 ]
}
joined() {
    problem="no client certificate"
    [ -s "$certificate" ] || return 1
    # only with TLS_NAME
    name_server
    # end
    problem="the kubelet is not healthy"
    healthy || return 1
    problem="the API server has no Node $name"
    registered
}
crashes=0
until joined; do
    if late; then fail JoinTimeout "$problem within joinTimeout ($JOIN_TIMEOUT s): $(kubelet_log)"; fi
    # Asking systemd each time would cost a small machine too much.
    [ $((looks % 5)) != 0 ] || count=$(systemctl show -p NRestarts --value kubelet.service 2>/dev/null || echo 0)
    if [ "${count:-0}" -gt "$crashes" ]; then
        crashes=$count
        say "the kubelet exited ($crashes): $(kubelet_log)"
    fi
    # It takes seconds, mostly.
    looks=$((looks + 1))
    if [ "$looks" -gt 50 ] || ! sleep 0.2 2>/dev/null; then sleep 1; fi
done

finish "joined as $name"
