#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Devices that must not be taken: signed, too small, in use, of another cluster; --force overrides signatures only.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq mkfs.ext4
cluster_start --device-size 1G
truncate -s 512M "$dir/ext4" "$dir/plain" "$dir/two"
mkfs.ext4 -q -F "$dir/ext4"
truncate -s 16M "$dir/small"
expect_fail "ext4" strata device add "$dir/ext4"
expect_fail "small|at least" strata device add "$dir/small"
expect_fail "no such|does not exist|size" strata device add "$dir/missing"
expect_fail "no such|not|directory" strata device add "$dir/no/such/dir" --size 1G
expect_fail "in use|already|exists" strata device add "$dir/c/node1/disk1"
strata device add "$dir/ext4" --force
strata device add "$dir/plain"
expect_fail "in use|already|exists" strata device add "$dir/plain" --force
[ "$(strata device list --json | jq '[.[] | select(.state == "ok")] | length')" = 3 ] || fail "$(strata device list)"
cluster_stop
cp "$dir/plain" "$dir/copy"
mv "$dir/c" "$dir/old"
cluster_start --device-size 512M
expect_fail "another cluster|cluster|Strata" strata device add "$dir/plain"
