# Progress lines: what is being done or waited for, and how long it took. Text goes to stderr.

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
  local text=$1 start=$SECONDS rc=0
  shift
  printf '%s … ' "$text" >&2
  set +e
  (set -e; "$@") >>"${STEP_LOG:-/dev/null}" 2>&1
  rc=$?
  set -e
  if ((rc != 0)); then
    printf 'failed after %s\n' "$(duration $((SECONDS - start)))" >&2
    [ -z "${STEP_LOG:-}" ] || { say "last lines of $STEP_LOG:"; tail -n 20 "$STEP_LOG" >&2; }
    return "$rc"
  fi
  printf '%s\n' "$(duration $((SECONDS - start)))" >&2
}

# wait_for "text" seconds command...: asks until the command succeeds; says what is waited for and for how long.
# WAIT_LOG: a log whose last lines say why it did not.
wait_for() {
  local text=$1 limit=$2 start=$SECONDS
  shift 2
  printf 'waiting for %s … ' "$text" >&2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS - start >= limit)); then
      printf 'not after %s\n' "$(duration "$limit")" >&2
      [ -z "${WAIT_LOG:-}" ] || { say "last lines of $WAIT_LOG:"; tail -n 20 "$WAIT_LOG" >&2; }
      return 1
    fi
    sleep 0.3
  done
  printf '%s\n' "$(duration $((SECONDS - start)))" >&2
}
