#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The same with the guest kernel's own NBD client over TCP.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/e2e/guest.sh
. tests/e2e/guest.sh
guest_requires
requires jq nbd-client
cluster_start --device-size 4G --nbd 127.0.0.1:0
port=$(jq -r '.nbd[0][0]' <<<"$ready" | sed 's/.*://')
strata volume create vm --size 1G
cat >"$dir/one" <<S
set -e
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
nbd-client -N vm 10.0.2.2 $port /dev/nbd0 -C 2 -b 512
mkfs.ext4 -q -F /dev/nbd0
mount -t ext4 /dev/nbd0 /mnt
dd if=/dev/urandom of=/mnt/x bs=64k count=128 2>/dev/null
sha256sum /mnt/x >/mnt/sum
umount /mnt
e2fsck -fn /dev/nbd0
mount -t ext4 /dev/nbd0 /mnt; sha256sum -c /mnt/sum; umount /mnt
nbd-client -d /dev/nbd0
S
guest_run 240 "virtio_pci virtio_net nbd ext4 crc32c_generic" "mkfs.ext4 e2fsck nbd-client" "$dir/one" \
	-netdev user,id=n -device virtio-net-pci,netdev=n
strata check
