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
# what others have put there, whatever it is; each refused by its name, and left as it was
signed() { # NAME PATTERN
	local before
	before=$(sha256sum <"$dir/$1")
	expect_fail "$2" strata device add "$dir/$1"
	[ "$before" = "$(sha256sum <"$dir/$1")" ] || fail "$1 was changed"
}
truncate -s 300M "$dir/swap" "$dir/part" "$dir/xfs" "$dir/lvm"
mkswap -q "$dir/swap" >/dev/null && signed swap swap
# one Linux partition from sector 2048 on
printf '\0\0\41\0\203\0\0\0\0\10\0\0\0\100\0\0' | dd of="$dir/part" bs=1 seek=446 conv=notrunc status=none
printf '\125\252' | dd of="$dir/part" bs=1 seek=510 conv=notrunc status=none
signed part "dos|partition"
if command -v mkfs.xfs >/dev/null; then
	mkfs.xfs -q -f "$dir/xfs"
	signed xfs xfs
else
	leave_out "xfs: mkfs.xfs is not installed"
fi
# the label of an LVM physical volume, as far as anybody looks for it
printf 'LABELONE\1\0\0\0\0\0\0\0\274\301\36\270\40\0\0\0LVM2 001' | dd of="$dir/lvm" bs=512 seek=1 conv=notrunc status=none
if [ "$(blkid -p -o value -s TYPE "$dir/lvm" 2>/dev/null)" = LVM2_member ]; then
	signed lvm LVM
else
	leave_out "LVM: this blkid does not know it"
fi
# somebody has it: the lock that all of us take
truncate -s 300M "$dir/held"
exec 9<"$dir/held"; flock -n 9
expect_fail "in use" strata device add "$dir/held" --force
exec 9<&-
# a device that is mounted: also with --force
is_loop() { loop=$(losetup "$@" -f --show "$file" 2>/dev/null); } # OPTION...: $file as $loop
file=$dir/two
if [ "$(id -u)" = 0 ] && is_loop; then
	cleanup_fn "umount '$dir/mnt' 2>/dev/null; losetup -d $loop 2>/dev/null"
	mkfs.ext4 -q -F "$loop"
	mkdir "$dir/mnt"
	if mount "$loop" "$dir/mnt" 2>/dev/null; then
		expect_fail "in use|busy|mounted|ext4" strata device add "$loop"
		expect_fail "in use|busy|mounted" strata device add "$loop" --force
		umount "$dir/mnt"
	else
		leave_out "a mounted device: nothing can be mounted here"
	fi
	expect_fail "ext4" strata device add "$loop"
	losetup -d "$loop"
	file=$dir/held
	if is_loop -r; then
		expect_fail "read-only|permi|not permitted|denied" strata device add "$loop" --force
		losetup -d "$loop"
	else
		leave_out "a read-only device: no loop device to be had"
	fi
else
	leave_out "a mounted and a read-only device: needs root and loop devices"
fi
cluster_stop
cp "$dir/plain" "$dir/copy"
mv "$dir/c" "$dir/old"
cluster_start --device-size 512M
expect_fail "another cluster|cluster|Strata" strata device add "$dir/plain"
