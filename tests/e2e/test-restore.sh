#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Metadata backup and restore: a backup replaces damaged metadata and the data is all there; one that is older than what a device remembers, damaged,
# truncated or not a backup at all is refused and leaves nothing behind; one that is killed leaves a whole database. An old database put back by hand is refused by
# the server, and so is a damaged one.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq qemu-io
restore() { strata meta restore "$1" --data "$dir/c" --runtime-dir "$dir/rt"; }
unchanged() { # the database in place is still the one that was there
	(cd "$dir/c/meta" && sha256sum --quiet -c "$dir/sums") || fail "$1: the metadata changed"
	[ ! -e "$dir/c/meta.restoring" ] && [ ! -e "$dir/c/meta.replaced" ] || fail "$1: something was left behind"
}
refused() { expect_fail "$1" restore "$2"; unchanged "$2"; }
io() { qemu-io -f raw "$@" "$uri" 2>&1 | tee "$dir/out" | { ! grep -qi 'failed\|error'; }; }

cluster_start --device-size 1G
strata volume create vol --size 64M
uri=$(uri_of vol)
io -c "write -P 0x11 0 4M" -c flush || fail "$(cat "$dir/out")"
strata meta backup "$dir/old"
expect_fail "runs" restore "$dir/old"
io -c "write -P 0x22 8M 4M" -c flush || fail "$(cat "$dir/out")"
strata meta backup "$dir/linked"
cluster_stop
cp -r "$dir/linked" "$dir/new" # tables are shared with the database when both are on one filesystem
(cd "$dir/c/meta" && sha256sum -- *) >"$dir/sums"

echo text >"$dir/text"
mkdir "$dir/empty"
refused "directory" "$dir/text"
refused "CURRENT" "$dir/empty"
refused "No such file" "$dir/nothing"
refused "heard of commit.*newer backup" "$dir/old"
# damaged: each file in turn, in its middle, cut, gone. Either it is refused or nothing that counts was hurt.
for f in "$dir"/new/*; do
	[ -s "$f" ] || continue
	cp "$f" "$dir/good"
	size=$(stat -c %s "$f")
	truncate -s $((size / 2)) "$f"
	case $f in *.sst | */MANIFEST-* | */CURRENT) refused "damaged|cannot be used|not a backup" "$dir/new" ;; esac
	rm "$f"
	case $f in *.sst | */MANIFEST-* | */CURRENT) refused "damaged|cannot be used|not a backup" "$dir/new" ;; esac
	cp "$dir/good" "$f"
done
sst=$(ls -S "$dir"/new/*.sst | head -1)
cp "$sst" "$dir/good"
printf '\377\377\377\377' | dd of="$sst" bs=1 seek=200 conv=notrunc status=none
refused "damaged|cannot be used" "$dir/new"
cp "$dir/good" "$sst"

# the server refuses damage of its own database, each file of it
cp -r "$dir/c/meta" "$dir/before"
again() { rm -rf "$dir/c/meta"; cp -r "$dir/before" "$dir/c/meta"; }
for f in "$dir"/before/{CURRENT,MANIFEST-*,*.sst}; do
	[ -s "$f" ] || continue
	at=$dir/c/meta/$(basename "$f") size=$(stat -c %s "$f")
	printf '\377\377' | dd of="$at" bs=1 seek=$((size / 2)) conv=notrunc status=none
	case $f in
	*.sst) expect_fail "damaged|cannot be" timeout 20 strata-metad --data "$dir/c" ;;
	*) expect_fail "damaged|cannot be opened" timeout 20 strata-metad --data "$dir/c" ;;
	esac
	again
	truncate -s $((size / 2)) "$at"
	expect_fail "damaged|cannot be opened" timeout 20 strata-metad --data "$dir/c"
	again
done

# what it is for
rm "$dir"/c/meta/MANIFEST-*
restore "$dir/new"
[ -e "$dir/c/meta.replaced" ] || fail "the old metadata is not kept"
cluster_start
io -c "read -P 0x11 0 4M" -c "read -P 0x22 8M 4M" -c "write -P 0x33 20M 4M" -c flush || fail "$(cat "$dir/out")"
strata check || fail "the check"
strata meta backup "$dir/last"
cluster_stop
strata fsck --data "$dir/c" --runtime-dir "$dir/rt" || fail "fsck"

# Killed at any moment: there is a database in place, and it is whole; the same command again does it all again. KILLS=100 (12): at so many moments.
cp -r "$dir/last" "$dir/kept" # not linked with the database
ms() { echo $(($(date +%s%N) / 1000000)); }
is_whole() { # WHEN
	[ -e "$dir/c/meta/CURRENT" ] || fail "killed $1: there is no database"
	strata fsck --data "$dir/c" --runtime-dir "$dir/rt" >"$dir/out" 2>&1 || fail "killed $1: $(cat "$dir/out")"
}
began=$(ms)
restore "$dir/kept"
took=$(($(ms) - began)) kills=${KILLS:-12} made=0
for ((i = 1; i <= kills; i++)); do
	after=$((took * i / kills)) after=$(printf '%d.%03d' $((after / 1000)) $((after % 1000)))
	if timeout -s KILL "$after" strata meta restore "$dir/kept" --data "$dir/c" --runtime-dir "$dir/rt" >/dev/null 2>&1; then made=$((made + 1)); fi
	is_whole "after $after s"
done
echo "a restore takes $took ms; $made of $kills were quicker than their kill"
if strace -o /dev/null true 2>/dev/null; then # before and between the steps that exchange the two
	for call in rename renameat2 fsync:when=40+ unlinkat; do
		strace -qq -f -o /dev/null -e trace="${call%%:*}" -e inject="${call%%:*}:signal=KILL${call#"${call%%:*}"}" \
			strata meta restore "$dir/kept" --data "$dir/c" --runtime-dir "$dir/rt" >/dev/null 2>&1 || true
		is_whole "at $call"
	done
else
	leave_out "kills at single system calls: strace does not work here"
fi
mkdir -p "$dir/c/meta.restoring"
expect_fail "half made" restore "$dir/c/meta.restoring"
restore "$dir/kept"
[ ! -e "$dir/c/meta.restoring" ] || fail "something was left behind"
restore "$dir/c/meta.replaced" # back again
is_whole "never"
cluster_start
io -c "read -P 0x11 0 4M" -c "read -P 0x22 8M 4M" -c "read -P 0x33 20M 4M" || fail "$(cat "$dir/out")"
cluster_stop

# put back by hand: an older database than the devices know is not served
rm -rf "$dir/c/meta"
cp -r "$dir/new" "$dir/c/meta"
strata up --data "$dir/c" --runtime-dir "$dir/rt" >"$dir/ready" 2>>"$dir/up.log" &
up_pid=$!
is_refused() { strata status 2>&1 | grep -q "went back in time"; }
wait_until 30 is_refused
expect_fail "back in time" strata volume list
! grep -q '^ready' "$dir/ready" || fail "it says it is ready"
