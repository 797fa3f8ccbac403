# What the lab changes on this machine outside its own folders: the other parts make it, trace.sh looks for it.

# Directories that containerd, the kubelet, their plugins and systemd-nspawn write to whatever their configuration says.
LAB_DIRECTORIES=(
  /run/containerd /var/lib/cni /opt/containerd /opt/cni /run/runc
  /var/lib/kubelet /var/log/containers /var/log/pods /usr/libexec/kubernetes
  /run/systemd /run/systemd/nspawn
)

LAB_SYSCTLS=(
  net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
  # Several systemd machines and kubelets share one root user.
  fs.inotify.max_user_instances=8192
  # Set by the kubelet of the management node.
  vm.overcommit_memory=1 vm.panic_on_oom=0 kernel.panic=10 kernel.panic_on_oops=1
)
