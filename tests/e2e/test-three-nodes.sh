#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Three nodes with two devices each: one volume spread over all six; another in a pool of its own with chunks of 4 MiB, one device a node; a node without
# the export is killed with -9 under a verifying writer, then the exporting one under a client that reconnects: no error, no wrong byte. STRATA_ROUNDS says how
# often each (5).
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3 fio nbdinfo
rounds=${STRATA_ROUNDS:-5}
cluster_start --nodes 3 --devices 2 --device-size 1G
[ "$(strata device list --json | jq '[.[] | select(.state == "ok")] | length')" = 6 ] || fail "$(strata device list)"
strata volume create vol --size 512M
uri=$(uri_of vol)
strata volume create spread --size 128M
fio --ioengine=nbd --uri="$(uri_of spread)" --output="$dir/fio.log" fio-jobs/verify.fio || fail "$(cat "$dir/fio.log")"
strata map spread --json >"$dir/map"
[ "$(jq '[.[].replicas[]? | .device] | unique | length' "$dir/map")" = 6 ] || fail "not spread over six devices: $(jq -c '[.[].replicas[]? | .device] | unique' "$dir/map")"
jq -e '[.[].replicas[]? | select(.node_name == null or .device_offset == null)] | length == 0' "$dir/map" >/dev/null || fail "a piece without node or offset"
strata volume delete spread

strata pool create slow --media rotational
expect_fail "already" strata pool create slow --media flash
for n in 1 2 3; do strata device add "$dir/slow$n" --node node-$n --size 512M --pool slow; done
strata volume create wide --size 128M --pool slow
fio --ioengine=nbd --uri="$(uri_of wide)" --output="$dir/fio.log" fio-jobs/verify.fio || fail "$(cat "$dir/fio.log")"
strata map wide --json >"$dir/map"
[ "$(jq -c '[.[].replicas[]? | .device] | unique' "$dir/map")" = "[7,8,9]" ] || fail "not in its pool: $(cat "$dir/map")"
jq -e '[.[] | select(.kind == "open")] | length > 0 and all(.[]; .length == 4194304)' "$dir/map" >/dev/null || fail "$(cat "$dir/map")"
strata pool show slow --json | jq -e '.media == "rotational" and .chunk_bytes == 4194304 and .volumes == 1 and .devices == [7, 8, 9] and .used_bytes > 0' >/dev/null ||
	fail "$(strata pool show slow --json)"
expect_fail "volume wide is in it" strata pool remove slow

# another node sends clients to the owner while the volume is open, by name
/usr/bin/python3 - "$uri" "$(uri_of vol 2)" <<'PY'
import sys, nbd
here, other = nbd.NBD(), nbd.NBD()
here.connect_uri(sys.argv[1])
try:
    other.connect_uri(sys.argv[2]); sys.exit("two owners")
except nbd.Error as e:
    assert "node-1.nbd" in e.string or "policy" in e.string.lower(), e.string
PY

kill_rounds() { # VICTIM WRITER: kills it again and again, each time once it serves
	local i
	for ((i = 1; i <= rounds; i++)); do
		sleep "0.$((RANDOM % 6 + 2))"
		kill -0 "$2" 2>/dev/null || fail "$1, round $i: the writer ended: $(cat "$dir/writer.log")"
		kill -9 "$(pid_of "$1")" 2>/dev/null || true
		wait_until 20 sh -c "strata node list --json | jq -e '[.[] | select(.state == \"online\")] | length == 3'"
	done
}
for victim in node-2 node-1; do
	rm -f "$dir/stop"
	/usr/bin/python3 - "$uri" <<'PY'
import sys, nbd # a writer begins with zeros
h = nbd.NBD(); h.connect_uri(sys.argv[1])
for at in range(0, h.get_size(), 32 << 20): h.zero(32 << 20, at)
PY
	/usr/bin/python3 tests/e2e/nbd_writer.py "$uri" --seconds 100000 --flush-every 100 --stop-file "$dir/stop" >"$dir/writer.log" 2>&1 &
	writer=$!
	cleanup_fn "kill $writer 2>/dev/null"
	kill_rounds $victim $writer
	: >"$dir/stop"
	wait $writer || fail "$victim: $(cat "$dir/writer.log")"
	echo "$victim: $(cat "$dir/writer.log")"
	if [ $victim = node-2 ]; then grep -q "reconnects=0" "$dir/writer.log" || fail "the client noticed the death of another node"; fi
done
strata check
cluster_stop
strata fsck --data "$dir/c" --runtime-dir "$dir/rt"
