#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mkfs.ext4 of a 1 TiB volume in a guest takes the slots that the filesystem touches and no more; a discard of everything gives them back, with the
# space of the device file.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/e2e/guest.sh
. tests/e2e/guest.sh
guest_requires
requires jq
cluster_start --device-size 4G
used() { strata pool show default --json | jq .used_bytes; }
strata volume create big --size 1T
before=$(du -B1 "$dir/c/node1/disk1" | cut -f1)
drive="file=$(uri_of big),format=raw,if=virtio,cache=none,discard=unmap"
modules="virtio_pci virtio_blk ext4 crc32c_generic"
cat >"$dir/mkfs" <<'S'
set -e
mkfs.ext4 -q -F /dev/vda
mount -t ext4 /dev/vda /mnt; echo hello >/mnt/file; umount /mnt
S
cat >"$dir/discard" <<'S'
set -e
mount -t ext4 /dev/vda /mnt; grep -q hello /mnt/file; umount /mnt
blkdiscard -f /dev/vda
S
guest_run 240 "$modules" "mkfs.ext4" "$dir/mkfs" -drive "$drive"
slots=$(used)
[ "$slots" -gt 0 ] || fail "the filesystem uses no slots"
[ "$slots" -le $((600 << 20)) ] || fail "mkfs.ext4 of 1 TiB uses $((slots >> 20)) MiB of slots"
guest_run 240 "$modules" "blkdiscard" "$dir/discard" -drive "$drive"
wait_until 60 sh -c "[ \$(strata pool show default --json | jq .used_bytes) = 0 ]"
wait_until 20 sh -c "[ \$(du -B1 '$dir/c/node1/disk1' | cut -f1) -le $((before + (8 << 20))) ]"
strata check
echo "ok $((slots >> 20)) MiB of slots after mkfs.ext4 of 1 TiB"
