#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The NBD target alone, over volumes in memory, with foreign clients: both engines, unix and TCP. What the target says is compared with what
# the clients were told to expect; the whole product has test-nbd-clients.sh.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires nbdinfo nbdcopy qemu-img qemu-io qemu-nbd fio jq
variant=${VARIANT:-plain}
server=build/$variant/tests/bench/nbd_ramdisk
make -s VARIANT="$variant" "$server" >/dev/null

start() { # ENGINE ADDR
	: >"$dir/ready"
	"$server" -e "$1" "$2" disk=256M other=64M disk@snap=64M >"$dir/ready" 2>"$dir/server.log" &
	pid=$!
	cleanup_fn "kill $pid 2>/dev/null"
	wait_until 10 grep -q "^ready $1 " "$dir/ready"
	base=$(sed -n 's/^ready [a-z]* //p' "$dir/ready")
	rest=${base#*\?}; [ "$rest" = "$base" ] && rest= || rest="?$rest"
	base=${base%%\?*}
}
uri() { echo "$base$1$rest"; }
stop() {
	kill -TERM "$pid"
	wait "$pid" || fail "the server ended with $?: $(cat "$dir/server.log")"
}

clients() {
	nbdinfo --json "$(uri disk)" >"$dir/info"
	jq -e '.exports[0] | ."export-size" == 268435456 and ."block_size_minimum" == 512 and ."block_size_preferred" == 4096
		and ."block_size_maximum" == 33554432 and .can_df and .can_fast_zero and .can_flush and .can_fua and .can_multi_conn and .can_trim
		and .can_zero and (.can_cache | not) and (.is_read_only | not) and (.is_rotational | not)' "$dir/info" >/dev/null || fail "$(cat "$dir/info")"
	nbdinfo --json "$(uri disk@snap)" | jq -e '.exports[0].is_read_only' >/dev/null || fail "a snapshot is read-only"
	[ "$(nbdinfo --list --json "$(uri "")" | jq -r '.exports[]."export-name"' | sort | xargs)" = "disk other" ] || fail "nbdinfo --list"
	expect_fail "several volumes|No such file" nbdinfo "$(uri "")"
	expect_fail "No such file" nbdinfo "$(uri nope)"
	[ "$(nbdinfo --map "$(uri other)" | awk '{print $2, $3}')" = "67108864 3" ] || fail "$(nbdinfo --map "$(uri other)")"

	head -c $((64 << 20)) /dev/urandom >"$dir/in.raw"
	nbdcopy --connections=4 "$dir/in.raw" "$(uri other)"
	nbdcopy "$(uri other)" "$dir/out.raw"
	cmp "$dir/in.raw" "$dir/out.raw"
	qemu-img compare -f raw -F raw "$dir/in.raw" "$(uri other)" >/dev/null
	truncate -s 0 "$dir/in.raw" && truncate -s 64M "$dir/in.raw"
	qemu-img convert -n -f raw -O raw -t none -T none "$dir/in.raw" "$(uri other)"
	qemu-img compare -f raw -F raw "$dir/in.raw" "$(uri other)" >/dev/null
	qemu-io -f raw -c "write -P 7 512 512" -c "read -P 7 512 512" -c "write -z 0 64k" -c "discard 1M 1M" -c "aio_write -P 9 2M 32M" \
		-c aio_flush -c "read -P 9 2M 32M" "$(uri disk)" >"$dir/qemu-io.log" || fail "$(cat "$dir/qemu-io.log")"
	grep -q "Pattern verification failed" "$dir/qemu-io.log" && fail "$(cat "$dir/qemu-io.log")"
	/usr/bin/python3 tests/e2e/nbd_oracle.py "$(uri disk)" --ops "${STRATA_ORACLE_OPS:-500}"
	/usr/bin/python3 tests/e2e/nbd_target.py "$(uri disk)" "$(uri disk@snap)"
	for job in "rw=randwrite bs=512 numjobs=1" "rw=randrw bs=4k numjobs=4" "rw=randwrite bsrange=512-1M numjobs=1"; do
		args=(); for o in $job; do args+=("--$o"); done
		fio --name=verify --ioengine=nbd --uri="$(uri disk)" --size=16M --offset_increment=64M --iodepth=32 --verify=crc32c --verify_fatal=1 --verify_state_save=0 \
			--randrepeat=0 --output="$dir/fio.log" "${args[@]}" || fail "fio $job: $(cat "$dir/fio.log")"
	done
}

for engine in uring aio; do
	start "$engine" "unix:$dir/s"
	clients
	stop
done
start uring 127.0.0.1:0
clients
# a server that is told to end under load answers what it has and ends
fio --name=load --ioengine=nbd --uri="$(uri disk)" --size=64M --rw=randrw --bs=4k --iodepth=64 --time_based --runtime=20 >"$dir/fio.log" 2>&1 &
load=$!
wait_until 10 sh -c "grep -q Starting '$dir/fio.log'"
stop
wait "$load" 2>/dev/null || true
[ -s "$dir/server.log" ] && grep -qi "error\|BUG" "$dir/server.log" && fail "$(cat "$dir/server.log")"
exit 0
