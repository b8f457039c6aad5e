#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A full pool: writes that need space get ENOSPC, reads and overwrites go on, trimming or deleting brings space back, nothing is lost. The same when the
# filesystem under a device is full (a tmpfs in a mount namespace of its own, where the kernel lets us have one): that is told and counted, and over when there
# is space again.
if [ -z "${STRATA_OWN_MOUNTS:-}" ]; then
	unshare -Urm true 2>/dev/null && exec env STRATA_OWN_MOUNTS=yes unshare -Urm bash "$0"
	export STRATA_OWN_MOUNTS=no
fi
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3 curl qemu-io
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

[ "$STRATA_OWN_MOUNTS" = yes ] || { echo "a full filesystem is not tested: unshare -Urm is not allowed here"; exit 0; }
mkdir "$dir/small"
mount -t tmpfs -o size=200m none "$dir/small"
cleanup_fn "umount '$dir/small'"
cluster_start
strata device list --json | jq -e '.[0].no_space == false' >/dev/null
strata pool create other --media flash
strata device add "$dir/small/disk" --node node-1 --size 1G --pool other
strata volume create thin --size 900M --pool other
status_says() { strata status >"$dir/out" || true; grep -q "$1" "$dir/out"; }
status_says "warning: the filesystem under device 2 ($dir/small/disk on node node-1) has" || fail "no warning: $(cat "$dir/out")"
head -n 1 "$dir/out" | grep -qx ok || fail "a warning is no illness: $(cat "$dir/out")"
/usr/bin/python3 - "$(uri_of thin)" <<'PY'
import errno, sys, nbd
h = nbd.NBD(); h.connect_uri(sys.argv[1])
n = 0
try:
    while True: h.pwrite(bytes([n % 250 + 1]) * (1 << 20), n << 20); n += 1
except nbd.Error as e: assert e.errnum == errno.ENOSPC and n > 10, (e, n)
h.flush()
for i in range(n): assert h.pread(1 << 20, i << 20) == bytes([i % 250 + 1]) * (1 << 20), i
PY
wait_until 10 status_says "no space left under device 2 ($dir/small/disk on node node-1)"
head -n 1 "$dir/out" | grep -qx failed || fail "$(cat "$dir/out")"
strata events --json | jq -e 'any(.[]; .code == "no_space")' >/dev/null || fail "no event: $(strata events)"
curl -s --unix-socket "$dir/c/run/api.sock" http://x/metrics | grep -q '^strata_device_no_space_total{.*device="2".*} [1-9]' || fail "it is not counted"
mount -o remount,size=400m "$dir/small"
written() { qemu-io -f raw -c "write -P 0x77 $((700 << 20 | RANDOM << 12)) 4k" "$(uri_of thin)" | grep -q ^wrote && strata status; } # each time at a new place
wait_until 20 written
strata events --json | jq -e 'any(.[]; .code == "space_again")' >/dev/null || fail "no event: $(strata events)"
strata check
cluster_stop
