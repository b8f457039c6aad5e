#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Paths that are given in another form than they are used in. Relative --data and unix: addresses hold for clients in other directories. A runtime directory
# that others may write to, or that is somebody else's, is refused. `device add` says what is wrong with a path.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq nbdinfo
for p in strata-metad strata-noded; do [ -x "$top/build/bin/$p" ] || skip "$p is not built"; done
start() { # NAME COMMAND...: in $dir, until it says that it serves
	local log=$dir/$1.log; shift
	(cd "$dir" && exec "$@" --foreground >"$log.out" 2>"$log") &
	local pid=$!
	cleanup_fn "kill $pid 2>/dev/null; wait $pid 2>/dev/null"
	wait_until 20 grep -q "^ready" "$log.out"
}
mkdir -m 700 "$dir/rt"
start metad strata-metad --data ./m --api unix:api.sock
start node strata-noded --data n --name n1 --metad unix:m/run/metad.sock --runtime-dir ./rt
export STRATA_SERVER=unix:$dir/api.sock
sed -n 's/^ready //p' "$dir/node.log.out" | jq -e --arg a "unix:$dir/n/nbd.sock" '.nbd == [$a]' >/dev/null || fail "$(cat "$dir/node.log.out")"
sed -n 's/^ready //p' "$dir/metad.log.out" | jq -e --arg a "unix:$dir/m/run/metad.sock" '.rpc == [$a]' >/dev/null || fail "$(cat "$dir/metad.log.out")"

expect_fail "the directory of .* does not exist.*Make its directory" sh -c "strata device add $dir/none/disk --size 256M --node n1 2>&1 | tr '\n' ' '; false"
ln -s "$dir/nowhere" "$dir/link"
expect_fail "a link that leads nowhere" strata device add "$dir/link" --size 256M --node n1
expect_fail "size" strata device add "$dir/disk" --node n1
strata device add "$dir/disk" --size 256M --node n1
strata volume create vol --size 16M
(cd / && nbdinfo --size "nbd+unix:///vol?socket=$dir/n/nbd.sock") >/dev/null

mkdir "$dir/open"
chmod 777 "$dir/open"
node() { timeout 10 strata-noded --data "$dir/other" --metad "unix:$dir/m/run/metad.sock" --runtime-dir "$1"; }
expect_fail "others can write to $dir/open .*chmod 700" node "$dir/open"
touch "$dir/file"
expect_fail "$dir/file" node "$dir/file"
if [ "$(id -u)" = 0 ]; then
	mkdir -m 700 "$dir/theirs"
	chown 65534 "$dir/theirs"
	expect_fail "$dir/theirs belongs to user 65534, not to 0" node "$dir/theirs"
	ln -s "$dir/rt" "$dir/trap"
	chown -h 65534 "$dir/trap"
	expect_fail "$dir/trap belongs to user 65534" node "$dir/trap"
else
	leave_out "directories of others: needs root"
fi
