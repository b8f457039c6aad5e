#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Clients that connect and say nothing, more than there is room for, and a node that runs out of file descriptors: who is served goes on, a client that
# speaks gets in, and no daemon burns CPU over what it cannot accept.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires prlimit /usr/bin/python3
cluster_start --device-size 512M
strata volume create vol --size 256M
node=$(pid_of node-1)

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }
metric() { strata metrics 2>/dev/null | awk -v m="$1" 'index($1, m) == 1 {print $2}'; }
fds() { find "/proc/$1/fd" -mindepth 1 | wc -l; }

# crowd NAME SOCKET N: holds so many silent connections until the file NAME.end is there
crowd() {
	/usr/bin/python3 - "$dir/$1" "$2" "$3" <<'PY' &
import os, socket, sys, time
name, path, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
held = []
for _ in range(n):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(0.05)
    try:
        s.connect(path)
        held.append(s)
    except OSError:  # a full backlog is a crowd too
        s.close()
open(name + ".there", "w").close()
while not os.path.exists(name + ".end"):
    time.sleep(0.05)
PY
	wait_until 60 test -e "$dir/$1.there"
}

# serves SECONDS: a client that connects now can read and write
serves() {
	timeout "$1" /usr/bin/python3 - "$(uri_of vol)" <<'PY'
import nbd, os, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
data = os.urandom(1 << 16)
h.pwrite(data, 1 << 20)
assert h.pread(len(data), 1 << 20) == data
PY
}

# one that is served all the time
/usr/bin/python3 - "$(uri_of vol)" "$dir/served" <<'PY' &
import nbd, os, sys, time
h = nbd.NBD()
h.connect_uri(sys.argv[1])
n = 0
while not os.path.exists(sys.argv[2] + ".end"):
    h.pwrite(n.to_bytes(8, "little") * 512, 0)
    assert h.pread(4096, 0) == n.to_bytes(8, "little") * 512
    n += 1
    open(sys.argv[2], "w").close()
    time.sleep(0.01)
PY
served=$!
wait_until 30 test -e "$dir/served"

crowd many "$dir/c/node-1.nbd" 400 # of 256
serves 20 || fail "a client does not get in past those that say nothing"
serves 20 || fail "nor does the next"
touch "$dir/many.end"

# no descriptors but for a few; those that say nothing have them
prlimit --pid "$node" --nofile=$(($(fds "$node") + 4)):4096
crowd few "$dir/c/node-1.nbd" 30
serves 30 || fail "a client does not get in when descriptors are short"
touch "$dir/few.end"

# none at all: whoever comes waits, and nobody spins
for who in node-1 metad; do
	pid=$(pid_of $who)
	sockets=$(find "$dir/c" -name '*.sock' -o -name '*.nbd' | grep "${who/-1/}")
	prlimit --pid "$pid" --nofile=3:4096
	for s in $sockets; do crowd "none-$(basename "$s")" "$s" 3; done
	before=$(ticks "$pid")
	sleep 1
	used=$(($(ticks "$pid") - before))
	echo "$who without descriptors, 1 s: $used ticks ($(echo $sockets | wc -w) sockets)"
	[ "$used" -lt 50 ] || fail "$who spins when it has no descriptors: $used ticks in a second"
	prlimit --pid "$pid" --nofile=4096:4096
	for s in $sockets; do touch "$dir/none-$(basename "$s").end"; done
done
serves 30 || fail "it does not serve again"
touch "$dir/served.end"
wait "$served" || fail "the client that was served did not stay so"
