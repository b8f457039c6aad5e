#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# An old copy of a device is brought back while the cluster is down: it is refused however often it is opened, what lies there is an I/O error,
# nothing else suffers, and the right device put back is served again. Then it is gone for good and given up: the rest goes on, writes get new space
# whose other blocks are errors, zeroing and discarding clear them, and the check finds nothing wrong.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq qemu-io
disk=$dir/c/node1/disk1
state_is() { [ "$(strata device list --json | jq -r ".[] | select(.number == $1) | .state")" = "$2" ]; }
io() { qemu-io -f raw "$@" "$uri" 2>&1 | tee "$dir/out" | { ! grep -qi 'failed\|error'; }; }

cluster_start --devices 2 --device-size 1G
strata volume create vol --size 64M
uri=$(uri_of vol)
io -c "write -P 0x11 0 32M" -c flush || fail "$(cat "$dir/out")"
cluster_stop
cp --sparse=always "$disk" "$dir/old"
cluster_start
io -c "write -P 0x22 0 32M" -c flush || fail "$(cat "$dir/out")"
strata map vol --json >"$dir/map"
cluster_stop
mv "$disk" "$dir/new"
cp --sparse=always "$dir/old" "$disk"
mapfile -t here < <(jq -r '.[] | select(.replicas[0].device == 1) | .offset / 1048576' "$dir/map")
mapfile -t there < <(jq -r '.[] | select(.replicas[0].device == 2) | .offset / 1048576' "$dir/map")
[ ${#here[@]} -gt 2 ] && [ ${#there[@]} -gt 2 ] || fail "the volume is not on both devices: $(cat "$dir/map")"

rest=()
for k in "${there[@]}"; do rest+=(-c "read -P 0x22 ${k}M 1M"); done

for round in 1 2; do
	cluster_start
	wait_until 20 state_is 1 refused
	state_is 2 ok || fail "$(strata device list)"
	strata events --json | jq -e '[.[] | select(.code == "device_went_back")] | length > 0' >/dev/null || fail "no event"
	if strata status --json >"$dir/status"; then fail "status says it is well: $(cat "$dir/status")"; fi
	expect_fail "error" qemu-io -f raw -c "read -P 0x11 ${here[0]}M 4k" "$uri"
	if [ "$round" = 1 ]; then cluster_stop; fi
done
io "${rest[@]}" || fail "chunks of the other device: $(cat "$dir/out")"
expect_fail "error" qemu-io -f raw -c "write -P 0x33 ${here[0]}M 4k" "$uri"
io -c "write -P 0x44 40M 1M" -c "read -P 0x44 40M 1M" || fail "a new chunk: $(cat "$dir/out")"
cluster_stop

mv "$dir/new" "$disk"
cluster_start
wait_until 20 state_is 1 ok
io -c "read -P 0x22 0 32M" -c "read -P 0x44 40M 1M" || fail "the right device: $(cat "$dir/out")"

# ---- gone for good ----------------------------------------------------------------------------------------------------------
cluster_stop
rm "$disk"
cluster_start
expect_fail "in use|works|online" strata device remove 2 --lost
strata device remove 1 --lost
k=${here[0]} z=${here[1]} d=${here[2]}
expect_fail "Input/output error" qemu-io -f raw -c "read ${k}M 4k" "$uri"
io "${rest[@]}" || fail "chunks of the other device: $(cat "$dir/out")"
io -c "write -P 0x55 ${k}M 8k" -c "read -P 0x55 ${k}M 8k" || fail "a write to a lost chunk: $(cat "$dir/out")"
for off in 8192 65536 1044480; do # never zeros
	expect_fail "Input/output error" qemu-io -f raw -c "read $(((k << 20) + off)) 4096" "$uri"
done
io -c "write -z ${z}M 1M" -c "read -P 0 ${z}M 1M" || fail "zeroing: $(cat "$dir/out")"
io -c "discard ${d}M 1M" -c "read -P 0 ${d}M 1M" || fail "discarding: $(cat "$dir/out")"
strata check || fail "the check"
cluster_stop
cluster_start
expect_fail "Input/output error" qemu-io -f raw -c "read $(((k << 20) + 8192)) 4096" "$uri"
io -c "read -P 0x55 ${k}M 8k" -c "read -P 0 ${z}M 1M" -c "read -P 0 ${d}M 1M" || fail "after a restart: $(cat "$dir/out")"
io -c "write -P 0x66 ${k}M 1M" -c "read -P 0x66 ${k}M 1M" || fail "a rewrite: $(cat "$dir/out")"
strata check || fail "the check after a restart"
