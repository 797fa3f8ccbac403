#!/usr/bin/env bash
# Tests of the shell parts: what is undone, refused and looked for, which full suite runs, what progress lines say. They
# write nothing outside of a folder of their own and need no root: a function that would change the machine is replaced by
# one of the same name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
for part in paths say lock versions footprint host state process net packages lab trace suites; do . "hack/lib/$part.sh"; done

TEMPORARY=$(mktemp -d "${TMPDIR:-/tmp}/capi-kamaji-tests.XXXXXX")
trap 'rm -rf "$TEMPORARY"' EXIT
failures=0 count=0

# it "name" function: in a subshell with an empty state, where the first error ends it.
it() {
  local rc=0
  count=$((count + 1))
  set +e
  (
    set -e
    LAB_STATE=$(mktemp -d "$TEMPORARY/state.XXXXXX") MADE=$LAB_STATE/made
    CALLS=$LAB_STATE/calls
    : >"$CALLS"
    unset CI
    "$2"
  ) >"$TEMPORARY/output" 2>&1
  rc=$?
  set -e
  if ((rc)); then
    failures=$((failures + 1))
    say "FAILED  $1"
    cat "$TEMPORARY/output" >&2
  fi
}

expect() { # what, expected, found
  [ "$2" = "$3" ] || { printf '%s: expected\n%s\nfound\n%s\n' "$1" "$2" "$3"; return 1; }
}

refuses() { # words of the message, command...
  local words=$1 output
  shift
  if output=$( ("$@") 2>&1 ); then
    echo "not refused: $*"
    return 1
  fi
  [[ $output == *"$words"* ]] || { printf 'refused, but not with «%s»:\n%s\n' "$words" "$output"; return 1; }
}

record() { printf '%s\n' "$*" >>"$CALLS"; }

what_is_made_is_undone_from_last_to_first() {
  undo_link() { record "link $1"; }
  undo_chains() { record "chains $1"; }
  made link one
  made chains KUBE-
  made link one
  undo_all
  expect calls $'chains KUBE-\nlink one' "$(cat "$CALLS")"
  [ ! -e "$MADE" ]
}

what_cannot_be_undone_stays_recorded() {
  undo_link() { [ "$1" != stuck ]; }
  made link gone
  made link stuck
  refuses 'could not undo «link stuck»' undo_all
  expect record 'link stuck' "$(cat "$MADE")"
}

what_another_boot_made_in_the_kernel_is_not_touched() {
  local kind
  for kind in containers machines cgroup mounts veths link route rule chains sysctl; do
    eval "undo_$kind() { record $kind \"\$1\"; }"
    made "$kind" x
  done
  mkdir -p "$LAB_STATE/disk/inside"
  made directory "$LAB_STATE/disk"
  made directory /run/capi-kamaji-tests
  rm() { record "rm $*"; command rm "$@"; }
  echo another-boot >"$LAB_STATE/boot"
  undo_all
  expect calls "mounts $LAB_STATE/disk
rm -rf --one-file-system -- $LAB_STATE/disk
rm -f $MADE" "$(cat "$CALLS")"
}

a_folder_of_another_boot_that_somebody_mounts_in_stays() {
  mounts_below() { echo "$1/mounted"; }
  mkdir "$LAB_STATE/disk"
  made directory "$LAB_STATE/disk"
  echo another-boot >"$LAB_STATE/boot"
  undo_all
  [ -d "$LAB_STATE/disk" ]
}

a_kernel_setting_is_put_back_while_it_is_ours() {
  local now=0
  sysctl() {
    case $1 in
      -n) echo "$now" ;;
      -qw) now=${2#*=}; record "$2" ;;
    esac
  }
  made_sysctl net.ipv4.ip_forward 1
  expect record 'sysctl net.ipv4.ip_forward 0 1' "$(cat "$MADE")"
  undo_sysctl 'net.ipv4.ip_forward 0 1'
  expect value 0 "$now"
  now=2
  undo_sysctl 'net.ipv4.ip_forward 0 1'
  expect "somebody else's value" 2 "$now"
}

a_bridge_that_is_not_recorded_is_refused() {
  ip() { :; }
  refuses 'ip link delete dev cni0' net_refuse_foreign
  made link cni0
  net_refuse_foreign
}

the_lab_forwards_nothing_to_other_networks() {
  local rule='FORWARD -i cni0 ! -o cni0 -m conntrack --ctstate NEW -m comment --comment capi-kamaji-lab -j DROP'
  net_refuse_foreign() { :; }
  made_sysctl() { :; }
  ip() { :; }
  # None of the rules exists.
  iptables() {
    case " $* " in *' -C '* | *' -D '*) record "$*"; return 1 ;; esac
    record "$*"
  }
  net_up
  expect 'what is made' "-w -I $rule" "$(grep -e '-I .* DROP' "$CALLS")"
  : >"$CALLS"
  undo_all
  expect 'what is undone' "-w -t filter -D $rule" "$(grep DROP "$CALLS")"
}

