# Debian packages the lab needs on the host. Installed once, quietly; nothing is removed by `down`, as they are not ours.

LAB_PACKAGES=(
  ca-certificates curl jq git                         # the scripts themselves
  containerd runc containernetworking-plugins         # the management node
  iptables conntrack iproute2 socat ethtool kmod
  systemd-container debootstrap cloud-image-utils     # machines
  libcap2-bin openssl xz-utils attr
  protobuf-compiler libprotobuf-dev                   # etcd-client's build script
)

packages_missing() {
  local package
  for package in "${LAB_PACKAGES[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
  done
}

packages_install() {
  local missing
  mapfile -t missing < <(packages_missing)
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "apt-get is needed to install: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  if ! apt-cache policy "${missing[@]}" 2>/dev/null | grep -q 'Candidate: [0-9]'; then
    step 'reading the package lists' apt-get update -qq
  fi
  # A service that a package brings is not started: the lab runs its own containerd, with its own root and socket.
  printf '#!/bin/sh\nexit 101\n' >"$CACHE/policy-rc.d"
  chmod +x "$CACHE/policy-rc.d"
  step "installing ${#missing[@]} Debian packages (${missing[*]})" packages_get "${missing[@]}"
}

# With a policy-rc.d of our own for the time of the installation, unless the host has one.
packages_get() {
  local policy=/usr/sbin/policy-rc.d rc=0
  if [ ! -e "$policy" ]; then cp "$CACHE/policy-rc.d" "$policy"; else policy=; fi
  apt-get install -y -qq --no-install-recommends "$@" ||
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } || rc=$?
  [ -z "$policy" ] || rm -f "$policy"
  return "$rc"
}
