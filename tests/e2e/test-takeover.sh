#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The owner of a volume is killed and does not come back: an administrator releases the volume, another node serves it, and what lies on the dead node's
# devices can be read again once that node is back, which finds itself replaced. With STRATA_STOPPED=1 also an owner that is only stopped, loses the
# volume, and goes on: what its old client still writes is refused (it takes the 15 s until a silent node counts as away).
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3 nbdcopy nbdinfo
is_away() { strata node list --json | jq -e --arg n "$1" '.[] | select(.name == $n) | .state == "away"'; }

cluster_start --nodes 3 --devices 1 --device-size 1G
strata volume create vol --size 96M
head -c $((96 << 20)) /dev/urandom >"$dir/in.raw"
/usr/bin/python3 - "$(uri_of vol)" "$dir/in.raw" <<'PY' &
import sys, time, nbd # keeps it open until it is killed, or its node is
h = nbd.NBD(); h.connect_uri(sys.argv[1])
data = open(sys.argv[2], "rb").read()
for at in range(0, len(data), 4 << 20): h.pwrite(data[at:at + (4 << 20)], at)
h.flush()
open(sys.argv[2] + ".done", "w")
time.sleep(600)
PY
client=$!
cleanup_fn "kill $client 2>/dev/null"
wait_until 60 test -e "$dir/in.raw.done"
expect_fail "node-1 .*online" strata volume release vol

cleanup_fn 'kill -CONT "${up_pid:-0}" 2>/dev/null'
kill -STOP "$up_pid" # which would start it again
kill -9 "$(pid_of node-1)"
wait_until 20 is_away node-1
expect_fail "node-1|policy|owner" nbdinfo --size "$(uri_of vol 2)"
strata volume release vol
nbdinfo --size "$(uri_of vol 2)" >/dev/null
[ "$(strata volume show vol --json | jq .epoch)" = 2 ] || fail "$(strata volume show vol)"
/usr/bin/python3 - "$(uri_of vol 2)" "$dir/in.raw" <<'PY'
import sys, nbd, json, subprocess # what is not on node 1 can be read, and written, at once
h = nbd.NBD(); h.connect_uri(sys.argv[1])
with open(sys.argv[2], "r+b") as f:
    data, n = f.read(), 0
    for s in json.loads(subprocess.check_output(["strata", "map", "vol", "--json"])):
        if s.get("replicas") and s["replicas"][0]["node_name"] != "node-1":
            at, length = s["offset"], s["length"]
            assert h.pread(length, at) == data[at:at + length], at
            h.pwrite(b"\x77" * 4096, at); f.seek(at); f.write(b"\x77" * 4096)
            n += 1
assert n > 1, n
PY
nbdcopy "$(uri_of vol 2)" "$dir/out.raw" & # waits for what is on node 1
copy=$!
sleep 0.5
kill -0 $copy 2>/dev/null || fail "nbdcopy did not wait"
kill -CONT "$up_pid"
wait $copy || fail "nbdcopy"
cmp "$dir/in.raw" "$dir/out.raw"
kill $client 2>/dev/null || true
nbdcopy "$(uri_of vol)" "$dir/out.raw" # closed in good order: node 1 may have it again
cmp "$dir/in.raw" "$dir/out.raw"

if [ "${STRATA_STOPPED:-0}" = 1 ]; then
	/usr/bin/python3 - "$(uri_of vol 2)" "$(uri_of vol 3)" "$(pid_of node-2)" <<'PY'
import os, signal, subprocess, sys, time, nbd
a, b = nbd.NBD(), nbd.NBD()
a.connect_uri(sys.argv[1])
size, old, new = a.get_size(), b"\x01" * 4096, b"\x02" * 4096
for at in range(0, size, 1 << 20): a.pwrite(old, at)
os.kill(int(sys.argv[3]), signal.SIGSTOP)
cookies = [a.aio_pwrite(b"\x03" * 4096, at) for at in range(8192, size, 1 << 20)] # they lie in its socket
while subprocess.run(["strata", "volume", "release", "vol"], capture_output=True).returncode: time.sleep(0.5)
b.connect_uri(sys.argv[2])
done = [b.aio_pwrite(new, at) for at in range(0, size, 1 << 20)]
for _ in range(20): b.poll(50)
os.kill(int(sys.argv[3]), signal.SIGCONT)
while done:
    done = [c for c in done if not b.aio_command_completed(c)]
    if done: b.poll(1000)
refused = 0
for c in cookies:
    try:
        while not a.aio_command_completed(c): a.poll(1000)
    except nbd.Error: refused += 1
assert refused > 0
try:
    a.pread(512, 0); sys.exit("the old owner still serves")
except nbd.Error: pass
for at in range(0, size, 1 << 20): assert b.pread(4096, at) == new, at
print(f"{refused} of {len(cookies)} late writes refused")
PY
fi
strata check
cluster_stop
strata fsck --data "$dir/c" --runtime-dir "$dir/rt"
