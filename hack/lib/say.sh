# Progress lines: what is being done or waited for, and how long it took. Text goes to stderr.

# Seconds between progress lines of a step that takes longer. Each is a whole line, for readers of logs.
BEAT=30

say() { printf '%s\n' "$*" >&2; }

die() { say "error: $*"; exit 1; }

# 220 -> 3m40s
duration() {
  local s=$1
  if ((s >= 60)); then printf '%dm%02ds' $((s / 60)) $((s % 60)); else printf '%ds' "$s"; fi
}

# step "text" command...: one line, completed with the time when the command is done. The command's own output goes to
# the file STEP_LOG; its last lines are shown when it fails. It runs in a subshell, where the first error ends it.
step() {
  local text=$1 start=$SECONDS rc=0 beat before
  shift
  before=$(stat -c %s "${STEP_LOG:-/dev/null}" 2>/dev/null) || before=0
  printf '%s … ' "$text" >&2
  exec {beat}> >(step_beat "$start" "$before")
  set +e
  (exec {beat}>&-; set -e; "$@") >>"${STEP_LOG:-/dev/null}" 2>&1
  rc=$?
  set -e
  exec {beat}>&-
  if ((rc != 0)); then
    end_of_line "$text" "$start" "failed after "
    [ -z "${STEP_LOG:-}" ] || { say "last lines of $STEP_LOG:"; tail -n 20 "$STEP_LOG" >&2; }
    return "$rc"
  fi
  end_of_line "$text" "$start" ''
}

# The end of a line, or the whole of it when other lines came between.
end_of_line() { # text, start, words before the time
  ((SECONDS - $2 < BEAT)) || printf '%s … ' "$1" >&2
  printf '%s%s\n' "$3" "$(duration $((SECONDS - $2)))" >&2
}

# Prints the time that has passed and the last line of the command's output, every BEAT seconds until its input ends, and
# so with the step.
step_beat() { # start, length of the log before
  local start=$1 log=${STEP_LOG:-/dev/null} words rc first=$'\n'
  while :; do
    rc=0
    read -r -t "$BEAT" || rc=$?
    ((rc > 128)) || return 0
    words=$(tail -c "+$(($2 + 1))" "$log" 2>/dev/null | tail -c 4096 | last_words) || words=''
    printf '%s  … %s%s\n' "$first" "$(duration $((SECONDS - start)))" "${words:+  $words}" >&2
    first=''
  done
}

# The last line of a command's output, at most 90 characters. Cargo's progress bar becomes «123 of 456 crates: name».
last_words() {
  tr '\r' '\n' | grep -v '^ *$' | tail -n 1 |
    sed -E 's#^ *Building \[[=> ]*\] ([0-9]+)/([0-9]+):? *#\1 of \2 crates: #; s/ +$//' | cut -c 1-90
}

# Passes the output of `go build -v` on and numbers the packages it names: «412 of 1,180 packages: k8s.io/api/core/v1».
numbered_packages() { # how many packages are to be compiled
  local line number=0 total
  total=$(thousands "$1")
  while IFS= read -r line; do
    case $line in
      'go: '* | '#'* | *[[:space:]:]* | '') ;;
      *) number=$((number + 1)) line="$(thousands "$number") of $total packages: $line" ;;
    esac
    printf '%s\n' "$line"
  done
}

thousands() { # number below a million
  if (($1 < 1000)); then printf '%d' "$1"; else printf '%d,%03d' "$(($1 / 1000))" "$(($1 % 1000))"; fi
}

# wait_for "text" seconds command...: asks until the command succeeds; says what is waited for and for how long.
# WAIT_LOG: a log whose last lines say why it did not.
wait_for() {
  local text=$1 limit=$2 start=$SECONDS next=$BEAT
  shift 2
  printf 'waiting for %s … ' "$text" >&2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS - start >= limit)); then
      end_of_line "waiting for $text" "$start" 'not after '
      [ -z "${WAIT_LOG:-}" ] || { say "last lines of $WAIT_LOG:"; tail -n 20 "$WAIT_LOG" >&2; }
      return 1
    fi
    if ((SECONDS - start >= next)); then
      ((next > BEAT)) || printf '\n' >&2
      say "  … $(duration "$next") of at most $(duration "$limit")"
      next=$((next + BEAT))
    fi
    sleep 0.3
  done
  end_of_line "waiting for $text" "$start" ''
}
