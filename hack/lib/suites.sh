# The suites of hack/test: what the gate needs, and the full suites, which are too slow for each run.
# The functions are pure: commit, times and limits are arguments.

# Crate e2e: suites that need no lab, and those that run in one, in this order. `class` leaves its
# cluster, and `rights` looks at what all before it used.
API_SUITES=(etcd api components csr outside templates)
LAB_SUITES=(joined again book infrastructure handoff hosting datastores refusals restarts lifecycle class rights)

# The tests of a lab suite that the gate runs, by parts of their names; nothing is all. The full suites run the rest.
gate_filters() { # suite
  case $1 in class) echo contract_3 refused ;; esac
}

# Tools of hack/tools/build that they need.
API_TOOLS=(etcd etcdctl kube-apiserver kube-controller-manager kubectl clusterctl cluster-api-controller)
E2E_TOOLS=(
  etcd etcdctl pause kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy registry coredns
  agnhost clusterctl cluster-api-controller proxy-server proxy-agent metrics-server
  kube-apiserver-v1.35.4 kube-controller-manager-v1.35.4 kube-scheduler-v1.35.4 # the version that an upgrade starts from
  proxy-server-v0.34.0 proxy-agent-v0.34.0                                      # agents and servers of an older version
)

# Suites of the crate e2e that only full suites run.
FULL_ONLY_SUITES=(addresses classes conformance hostile kubelets load members moved overhead pools soak tunnel upgrade virtual)

# name | recorded minutes, with built tools and a warm cache, or - | tools, apart from those of the lab where it runs there
# Those of conformance include its tools, which nothing else builds: 25 of 45.
# A suite whose minutes are not recorded yet is left out of .ci/run; hack/test full runs it.
# The function full_NAME in hack/test runs the suite, with `_` for `-` and `.`.
FULL_SUITES='
soak|15|
ten-at-once|4|
kills|6|
hostile|6|etcd etcdctl kube-apiserver kube-controller-manager kubectl clusterctl
moved|12|
members|6|
tunnel|40|
addresses|6|
classes|20|
upgrade|9|kube-apiserver-v1.34.4 kube-controller-manager-v1.34.4 kube-scheduler-v1.34.4 kubelet-v1.34.4 kube-proxy-v1.34.4 kubelet-v1.35.4 kube-proxy-v1.35.4
kubelets|-|kubelet-v1.33.13 kubelet-v1.34.4 kubelet-v1.35.4
overhead|-|kubelet kubeadm
core-1.13|16|cluster-api-controller-v1.13.6
virtual|-|kubelet
pools|-|
conformance|45|ginkgo e2e.test
load|5|etcd kube-apiserver kube-controller-manager
kubernetes-1.35|2|etcd etcdctl kube-controller-manager kubectl clusterctl kube-apiserver-v1.35.4
'

full_suites() { awk -F'|' 'NF > 1 { print $1 }' <<<"$FULL_SUITES"; }

full_suite_minutes() { awk -F'|' -v n="$1" '$1 == n { print $2 }' <<<"$FULL_SUITES"; }

full_suite_recorded() { [ "$(full_suite_minutes "$1")" != - ]; }

full_suite_tools() { awk -F'|' -v n="$1" '$1 == n { print $3 }' <<<"$FULL_SUITES"; }

# The full suites in the order in which a commit asks for them: from the one its hash selects, round to the one before.
full_suites_of() { # commit hash
  local names first
  mapfile -t names < <(full_suites)
  first=$((16#${1:0:8} % ${#names[@]}))
  printf '%s\n' "${names[@]:first}" "${names[@]:0:first}"
}

# The minute at which a suite ends at the latest: half as long again as recorded.
full_suite_end() { # suite, seconds that have passed
  echo $((($2 + $(full_suite_minutes "$1") * 90 + 59) / 60))
}

# The first suite of a commit that ends in time; nothing when none does.
full_suite_chosen() { # commit hash, seconds that have passed, minute by which a suite ends
  local name
  while read -r name; do
    full_suite_recorded "$name" || continue
    if (($(full_suite_end "$name" "$2") <= $3)); then
      echo "$name"
      return
    fi
  done < <(full_suites_of "$1")
}

# One line a suite that does not run, with the reason.
full_suites_left_out() { # commit hash, seconds that have passed, minute by which a suite ends, chosen suite
  local name end
  while read -r name; do
    [ "$name" != "$4" ] || continue
    if ! full_suite_recorded "$name"; then
      echo "left out: $name: nobody has recorded yet how long it takes; hack/test $name runs it"
      continue
    fi
    end=$(full_suite_end "$name" "$2")
    if ((end > $3)); then
      echo "left out: $name: it may take until minute $end, and a suite has to end by minute $3"
    else
      echo "left out: $name: a run has one full suite, and this commit's is $4"
    fi
  done < <(full_suites_of "$1")
}
