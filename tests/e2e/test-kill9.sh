#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of noded, metad or both, again and again, under a verifying writer whose client reconnects: nothing acknowledged is lost, the node serves again
# within 2 s (the median: other work on the machine must not fail the test; STRATA_SLOWEST_MS=2000 holds every single one to it, on a machine that has nothing
# else to do), and fsck is clean after every kill. Fsck needs everything stopped, so a round
# has two kills: that of its victim, which `strata up` starts again beside what lives on, and then that of all daemons at once and of `strata up`
# itself. STRATA_ROUNDS says how often (10).
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3
rounds=${STRATA_ROUNDS:-10}
times=()

timed() { # COMMAND...: brings it back to serving
	local began
	began=$(date +%s%N)
	"$@"
	times+=($((($(date +%s%N) - began) / 1000000)))
}
is_serving() { is_gone "$victim" && nbdinfo --size "$uri"; } # by another process than the one that was killed

cluster_start --device-size 2G --devices 2
strata volume create vol --size 1G
uri=$(uri_of vol)
/usr/bin/python3 tests/e2e/nbd_writer.py "$uri" --seconds 100000 --flush-every 100 --stop-file "$dir/stop" >"$dir/writer.log" 2>&1 &
writer=$!
cleanup_fn "kill $writer 2>/dev/null"
for ((i = 1; i <= rounds; i++)); do
	kill -0 "$writer" 2>/dev/null || fail "round $i: the writer ended: $(cat "$dir/writer.log")"
	sleep "0.$((RANDOM % 8 + 1))"
	victim=$(pid_of "$([ $((RANDOM % 2)) = 0 ] && echo node-1 || echo metad)")
	kill -9 "$victim"
	timed wait_until 20 is_serving

	sleep "0.$((RANDOM % 8 + 1))"
	all=("$(pid_of metad)" "$(pid_of node-1)" "$up_pid")
	kill -STOP "$up_pid" # it restarts nothing, and does not ask anybody to stop in good order
	kill -9 "${all[@]:0:2}"
	kill -9 "$up_pid"
	for p in "${all[@]}"; do wait_until 10 is_gone "$p"; done
	wait "$up_pid" 2>/dev/null || true
	strata fsck --data "$dir/c" --runtime-dir "$dir/rt" >"$dir/fsck.log" 2>&1 || fail "round $i: fsck: $(cat "$dir/fsck.log")"
	timed cluster_start
done
: >"$dir/stop"
wait "$writer" || fail "$(cat "$dir/writer.log")"
cat "$dir/writer.log"
mapfile -t times < <(printf '%s\n' "${times[@]}" | sort -n)
n=${#times[@]} limit=${STRATA_RESTART_MS:-2000}
slowest=${STRATA_SLOWEST_MS:-$((5 * limit))}
echo "$n restarts to serving: median ${times[n / 2]} ms, 95 % in ${times[n * 95 / 100]} ms, slowest ${times[n - 1]} ms"
[ "${times[n / 2]}" -le "$limit" ] || fail "a restart takes more than $limit ms"
[ "${times[n - 1]}" -le "$slowest" ] || fail "a restart took ${times[n - 1]} ms, more than $slowest"
strata check
cluster_stop
strata fsck --data "$dir/c" --runtime-dir "$dir/rt" --verify-data
