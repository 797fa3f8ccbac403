# Records what the lab makes outside of the checkout: one line for each thing in $LAB_STATE/made, written before the thing
# is made. `down` undoes these lines from last to first and nothing else, so that the next run knows what a killed run or a
# reboot has left. The file `boot` beside it has the id of the boot: what exists in the kernel ends with the boot, and a
# thing of the same name in another boot belongs to something else. The kinds of lines:
#   process <pid> <start time> <boot id> <name>     a process, known by its start time too: pids are used again
#   containers <containerd socket>                  shims and pods of a containerd of ours
#   cgroup <path below each hierarchy>              a cgroup and those below, with the processes in them
#   machines <binary> <state directory>             what the machine host has booted
#   mounts <directory>                              whatever is mounted at or below it
#   directory <path>                                a directory that did not exist before, with its content
#   veths <bridge>                                  the host's ends of pods' links to a bridge
#   link <name>                                     a network link
#   route <prefix> [via …]                          a route
#   rule <table> <chain and rule>                   an iptables rule
#   chains <prefix>                                 iptables chains of that prefix and the rules that jump to them
#   sysctl <key> <value before> <value set>

MADE=$LAB_STATE/made

made() {
  mkdir -p "$LAB_STATE"
  [ -f "$MADE" ] || { boot_id >"$LAB_STATE/boot" && touch "$MADE"; }
  is_made "$@" || printf '%s\n' "$*" >>"$MADE"
}

made_this_boot() { [ "$(cat "$LAB_STATE/boot" 2>/dev/null)" = "$(boot_id)" ]; }

is_made() { grep -qsxF -- "$*" "$MADE"; }

# Records a directory, unless it exists already.
made_directory() {
  [ -e "$1" ] || made directory "$1"
}

made_sysctl() { # key value
  local key=$1 value=$2 before
  before=$(sysctl -n "$key" 2>/dev/null | tr '\t' ' ') || return 0
  [ "$before" != "$value" ] || return 0
  grep -qs "^sysctl $key " "$MADE" || made sysctl "$key" "$before" "$value"
  sysctl -qw "$key=$value"
}

# Undoes everything. What cannot be undone stays recorded, and the function fails.
undo_all() {
  local kind rest left=()
  [ -f "$MADE" ] || return 0
  while read -r kind rest; do
    undo "$kind" "$rest" || { say "could not undo «$kind $rest»"; left=("$kind $rest" "${left[@]}"); }
  done < <(tac "$MADE")
  if ((${#left[@]})); then
    printf '%s\n' "${left[@]}" >"$MADE"
    return 1
  fi
  rm -f "$MADE"
}

undo() { # kind, rest of the line
  case $1 in
    process | directory) ;; # these check the boot themselves
    *) made_this_boot || return 0 ;;
  esac
  "undo_$1" "$2"
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
  local group pid tries found
  for ((tries = 0; tries < 100; tries++)); do
    found=''
    for group in "/sys/fs/cgroup/$1" /sys/fs/cgroup/*/"$1"; do
      [ -d "$group" ] || continue
      found=yes
      while read -r pid; do
        [ "$pid" = 0 ] || kill -KILL "$pid" 2>/dev/null || true
      done < <(find "$group" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u)
      find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
    [ -n "$found" ] || return 0
    sleep 0.1
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

# From an earlier boot: a directory in memory is gone, and one with mounts in it is used by something else now.
undo_directory() {
  if ! made_this_boot; then
    [[ $1 != /run/* ]] || return 0
    [ -z "$(mounts_below "$1")" ] || { say "$1 is used by something other than the lab and is kept"; return 0; }
  fi
  undo_mounts "$1" && rm -rf --one-file-system -- "$1"
}

# A network namespace exists for as long as one of its sockets waits for an answer, so its link is removed explicitly.
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

# Prints the dump of a table without the chains of a prefix and the rules that jump to them; prints nothing if there are
# none.
chains_without() {
  awk -v p="$1" '
    { lines[NR] = $0 }
    $0 ~ "^:" p || $0 ~ "^-A " p || $0 ~ "-[jg] " p { drop[NR] = 1; n++ }
    END { if (n) for (i = 1; i <= NR; i++) if (!(i in drop)) print lines[i] }'
}

# A value that differs from the recorded one was set by something else and is kept.
undo_sysctl() {
  local key before ours
  read -r key before ours <<<"$1"
  [ -z "$ours" ] || [ "$(sysctl -n "$key" 2>/dev/null)" = "$ours" ] || return 0
  sysctl -qw "$key=$before" 2>/dev/null || true
}
