#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One identity, one process: a second strata-noded on the directory of one that runs is refused, and so is one on a copy of it, and the first does not notice.
# One that is stopped is replaced at once, finds itself refused when it goes on, and has its place back when the other has ended.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq nbdinfo
away_n() { strata events --json | jq '[.[] | select(.code == "node_away")] | length'; }
says() { grep -q -- "$1" "$dir/copy.log"; }
copy() { # of node 1, started
	strata-noded --data "$dir/copy" --name node-1 --metad "unix:$dir/c/run/metad.sock" --peer "unix:$dir/copy.peer" --nbd "unix:$dir/copy.nbd" \
		--runtime-dir "$dir/copy-rt" 2>"$dir/copy.log" &
	copy=$!
	cleanup_fn "kill -9 $copy 2>/dev/null"
}

cluster_start --device-size 256M
strata volume create vol --size 16M
node=$(pid_of node-1)
expect_fail "node1/lock is in use by pid $node: another strata-noded runs on this directory" strata-noded --data "$dir/c/node1" --name node-1 \
	--metad "unix:$dir/c/run/metad.sock" --peer "unix:$dir/other.peer" --nbd "unix:$dir/other.nbd" --runtime-dir "$dir/rt"

mkdir -m 700 "$dir/copy" "$dir/copy-rt"
cp "$dir/c/node1/identity" "$dir/c/node1/devices" "$dir/copy"
copy
wait_until 20 says "node-1 is connected already, from unix (pid $node)"
nbdinfo --size "$(uri_of vol)" >/dev/null || fail "the first one does not serve"
[ "$(away_n)" = 0 ] || fail "the first one was pushed out: $(strata events)"
kill -9 $copy

cleanup_fn "kill -CONT $node 2>/dev/null"
kill -STOP "$node"
copy
wait_until 10 says "joined the cluster node=1"
kill -CONT "$node"
wait_until 20 grep -q "refuses this node.*is connected already, from unix (pid $copy)" "$dir/c/log/node-1.log"
says "refuses this node" && fail "$(cat "$dir/copy.log")"
kill -9 $copy
wait_until 20 nbdinfo --size "$(uri_of vol)"
[ "$(pid_of node-1)" = "$node" ] || fail "it was started again"
[ "$(away_n)" -le 3 ] || fail "they fought: $(strata events)"
