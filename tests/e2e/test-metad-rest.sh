#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The daemons by themselves, administered by REST alone: a device and a volume are made with curl, written to by NBD, and found again by a server and a
# node that were killed.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires curl jq qemu-io

start_metad() {
	: >"$dir/metad.ready"
	strata-metad --data "$dir/m" --foreground >"$dir/metad.ready" 2>>"$dir/metad.log" &
	metad_pid=$!
	wait_until 20 grep -q '^ready ' "$dir/metad.ready"
}
start_noded() {
	: >"$dir/noded.ready"
	strata-noded --name n1 --data "$dir/n" --metad "unix:$dir/m/run/metad.sock" --nbd "unix:$dir/nbd.sock" --runtime-dir "$dir/rt" \
		--foreground >"$dir/noded.ready" 2>>"$dir/noded.log" &
	noded_pid=$!
	wait_until 20 grep -q '^ready ' "$dir/noded.ready"
}
stop_all() { kill -TERM "${noded_pid:-}" "${metad_pid:-}" 2>/dev/null; wait 2>/dev/null; }
cleanup_fn stop_all

# rest METHOD PATH STATUS [BODY]: the answer on stdout; the HTTP status must be the expected one
rest() {
	local got
	got=$(curl -s -o "$dir/answer" -w '%{http_code}' --unix-socket "$dir/m/run/api.sock" -X "$1" ${4:+-d "$4"} "http://strata$2")
	[ "$got" = "$3" ] || fail "$1 $2 gave $got, not $3: $(cat "$dir/answer")"
	cat "$dir/answer"
}
health_is() { [ "$(rest GET /v1/status 200 | jq -r .health)" = "$1" ]; }
uri="nbd+unix:///vm1?socket=$dir/nbd.sock"

start_metad
start_noded
[ "$(rest GET /v1/nodes 200 | jq -r '.items[0].name')" = n1 ] || fail "the node is not listed"
rest POST /v1/devices 400 '{"node":"n1","path":"relative"}' | jq -e '.code == "invalid"' >/dev/null
rest POST /v1/devices 201 "{\"node\":\"n1\",\"path\":\"$dir/disk\",\"size_bytes\":1073741824}" | jq -e '.state == "ok"' >/dev/null
rest POST /v1/devices 409 "{\"node\":\"n1\",\"path\":\"$dir/disk\"}" | jq -e '.code == "exists"' >/dev/null
rest POST /v1/volumes 201 '{"name":"vm1","size_bytes":67108864}' >/dev/null
rest POST /v1/volumes 409 '{"name":"vm1","size_bytes":67108864}' >/dev/null
[ "$(rest GET /v1/exports/vm1 200 | jq -r '.uris[0].uri')" = "$uri" ] || fail "the export's URI is not $uri"
qemu-io -f raw -c 'write -P 0x5a 1M 3M' -c flush "$uri" >/dev/null
health_is ok || fail "not healthy: $(cat "$dir/answer")"
rest GET '/v1/volumes/vm1/map?offset=0&length=4194304' 200 >"$dir/map"
[ "$(jq -r '[.segments[].kind] | join(" ")' "$dir/map")" = "unmapped open open open" ] || fail "map: $(cat "$dir/map")"
jq -e '.segments[1].replicas[0] | .device_offset > 0 and .slot_state == "open" and .present_blocks == 256' "$dir/map" >/dev/null ||
	fail "the third layer is missing: $(cat "$dir/map")"
rest GET /metrics 200 | grep -q '^strata_device_slots_open{.*} 3$' || fail "no counters of the device"

kill -9 "$metad_pid" "$noded_pid"
wait 2>/dev/null || true
start_metad
start_noded
wait_until 10 health_is ok
qemu-io -f raw -c 'read -P 0x5a 1M 3M' -c 'read -P 0 0 1M' "$uri" >"$dir/read"
! grep -q failed "$dir/read" || fail "$(cat "$dir/read")"
job=$(rest POST /v1/check 202 | jq .job)
job_is_done() { [ "$(rest GET "/v1/jobs/$job" 200 | jq -r .state)" = "done" ]; }
wait_until 20 job_is_done
rest GET "/v1/jobs/$job" 200 | jq -e '.result.problems_n == 0 and .result.chunks == 3' >/dev/null || fail "check: $(cat "$dir/answer")"
rest POST /v1/metadata/backup 201 "{\"path\":\"$dir/backup\"}" >/dev/null
job=$(rest DELETE /v1/volumes/vm1 202 | jq .job)
wait_until 20 job_is_done
used_is_zero() { [ "$(rest GET /v1/status 200 | jq .used_bytes)" = 0 ]; }
wait_until 20 used_is_zero
rest DELETE /v1/devices/1 200 | jq -e '.state == "removed"' >/dev/null
