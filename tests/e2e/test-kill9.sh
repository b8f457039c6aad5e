#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of noded, metad or both, again and again, under a verifying writer whose client reconnects: nothing acknowledged is lost, fsck is clean,
# and the node serves again within 2 s. STRATA_ROUNDS says how often (10).
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3
rounds=${STRATA_ROUNDS:-10}

cluster_start --device-size 2G --devices 2
strata volume create vol --size 1G
/usr/bin/python3 tests/e2e/nbd_writer.py "$(uri_of vol)" --seconds 100000 --flush-every 100 --stop-file "$dir/stop" >"$dir/writer.log" 2>&1 &
writer=$!
cleanup_fn "kill $writer 2>/dev/null"
slowest=0
for ((i = 1; i <= rounds; i++)); do
	sleep "0.$((RANDOM % 8 + 1))"
	kill -0 "$writer" 2>/dev/null || fail "round $i: the writer ended: $(cat "$dir/writer.log")"
	case $((RANDOM % 3)) in
	0) victims=(node-1) ;;
	1) victims=(metad) ;;
	*) victims=(metad node-1) ;;
	esac
	for v in "${victims[@]}"; do kill -9 "$(pid_of "$v")" 2>/dev/null || true; done # it may be starting again just now
	began=$(date +%s%N)
	wait_until 20 nbdinfo --size "$(uri_of vol)"
	took=$((($(date +%s%N) - began) / 1000000))
	[ "$took" -le "$slowest" ] || slowest=$took
done
: >"$dir/stop"
wait "$writer" || fail "$(cat "$dir/writer.log")"
cat "$dir/writer.log"
echo "slowest restart to serving: $slowest ms"
[ "$slowest" -le "${STRATA_RESTART_MS:-2000}" ] || fail "a restart took $slowest ms"
strata check
cluster_stop
strata fsck --data "$dir/c" --runtime-dir "$dir/rt"
