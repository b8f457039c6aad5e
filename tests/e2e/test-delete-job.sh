#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Deleting a large volume is a job with progress that survives the death of metad and of the node in the middle; then all slots are free and the
# device file has shrunk. Each chunk holds one block. CHUNKS=100000 (default 60000) for more of them.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3
chunks=${CHUNKS:-60000}
cluster_start --device-size 110G
used() { strata pool show default --json | jq .used_bytes; }
taken() { du -B1 "$dir"/c/node1/disk1 | cut -f1; }
job() { strata job list --json | jq -r '.[] | select(.kind == "volume_delete") | "\(.state) \(.done) \(.total)"'; }
now_ms() { date +%s%3N; }
strata volume create vol --size 1T
before=$(taken)
began=$(now_ms)
/usr/bin/python3 - "$(uri_of vol)" "$chunks" <<'PY'
import sys, nbd
h = nbd.NBD(); h.connect_uri(sys.argv[1])
n, done, bad = int(sys.argv[2]), 0, 0
block = nbd.Buffer.from_bytearray(bytearray(b"x" * 4096))
def completed(error):
    global done, bad
    done += 1; bad += error.value != 0
    return 1
for i in range(n):
    while i - done >= 64: h.poll(-1)
    h.aio_pwrite(block, i << 20, completion=completed)
while done < n: h.poll(-1)
h.flush()
sys.exit(bad != 0)
PY
written=$(now_ms)
echo "$chunks chunks allocated, one block each, in $((written - began)) ms"
[ "$(used)" = $((chunks << 20)) ] || fail "$chunks chunks use $(used)"

strata volume delete vol --async
deleted=$(now_ms)
in_progress() { read -r state at total <<<"$(job)" && [ "$at" -gt 0 ]; }
wait_until 60 in_progress
kill -STOP "$(pid_of node-1)" # so that it dies while it frees, however slow this script is
kill -9 "$(pid_of metad)"
echo "metad killed at $at of $total"
[ "$state" = running ] && [ "$at" -lt "$total" ] && [ "$total" = "$chunks" ] || fail "the job was not seen running: $state $at/$total"
ask_job() { job >"$dir/job" 2>/dev/null && [ -s "$dir/job" ]; }
wait_until 30 ask_job
read -r state again total <"$dir/job"
[ "$again" -ge "$at" ] && [ "$total" = "$chunks" ] || fail "the job went from $at to $again of $total"
expect_fail "no volume" strata volume show vol

unmapped() { [ "$(job)" = "done $chunks $chunks" ]; }
wait_until 60 unmapped
left=$(used)
[ "$left" -gt 0 ] || fail "all was freed before the node could be killed"
kill -9 "$(pid_of node-1)"
echo "noded killed with $((left >> 20)) slots left"
all_freed() { [ "$(used)" = 0 ]; }
wait_until 60 all_freed
echo "deleted in $(($(now_ms) - deleted)) ms, kills included"
taken_at_most() { [ "$(taken)" -le "$1" ]; }
wait_until 10 taken_at_most $((before + (64 << 20)))
strata check
cluster_stop
strata fsck --data "$dir/c" --runtime-dir "$dir/rt" --verify-data
