#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Thin for real: a new volume takes nothing; discarding and deleting give slots and the device file's space back.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq nbdcopy /usr/bin/python3
cluster_start --device-size 4G
used() { strata pool show default --json | jq .used_bytes; }
taken() { du -B1 "$dir"/c/node1/disk1 | cut -f1; }
strata volume create vol --size 1T
[ "$(used)" = 0 ] || fail "an empty volume uses $(used)"
before=$(taken)
head -c 256M /dev/urandom >"$dir/in"
/usr/bin/python3 - "$(uri_of vol)" "$dir/in" <<'PY'
import sys, nbd
h = nbd.NBD(); h.connect_uri(sys.argv[1])
data = open(sys.argv[2], "rb").read()
for i in range(256): h.pwrite(data[i << 20:(i + 1) << 20], i * (3 << 30))
h.flush()
PY
[ "$(used)" = $((256 << 20)) ] || fail "256 chunks use $(used)"
strata map vol --json | jq -e '[.[] | select(.kind == "open")] | length == 256' >/dev/null || fail "map"
/usr/bin/python3 - "$(uri_of vol)" <<'PY'
import sys, nbd
h = nbd.NBD(); h.connect_uri(sys.argv[1])
size, at = h.get_size(), 0
while at < size:
    n = min(size - at, 1 << 30)
    h.trim(n, at); at += n
h.flush()
PY
wait_until 30 sh -c "[ \$(strata pool show default --json | jq .used_bytes) = 0 ]"
wait_until 10 sh -c "[ \$(du -B1 $dir/c/node1/disk1 | cut -f1) -le $((before + (8 << 20))) ]"
strata check
