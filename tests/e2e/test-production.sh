#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemons as docs/operations.md deploys them: the configuration files of tools/deploy, TCP with the cluster's key between a metadata server and two
# nodes, readiness told to the service manager, an orderly end. Ports are chosen by the kernel. Whoever lacks the key stays outside.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires curl jq qemu-io

head -c 32 /dev/urandom | base64 >"$dir/key"
pids=()
stop_all() { kill -TERM ${pids[@]+"${pids[@]}"} 2>/dev/null; wait 2>/dev/null; }
cleanup_fn stop_all

# config NAME KEY=VALUE...: the example of tools/deploy with other values
config() {
	local name=$1 kv out=$dir/$1; shift
	cp "$top/tools/deploy/${name%%.*}.ini" "$out"
	for kv in "$@"; do
		grep -q "^${kv%%=*} = " "$out" || fail "tools/deploy/${name%%.*}.ini has no ${kv%%=*}"
		sed -i "s|^${kv%%=*} = .*|${kv%%=*} = ${kv#*=}|" "$out"
	done
}
# daemon PROGRAM CONFIG [OPTION]...: runs it; its ready line is in $dir/CONFIG.ready
daemon() {
	local program=$1 config=$2; shift 2
	"$program" --config "$dir/$config" --foreground "$@" >"$dir/$config.ready" 2>"$dir/$config.log" &
	pids+=($!)
}
serves() { grep -q '^ready ' "$dir/$1.ready"; }

config metad.1 "data=$dir/m" rpc=127.0.0.1:0 "api=unix:$dir/api.sock" "key-file=$dir/key"
daemon strata-metad metad.1
wait_until 20 serves metad.1
rpc=$(sed -n 's/^ready //p' "$dir/metad.1.ready" | jq -r '.rpc[0]')
export STRATA_SERVER=unix:$dir/api.sock

for n in a b; do
	config "noded.$n" "name=host-$n" "data=$dir/n$n" "metad=$rpc" peer=127.0.0.1:0 "nbd=unix:$dir/nbd-$n.sock" "key-file=$dir/key"
done
# The service manager's socket: a datagram READY=1 when the node serves.
/usr/bin/python3 - "$dir/notify" >"$dir/notified" <<'PY' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(30)
print(s.recv(256).decode(), flush=True)
PY
wait_until 10 test -S "$dir/notify"
NOTIFY_SOCKET=$dir/notify daemon strata-noded noded.a --runtime-dir "$dir/rt-a"
daemon strata-noded noded.b --runtime-dir "$dir/rt-b"
wait_until 20 serves noded.a
wait_until 20 serves noded.b
wait_until 10 grep -q READY=1 "$dir/notified"

# Data on both nodes' devices, written through one and read through the other.
strata device add "$dir/disk-a" --node host-a --size 1G
strata device add "$dir/disk-b" --node host-b --size 1G
strata volume create vm1 --size 64M
qemu-io -f raw -c 'write -P 0x5a 0 32M' -c flush "nbd+unix:///vm1?socket=$dir/nbd-a.sock" >/dev/null
[ "$(strata map vm1 --json | jq -r '[.[].replicas[]?.node_name] | unique | join(" ")')" = "host-a host-b" ] ||
	fail "not on both nodes: $(strata map vm1)"
closed() { [ "$(strata volume show vm1 --json | jq .open)" = false ]; }
wait_until 20 closed
qemu-io -f raw -c 'read -P 0x5a 0 32M' "nbd+unix:///vm1?socket=$dir/nbd-b.sock" >"$dir/read"
! grep -q failed "$dir/read" || fail "$(cat "$dir/read")"
strata status
curl -s --unix-socket "$dir/api.sock" http://x/metrics >"$dir/metrics"
served() { awk -v node="$1" '/^strata_peer_served_requests_total/ && $0 ~ "node=\"" node "\"" {n = $2} END {exit !(n > 0)}' "$dir/metrics"; }
served host-b || fail "the nodes do not count each other's requests: $(grep peer "$dir/metrics")"

# A node is replaced: its disk moves to the other one, with all that is on it; it is removed; a new node takes its name.
kill -TERM "${pids[2]}"
wait "${pids[2]}" || fail "exit status $? after SIGTERM"
unset 'pids[2]'
is_away() { strata node list --json | jq -e --arg n "$1" '.[] | select(.name == $n) | .state == "away"'; }
wait_until 20 is_away host-b
expect_fail "host-b has 1 device: 2" strata node remove host-b
[ "$(strata device add "$dir/disk-b" --node host-a --json | jq .number)" = 2 ] || fail "another number"
qemu-io -f raw -c 'read -P 0x5a 0 32M' "nbd+unix:///vm1?socket=$dir/nbd-a.sock" >"$dir/read"
! grep -q failed "$dir/read" || fail "$(cat "$dir/read")"
strata node remove host-b
strata status || fail "the node is still missed"
config noded.d name=host-b "data=$dir/nd" "metad=$rpc" peer=127.0.0.1:0 "nbd=unix:$dir/nbd-d.sock" "key-file=$dir/key"
daemon strata-noded noded.d --runtime-dir "$dir/rt-d"
wait_until 20 serves noded.d
strata node list --json | jq -e 'length == 2 and any(.[]; .name == "host-b" and .number == 3 and .state == "online")' >/dev/null || fail "$(strata node list)"

# A node with another key, and one with none, do not get in.
echo "another key of the right length" >"$dir/otherkey"
config noded.c name=host-c "data=$dir/nc" "metad=$rpc" peer=127.0.0.1:0 "nbd=unix:$dir/nbd-c.sock" "key-file=$dir/otherkey"
daemon strata-noded noded.c --runtime-dir "$dir/rt-c"
wait_until 20 grep -q "different keys" "$dir/noded.c.log"
wait_until 20 grep -q "before it said who it is" "$dir/metad.1.log"
[ "$(strata node list --json | jq length)" = 2 ] || fail "the stranger got in"
sed -i '/^key-file/d' "$dir/noded.c"
expect_fail "metad.* needs --key-file" strata-noded --config "$dir/noded.c" --runtime-dir "$dir/rt-c"
echo "nonsense = 1" >>"$dir/noded.c"
expect_fail "no option 'nonsense'" strata-noded --config "$dir/noded.c"

# SIGTERM ends each of them with status 0; the stranger, too.
for p in "${pids[@]}"; do kill -TERM "$p"; wait "$p" || fail "exit status $? after SIGTERM"; done
pids=()
