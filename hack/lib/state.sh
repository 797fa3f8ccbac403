# What the lab has made outside of the checkout, one line a thing in $LAB_STATE/made, written before the thing is made.
# `down` undoes the lines from last to first and nothing else, so that a killed run or a reboot leaves nothing behind
# that the next run does not know of. Programs beside these scripts (the machine service) append lines of the same form:
#   process <pid> <start time> <boot id> <name>     a process, known by its start time too: pids are used again
#   containers <containerd socket>                  shims and pods of a containerd of ours
#   cgroup <path below each hierarchy>              a cgroup and those below, with the processes in them
#   machines <binary> <state directory>             what the machine host has booted
#   mounts <directory>                              whatever is mounted at or below it
#   directory <path>                                a directory that was not there before, with its content
#   veths <bridge>                                  the host's ends of pods' links to a bridge
#   link <name>                                     a network link
#   route <prefix> [via …]                          a route
#   rule <table> <chain and rule>                   an iptables rule
#   chains <prefix>                                 iptables chains of that prefix and the rules that jump to them
#   sysctl <key> <value before>

MADE=$LAB_STATE/made

made() {
  mkdir -p "$LAB_STATE"
  touch "$MADE"
  if ! grep -qxF -- "$*" "$MADE"; then printf '%s\n' "$*" >>"$MADE"; fi
}

# The directory is recorded, unless somebody else had it before.
made_directory() {
  [ -e "$1" ] || made directory "$1"
}

made_sysctl() { # key value
  local key=$1 value=$2 before
  before=$(sysctl -n "$key" 2>/dev/null | tr '\t' ' ') || return 0
  [ "$before" != "$value" ] || return 0
  grep -qs "^sysctl $key " "$MADE" || made sysctl "$key" "$before"
  sysctl -qw "$key=$value"
}

# Fails when something is left; what is left stays recorded.
undo_all() {
  local kind rest left=()
  [ -f "$MADE" ] || return 0
  while read -r kind rest; do
    "undo_$kind" "$rest" || { say "could not undo «$kind $rest»"; left=("$kind $rest" "${left[@]}"); }
  done < <(tac "$MADE")
  if ((${#left[@]})); then
    printf '%s\n' "${left[@]}" >"$MADE"
    return 1
  fi
  rm -f "$MADE"
}

undo_process() {
  local pid start boot name
  read -r pid start boot name <<<"$1"
  process_is "$pid" "$start" "$boot" || return 0
  kill -TERM "$pid" 2>/dev/null || return 0
  process_ends "$pid" "$start" "$boot" 100 && return 0
  kill -KILL "$pid" 2>/dev/null || return 0
  process_ends "$pid" "$start" "$boot" 100
}

undo_containers() { containers_end "$1"; }

undo_machines() {
  local binary directory
  read -r binary directory <<<"$1"
  [ ! -d "$directory" ] || "$binary" down --state "$directory" >>"$LAB_LOGS/machines.log" 2>&1
}

undo_cgroup() {
  local hierarchy path pid tries
  for tries in 1 2 3 4 5 6 7 8 9 10; do
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
      path=$hierarchy/$1
      { [ -f "$path/cgroup.procs" ]; } || continue
      while read -r pid; do
        [ "$pid" = 0 ] || kill -KILL "$pid" 2>/dev/null || true
      done < <(find "$path" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u)
      find "$path" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    compgen -G "/sys/fs/cgroup/*/$1" >/dev/null || return 0
    sleep 0.2
  done
  return 1
}

undo_mounts() {
  local path tries
  for tries in 1 2 3; do
    while read -r path; do
      umount "$path" 2>/dev/null || umount -l "$path" 2>/dev/null || true
    done < <(mounts_below "$1" | tac)
  done
  [ -z "$(mounts_below "$1")" ]
}

mounts_below() {
  awk -v d="$1" '{ p = $5; gsub(/\\040/, " ", p) } p == d || index(p, d "/") == 1 { print p }' /proc/self/mountinfo
}

undo_directory() {
  undo_mounts "$1" && rm -rf --one-file-system -- "$1"
}

# A network namespace lives on while one of its sockets still waits for an answer; its link is removed here and now.
undo_veths() {
  local link
  for link in $(ip -o link show type veth master "$1" 2>/dev/null | grep -oE 'veth[0-9a-f]{8}\b'); do
    ip link delete dev "$link" 2>/dev/null || true
  done
}

undo_link() { ! ip link show dev "$1" >/dev/null 2>&1 || ip link delete dev "$1"; }

# shellcheck disable=SC2086  # a route is several words
undo_route() { ip route delete $1 2>/dev/null || true; }

undo_rule() {
  local table rule
  read -r table rule <<<"$1"
  # shellcheck disable=SC2086
  while iptables -w -t "$table" -D $rule 2>/dev/null; do :; done
}

undo_chains() {
  local command table
  for command in iptables ip6tables; do
    for table in filter nat mangle raw; do
      "$command-save" -t "$table" 2>/dev/null | chains_without "$1" | "$command-restore" -w -T "$table" 2>/dev/null || true
    done
  done
}

# What is left of a table's dump without the chains of a prefix and the rules that jump to them; prints nothing where
# there is nothing to take away.
chains_without() {
  awk -v p="$1" '
    { lines[NR] = $0 }
    $0 ~ "^:" p || $0 ~ "^-A " p || $0 ~ "-[jg] " p { drop[NR] = 1; n++ }
    END { if (n) for (i = 1; i <= NR; i++) if (!(i in drop)) print lines[i] }'
}

undo_sysctl() {
  local key value
  read -r key value <<<"$1"
  sysctl -qw "$key=$value" 2>/dev/null || true
}
