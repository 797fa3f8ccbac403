# What a lab could leave on this machine, one line a thing: compared before `up` and after `down`.

# A search that finds nothing is an answer, not a failure.
trace() (
  set +eo pipefail
  # Kernel threads have no command line; the shell that asks and its children are not part of the answer.
  ps -eo comm= | grep -E '^(systemd-nspawn|containerd|kubelet|kube-|etcd|coredns|registry|lab-|infra-|capi-kamaji)' | sort | uniq -c |
    sed 's/^ */process /'
  awk '{ print "mount " $5 }' /proc/self/mountinfo | sort
  ip -o route show table all | grep -v ' table local ' | sed 's/^/route /; s/ *$//'
  ip -o link show | awk -F': ' '{ print "link " $2 }' | sed 's/@.*//' | sort
  find /sys/fs/cgroup -maxdepth 2 -type d \( -name 'lab*' -o -name 'kubepods*' \) -printf 'cgroup %P\n' | sort
  local command
  for command in iptables ip6tables; do
    "$command-save" 2>/dev/null | grep -E '^(:|-A)' | sed -E "s/ \[[0-9:]+\]//; s/^/$command /" | sort -u
  done
  find /var/lib /run /etc/cni -maxdepth 1 \( -name 'capi-kamaji*' -o -name 'net.d' \) -printf 'directory %p\n' 2>/dev/null | sort
)
