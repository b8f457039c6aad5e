#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `strata up`: first use, the ready line, one holder only, going on from where it was, an orderly end; and wrong use says what is right.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq mkfs.ext4

expect_fail "--data DIR is missing" strata up
expect_fail "not a number" strata up --data "$dir/c" --nodes x
expect_fail "auto, uring or aio" strata up --data "$dir/c" --engine magic
expect_fail "no option --nosuch" strata up --nosuch
expect_fail "no command 'frobnicate'" strata frobnicate
[ ! -e "$dir/c" ] || fail "a refused command left something behind"

# what a first start that was killed may have left
mkdir -p "$dir/c/node1.new"
echo half >"$dir/c/key.new"
ulimit -Sn 512
cluster_start --device-size 1G
for p in "$dir"/c/run/*.pid; do
	awk '/^Max open files/ {exit $4 != $5 || $4 <= 512}' "/proc/$(cat "$p")/limits" || fail "$p: $(grep files "/proc/$(cat "$p")/limits")"
done
grep -q "export STRATA_SERVER=$STRATA_SERVER\$" "$dir/up.log" || fail "$(cat "$dir/up.log")"
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

# Whoever read its messages went away: it goes on, and restarts what dies. What its daemons are to be told reaches them.
echo "a token of administrators" >"$dir/token"
{
	strata up --data "$dir/p" --runtime-dir "$dir/rt" --device-size 1G --insecure --api 127.0.0.1:0 --api-token-file "$dir/token" --device-wait 30s \
		--takeover-after 0 --engine auto 2>&1 &
	echo $! >"$dir/up.pid"
	wait
} | head -n 1 >"$dir/p.ready" &
wait_until 60 grep -q '^ready ' "$dir/p.ready"
cleanup_fn "kill -TERM $(cat "$dir/up.pid")"
told() { tr '\0' ' ' <"/proc/$(cat "$dir/p/run/$1.pid")/cmdline" | grep -qF -- "$2" || fail "$1 was not told $2"; }
told node-1 "--device-wait 30s --insecure"
told node-1 "--engine auto"
told metad "--api-token-file $dir/token --takeover-after 0"
old=$(cat "$dir/p/run/node-1.pid")
kill -9 "$old"
wait_until 10 sh -c "[ \"\$(cat $dir/p/run/node-1.pid)\" != $old ] && kill -0 $(cat "$dir/up.pid")"
kill -TERM "$(cat "$dir/up.pid")"
wait_until 30 sh -c "! kill -0 $(cat "$dir/up.pid")"

# up_start [COMMAND]...: `strata up` on $dir/u, below the command; sets up_pid
up_start() {
	: >"$dir/u.ready"
	"$@" strata up --data "$dir/u" --runtime-dir "$dir/rt" --nodes 2 --device-size 256M >"$dir/u.ready" 2>"$dir/u.log" &
	up_pid=$!
	cleanup_fn "kill -9 $up_pid 2>/dev/null"
	wait_until 60 grep -q '^ready ' "$dir/u.ready"
	pids=$(cat "$dir"/u/run/*.pid)
}
none_left() { local p; for p in $pids; do is_gone "$p" || return 1; done; }
ends() { # STATUS: it ends with that, and leaves nobody
	local rc=0
	wait "$up_pid" || rc=$?
	up_pid=
	[ "$rc" = "$1" ] || fail "strata up ended with $rc, not $1: $(cat "$dir/u.log")"
	none_left || fail "processes are left: $pids"
}

# One that is killed: its children end by themselves, and the next one waits for those that take long.
up_start
kill -STOP "$(cat "$dir/u/run/node-2.pid")"
( sleep 1; kill -CONT "$(cat "$dir/u/run/node-2.pid")" ) &
kill -9 "$up_pid"
wait "$up_pid" 2>/dev/null || true
old=$pids
up_start
grep -q "waiting for node-2, pid .* of an earlier 'strata up'" "$dir/u.log" || fail "$(cat "$dir/u.log")"
for p in $old; do is_gone "$p" || fail "process $p is still there"; done

# What the terminal sends goes to all of them: only strata up takes it, ends the nodes and then the metadata server, in good order.
kill -TERM "$up_pid"
ends 0
up_start setsid env --default-signal=INT
group=$(ps -o pgid= -p "$up_pid" | tr -d ' ')
[ "$group" = "$up_pid" ] || up_pid=$group
kill -INT -- "-$group"
ends 0
! grep -q killed "$dir/u.log" || fail "$(cat "$dir/u.log")"
for n in node-1 node-2; do tail -n 3 "$dir/u/log/$n.log" | grep -q "warn\|error" && fail "$n: $(tail -n 5 "$dir/u/log/$n.log")"; done

# A node that does not end is waited for, all of a kind together; a second Ctrl-C is enough of that.
up_start env --default-signal=INT
kill -STOP "$(cat "$dir/u/run/node-1.pid")" "$(cat "$dir/u/run/node-2.pid")"
began=$SECONDS
kill -INT "$up_pid"
wait_until 20 grep -q "waiting up to 30 s for node-1, node-2 to end" "$dir/u.log"
kill -INT "$up_pid"
ends 0
[ $((SECONDS - began)) -lt 20 ] || fail "nobody was in a hurry"
grep -q "not waiting for node-1, node-2: killed" "$dir/u.log" || fail "$(cat "$dir/u.log")"

# A device whose node makes no progress is not waited for endlessly; then the same command goes on.
up_start
kill -STOP "$(cat "$dir/u/run/node-1.pid")"
expect_fail "no progress .*device list" strata --server "unix:$dir/u/run/api.sock" --timeout 2 device add "$dir/u.disk" --node node-1 --size 256M
kill -CONT "$(cat "$dir/u/run/node-1.pid")"
here() { [ "$(strata --server "unix:$dir/u/run/api.sock" device list --json | jq '[.[] | select(.state == "ok")] | length')" = 3 ]; }
wait_until 30 here
kill -TERM "$up_pid"
ends 0
strata fsck --data "$dir/u" --runtime-dir "$dir/rt"

# The metadata is gone, or a log cannot be written: refused at once, with what to do.
mv "$dir/u/meta" "$dir/u.meta"
expect_fail "metadata is gone: there is no database in $dir/u/meta.*node1 belongs to a cluster" strata up --data "$dir/u" --runtime-dir "$dir/rt"
expect_fail "strata meta restore BACKUP --data DIR" strata up --data "$dir/u" --runtime-dir "$dir/rt"
rm -rf "$dir/u/meta" && mv "$dir/u.meta" "$dir/u/meta"
rm "$dir/u/log/metad.log" && mkdir "$dir/u/log/metad.log"
expect_fail "metad cannot be started: $dir/u/log/metad.log: Is a directory" strata up --data "$dir/u" --runtime-dir "$dir/rt"
rmdir "$dir/u/log/metad.log"
deep=$dir/$(printf 'x%.0s' {1..255} | head -c $((107 - 16 - ${#dir})))
expect_fail "too long for the unix sockets in it, by 1 bytes" strata up --data "$deep"

# A node that does not start, or is lost, is reported; the others serve, and it is taken in when it comes.
u_strata() { strata --server "unix:$dir/u/run/api.sock" "$@"; }
mv "$dir/u/node2/identity" "$dir/identity"
echo rubbish >"$dir/u/node2/identity"
up_start
grep -q "device-size has no effect" "$dir/u.log" || fail "$(cat "$dir/u.log")"
grep -q "node2/identity is damaged" "$dir/u.log" || fail "$(cat "$dir/u.log")"
mv "$dir/identity" "$dir/u/node2/identity"
wait_until 20 grep -q "strata: node-2 serves" "$dir/u.log"
wait_until 20 u_strata status
kill -TERM "$up_pid"
ends 0
rm -rf "$dir/u/node2"
up_start
grep -q "node-2 is refused: another node is called node-2.*strata node remove" "$dir/u.log" || fail "$(cat "$dir/u.log")"
grep -q "1 of 2 nodes serve" "$dir/u.log" || fail "$(cat "$dir/u.log")"
u_strata node list --json | jq -e '[.[].state] == ["online", "away"]' >/dev/null || fail "node-1 does not serve: $(u_strata node list)"
u_strata device remove "$(u_strata device list --json | jq '.[] | select(.node_name == "node-2") | .number')" --lost
u_strata node remove node-2
wait_until 30 grep -q "strata: node-2 serves" "$dir/u.log"
wait_until 20 u_strata status
u_strata device list --json | jq -e '[.[] | select(.state == "ok") | .node_name] | sort == ["node-1", "node-1", "node-2"]' >/dev/null || fail "$(u_strata device list)"
kill -TERM "$up_pid"
ends 0

# A device that cannot be made is no device that was made before; then the same command goes on.
mkdir -p "$dir/f/node1"
echo "1 268435456" >"$dir/f/node1/setup"
truncate -s 256M "$dir/f/node1/disk1"
mkfs.ext4 -q -F "$dir/f/node1/disk1"
expect_fail "cannot make the device $dir/f/node1/disk1.*ext4" strata up --data "$dir/f" --runtime-dir "$dir/rt"
[ -e "$dir/f/node1/setup" ] || fail "what is wanted was forgotten"
