#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# An ext4 image made from a real directory tree goes in by qemu-img and by nbdcopy and comes out identical by each. e2fsck is happy with the export itself, as a
# file by FUSE (nbdfuse) where that is to be had, else as the disk of a guest.
# IMAGE_MB=1500 (default 600): so much of /usr/share and /usr/lib is in it.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/e2e/guest.sh
. tests/e2e/guest.sh
requires mke2fs e2fsck qemu-img nbdcopy qemu-nbd
mb=${IMAGE_MB:-600}
[ "$(df --output=avail -B1M /dev/shm | tail -n 1)" -gt $((8 * mb)) ] || skip "not enough room in /dev/shm"
mkdir "$dir/tree" "$dir/fuse"
tar -C /usr -c share lib 2>/dev/null | head -c "${mb}M" | tar -x -C "$dir/tree" 2>/dev/null || true # the archive is cut off, and the last file with it
[ "$(du -m "$dir/tree" | tail -n 1 | cut -f1)" -ge $((mb * 3 / 4)) ] || skip "/usr is too small here to be a test"
mke2fs -q -t ext4 -d "$dir/tree" "$dir/real.img" "$((mb * 2))M"
rm -rf "$dir/tree"

# e2fsck_export URI: of the export, not of a copy
e2fsck_export() {
	local fuse why
	nbdfuse --readonly "$dir/fuse/disk" "$1" >"$dir/fuse.log" 2>&1 &
	fuse=$!
	cleanup_fn "kill $fuse 2>/dev/null; wait $fuse"
	until [ -s "$dir/fuse/disk" ] || ! kill -0 $fuse 2>/dev/null; do sleep 0.05; done
	if [ -s "$dir/fuse/disk" ]; then
		e2fsck -fn "$dir/fuse/disk" || fail "e2fsck of the export, by FUSE"
		echo "e2fsck of the export is happy, by FUSE"
		kill $fuse
		wait $fuse || true
	elif why=$(guest_requires); then
		guest_requires
		echo "e2fsck -fn /dev/vda" >"$dir/look"
		guest_run 280 "virtio_pci virtio_blk" e2fsck "$dir/look" -drive "file=$1,format=raw,if=virtio,cache=none"
		echo "e2fsck of the export is happy, in a guest"
	else
		leave_out "e2fsck through the export: $(tail -n 1 "$dir/fuse.log"), and $why"
	fi
}

cluster_start --device-size "$((mb * 4))M"
for how in qemu-img nbdcopy; do
	strata volume create "by-$how" --size "$((mb * 2))M"
	uri=$(uri_of "by-$how")
	if [ $how = qemu-img ]; then
		qemu-img convert -n -f raw -O raw -t none -T none "$dir/real.img" "$uri"
		qemu-img compare -f raw -F raw "$dir/real.img" "$uri"
		e2fsck_export "$uri"
	else
		nbdcopy "$dir/real.img" "$uri"
		nbdcopy "$uri" "$dir/out.img"
		cmp "$dir/real.img" "$dir/out.img"
		rm -f "$dir/out.img"
	fi
	strata volume show "by-$how"
	strata volume delete "by-$how"
done
