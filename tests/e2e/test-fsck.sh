#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fsck of a stopped cluster: what it says, and its exit code, of slots that are still to be freed, devices that are gone, swapped, copied, cut or held by
# somebody, and metadata that is old, or not there.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq qemu-io
meta=$dir/c/meta
disks=("$dir/c/node1/disk1" "$dir/c/node1/disk2")

# checked CODE JQ-CONDITION [OPTION]...: fsck ends with the code, and its JSON fulfils the condition
checked() {
	local code=$1 condition=$2 rc=0; shift 2
	strata fsck --data "$dir/c" --runtime-dir "$dir/rt" --json "$@" >"$dir/fsck" 2>"$dir/fsck.err" || rc=$?
	[ "$rc" = "$code" ] && jq -e "$condition" "$dir/fsck" >/dev/null || fail "exit code $rc, expected $code and $condition: $(cat "$dir/fsck" "$dir/fsck.err")"
}
all_is_well='.errors == 0 and .warnings == 0 and .unchecked == 0 and .findings == []'

cluster_start --devices 2 --device-size 512M
strata volume create keep --size 64M
strata volume create gone --size 64M
qemu-io -f raw -c "write -P 0x11 0 8M" -c flush "$(uri_of keep)" >/dev/null
cluster_stop
cp -r "$meta" "$dir/meta.old"
cluster_start
qemu-io -f raw -c "write -P 0x22 0 12M" -c flush "$(uri_of gone)" >/dev/null
closed() { [ "$(strata volume show gone --json | jq .open)" = false ]; }
wait_until 20 closed
cluster_stop
checked 0 "$all_is_well and .devices == 2 and .chunks == 20 and .freeing == 0" --verify-data

# deleted while the node is away: the slots have left the map, and nobody told the device yet
cluster_start
kill -STOP "$up_pid" # it starts nothing again
kill -9 "$(pid_of node-1)"
away() { strata node list --json | jq -e '.[0].state == "away"'; }
wait_until 20 away
strata volume delete gone
kill -9 "$(pid_of metad)" "$up_pid"
wait "$up_pid" 2>/dev/null || true
up_pid=
checked 0 "$all_is_well and .freeing == 12 and .chunks == 8"
strata fsck --data "$dir/c" --runtime-dir "$dir/rt" >"$dir/fsck"
grep -q "of them being freed" "$dir/fsck" && grep -q "8 chunks mapped, 12 slots to be freed: consistent" "$dir/fsck" || fail "$(cat "$dir/fsck")"
# nor that the volume's records are of no use any more: each device has one
records_gone() { [ "$(strata fsck --data "$dir/c" --runtime-dir "$dir/rt" --json --notes | jq '[.findings[] | select(.what == "layer-gone")] | length')" = "$1" ]; }
records_gone 2 || fail "$(strata fsck --data "$dir/c" --runtime-dir "$dir/rt" --notes)"
cluster_start
freed() { [ "$(strata pool show default --json | jq .used_bytes)" = $((8 << 20)) ]; }
wait_until 30 freed
swept() { [ "$(grep -c "records of layers that are gone were dropped" "$dir/c/log/metad.log")" = 2 ]; }
wait_until 20 swept
cluster_stop
checked 0 "$all_is_well and .freeing == 0 and .chunks == 8"
records_gone 0 || fail "$(strata fsck --data "$dir/c" --runtime-dir "$dir/rt" --notes)"

# whoever holds a device is not disturbed, and what is on it is not known then
exec 9<"${disks[0]}"
flock -n 9
checked 1 '.errors == 0 and .unchecked == 1 and any(.findings[]; .what == "cannot-check" and (.message | test("in use")))'
exec 9<&-
grep -q "1 devices could not be checked" "$dir/fsck.err" || fail "$(cat "$dir/fsck.err")"

finds() { checked 4 ".errors > 0 and any(.findings[]; .what == \"$1\" and .severity == \"error\")"; }
mv "${disks[0]}" "$dir/one"
finds device-missing
mv "${disks[1]}" "${disks[0]}"
finds other-device
mv "${disks[0]}" "${disks[1]}"
cp --sparse=always "$dir/one" "${disks[0]}"
truncate -s 256M "${disks[0]}"
finds truncated
: >"${disks[0]}"
finds superblock-damaged
head -c 1M /dev/urandom >"${disks[0]}"
finds superblock-damaged
mv "$dir/one" "${disks[0]}"
cp --sparse=always "${disks[0]}" "$dir/copy"
cp "$dir/c/node1/devices" "$dir/devices"
grep "${disks[0]}" "$dir/devices" | sed "s|${disks[0]}|$dir/copy|" >>"$dir/c/node1/devices"
finds device-twice
grep -v "${disks[1]}" "$dir/devices" >"$dir/c/node1/devices"
finds device-missing
cp "$dir/devices" "$dir/c/node1/devices"
checked 0 "$all_is_well"

# metadata
mv "$meta" "$dir/meta.new"
cp -r "$dir/meta.old" "$meta"
finds metadata-old
rm -rf "$meta"
mkdir "$meta"
expect_fail "CURRENT is missing.*" strata fsck --data "$dir/c"
[ -z "$(ls -A "$meta")" ] || fail "it made a database"
rmdir "$meta"
mv "$dir/meta.new" "$meta"
checked 0 "$all_is_well"
