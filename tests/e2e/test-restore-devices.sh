#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Restoring the metadata when devices are not there (--allow-missing): what can be looked at is, and the rest is found out by the metadata server; another
# cluster's backup is refused all the same; and later allocations are numbered above all that a device remembers.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq qemu-io
disk1=$dir/c/node1/disk1 disk2=$dir/c/node1/disk2
restore() { strata meta restore "$1" --data "$dir/c" --runtime-dir "$dir/rt" "${@:2}"; }
io() { qemu-io -f raw "$@" "$uri" 2>&1 | tee "$dir/out" | { ! grep -qi 'failed\|error'; }; }
backup() { # NAME: of the running cluster, which then ends
	strata meta backup "$dir/$1.linked"
	cluster_stop
	cp -r "$dir/$1.linked" "$dir/$1"
}

# settled MIB: closed, and what was reserved ahead is given back
settled() { [ "$(strata volume show vol --json | jq .open)" = false ] && [ "$(strata pool show default --json | jq .used_bytes)" = $(($1 << 20)) ]; }

# of another cluster
strata up --data "$dir/e" --runtime-dir "$dir/rt" --device-size 256M >"$dir/e.ready" 2>"$dir/e.log" &
up_pid=$!
cleanup_fn cluster_stop
wait_until 60 grep -q '^ready ' "$dir/e.ready"
strata --server "unix:$dir/e/run/api.sock" meta backup "$dir/foreign"
cluster_stop

cluster_start --devices 2 --device-size 512M
strata volume create vol --size 256M
uri=$(uri_of vol)
io -c "write -P 0x11 0 8M" -c flush || fail "$(cat "$dir/out")"
wait_until 20 settled 8
backup one
expect_fail "backup of another cluster" restore "$dir/foreign" --allow-missing
expect_fail "backup of another cluster" restore "$dir/foreign"

# not there, or not on the list
mv "$disk2" "$dir/away"
expect_fail "cannot be opened.*" restore "$dir/one"
restore "$dir/one" --allow-missing >"$dir/out" 2>&1 || fail "$(cat "$dir/out")"
grep -q "disk2 was not looked at" "$dir/out" && grep -q "1 devices remember nothing above" "$dir/out" || fail "$(cat "$dir/out")"
mv "$dir/away" "$disk2"
cp "$dir/c/node1/devices" "$dir/devices"
grep -v disk2 "$dir/devices" >"$dir/c/node1/devices"
expect_fail "not among those" restore "$dir/one"
restore "$dir/one" --allow-missing
cp "$dir/devices" "$dir/c/node1/devices"
cluster_start
io -c "read -P 0x11 0 8M" -c "write -P 0x22 8M 8M" -c flush || fail "$(cat "$dir/out")"
strata check
wait_until 20 settled 16

# the one that was away knows more than the backup: nothing is served, and the database that was there can be put back
backup two
cp --sparse=always "$disk1" "$dir/disk1.two"
cluster_start
io -c "write -P 0x33 16M 16M" -c flush || fail "$(cat "$dir/out")"
highest=$(strata map vol --json | jq '[.[].replicas[]?.cgen] | max')
cluster_stop
expect_fail "heard of commit" restore "$dir/two" --allow-missing
mv "$disk1" "$dir/disk1.three"
cp --sparse=always "$dir/disk1.two" "$disk1"
mv "$disk2" "$dir/away"
restore "$dir/two" --allow-missing
mv "$dir/away" "$disk2"
strata up --data "$dir/c" --runtime-dir "$dir/rt" >"$dir/ready" 2>>"$dir/up.log" &
up_pid=$!
is_refused() { strata status 2>&1 | grep -q "went back in time"; }
wait_until 30 is_refused
! grep -q '^ready' "$dir/ready" || fail "it says it is ready"
cluster_stop
mv "$dir/disk1.three" "$disk1"
restore "$dir/c/meta.replaced"
cluster_start
io -c "read -P 0x11 0 8M" -c "read -P 0x22 8M 8M" -c "read -P 0x33 16M 16M" || fail "$(cat "$dir/out")"
strata check
cluster_stop

# A database that has seen more commits than the devices, and fewer allocations. (Such a one has gone another way since the backup; it serves to see that
# the counter is raised, and for nothing else.)
mkdir "$dir/g"
cp -r "$dir/one" "$dir/g/meta"
strata-metad --data "$dir/g" --foreground >"$dir/g.ready" 2>"$dir/g.log" &
metad_pid=$!
cleanup_fn "kill $metad_pid 2>/dev/null"
wait_until 30 grep -q '^ready ' "$dir/g.ready"
for i in {1..40}; do strata --server "unix:$dir/g/run/api.sock" volume create "v$i" --size 1G >/dev/null; done
strata --server "unix:$dir/g/run/api.sock" meta backup "$dir/wide"
kill "$metad_pid"
wait "$metad_pid"
raised=$(restore "$dir/wide" --json | jq .cgen)
[ "$raised" -ge "$highest" ] || fail "allocations go on above $raised, and a device remembers $highest"
mv "$dir/c/node1/devices" "$dir/devices" # without devices: what is in the database
[ "$(restore "$dir/c/meta" --allow-missing --json | jq .cgen)" = "$raised" ] || fail "the raised counter was not kept"
