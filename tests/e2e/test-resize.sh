#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A volume grows while a client has it open: the client goes on, one that connects then sees the new size, and both write to the same volume.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3
cluster_start --device-size 2G
strata volume create vol --size 64M
/usr/bin/python3 - "$(uri_of vol)" <<'PY'
import subprocess, sys
import nbd
def connect():
    h = nbd.NBD(); h.connect_uri(sys.argv[1]); return h
old = connect()
old.pwrite(b"a" * 4096, 0)
old.pwrite(b"z" * 4096, (64 << 20) - 4096)
subprocess.run(["strata", "volume", "resize", "vol", "--size", "256M"], check=True)
old.pwrite(b"b" * 4096, 4096)
new = connect()
assert new.get_size() == 256 << 20, new.get_size()
new.pwrite(b"c" * 4096, (256 << 20) - 4096)
assert new.pread(8192, 0) == b"a" * 4096 + b"b" * 4096
assert new.pread(8192, (64 << 20) - 4096) == b"z" * 4096 + bytes(4096)
# the old connection may use what is there now, too (its library has to be told not to refuse by itself)
old.set_strict_mode(old.get_strict_mode() & ~nbd.STRICT_BOUNDS)
assert old.pread(4096, (256 << 20) - 4096) == b"c" * 4096
old.flush(); new.flush()
PY
expect_fail "only grow" strata volume resize vol --size 128M
expect_fail "multiple of 4" strata volume resize vol --size 268435457
kill -9 "$(pid_of metad)"
wait_until 20 strata volume show vol
strata volume show vol --json | jq -e ".size_bytes == $((256 << 20))" >/dev/null || fail "the size was forgotten"
strata check
