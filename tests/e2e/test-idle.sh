#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Idle daemons use little memory and no CPU: a volume of 1 TiB is open over NBD, 10 GiB of it are mapped (a block in each of 10,240 chunks, scattered over all of it), on
# two devices of 50 GiB. noded has at most 64 MiB resident; metad's is printed. And no thread of either, of ours or of a library, wakes periodically faster
# than once a second. What there is: a device looks each 2 s whether slots may retire (for 30 s after the last write), and the link of metad and noded
# is used each 5 s; in those 30 s together less than two a second. Every wait ends with a voluntary context switch, so these are counted.
# IDLE=60: over so many seconds (10), and only when those 30 s are over, so that one wakeup a second is the limit.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3
seconds=${IDLE:-10} chunks=10240 rss_max_kib=$((64 << 10))
cluster_start --devices 2 --device-size 50G
strata volume create vol --size 1T
/usr/bin/python3 - "$(uri_of vol)" $chunks "$dir/open" <<'PY' &
import random, signal, sys
import nbd
h, chunks = nbd.NBD(), int(sys.argv[2])
h.connect_uri(sys.argv[1])
buf = nbd.Buffer.from_bytearray(bytearray(b"a" * 4096))
todo, flying = random.sample(range(1 << 20), chunks), 0
def answered(error):
    global flying
    assert error.value == 0, error.value
    flying -= 1
    return 1
while todo or flying:
    while todo and flying < 64:
        h.aio_pwrite(buf, todo.pop() << 20, completion=answered)
        flying += 1
    h.poll(-1)
h.flush()
open(sys.argv[3], "w").close()
signal.pause()
PY
client=$!
cleanup_fn "kill $client"
is_open() { kill -0 "$client" && [ -e "$dir/open" ]; }
wait_until 120 is_open
[ "$(strata pool show default --json | jq '.used_bytes / 1048576')" = $chunks ] || fail "$(strata pool show default)"

rss_kib() { awk '/^VmRSS/ {print $2}' "/proc/$(pid_of "$1")/status"; }
# memory WHEN: says what they have, and judges noded's
memory() {
	local noded
	noded=$(rss_kib node-1)
	echo "resident $1: noded $((noded >> 10)) MiB, metad $(($(rss_kib metad) >> 10)) MiB"
	[ "$noded" -le $rss_max_kib ] || fail "noded has $noded KiB resident: $(cat "/proc/$(pid_of node-1)/status")"
}
memory "with $chunks chunks mapped"

# "PID/task/TID NAME SWITCHES" of each thread
switches() {
	local t
	for t in /proc/"$(pid_of metad)"/task/* /proc/"$(pid_of node-1)"/task/*; do
		echo "${t#/proc/} $(tr ' ' - <"$t/comm") $(awk '/^voluntary/ {print $2}' "$t/status")"
	done
}
ticks() { cat /proc/"$(pid_of metad)"/stat /proc/"$(pid_of node-1)"/stat | awk '{n += $14 + $15} END {print n}'; }
# quiet SECONDS LIMIT: no thread wakes more often than LIMIT in a second; names those that do
quiet() {
	switches >"$dir/a"
	sleep "$1"
	switches >"$dir/b"
	awk -v max="$(awk "BEGIN {print $1 * $2}")" 'NR == FNR {was[$1] = $3; next} $3 - was[$1] > max {print $2, "woke", $3 - was[$1], "times"; n++} END {exit n > 0}' \
		"$dir/a" "$dir/b"
}
limit=2
wait_until 90 quiet 3 $limit # what was written is still brought home
if [ "$seconds" -ge 60 ]; then
	limit=1
	sleep 31
fi
cpu=$(ticks)
quiet "$seconds" $limit >"$dir/noise" || fail "in $seconds s of idling: $(cat "$dir/noise")"
cpu=$(($(ticks) - cpu))
echo "$seconds s idle: $cpu ticks of CPU, wakeups per thread:"
awk 'NR == FNR {was[$1] = $3; next} $3 > was[$1] {print "  " $2 ": " $3 - was[$1]}' "$dir/a" "$dir/b"
[ "$cpu" -le "$seconds" ] || fail "$cpu ticks of CPU in $seconds s"
memory "after that"
