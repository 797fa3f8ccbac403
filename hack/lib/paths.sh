# Paths: the checkout, what the lab leaves in it, the cache outside of it, and the folders of the lab on the machine. A
# machine has one lab, so these have fixed, short names (the path of a Unix socket may not be long).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB=$ROOT/.lab
LAB_BIN=$LAB/bin
LAB_LOGS=$LAB/logs
CACHE=${KAMAJI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/capi-kamaji}

LAB_DATA=/var/lib/capi-kamaji-lab
LAB_RUN=/run/capi-kamaji-lab
LAB_STATE=$LAB_DATA/state

# Cargo compares file times: files in a shared target directory may be newer than these sources and built from another
# checkout. Call this before a build in such a directory.
target_taken() { # target directory
  mkdir -p "$1"
  [ "$(cat "$1/checkout" 2>/dev/null)" != "$ROOT" ] || return 0
  find "$ROOT" \( -name .git -o -name target -o -name .lab \) -prune -o -type f -exec touch -c {} +
  printf '%s\n' "$ROOT" >"$1/checkout"
}
