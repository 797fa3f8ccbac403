# Lists what a lab could leave on this machine, one line for each thing. Tests compare the list before `up` and after
# `down`, and before a cluster is created and after it is deleted. It has no PIDs, no times and nothing that changes by
# itself, so that two lists of a lab at rest are equal. It only reads.
. "${BASH_SOURCE[0]%/*}/footprint.sh"

# A search that finds nothing is an answer, not a failure.
trace() (
  set +eo pipefail
  export LC_ALL=C
  trace_processes
  awk '{ print "mount " $5 }' /proc/self/mountinfo | sort
  ip -o route show table all | grep -v ' table local ' | sed -E 's/^/route /; s/ expires [0-9]+sec//; s/ *$//'
  ip -o link show | awk -F': ' '{ print "link " $2 }' | sed 's/@.*//' | sort
  # In every hierarchy; of the subtree of a machine only its root.
  find /sys/fs/cgroup -type d \( -name 'lab-*' -printf '%P\n' -prune -o -name 'kubepods*' -printf '%P\n' \
    -o -path '*/kubepods*' -name 'pod*' -printf '%P\n' -prune \) 2>/dev/null |
    sed -E 's#^[^/]+/(lab-|kubepods)#\1#; s/^/cgroup /' | sort -u
  trace_rules
  trace_sysctls
  {
    find /var/lib /run /etc/cni -maxdepth 1 \( -name 'capi-kamaji*' -o -name 'net.d' \)
    find "${LAB_DIRECTORIES[@]}" -maxdepth 0
  } 2>/dev/null | sed 's/^/directory /' | sort
)

# Counted by name, and only processes older than five seconds: commands of probes and of kube-proxy are short. A zombie has
# ended, as for process_is.
trace_processes() {
  local group pods machines
  for group in /sys/fs/cgroup/lab-* /sys/fs/cgroup/*/lab-*; do
    # Whether something runs in a machine, not what: its systemd starts and ends services by itself.
    [ -z "$(trace_pids "$group")" ] || echo "process in ${group##*/}"
  done | sort -u
  machines=$(trace_pids /sys/fs/cgroup/lab-* /sys/fs/cgroup/*/lab-*)
  pods=$(trace_pids /sys/fs/cgroup/kubepods* /sys/fs/cgroup/*/kubepods*)
  ps -eo pid=,etimes=,state=,comm= | awk -v machines="$machines" -v pods="$pods" '
    BEGIN {
      n = split(machines, list, /[ \n]+/); for (i = 1; i <= n; i++) machine[list[i]] = 1
      n = split(pods, list, /[ \n]+/); for (i = 1; i <= n; i++) pod[list[i]] = 1
    }
    $2 < 5 || $3 == "Z" || $1 in machine { next }
    {
      name = $0; sub(/^ *[0-9]+ +[0-9]+ +[A-Za-z] /, "", name)
      if ($1 in pod) count["process in a pod: " name]++
      else if (name ~ /^(systemd-nspawn|containerd|kubelet|kube-|etcd|coredns|registry|lab-|infra-|capi-kamaji)/)
        count["process " name]++
    }
    END { for (name in count) print name " (" count[name] ")" }' | sort
}

trace_pids() { # cgroups, which need not exist
  find "$@" -name cgroup.procs -exec cat {} + 2>/dev/null | grep '[1-9]' | sort -un
}

# Built-in chains appear with the first use of a table and stay; while they are empty and have the default policy, they
# have no effect.
trace_rules() {
  local command
  for command in iptables ip6tables; do
    "$command-save" 2>/dev/null | grep -E '^(:|-A)' | grep -vE '^:[^ ]+ ACCEPT' |
      sed -E "s/ \[[0-9:]+\]//; s/^/$command /" | sort -u
  done
}

trace_sysctls() {
  local setting value
  for setting in "${LAB_SYSCTLS[@]}"; do
    value=$(sysctl -n "${setting%%=*}" 2>/dev/null) && echo "sysctl ${setting%%=*} $value"
  done
}
