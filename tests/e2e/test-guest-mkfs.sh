#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Thin for real: mkfs.ext4 with its defaults on 1 TiB, in a guest, takes at most 600 MiB of slots (537 MiB is what the filesystem touches at 1 MiB
# grain); after a discard of everything all slots are free and the device file has shrunk. FSTRIM=1: in between also a file is written and removed, and
# what it took comes back with fstrim (12 s more).
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/e2e/guest.sh
. tests/e2e/guest.sh
guest_requires
requires jq mkfs.ext4
cluster_start --device-size 4G
used() { strata pool show default --json | jq .used_bytes; }
taken() { du -B1 "$dir"/c/node1/disk1 | cut -f1; }
used_at_most() { [ "$(used)" -le "$1" ]; }
taken_at_most() { [ "$(taken)" -le "$1" ]; }
report() { echo "$1: $(($(used) >> 20)) MiB of slots, $((($(taken) - before) >> 20)) MiB of the device file ($SECONDS s)"; }

strata volume create vm --size 1T
before=$(taken)
# after each step the guest says so and waits for a line on its console
cat >"$dir/script" <<S
FSTRIM=${FSTRIM:-}
S
cat >>"$dir/script" <<'S'
set -e
PATH=/sbin:/bin # not busybox where there is the real one
step() { echo "GUEST: $1"; read -r go </dev/console; }
mkfs.ext4 -q -F /dev/vda
step made
if [ "$FSTRIM" ]; then
mount -t ext4 -o init_itable=0 /dev/vda /mnt
dd if=/dev/zero of=/mnt/file bs=1M count=96 2>/dev/null
sync
step written
rm /mnt/file; sync
fstrim -v /mnt
umount /mnt
step trimmed
fi
blkdiscard -f /dev/vda
step discarded
S
mkfifo "$dir/console"
exec 7<>"$dir/console"
cleanup_fn "kill \$(cat '$dir/qemu.pid' 2>/dev/null) 2>/dev/null"
guest_stdin=$dir/console guest_run 300 "virtio_pci virtio_blk ext4 crc32c_generic" "mkfs.ext4 fstrim blkdiscard" "$dir/script" \
	-drive "file=$(uri_of vm),format=raw,if=virtio,cache=none,discard=unmap" -pidfile "$dir/qemu.pid" &
guest_pid=$!
guest_at() {
	until grep -aq "^GUEST: $1" "$dir/guest.log" 2>/dev/null; do
		kill -0 "$guest_pid" 2>/dev/null || fail "the guest ended before '$1': $(tail -n 25 "$dir/guest.log")"
		sleep 0.1
	done
}
guest_go() { echo go >&7; }

guest_at made
made=$(used)
report "mkfs.ext4"
[ "$made" -gt 0 ] && [ "$made" -le $((600 << 20)) ] || fail "mkfs.ext4 on 1 TiB took $made bytes of slots"
if [ "${FSTRIM:-}" ]; then
	guest_go
	guest_at written
	report "96 MiB written"
	[ "$(used)" -ge $((made + (96 << 20))) ] || fail "96 MiB written, $made -> $(used) bytes of slots"
	guest_go
	guest_at trimmed
	wait_until 30 used_at_most $((made + (8 << 20)))
	report "removed, fstrim"
fi
guest_go
guest_at discarded
wait_until 30 used_at_most 0
wait_until 10 taken_at_most $((before + (4 << 20)))
report "blkdiscard"
guest_go
wait "$guest_pid"
strata check