chains_of_others_are_refused_for_both_families() {
  net_refuse_foreign() { :; }
  compgen() { return 1; }
  iptables-save() { :; }
  ip6tables-save() { echo ':CNI-HOSTPORT-MASQ - [0:0]'; }
  refuses 'ip6tables has chains' lab_refuse_foreign
  ip6tables-save() { echo ':INPUT ACCEPT [0:0]'; }
  lab_refuse_foreign
}

a_running_lab_of_another_checkout_is_kept() {
  process_alive() { [ "$1" = kubelet ]; }
  lab_clear() { record cleared; }
  made link cni0
  touch "$LAB_STATE/complete"
  echo "$TEMPORARY" >"$LAB_STATE/owner"
  refuses "started from $TEMPORARY" lab_clear_stale
  refuses "started from $TEMPORARY" lab_down
  CI=true lab_clear_stale
  expect 'a run of CI' cleared "$(cat "$CALLS")"
  : >"$CALLS"
  echo "$ROOT" >"$LAB_STATE/owner"
  lab_clear_stale
  expect 'our own' '' "$(cat "$CALLS")"
  process_alive() { return 1; }
  lab_clear_stale
  expect 'a dead one' cleared "$(cat "$CALLS")"
}

built_in_chains_are_no_trace() {
  iptables-save() {
    printf '%s\n' '# Generated' '*filter' ':INPUT ACCEPT [1:2]' ':FORWARD DROP [0:0]' ':KUBE-X - [0:0]' '-A INPUT -j KUBE-X' COMMIT
  }
  ip6tables-save() { echo ':INPUT ACCEPT [1:2]'; }
  expect rules $'iptables -A INPUT -j KUBE-X\niptables :FORWARD DROP\niptables :KUBE-X -' "$(LC_ALL=C trace_rules)"
}

a_trace_lists_directories() {
  LAB_DIRECTORIES=("$LAB_STATE" "$LAB_STATE/none")
  trace >"$LAB_STATE/trace"
  grep -qxF "directory $LAB_STATE" "$LAB_STATE/trace"
  refuses '' grep -q "$LAB_STATE/none" "$LAB_STATE/trace"
}

versions_are_compared_as_numbers() {
  host_has Go 1.26.0 1.26.8 fix
  host_has Go 1.26.0 1.101.0 fix
  refuses 'Go 1.26.0 or newer is required, 1.9.3 is installed: fix' host_has Go 1.26.0 1.9.3 fix
  refuses 'none is in PATH: fix' host_has Go 1.26.0 '' fix
}

only_our_own_policy_is_removed() {
  PACKAGES_POLICY=$LAB_STATE/policy-rc.d
  packages_forget_policy
  echo 'exit 101' >"$PACKAGES_POLICY"
  packages_forget_policy
  [ -f "$PACKAGES_POLICY" ]
  printf '%s\n' "$PACKAGES_POLICY_TEXT" >"$PACKAGES_POLICY"
  packages_forget_policy
  [ ! -e "$PACKAGES_POLICY" ]
}

a_slow_step_prints_the_last_line_of_its_output() {
  local output
  export STEP_LOG=$LAB_STATE/log
  BEAT=1
  slow() {
    local tries
    echo 'compiling x'
    for ((tries = 0; tries < 300; tries++)); do
      ! grep -q 'compiling x' "$LAB_STATE/printed" || return 0
      sleep 0.1
    done
  }
  step building slow 2>"$LAB_STATE/printed"
  output=$(sed -E 's/([0-9]+m)?[0-9]+s/Ns/' "$LAB_STATE/printed" | uniq)
  expect 'what is slow' $'building … \n  … Ns  compiling x\nbuilding … Ns' "$output"
  output=$(step quick true 2>&1)
  expect 'what is quick' 'quick … 0s' "$output"
}

the_progress_of_compilers_is_counted() {
  expect cargo '25 of 233 crates: tracing, regex' \
    "$(printf '   Compiling regex v1\n    Building [=>      ] 24/233: regex\r    Building [=>      ] 25/233: tracing, regex  \r' | last_words)"
  expect 'the bar that is full' '233 of 233 crates: e2e' "$(printf '    Building [=======> ] 233/233: e2e\r' | last_words)"
  expect 'anything else' 'reading the package lists' "$(printf 'x\nreading the package lists\n\n' | last_words)"
  expect go $'go: downloading k8s.io/a v1.0.0\n1 of 1,180 packages: k8s.io/a\n# k8s.io/b\nb.go:7:1: undefined: c\n2 of 1,180 packages: k8s.io/b' \
    "$(printf '%s\n' 'go: downloading k8s.io/a v1.0.0' k8s.io/a '# k8s.io/b' 'b.go:7:1: undefined: c' k8s.io/b | numbered_packages 1180)"
  expect thousands '7 999 1,000 12,034' "$(thousands 7) $(thousands 999) $(thousands 1000) $(thousands 12034)"
}

