#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# With the metadata server stopped, then killed, I/O to mapped chunks goes on; an allocation waits and resumes when it is back.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires fio qemu-io
cluster_start --device-size 2G
strata volume create vol --size 1G
uri=$(uri_of vol)
fio --name=map --ioengine=nbd --uri="$uri" --rw=write --bs=1M --size=64M --output=/dev/null

/usr/bin/python3 - "$uri" "$(pid_of metad)" "$(pid_of node-1)" "$up_pid" <<'PY'
import os, signal, sys, time
import nbd
uri, metad, noded, up = sys.argv[1], *map(int, sys.argv[2:])
h = nbd.NBD(); h.connect_uri(uri)
buf = os.urandom(4096)
slow = 0
def mapped_io(seconds):
    global slow
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        t = time.monotonic()
        h.pwrite(buf, n % 16384 * 4096); assert h.pread(4096, n % 16384 * 4096) == buf
        if n % 64 == 0: h.flush()
        slow, n = max(slow, time.monotonic() - t), n + 1
    return n
h.pread(4096, 0)                         # the map page of what is mapped is in the cache now; open only asks for it
os.kill(up, signal.SIGSTOP)              # so that a killed metad is not started again at once
os.kill(metad, signal.SIGSTOP)
n = mapped_io(2)
cookie = h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(buf)), 512 << 20)   # an unmapped chunk
n += mapped_io(1)
assert not h.aio_command_completed(cookie), "an allocation was answered while the metadata server was stopped"
os.kill(metad, signal.SIGKILL)
n += mapped_io(2)
assert not h.aio_command_completed(cookie)
os.kill(up, signal.SIGCONT)              # it starts metad again
end = time.monotonic() + 20
while not h.aio_command_completed(cookie):
    assert time.monotonic() < end, "the allocation never resumed"
    h.poll(100)
assert h.pread(4096, 512 << 20) == buf
print(f"ok {n} requests without the metadata server, the slowest took {slow * 1000:.1f} ms")
assert slow < 1.0
PY
