# Debian packages that the lab needs on the host. They are installed once and stay when the lab is taken down.

LAB_PACKAGES=(
  ca-certificates curl jq git                         # the scripts themselves
  containerd runc containernetworking-plugins         # the management node
  iptables conntrack iproute2 socat ethtool kmod
  systemd-container debootstrap cloud-image-utils     # machines
  libcap2-bin openssl xz-utils attr
  gcc libc6-dev make                                  # Rust: the linker, and C that crates bring
  protobuf-compiler libprotobuf-dev                   # etcd-client's build script
  netcat-openbsd                                      # the image of agnhost, and busybox
)
# Debian has two packages of it, of which one excludes the other.
command -v busybox >/dev/null || LAB_PACKAGES+=(busybox)

PACKAGES_POLICY=/usr/sbin/policy-rc.d
PACKAGES_POLICY_TEXT='#!/bin/sh
# capi-kamaji: no service is started while its packages are being installed
exit 101'

packages_missing() {
  local package
  for package in "${LAB_PACKAGES[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
  done
}

packages_install() {
  local missing
  packages_lock
  packages_forget_policy
  mapfile -t missing < <(packages_missing)
  if ((${#missing[@]})); then
    command -v apt-get >/dev/null || die "apt-get is needed to install: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if ! apt-cache policy "${missing[@]}" 2>/dev/null | grep -q 'Candidate: [0-9]'; then
      step 'reading the package lists' apt-get update -qq
    fi
    step "installing ${#missing[@]} Debian packages (${missing[*]})" packages_get "${missing[@]}"
  fi
  exec 6>&-
}

packages_lock() {
  mkdir -p /var/lock
  exec 6>/var/lock/capi-kamaji-packages
  lock_wait 6 'another run is installing packages'
}

# Cleans up after an installation that was killed.
packages_clear() {
  packages_lock
  packages_forget_policy
  exec 6>&-
}

packages_forget_policy() {
  [ "$(cat "$PACKAGES_POLICY" 2>/dev/null)" != "$PACKAGES_POLICY_TEXT" ] || rm -f "$PACKAGES_POLICY"
}

# Services of the packages are not started: the lab runs its own containerd, with its own directories and socket. So
# policy-rc.d forbids it during the installation, unless the host has a policy of its own.
packages_get() {
  local rc=0
  if [ ! -e "$PACKAGES_POLICY" ]; then
    (set -C && printf '%s\n' "$PACKAGES_POLICY_TEXT" >"$PACKAGES_POLICY" && chmod +x "$PACKAGES_POLICY")
  fi
  packages_apt "$@" || { apt-get update -qq && packages_apt "$@"; } || rc=$?
  packages_forget_policy
  return "$rc"
}

packages_apt() { apt-get install -y -qq --no-install-recommends "$@" 6>&- 7>&- 9>&-; }
