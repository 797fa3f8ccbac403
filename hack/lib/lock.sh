# One lab a machine, so one lock a machine: held while something brings it up, uses it exclusively or takes it down.
# It ends with the process that holds it. LAB_LOCKED tells the scripts started by the holder.

lab_lock() {
  [ -z "${LAB_LOCKED:-}" ] || return 0
  mkdir -p /var/lock
  exec 9>/var/lock/capi-kamaji-lab
  if ! flock -n 9; then
    say 'another run is using the lab of this machine; waiting for it'
    flock 9
  fi
  export LAB_LOCKED=1
}