three_suites() { FULL_SUITES=$'\nshort|10|\nlong|20|\nother|12|etcd\n'; }

the_commit_selects_the_full_suite() {
  three_suites
  expect 'hash 0' 'short long other' "$(full_suites_of 00000000aa | xargs)"
  expect 'hash 1' 'long other short' "$(full_suites_of 00000001aa | xargs)"
  expect 'hash ffffffff' 'short long other' "$(full_suites_of ffffffffaa | xargs)"
  expect 'with time' long "$(full_suite_chosen 00000001aa 0 75)"
  expect 'every one has a turn' 'long other short' \
    "$(for commit in 00000001 00000002 00000003; do full_suite_chosen "$commit" 0 75; done | xargs)"
}

the_full_suite_ends_in_time_or_is_left_out() {
  three_suites
  # Recorded with 20 minutes, so 30 are reserved: from minute 45 to 75.
  expect 'just in time' long "$(full_suite_chosen 00000001aa $((45 * 60)) 75)"
  expect 'a second later, the next one' other "$(full_suite_chosen 00000001aa $((45 * 60 + 1)) 75)"
  expect 'too late for all' '' "$(full_suite_chosen 00000001aa $((61 * 60)) 75)"
  expect 'what is left out' $'left out: long: it may take until minute 76, and a suite has to end by minute 75\nleft out: short: a run has one full suite, and this commit\'s is other' \
    "$(full_suites_left_out 00000001aa $((45 * 60 + 1)) 75 other)"
  expect 'all of them' 3 "$(full_suites_left_out 00000001aa $((61 * 60)) 75 '' | grep -c 'by minute 75')"
}

a_full_suite_without_a_recorded_time_is_left_out() {
  FULL_SUITES=$'\nshort|10|\nnew|-|\n'
  expect 'chosen' short "$(full_suite_chosen 00000001aa 0 75)"
  expect 'left out' 'left out: new: nobody has recorded yet how long it takes; hack/test new runs it' \
    "$(full_suites_left_out 00000001aa 0 75 short)"
}

the_table_of_full_suites_is_whole() {
  local name
  while read -r name; do
    [[ $(full_suite_minutes "$name") =~ ^([0-9]+|-)$ ]] || { echo "$name has no recorded minutes"; return 1; }
    grep -q "^full_${name//[-.]/_}() {" hack/test || { echo "hack/test has no function for $name"; return 1; }
    for tool in $(full_suite_tools "$name"); do
      grep -q "^$tool|" hack/tools/recipes.sh || { echo "$name: no recipe for $tool"; return 1; }
    done
  done < <(full_suites)
}

the_recipes_of_tools_are_whole() {
  local name folder module package kind
  . hack/tools/recipes.sh
  while IFS='|' read -r name folder module package kind; do
    [ -n "$name" ] || continue
    [ -f "hack/tools/$folder/go.mod" ] || { echo "$name: hack/tools/$folder is no module"; return 1; }
    [ "$module" = - ] || grep -qE "(^|[[:space:]])$module v" "hack/tools/$folder/go.mod" || { echo "$name: $module has no version"; return 1; }
    grep -q "^go_${kind:-build}() {" hack/tools/build || { echo "$name: hack/tools/build cannot build the kind «$kind»"; return 1; }
  done <<<"$TOOL_RECIPES"
}

a_release_of_cluster_api_has_a_tool_and_a_folder() {
  local release
  while read -r release; do
    (
      capi_select "$release"
      expect "version of $release" "$release" "$CAPI_VERSION"
      grep -q "^$CAPI_TOOL|$CAPI_MODULE|" hack/tools/recipes.sh || { echo "no recipe of $CAPI_TOOL in $CAPI_MODULE"; exit 1; }
      grep -qE "sigs.k8s.io/cluster-api $release" "hack/tools/$CAPI_MODULE/go.mod" || { echo "$CAPI_MODULE has another release than $release"; exit 1; }
    )
  done < <(capi_releases)
}

for name in $(declare -F | awk '{ print $3 }'); do
  case $name in
    what_* | a_* | the_* | chains_of_* | built_* | versions_are_* | only_*) it "${name//_/ }" "$name" ;;
  esac
done
say "$((count - failures)) of $count passed"
((failures == 0))
