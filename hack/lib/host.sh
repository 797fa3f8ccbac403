# Checks that this machine has what the lab needs, before anything is made. Each message names the fix.

host_machine() {
  [ "$(uname -s) $(uname -m)" = 'Linux x86_64' ] ||
    die "this is $(uname -s) on $(uname -m); the lab supports only Linux on x86_64 (amd64); use such a machine"
  command -v apt-get >/dev/null || die 'apt-get is not found: the lab installs Debian packages; use a Debian machine'
}

host_go() {
  local required found
  required=$(sed -n 's/^go //p' hack/tools/*/go.mod | sort -V | tail -n 1)
  found=$(cd / && GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || found=''
  host_has Go "$required" "${found#go}" 'install it from https://go.dev/dl'
}

host_rust() {
  local required found
  command -v cargo >/dev/null || die "cargo is not in PATH: install Rust with https://rustup.rs, or add its folder (~/.cargo/bin) to root's PATH"
  required=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  found=$(rustc --version 2>/dev/null) || found=''
  found=${found#rustc }
  host_has Rust "$required" "${found%% *}" 'install it with https://rustup.rs, or: rustup update stable && rustup default stable'
}

host_has() { # name, required version, version found, fix
  [ -n "$3" ] || die "$1 $2 or newer is required and none is in PATH: $4"
  printf '%s\n' "$2" "${3%% *}" | sort -VC || die "$1 $2 or newer is required, $3 is installed: $4"
}
