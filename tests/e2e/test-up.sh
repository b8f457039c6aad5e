#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `strata up`: first use, the ready line, one holder only, going on from where it was, an orderly end; and wrong use says what is right.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq

expect_fail "--data DIR is missing" strata up
expect_fail "not a number" strata up --data "$dir/c" --nodes x
expect_fail "uring or aio" strata up --data "$dir/c" --engine magic
expect_fail "no option --nosuch" strata up --nosuch
expect_fail "no command 'frobnicate'" strata frobnicate
[ ! -e "$dir/c" ] || fail "a refused command left something behind"

# what a first start that was killed may have left
mkdir -p "$dir/c/node1.new"
echo half >"$dir/c/key.new"
cluster_start --device-size 1G
[ "$(strata --json device list | jq length)" = 1 ] || fail "the first start made no device"
[ "$(jq -r '.pids.up' <<<"$ready")" = "$up_pid" ] || fail "ready line: $ready"
[ "$(jq '.nbd | length' <<<"$ready")" = 1 ] || fail "ready line: $ready"
expect_fail "in use by 'strata up', pid $up_pid" strata up --data "$dir/c"
strata status
[ "$(strata status --json | jq -r .health)" = ok ] || fail "not healthy"

strata volume create v1 --size 100M
expect_fail "already" strata volume create v1 --size 100M
expect_fail "not a size" strata volume create v2 --size 10X
expect_fail "4096|4 KiB|multiple" strata volume create v2 --size 1000
expect_fail "name" strata volume create .bad --size 1G
[ "$(strata --json volume list | jq -r '.[].name')" = v1 ] || fail "the list"

# Daemons that die come back.
old=$(pid_of node-1)
kill -9 "$old"
wait_until 10 sh -c "[ \"\$(cat $dir/c/run/node-1.pid)\" != $old ] && strata status"
kill -9 "$(pid_of metad)"
wait_until 10 strata status

# An orderly end leaves no process, does not wait for a load that an operator started, and the next start finds everything.
strata bench v1 --secs 20 >"$dir/bench" 2>&1 &
bench_pid=$!
wait_until 15 grep -q "volume opened vol=v1" "$dir/c/log/node-1.log"
began=$SECONDS
pids=$(cat "$dir"/c/run/*.pid)
cluster_stop
[ $((SECONDS - began)) -lt 15 ] || fail "the end waited for the load"
wait "$bench_pid" || true
for p in $pids; do [ ! -e "/proc/$p" ] || fail "process $p is still there"; done
cluster_start
[ "$(strata --json volume list | jq -r '.[].name')" = v1 ] || fail "the volume is gone after a restart"
strata volume delete v1
[ "$(strata --json volume list | jq length)" = 0 ] || fail "deleted, and still listed"
cluster_stop

# Whoever read its messages went away: it goes on, and restarts what dies.
{
	strata up --data "$dir/p" --runtime-dir "$dir/rt" --device-size 1G 2>&1 &
	echo $! >"$dir/up.pid"
	wait
} | head -n 1 >"$dir/p.ready" &
wait_until 60 grep -q '^ready ' "$dir/p.ready"
cleanup_fn "kill -TERM $(cat "$dir/up.pid")"
old=$(cat "$dir/p/run/node-1.pid")
kill -9 "$old"
wait_until 10 sh -c "[ \"\$(cat $dir/p/run/node-1.pid)\" != $old ] && kill -0 $(cat "$dir/up.pid")"
kill -TERM "$(cat "$dir/up.pid")"
wait_until 30 sh -c "! kill -0 $(cat "$dir/up.pid")"
