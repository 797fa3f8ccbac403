# Locks. Each is released when the process that holds it ends.

# lock_wait <file descriptor> <who holds it>: takes the lock of an open file and waits for as long as another run holds it.
lock_wait() {
  local start=$SECONDS rc=0
  flock -n -E 75 "$1" || rc=$?
  ((rc != 75)) || say "$2; waiting for it"
  while ((rc == 75)); do
    rc=0
    flock -w "$BEAT" -E 75 "$1" || rc=$?
    ((rc != 75)) || say "  … $(duration $((SECONDS - start)))"
  done
  return "$rc"
}

# A machine has one lab and one lock: it is held while the lab is started, used exclusively or taken down. LAB_LOCKED is set
# for scripts that the holder starts.
lab_lock() {
  [ -z "${LAB_LOCKED:-}" ] || return 0
  mkdir -p /var/lock
  exec 9>/var/lock/capi-kamaji-lab
  lock_wait 9 'another run is using the lab of this machine'
  export LAB_LOCKED=1
}
