#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Foreign NBD clients: nbdinfo, nbdcopy, qemu-img, qemu-io, qemu-nbd, fio, and an oracle for block status through libnbd.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires nbdinfo nbdcopy qemu-img qemu-io qemu-nbd fio jq

cluster_start --device-size 2G
strata volume create vol --size 512M
strata volume create other --size 64M
uri=$(uri_of vol)

nbdinfo "$uri" >"$dir/info"
grep -q "export-size: $((512 << 20))" "$dir/info" || fail "$(cat "$dir/info")"
for f in can_flush can_fua can_multi_conn can_trim can_zero; do grep -q "$f: true" "$dir/info" || fail "$f: $(cat "$dir/info")"; done
[ "$(nbdinfo --list --json "nbd+unix:///?socket=$dir/c/node-1.nbd" | jq -r '.exports[]."export-name"' | sort | tr '\n' ' ')" = "other vol " ] || fail "nbdinfo --list"
qemu-nbd --list -k "$dir/c/node-1.nbd" | grep -q "export: 'vol'" || fail "qemu-nbd --list"
expect_fail "." nbdinfo "$(uri_of nosuch)"

# in and out, through different programs
head -c $((300 << 20)) /dev/urandom >"$dir/in.raw"
truncate -s 512M "$dir/in.raw"
nbdcopy "$dir/in.raw" "$uri"
nbdcopy "$uri" "$dir/out.raw"
cmp "$dir/in.raw" "$dir/out.raw"
qemu-img compare -f raw -F raw "$dir/in.raw" "$uri"
rm -f "$dir/out.raw"
qemu-img convert -n -f raw -O raw -t none -T none "$dir/in.raw" "$(uri_of other)" 2>/dev/null && fail "a copy larger than the volume went in"
qemu-io -f raw -c "write -P 0x5a 1M 64k" -c "read -P 0x5a 1M 64k" -c "write -z 1M 32k" -c "read -P 0 1M 32k" -c "discard 2M 1M" -c "read -P 0 2M 1M" -c flush "$uri" | grep -q "Pattern verification failed" && fail "qemu-io read something else"
qemu-io -f raw -c "write -P 7 512 512" -c "read -P 7 512 512" -c "read -P 0x5a 1056k 4k" "$uri" | grep -q "Pattern verification failed" && fail "qemu-io sectors"

/usr/bin/python3 tests/e2e/nbd_oracle.py "$uri" --ops "${STRATA_ORACLE_OPS:-3000}"

fio --ioengine=nbd --uri="$(uri_of other)" --output="$dir/fio.log" fio-jobs/verify.fio || fail "fio: $(cat "$dir/fio.log")"
for side in read write trim; do grep -q "^ *$side: IOPS" "$dir/fio.log" || fail "fio did no $side: $(cat "$dir/fio.log")"; done
fio --name=verify --ioengine=nbd --uri="$uri" --size=32M --offset_increment=64M --rw=randrw --bs=4k --numjobs=4 --iodepth=16 --verify=crc32c \
	--verify_fatal=1 --verify_state_save=0 --randrepeat=0 --output="$dir/fio.log" || fail "fio, four alike: $(cat "$dir/fio.log")"
strata check
strata volume show vol
