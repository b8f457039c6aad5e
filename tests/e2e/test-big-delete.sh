#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Deleting a volume of many chunks is a background job with progress; it survives kill -9 of the metadata server and of the node in the middle, and leaves
# every slot free. CHUNKS=100000 is the full size (1 GiB of memory for the device files).
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3
chunks=${CHUNKS:-50000}
cluster_start --devices 2 --device-size $((chunks / 1600 + 2))G
strata volume create big --size $((chunks + 1000))M
/usr/bin/python3 - "$(uri_of big)" "$chunks" <<'PY'
import random, sys, time
import nbd
h, chunks = nbd.NBD(), int(sys.argv[2])
h.connect_uri(sys.argv[1])
buf = nbd.Buffer.from_bytearray(bytearray(b"x" * 4096))
order = random.sample(range(chunks + 1000), chunks)
flying, done, start = 0, 0, time.monotonic()
def answered(error):
    global flying, done
    assert error.value == 0, error.value
    flying, done = flying - 1, done + 1
    return 1
while done < chunks:
    while order and flying < 64:
        h.aio_pwrite(buf, order.pop() << 20, completion=answered)
        flying += 1
    h.poll(-1)
h.flush()
print(f"{chunks} chunks allocated by one client, {chunks / (time.monotonic() - start):.0f} a second")
h.shutdown()
PY
used() { strata pool show default --json | jq ".used_bytes / 1048576"; }
[ "$(used)" = "$chunks" ] || fail "$(used) slots in use"
job=$(strata volume delete big --async | grep -o '[0-9]*$')
kill -9 "$(pid_of metad)"
job_is() { strata job show "$job" --json 2>/dev/null | tee "$dir/job" | jq -e "$1"; }
wait_until 30 job_is '.state'
jq -e ".state == \"running\" and .done < .total and .total == $chunks" "$dir/job" >/dev/null || fail "not killed in the middle: $(cat "$dir/job")"
kill -9 "$(pid_of node-1)"
start=$SECONDS
wait_until 120 job_is '.state == "done"'
wait_until 120 sh -c "[ \$(strata pool show default --json | jq .used_bytes) = 0 ]"
job_is ".done == $chunks" >/dev/null || fail "the job counts $(strata job show "$job")"
strata volume list --json | jq -e '. == []' >/dev/null || fail "the volume is still there"
strata check
cluster_stop
strata fsck --data "$dir/c" >"$dir/fsck" || fail "$(tail -n 5 "$dir/fsck")"
grep -q orphan "$dir/fsck" && fail "slots stay behind: $(grep -c orphan "$dir/fsck")"
echo "ok, deleted after two kills within $((SECONDS - start)) s"
