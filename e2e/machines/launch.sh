#!/bin/sh
# Starts one machine: dir, lower root, id, host name, bridge. Run in a mount namespace of its own, so that the
# root's overlay is seen by nobody else and goes with the machine.
set -eu
dir=$1 lower=$2 id=$3 hostname=$4 bridge=$5

# A cgroup subtree of its own in every hierarchy: otherwise the machine's kubelet and systemd take the host's
# cgroups for theirs and clean them up.
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    hierarchy=${hierarchy%/}
    if [ -L "$hierarchy" ] || [ ! -w "$hierarchy/cgroup.procs" ] || ! mountpoint -q "$hierarchy"; then
        continue
    fi
    group=$hierarchy/lab-$id
    mkdir -p "$group"
    if [ -f "$hierarchy/cpuset.cpus" ] && [ -f "$group/cgroup.clone_children" ]; then
        cat "$hierarchy/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$hierarchy/cpuset.mems" >"$group/cpuset.mems"
        echo 1 >"$group/cgroup.clone_children"
    fi
    echo $$ >"$group/cgroup.procs"
done

mkdir -p /run/systemd/nspawn
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"

# The root is this machine's alone: no lock file is needed, and none can be left behind.
# The container runtime and the kubelet keep their data on the host's own file system: an overlay cannot be the
# upper layer of another overlay.
boot() {
    SYSTEMD_NSPAWN_LOCK=0 systemd-nspawn --quiet --directory="$dir/root" --machine="$id" --hostname="$hostname" --boot \
        --bind="$dir/containerd:/var/lib/containerd" --bind="$dir/kubelet:/var/lib/kubelet" \
        --network-bridge="$bridge" --capability=all --private-users=no --register=no --keep-unit \
        --resolv-conf=off --timezone=off --link-journal=no --console=read-only \
        --system-call-filter='@keyring bpf perf_event_open'
}

# With --keep-unit, systemd-nspawn ends with this status when the machine reboots, for a service manager to start it anew.
reboot=133
status=$reboot
while [ "$status" = "$reboot" ]; do
    status=0
    boot || status=$?
done
exit "$status"
