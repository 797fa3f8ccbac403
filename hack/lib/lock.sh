# Locks. Each ends with the process that holds it.

# lock_wait <file descriptor> <who has it>: takes the lock of an open file, however long another run has it.
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

# One lab a machine, so one lock a machine: held while something brings it up, uses it exclusively or takes it down.
# LAB_LOCKED tells the scripts started by the holder.
lab_lock() {
  [ -z "${LAB_LOCKED:-}" ] || return 0
  mkdir -p /var/lock
  exec 9>/var/lock/capi-kamaji-lab
  lock_wait 9 'another run is using the lab of this machine'
  export LAB_LOCKED=1
}
