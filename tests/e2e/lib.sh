# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What end-to-end tests share. A test is tests/e2e/test-<behaviour>.sh: it sources this file, uses a private directory ($dir, short path,
# on tmpfs) and unix sockets, has no fixed ports, and waits for conditions, never for time. Exit 77: skipped, the last line says why.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
export PATH=$top/build/bin:$PATH

dir=$(mktemp -d /dev/shm/strata-e2e.XXXXXX)
cleanups=()
cleanup_fn() { cleanups=("$*" "${cleanups[@]+"${cleanups[@]}"}"); }
run_cleanups() {
	local rc=$? c
	set +e
	for c in "${cleanups[@]+"${cleanups[@]}"}"; do eval "$c"; done
	if [ "$rc" -ne 0 ] && [ "$rc" -ne 77 ]; then
		for c in "$dir"/*/log/*.log "$dir"/*.log; do [ -f "$c" ] && { echo "--- $c"; tail -n 30 "$c"; }; done
	fi
	rm -rf "$dir"
	exit "$rc"
}
trap run_cleanups EXIT
trap 'exit 1' INT TERM

fail() { echo "FAILED: $*" >&2; exit 1; }
skip() { echo "$*"; exit 77; }
leave_out() { echo "skipped: $*"; } # a part of a test, with the reason; tools/dev/check counts it, too
requires() { local c; for c in "$@"; do command -v "$c" >/dev/null || skip "$c is not installed"; done; }

# expect_fail PATTERN COMMAND...: the command must fail and say something that matches
expect_fail() {
	local pattern=$1 out; shift
	if out=$("$@" 2>&1); then fail "should have been refused: $*"; fi
	grep -qiE -- "$pattern" <<<"$out" || fail "'$*' should say /$pattern/ but said: $out"
}

# wait_until SECONDS COMMAND...: tries again every 50 ms
wait_until() {
	local end=$((SECONDS + $1)); shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -le $end ] || fail "still not true: $*"
		sleep 0.05
	done
}

# cluster_start [OPTION]...: `strata up` in $dir/c; sets up_pid, ready (the JSON), uri (of node 1: append a volume's name by uri_of)
cluster_start() {
	for p in strata-metad strata-noded; do [ -x "$top/build/bin/$p" ] || skip "$p is not built"; done
	mkdir -p "$dir/c" "$dir/rt" && chmod go-w "$dir/rt"
	: >"$dir/ready"
	strata up --data "$dir/c" --runtime-dir "$dir/rt" ${STRATA_ENGINE:+--engine "$STRATA_ENGINE"} "$@" >"$dir/ready" 2>>"$dir/up.log" &
	up_pid=$!
	cleanup_fn cluster_stop
	local end=$((SECONDS + 60))
	until grep -q '^ready ' "$dir/ready"; do
		kill -0 "$up_pid" 2>/dev/null || { cat "$dir/up.log" >&2; fail "the cluster did not start"; }
		[ $SECONDS -le $end ] || fail "the cluster was not ready within 60 s"
		sleep 0.02
	done
	# shellcheck disable=SC2034
	ready=$(sed -n 's/^ready //p' "$dir/ready")
	export STRATA_SERVER=unix:$dir/c/run/api.sock
}
cluster_stop() {
	[ -n "${up_pid:-}" ] || return 0
	kill -TERM "$up_pid" 2>/dev/null
	wait "$up_pid" 2>/dev/null
	up_pid=
}
is_gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.*Z' "/proc/$1/status"; } # PID: maybe nobody has asked for its exit status
pid_of() { cat "$dir/c/run/$1.pid"; }                                    # metad, node-1, ...
uri_of() { echo "nbd+unix:///$1?socket=$dir/c/node-${2:-1}.nbd"; }       # VOLUME [NODE]
