#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# An ext4 image made from a real directory tree goes in by qemu-img and by nbdcopy, comes out identical, and e2fsck is happy through the export.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires mke2fs e2fsck qemu-img nbdcopy qemu-nbd
[ "$(df --output=avail -B1M /dev/shm | tail -n 1)" -gt 5000 ] || skip "not enough room in /dev/shm"
mke2fs -q -t ext4 -d /usr/share "$dir/real.img" 3G
[ "$(du -m "$dir/real.img" | cut -f1)" -ge 300 ] || skip "/usr/share is too small here to be a test"
cluster_start --device-size 4G
for how in qemu-img nbdcopy; do
	strata volume create "by-$how" --size 3G
	uri=$(uri_of "by-$how")
	if [ $how = qemu-img ]; then qemu-img convert -n -f raw -O raw -t none -T none "$dir/real.img" "$uri"; else nbdcopy "$dir/real.img" "$uri"; fi
	qemu-img compare -f raw -F raw "$dir/real.img" "$uri"
	nbdcopy "$uri" "$dir/out.img"
	cmp "$dir/real.img" "$dir/out.img"
	e2fsck -fn "$dir/out.img"
	rm -f "$dir/out.img"
	strata volume show "by-$how"
	strata volume delete "by-$how"
done
