#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Disks that have other names after a reboot: two that changed places, and a ring of three, are found by what is written on them and serve at once. One that
# was moved elsewhere serves when it is added at its new path, with the same number. A device in use is known under its other names, too.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq qemu-io
node=$dir/c/node1
io() { qemu-io -f raw "$@" "$uri" >"$dir/out" 2>&1 && ! grep -qi 'failed\|error' "$dir/out" || fail "$(cat "$dir/out")"; }
all_ok() { strata device list --json | jq -e 'length == 3 and all(.[]; .state == "ok")'; }
path_is() { [ "$(strata device list --json | jq -r ".[] | select(.number == $1) | .path")" = "$2" ]; }

cluster_start --devices 3 --device-size 256M
strata volume create vol --size 48M
uri=$(uri_of vol)
io -c "write -P 0x11 0 48M" -c flush
ln -s "$node/disk1" "$dir/alias"
expect_fail "device [0-9a-f-]* of this node already, which is in use as $node/disk1" strata device add "$dir/alias" --node node-1
expect_fail "is a device of this node already" strata device add "$node/disk1" --node node-1
cluster_stop

mv "$node/disk1" "$dir/t" && mv "$node/disk2" "$node/disk1" && mv "$dir/t" "$node/disk2"
cluster_start
wait_until 20 all_ok
wait_until 5 path_is 1 "$node/disk2"
path_is 2 "$node/disk1" || fail "$(strata device list)"
io -c "read -P 0x11 0 48M" -c "write -P 0x22 0 48M" # without a flush: the restart rings must stay with their devices
strata events --json | jq -e '[.[] | select(.code == "device_moved")] | length > 0' >/dev/null || fail "no event: $(strata events)"

# killed, so that what is not flushed is in the rings only; then three in a ring
kill -STOP "$up_pid"
kill -9 "$(pid_of node-1)" "$(pid_of metad)" "$up_pid"
wait "$up_pid" 2>/dev/null || true
for p in node-1 metad; do wait_until 10 is_gone "$(pid_of $p)"; done
mv "$node/disk1" "$dir/t" && mv "$node/disk2" "$node/disk1" && mv "$node/disk3" "$node/disk2" && mv "$dir/t" "$node/disk3"
cluster_start
wait_until 20 all_ok
io -c "read -P 0x22 0 48M"
cluster_stop

# elsewhere
mv "$node/disk1" "$dir/elsewhere"
cluster_start
strata device list --json | jq -e '[.[] | select(.state == "failed")] | length == 1' >/dev/null || fail "$(strata device list)"
no=$(strata device list --json | jq '.[] | select(.state == "failed") | .number')
truncate -s 256M "$node/disk1"
expect_fail "path of device [0-9a-f-]* of this node, which is not there" strata device add "$node/disk1" --node node-1
rm "$node/disk1"
[ "$(strata device add "$dir/elsewhere" --node node-1 --json | jq .number)" = "$no" ] || fail "another number"
all_ok || fail "$(strata device list)"
path_is "$no" "$dir/elsewhere" || fail "$(strata device list)"
io -c "read -P 0x22 0 48M"
cluster_stop
grep -q " $dir/elsewhere$" "$node/devices" || fail "$(cat "$node/devices")"
strata fsck --data "$dir/c" --runtime-dir "$dir/rt"
