# Processes of the lab: started once, identified by PID and start time, never by name.

boot_id() { cat /proc/sys/kernel/random/boot_id; }

process_start_time() { # pid
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name of the command is in brackets and may contain anything; the start time is field 22.
  stat=${stat##*) }
  awk '{ print $20 }' <<<"$stat"
}

process_is() { # pid, start time, boot id
  [ "$3" = "$(boot_id)" ] && [ "$(process_start_time "$1")" = "$2" ] && ! grep -q '^State:\sZ' "/proc/$1/status" 2>/dev/null
}

process_ends() { # pid, start time, boot id, tenths of a second
  local i
  for ((i = 0; i < $4; i++)); do
    process_is "$1" "$2" "$3" || return 0
    sleep 0.1
  done
  return 1
}

process_record() { # name -> pid, start time, boot id of the last start
  awk -v n="$1" '$1 == "process" && $5 == n { r = $2 " " $3 " " $4 } END { print r }' "$MADE" 2>/dev/null
}

process_alive() { # name
  local record
  record=$(process_record "$1")
  # shellcheck disable=SC2086
  [ -n "$record" ] && process_is $record
}

process_stop() { # name
  local record
  record=$(process_record "$1")
  [ -z "$record" ] || undo_process "$record $1"
}

# process_start name command...: starts a process, or restarts it if its command line or a configuration file named there
# has changed.
process_start() {
  local name=$1 line argument
  shift
  line="$(printf '%q ' "$@")# $(readlink -f "$(command -v "$1")")"
  for argument in "$@"; do
    case $argument in *.yaml | *.toml) line+=" $(sha256sum "$argument")" ;; esac
  done
  mkdir -p "$LAB_LOGS" "$LAB_STATE/commands"
  if process_alive "$name"; then
    [ "$line" != "$(cat "$LAB_STATE/commands/$name" 2>/dev/null)" ] || return 0
    process_stop "$name"
  fi
  printf '%s\n' "$line" >"$LAB_STATE/commands/$name"
  printf -- '--- %s start: %s\n' "$(date -u +%FT%TZ)" "$line" >>"$LAB_LOGS/$name.log"
  # The process records itself before it becomes the command, so that a run that is killed here loses nothing.
  local pid i
  (
    pid=$BASHPID
    made process "$pid $(process_start_time "$pid") $(boot_id) $name"
    exec setsid "$@" </dev/null >>"$LAB_LOGS/$name.log" 2>&1 6>&- 8>&- 9>&-
  ) &
  pid=$!
  disown
  for ((i = 0; i < 1500; i++)); do
    [[ "$(process_record "$name")" != "$pid "* ]] || return 0
    sleep 0.02
  done
  die "$name was not started: nothing was written to $MADE within 30 s; is the disk full?"
}
