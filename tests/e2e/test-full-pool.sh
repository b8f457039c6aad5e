#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A full pool: writes that need space get ENOSPC, reads and overwrites go on, trimming or deleting brings space back, nothing is lost.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3
cluster_start --device-size 512M
strata volume create big --size 4G
strata volume create small --size 64M
/usr/bin/python3 - "$(uri_of big)" "$(uri_of small)" <<'PY'
import errno, os, sys, time
import nbd
big, small = nbd.NBD(), nbd.NBD()
big.connect_uri(sys.argv[1]); small.connect_uri(sys.argv[2])
MIB = 1 << 20
stamp = lambda i: (b"%08d" % i) * (MIB // 8)
small.pwrite(b"s" * MIB, 0)
n = 0
try:
    while True:
        big.pwrite(stamp(n), n * MIB); n += 1
except nbd.Error as e:
    assert e.errnum == errno.ENOSPC, e
print(n, "MiB went in")
assert n > 300
big.flush()
for i in range(n): assert big.pread(MIB, i * MIB) == stamp(i), i
for i in range(0, n, 7): big.pwrite(stamp(i + 1000), i * MIB)
for i in range(0, n, 7): assert big.pread(MIB, i * MIB) == stamp(i + 1000), i
assert big.pread(MIB, (n + 5) * MIB) == bytes(MIB)
for unmapped in (small, big):
    try: unmapped.pwrite(b"x" * 4096, 60 * MIB if unmapped is small else 3000 * MIB); sys.exit("a full pool took a write")
    except nbd.Error as e: assert e.errnum == errno.ENOSPC, e
for i in range(10): big.trim(MIB, i * MIB)
end = time.monotonic() + 20
while True:
    try: small.pwrite(b"y" * MIB, 60 * MIB); break
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC and time.monotonic() < end, e
        time.sleep(0.1)
assert small.pread(MIB, 60 * MIB) == b"y" * MIB and small.pread(MIB, 0) == b"s" * MIB
for i in range(10, n): assert big.pread(MIB, i * MIB) == stamp(i + 1000 if i % 7 == 0 else i), i
for i in range(10): assert big.pread(MIB, i * MIB) == bytes(MIB), i
print("ok")
PY
strata check
strata volume delete big
wait_until 20 sh -c "[ \$(strata pool show default --json | jq .used_bytes) -le $((3 << 20)) ]"
strata check
cluster_stop
strata fsck --data "$dir/c" --runtime-dir "$dir/rt"
