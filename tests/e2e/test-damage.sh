#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A byte that changes on the device under a served volume is an I/O error, never wrong data; other data goes on; a rewrite heals it.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq qemu-io
cluster_start --device-size 1G
strata volume create vol --size 64M
uri=$(uri_of vol)
qemu-io -f raw -c "write -P 0xab 0 8M" -c flush "$uri" >/dev/null
at=$(strata map vol --offset 2M --length 1M --json | jq '.[0].replicas[0].device_offset')
printf 'X' | dd of="$dir/c/node1/disk1" bs=1 seek=$((at + 5000)) conv=notrunc status=none
expect_fail "Input/output error" qemu-io -f raw -c "read -P 0xab $(((2 << 20) + 4096)) 4096" "$uri"
qemu-io -f raw -c "read -P 0xab 0 2M" -c "read -P 0xab $(((2 << 20) + 8192)) 4M" "$uri" >"$dir/out" 2>&1
if grep -qi failed "$dir/out"; then fail "undamaged data"; fi
qemu-io -f raw -c "write -P 0xcd $(((2 << 20) + 4096)) 4096" -c "read -P 0xcd $(((2 << 20) + 4096)) 4096" "$uri" >"$dir/out" 2>&1
if grep -qi failed "$dir/out"; then fail "the rewrite did not heal it"; fi
