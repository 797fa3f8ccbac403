# Images: one uncompressed layer of local files, pushed to the registry of the lab with curl. An image is built again only
# when its files or its recipe have changed; the manifest in the registry has their hash as an annotation.

LAB_REGISTRY=10.88.0.1:5000

# image_push <reference> [--user U] [--entrypoint PATH] [--cmd ARGUMENT] [--cap PATH] [--link TARGET PATH]…
#   [--tree DIRECTORY] <PATH=FILE>…
# The image is stored without the host of its registry: nodes use this registry as the mirror of all registries.
image_push() {
  local reference=$1 user=0:0 entrypoint='' cmd='' caps=() links=() files=() tree='' key name tag
  shift
  while (($#)); do
    case $1 in
      --user) user=$2; shift 2 ;;
      --entrypoint) entrypoint=$2; shift 2 ;;
      --cmd) cmd=$2; shift 2 ;;
      --cap) caps+=("$2"); shift 2 ;;
      --link) links+=("$2=$3"); shift 3 ;;
      --tree) tree=$2; shift 2 ;;
      *) files+=("$1"); shift ;;
    esac
  done
  name=${reference%:*} tag=${reference##*:}
  [[ ${name%%/*} != *[.:]* ]] || name=${name#*/}
  key=$(image_key "$reference $user $entrypoint $cmd ${caps[*]} ${links[*]} $tree" "${files[@]}")
  [ "$key" != "$(image_key_in_registry "$name" "$tag")" ] || return 0

  local work
  work=$(mktemp -d "${TMPDIR:-/tmp}/capi-kamaji-image.XXXXXX")
  if ! { image_root "$work/root" && image_layer "$work" && image_upload "$work"; }; then
    rm -rf "$work"
    return 1
  fi
  rm -rf "$work"
}

image_key() { # recipe, path=file...
  local recipe=$1 file
  shift
  {
    printf '%s\n' "$recipe"
    declare -f image_root image_layer image_upload
    for file in "$@"; do
      printf '%s ' "${file%%=*}"
      stat -L -c '%s %Y' "${file#*=}"
      readlink -f "${file#*=}"
    done
  } | sha256sum | cut -c1-32
}

image_key_in_registry() { # name, tag
  curl -sf -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$LAB_REGISTRY/v2/$1/manifests/$2" |
    jq -r '.annotations["lab.key"] // empty' 2>/dev/null || true
}

# Uses the variables of image_push, which bash passes down.
image_root() { # directory
  local root=$1 entry path
  mkdir -p "$root/etc"
  [ -z "$tree" ] || cp -a "$tree/." "$root/"
  install -d -m 1777 "$root/tmp"
  printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
  for entry in "${files[@]}"; do
    path=$root/${entry%%=*}
    install -D -m 0755 "${entry#*=}" "$path" || return 1
  done
  for entry in "${links[@]}"; do
    path=$root/${entry#*=}
    mkdir -p "$(dirname "$path")"
    ln -sfn "${entry%%=*}" "$path"
  done
  for entry in "${caps[@]}"; do setcap cap_net_bind_service+ep "$root/$entry" || return 1; done
}

image_layer() { # work directory with root/
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=posix \
    --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include=security.capability \
    -C "$1/root" -cf "$1/layer.tar" .
}

image_upload() { # work directory with layer.tar
  local work=$1 layer size config
  layer=sha256:$(sha256sum <"$work/layer.tar" | cut -d' ' -f1)
  size=$(stat -c %s "$work/layer.tar")
  jq -n --arg layer "$layer" --arg user "$user" --arg entrypoint "$entrypoint" --arg cmd "$cmd" '{
    architecture: "amd64", os: "linux",
    config: ({User: $user, WorkingDir: "/", Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
      + (if $entrypoint == "" then {} else {Entrypoint: [$entrypoint]} end)
      + (if $cmd == "" then {} else {Cmd: [$cmd]} end)),
    rootfs: {type: "layers", diff_ids: [$layer]}, history: [{created_by: "lab"}]}' >"$work/config.json"
  config=sha256:$(sha256sum <"$work/config.json" | cut -d' ' -f1)
  jq -n --arg layer "$layer" --argjson size "$size" --arg config "$config" --arg key "$key" \
    --argjson config_size "$(stat -c %s "$work/config.json")" '{
    schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", annotations: {"lab.key": $key},
    config: {mediaType: "application/vnd.oci.image.config.v1+json", digest: $config, size: $config_size},
    layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar", digest: $layer, size: $size}]}' >"$work/manifest.json"
  image_blob "$name" "$layer" "$work/layer.tar" || return 1
  image_blob "$name" "$config" "$work/config.json" || return 1
  curl -sSf -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary "@$work/manifest.json" \
    "http://$LAB_REGISTRY/v2/$name/manifests/$tag"
}

image_blob() { # name, digest, file
  local location
  ! curl -sfI -o /dev/null "http://$LAB_REGISTRY/v2/$1/blobs/$2" || return 0
  location=$(curl -sSf -X POST -D - -o /dev/null "http://$LAB_REGISTRY/v2/$1/blobs/uploads/" |
    tr -d '\r' | awk 'tolower($1) == "location:" { print $2 }')
  [[ $location == *\?* ]] && location+="&digest=$2" || location+="?digest=$2"
  curl -sSf -X PUT -H 'Content-Type: application/octet-stream' -T "$3" "$location"
}

image_digest() { # reference
  local name=${1%:*}
  [[ ${name%%/*} != *[.:]* ]] || name=${name#*/}
  curl -sfI -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$LAB_REGISTRY/v2/$name/manifests/${1##*:}" |
    tr -d '\r' | awk 'tolower($1) == "docker-content-digest:" { print $2 }' || true
}
