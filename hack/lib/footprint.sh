# What the lab touches on this machine beside its own folders: made by the other parts, looked for by trace.sh.

# Where containerd, the kubelet, their plugins and systemd-nspawn write whatever they are told.
LAB_DIRECTORIES=(
  /run/containerd /var/lib/cni /opt/containerd /opt/cni /run/runc
  /var/lib/kubelet /var/log/containers /var/log/pods /usr/libexec/kubernetes
  /run/systemd /run/systemd/nspawn
)

LAB_SYSCTLS=(
  net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
  # Several systemd machines and kubelets share one root user.
  fs.inotify.max_user_instances=8192
  # What the kubelet of the management node sets.
  vm.overcommit_memory=1 vm.panic_on_oom=0 kernel.panic=10 kernel.panic_on_oops=1
)
