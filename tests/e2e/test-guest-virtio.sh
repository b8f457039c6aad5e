#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A Debian kernel in QEMU has the volume as its virtio disk (cache=none): makes a filesystem, writes, unmounts, finds it again after a reboot.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/e2e/guest.sh
. tests/e2e/guest.sh
guest_requires
cluster_start --device-size 4G
strata volume create vm --size 2G
drive="file=$(uri_of vm),format=raw,if=virtio,cache=none,discard=unmap"
cat >"$dir/one" <<'S'
set -e
mkfs.ext4 -q -F /dev/vda
mount -t ext4 -o discard /dev/vda /mnt
for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=/mnt/f$i bs=64k count=64 2>/dev/null; done
cd /mnt; sha256sum f1 f2 f3 f4 f6 >sums; rm f5; sync; cd /
umount /mnt
e2fsck -fn /dev/vda
S
cat >"$dir/two" <<'S'
set -e
e2fsck -fn /dev/vda
mount -t ext4 /dev/vda /mnt
cd /mnt; sha256sum -c sums; cd /
umount /mnt
S
modules="virtio_pci virtio_blk ext4 crc32c_generic"
guest_run 180 "$modules" "mkfs.ext4 e2fsck" "$dir/one" -drive "$drive"
guest_run 180 "$modules" "e2fsck" "$dir/two" -drive "$drive"
strata check
