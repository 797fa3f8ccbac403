# Where things lie: the checkout, what the lab leaves in it, and the cache outside of it.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB=$ROOT/.lab
LAB_BIN=$LAB/bin
LAB_LOGS=$LAB/logs
CACHE=${KAMAJI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/capi-kamaji}
