# The local registry (distribution) and the images in it that the lab needs: static binaries under the upstream names.

registry_up() {
  mkdir -p "$LAB_DATA/registry"
  cat >"$LAB_DATA/registry.yaml" <<EOF
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: $LAB_DATA/registry}
  delete: {enabled: true}
http:
  addr: $LAB_REGISTRY
EOF
  OTEL_TRACES_EXPORTER=none process_start registry "$LAB_BIN/registry" serve "$LAB_DATA/registry.yaml"
  WAIT_LOG=$LAB_LOGS/registry.log wait_for 'the registry' 30 curl -sf "http://$LAB_REGISTRY/v2/"
}

# `server` is the mirror itself, so that no other registry is asked for an image that is missing here.
registry_hosts_file() { # certs.d directory
  mkdir -p "$1/_default"
  cat >"$1/_default/hosts.toml" <<EOF
server = "http://$LAB_REGISTRY"

[host."http://$LAB_REGISTRY"]
  capabilities = ["pull", "resolve"]
EOF
}

registry_images() {
  local name old
  registry_image pause "$PAUSE_IMAGE" --user 65535:65535 --entrypoint /pause "pause=$LAB_BIN/pause"
  registry_image kube-apiserver "registry.k8s.io/kube-apiserver:$KUBERNETES_VERSION" --cap usr/local/bin/kube-apiserver \
    "usr/local/bin/kube-apiserver=$LAB_BIN/kube-apiserver"
  for name in kube-controller-manager kube-scheduler; do
    registry_image "$name" "registry.k8s.io/$name:$KUBERNETES_VERSION" "usr/local/bin/$name=$LAB_BIN/$name"
  done
  registry_image etcd "$ETCD_IMAGE" --entrypoint /usr/local/bin/etcd \
    "usr/local/bin/etcd=$LAB_BIN/etcd" "usr/local/bin/etcdctl=$LAB_BIN/etcdctl"
  registry_coredns "$COREDNS_IMAGE"
  if [ -x "$LAB_BIN/agnhost" ]; then registry_agnhost; fi
  registry_image "$CAPI_TOOL" "$CAPI_IMAGE:$CAPI_VERSION" --user 65532:65532 \
    --entrypoint /manager "manager=$LAB_BIN/$CAPI_TOOL"
  for name in proxy-server proxy-agent; do registry_konnectivity "$name" "$KONNECTIVITY_VERSION"; done
  if [ -x "$LAB_BIN/metrics-server" ]; then
    registry_image metrics-server "$METRICS_SERVER_IMAGE" --user 65534:65534 --entrypoint /metrics-server \
      "metrics-server=$LAB_BIN/metrics-server"
  fi
  if [ -x "$LAB_BIN/kube-proxy" ]; then registry_kube_proxy kube-proxy "$KUBERNETES_VERSION"; fi
  for old in "$LAB_BIN"/proxy-*-v*; do
    [ ! -x "$old" ] || registry_konnectivity "${old##*/}" "${old##*-}"
  done
  for old in "$LAB_BIN"/kube-apiserver-v*; do
    [ -x "$old" ] || continue
    old=${old##*-}
    registry_image "kube-apiserver-$old" "registry.k8s.io/kube-apiserver:$old" --cap usr/local/bin/kube-apiserver \
      "usr/local/bin/kube-apiserver=$LAB_BIN/kube-apiserver-$old"
    for name in kube-controller-manager kube-scheduler; do
      registry_image "$name-$old" "registry.k8s.io/$name:$old" "usr/local/bin/$name=$LAB_BIN/$name-$old"
    done
    # Workers of that version need more: with kube-proxy come the tags of CoreDNS, of which the lab has one version.
    [ -x "$LAB_BIN/kube-proxy-$old" ] || continue
    registry_kube_proxy "kube-proxy-$old" "$old"
    for name in $COREDNS_OLDER; do registry_coredns "${COREDNS_IMAGE%:*}:$name"; done
  done
}

registry_coredns() { # reference
  registry_image coredns "$1" --user 65532:65532 --entrypoint /coredns --cap coredns "coredns=$LAB_BIN/coredns"
}

registry_konnectivity() { # tool, which may end with its version; version
  local program=${1%-v*}
  registry_image "$1" "$KONNECTIVITY_IMAGES/$program:$2" --user 65532:65532 --entrypoint "/$program" "$program=$LAB_BIN/$1"
}

# Pushes no image of a tool that is not built.
registry_image() { # tool, reference, image_push arguments...
  local tool=$1
  shift
  [ -x "$LAB_BIN/$tool" ] || { say "no image ${1##*/}: $tool is not built"; return 0; }
  image_push "$@" || die "pushing $1 to the local registry failed"
}

# kube-proxy runs iptables and conntrack: the image has those of the host beside the static binary.
registry_kube_proxy() { # tool, version
  local tree=$CACHE/kube-proxy-files file name
  if [ ! -d "$tree" ]; then
    rm -rf "$tree.part"
    mkdir -p "$tree.part/usr/sbin"
    # Under all names: libxt_MASQUERADE.so and others are links to one library.
    for file in /usr/sbin/xtables-nft-multi /usr/sbin/conntrack /usr/lib/x86_64-linux-gnu/xtables/*.so; do
      registry_copy_with_libraries "$file" "$tree.part"
    done
    for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
      ln -s xtables-nft-multi "$tree.part/usr/sbin/$name"
    done
    mv "$tree.part" "$tree"
  fi
  registry_image "$1" "registry.k8s.io/kube-proxy:$2" --tree "$tree" "usr/local/bin/kube-proxy=$LAB_BIN/$1"
}

# Kubernetes' tests call more in agnhost's image than agnhost: a shell with the usual commands, curl and netcat, which are
# those of the host here, the program under a second name, and a certificate for servers.
registry_agnhost() {
  local tree=$CACHE/agnhost-files file busybox applet reference references=("$AGNHOST_IMAGE")
  if [ ! -d "$tree" ]; then
    rm -rf "$tree.part"
    mkdir -p "$tree.part/bin" "$tree.part/usr/bin" "$tree.part/etc" "$tree.part/uploads"
    busybox=$(command -v busybox)
    for file in "$busybox" /usr/bin/curl /bin/nc.openbsd; do registry_copy_with_libraries "$file" "$tree.part"; done
    ln -s /bin/nc.openbsd "$tree.part/usr/bin/nc"
    for applet in $("$busybox" --list); do
      [ -e "$tree.part/bin/$applet" ] || ln -s "$busybox" "$tree.part/bin/$applet"
    done
    echo 'hosts: files dns' >"$tree.part/etc/nsswitch.conf"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=localhost \
      -keyout "$tree.part/localhost.key" -out "$tree.part/localhost.crt"
    mv "$tree.part" "$tree"
  fi
  # The older one is what pods are updated from.
  [ ! -x "$LAB_BIN/e2e.test" ] || references+=("$AGNHOST_IMAGE_BEFORE")
  for reference in "${references[@]}"; do
    registry_image agnhost "$reference" --entrypoint /agnhost --cmd pause --link agnhost agnhost-2 --tree "$tree" \
      "agnhost=$LAB_BIN/agnhost"
  done
}

registry_copy_with_libraries() { # file, tree
  local file
  for file in "$1" $(ldd "$1" | grep -o '/[^ ]*'); do
    [ -e "$2$file" ] || install -D -m 0755 "$(readlink -f "$file")" "$2$file"
  done
}
