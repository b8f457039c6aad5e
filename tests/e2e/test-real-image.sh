#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# An ext4 image made from a real directory tree goes in by qemu-img and by nbdcopy, comes out identical by each, and e2fsck is happy with what comes out.
# IMAGE_MB=1500 (default 600): so much of /usr/share and /usr/lib is in it.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires mke2fs e2fsck qemu-img nbdcopy qemu-nbd
mb=${IMAGE_MB:-600}
[ "$(df --output=avail -B1M /dev/shm | tail -n 1)" -gt $((8 * mb)) ] || skip "not enough room in /dev/shm"
mkdir "$dir/tree"
tar -C /usr -c share lib 2>/dev/null | head -c "${mb}M" | tar -x -C "$dir/tree" 2>/dev/null || true # the archive is cut off, and the last file with it
[ "$(du -m "$dir/tree" | tail -n 1 | cut -f1)" -ge $((mb * 3 / 4)) ] || skip "/usr is too small here to be a test"
mke2fs -q -t ext4 -d "$dir/tree" "$dir/real.img" "$((mb * 2))M"
rm -rf "$dir/tree"
cluster_start --device-size "$((mb * 4))M"
for how in qemu-img nbdcopy; do
	strata volume create "by-$how" --size "$((mb * 2))M"
	uri=$(uri_of "by-$how")
	if [ $how = qemu-img ]; then qemu-img convert -n -f raw -O raw -t none -T none "$dir/real.img" "$uri"; else nbdcopy "$dir/real.img" "$uri"; fi
	if [ $how = qemu-img ]; then
		qemu-img compare -f raw -F raw "$dir/real.img" "$uri"
	else
		nbdcopy "$uri" "$dir/out.img"
		cmp "$dir/real.img" "$dir/out.img"
		e2fsck -fn "$dir/out.img"
		rm -f "$dir/out.img"
	fi
	strata volume show "by-$how"
	strata volume delete "by-$how"
done
