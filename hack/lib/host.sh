# What this machine must bring, looked at before anything is made: each message names the fix.

host_machine() {
  [ "$(uname -s) $(uname -m)" = 'Linux x86_64' ] ||
    die "this is $(uname -s) on $(uname -m); the lab runs on Linux on x86_64 (amd64) alone for now: use such a machine"
  command -v apt-get >/dev/null || die 'apt-get is not here: the lab installs Debian packages; use a Debian machine'
}

host_go() {
  local wanted found
  wanted=$(sed -n 's/^go //p' hack/tools/*/go.mod | sort -V | tail -n 1)
  found=$(cd / && GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || found=''
  host_has Go "$wanted" "${found#go}" 'install it from https://go.dev/dl'
}

host_rust() {
  local wanted found
  command -v cargo >/dev/null || die "cargo is not in PATH: install Rust with https://rustup.rs, or add its folder (~/.cargo/bin) to root's PATH"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  found=$(rustc --version 2>/dev/null) || found=''
  found=${found#rustc }
  host_has Rust "$wanted" "${found%% *}" 'install it with https://rustup.rs, or: rustup update stable && rustup default stable'
}

host_has() { # name, wanted, found, fix
  [ -n "$3" ] || die "$1 $2 or newer is needed and none is in PATH: $4"
  printf '%s\n' "$2" "${3%% *}" | sort -VC || die "$1 $2 or newer is needed, $3 is here: $4"
}
