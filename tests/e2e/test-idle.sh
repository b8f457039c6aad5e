#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Idle daemons use no CPU: with a volume open over NBD and nothing to do, no thread of metad or noded, of ours or of a library, wakes periodically faster
# than once a second. What there is: a device looks each 2 s whether slots may retire (for 30 s after the last write), and the link of metad and noded
# is used each 5 s; together less than 1.5 a second. IDLE=60 (default 10): over so many seconds. Every wait ends with a voluntary context switch, so
# these are counted.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires /usr/bin/python3
seconds=${IDLE:-10}
cluster_start --device-size 4G
strata volume create vol --size 1T
/usr/bin/python3 - "$(uri_of vol)" "$dir/open" <<'PY' &
import sys, nbd, signal
h = nbd.NBD(); h.connect_uri(sys.argv[1])
for i in range(64): h.pwrite(b"a" * 4096, i << 20)
h.flush()
open(sys.argv[2], "w").close()
signal.pause()
PY
cleanup_fn "kill $!"
wait_until 30 test -e "$dir/open"

# "PID/task/TID NAME SWITCHES" of each thread
switches() {
	local t
	for t in /proc/"$(pid_of metad)"/task/* /proc/"$(pid_of node-1)"/task/*; do
		echo "${t#/proc/} $(tr ' ' - <"$t/comm") $(awk '/^voluntary/ {print $2}' "$t/status")"
	done
}
ticks() { cat /proc/"$(pid_of metad)"/stat /proc/"$(pid_of node-1)"/stat | awk '{n += $14 + $15} END {print n}'; }
# quiet SECONDS: no thread wakes more than twice a second; names those that do
quiet() {
	switches >"$dir/a"
	sleep "$1"
	switches >"$dir/b"
	awk -v max="$1" 'NR == FNR {was[$1] = $3; next} $3 - was[$1] > 2 * max {print $2, "woke", $3 - was[$1], "times"; n++} END {exit n > 0}' \
		"$dir/a" "$dir/b"
}
# what was written is still brought home; then it is to become quiet
wait_until 60 quiet 3
cpu=$(ticks)
quiet "$seconds" >"$dir/noise" || fail "in $seconds s of idling: $(cat "$dir/noise")"
cpu=$(($(ticks) - cpu))
echo "$seconds s idle: $cpu ticks of CPU, wakeups per thread:"
awk 'NR == FNR {was[$1] = $3; next} $3 > was[$1] {print "  " $2 ": " $3 - was[$1]}' "$dir/a" "$dir/b"
[ "$cpu" -le "$seconds" ] || fail "$cpu ticks of CPU in $seconds s"
