#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Wrong flags, values, names and files, for each program: the exit code that --help promises, one line that says what is wrong, and nothing left
# behind. BIN=build/asan/bin runs it with the programs of a sanitizer build.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq
PATH=$top/${BIN:-build/bin}:$PATH
cd "$dir"
x250=$(printf 'x%.0s' {1..250})
x64=${x250:0:64}
n=0 failed=0

# is CODE PATTERN COMMAND...: the command ends with the code and says something that matches, in few lines
is() {
	local code=$1 pattern=$2 out rc=0; shift 2
	out=$(timeout 20 "$@" 2>&1 </dev/null) || rc=$?
	n=$((n + 1))
	if ! [[ $rc =~ ^($code)$ ]] || ! LC_ALL=C grep -aqiE -- "$pattern" <<<"$out" || [ "$(wc -l <<<"$out")" -gt 3 ] ||
		grep -qE 'AddressSanitizer|LeakSanitizer|runtime error|BUG:' <<<"$out"; then
		echo "'$*' should end with $code and say /$pattern/; it ended with $rc: $out"
		failed=$((failed + 1))
	fi
}
nothing_in() { [ -z "$(ls -A "$1" 2>/dev/null)" ] || { echo "left behind in $1: $(ls -A "$1")"; failed=$((failed + 1)); }; }

# ---- daemons -------------------------------------------------------------------------------------------------------------
mkdir none
for p in strata-metad strata-noded; do
	is 2 "unknown option '--dta'" $p --dta x
	is 2 "unknown option '-x'" $p -x
	is 2 "needs a value" $p --data
	is 2 "is empty" $p --data=
	is 2 "given twice" $p --data none/a --data none/b
	is 2 "takes no value" $p --data none/a --foreground=yes
	is 2 "unexpected argument 'more'" $p --data none/a more
	is 2 "one of .*uring" $p --data none/a --engine epoll
	is 2 "missing" $p
	is 2 "cannot read the configuration file" $p --config none/missing.ini
	is 2 "cannot be read" $p --config /
	is 2 "zero byte" $p --config /dev/zero
	for v in "" -1 x 99999999999999999999999; do is 2 "ready-fd" $p --data none/a --ready-fd "$v"; done
	printf 'data = none/a\ncolour = red\n' >ini; is 2 "line 2: there is no option 'colour'" $p --config ini
	printf 'data = none/a\ndata = none/b\n' >ini; is 2 "line 2: 'data' is there twice" $p --config ini
	printf 'data\n' >ini; is 2 "line 1: neither" $p --config ini
	printf '[%sd]\ndata = none/a\n' $p >ini; is 2 "line 2: there is no section \[${p}d\], only \[$p\] and \[strata-" $p --config ini
	printf 'data = %s\n' "$x250" >ini; is 2 "line 1: is too long" $p --config ini
	printf 'data = none/a\nforeground = perhaps\n' >ini; is 2 "line 2: .*yes or no" $p --config ini
	head -c 4096 /dev/urandom | tr -d '\0' >ini; is 2 "ini, line [0-9]+|missing" $p --config ini
	chmod 644 ini
done
node="strata-noded --data none/a --metad unix:none/m"
for v in "" 0 -1 x 1x 99999999999999999999999 1000000000000; do
	is 2 "nbd-connections" $node --nbd-connections "$v"
done
for v in "" -1 12Q 1.2.3M 99999999999999999999G; do
	is 2 "map-cache" $node --map-cache "$v"
	is 2 "nbd-memory" $node --nbd-memory "$v"
done
for v in "" -1 soon 5parsecs 99999999999999999999999h; do
	is 2 "device-wait" $node --device-wait "$v"
done
is 2 "'0'; at least 1ms" $node --device-wait 0
for v in "a b" "" "$x64" "../up" $'\xff\xfe' "-dash" "tab	" .dot; do
	is 2 "name" $node --name "$v"
done
for o in --nbd --peer; do
	for v in nonsense unix: "unix:$x250" host:0x1 "127.0.0.1:" 127.0.0.1:70000 127.0.0.1:-1; do
		is 2 "'${o#--}' is unix:PATH" $node $o "$v"
	done
done
for v in nonsense unix: "unix:$x250" 127.0.0.1:70000; do
	is 2 "'metad' is unix:PATH" strata-noded --data none/a --metad "$v"
	is 2 "'api' is unix:PATH" strata-metad --data none/a --api "$v"
	is 2 "'rpc' is unix:PATH" strata-metad --data none/a --rpc "$v"
done
is 1 "key" $node --key-file none/missing
is 1 "key" strata-metad --data none/a --key-file none/missing
is 2 "key-file" strata-noded --data none/a --metad 127.0.0.1:1
is 2 "insecure" $node --nbd 0.0.0.0:0
is 2 "api-token-file" strata-metad --data none/a --api 0.0.0.0:0
is 1 "key file" strata-metad --data none/a --rpc 127.0.0.1:0
is 1 "token" strata-metad --data none/a --api-token-file none/missing
nothing_in none

# ---- the command line without a server ------------------------------------------------------------------------------------
unset STRATA_SERVER
is 2 "no command 'vlume'" strata vlume
is 2 "no command 'volume mend'" strata volume mend
is 2 "'volume' what" strata volume
is 2 "no option --sise" strata volume create v --sise 1G
is 2 "needs a value" strata volume create v --size
is 2 "takes no value" strata --json=yes volume list
is 2 "argument|usage" strata volume create
is 2 "argument|usage" strata volume create a b --size 1G
is 2 "no command '-x'" strata -x
is 2 "timeout" strata --timeout 0 volume list
is 2 "timeout" strata --timeout soon volume list
is 2 "timeout" strata --timeout 99999999999999999999 volume list
is 2 "argument 3, .* UTF-8" strata volume show $'\xff\xfe'
is 3 "nobody serves" strata --server unix:none/api.sock volume list
is 3 "no server" strata volume list
is 3 "no server" env STRATA_SERVER= strata volume list
is 2 "host:port or unix:PATH" strata --server "" volume list
is 2 "--size is given twice" strata --server unix:none/s volume create v --size 1G --size 2G
is 2 "--server is given twice" strata --server unix:none/s volume list --server unix:none/s
is 2 "'8E' is more than 1 PiB" strata --server unix:none/s volume create v --size 8E
is 2 "'2P' is more than 1 PiB" strata --server unix:none/s volume resize v --size 2P
is 3 "nobody serves" strata --server "unix:" volume list
is 3 "at most 107 bytes" strata --server "unix:$x250" volume list
for v in "" -1 x 12Q 1.2.3 99999999999999999999G; do
	is 2 "size" strata --server unix:none/s volume create v --size "$v"
	is 2 "size" strata --server unix:none/s volume resize v --size "$v"
done
for v in "" -1 x; do
	is 2 "last" strata events --last "$v"
	is 2 "offset" strata map v --offset "$v"
	is 2 "depth" strata bench v --depth "$v"
	is 2 "secs" strata bench v --secs "$v"
	is 2 "nodes" strata up --data none/c --nodes "$v"
	is 2 "devices" strata up --data none/c --devices "$v"
	is 2 "device-size" strata up --data none/c --device-size "$v"
done
is 2 "data" strata up
is 2 "data" strata up --data ""
is 2 "engine" strata up --data none/c --engine epoll
is 2 "nodes" strata up --data none/c --nodes 1000000
is 2 "at least one" strata up --data none/c --nodes 0
is 2 "UTF-8" strata up --data $'none/\xff'
is 2 "device-size|128" strata up --data none/c --device-size 1M
is 2 "api|address" strata up --data none/c --api nonsense
is 2 "nbd|address" strata up --data none/c --nbd nonsense
is 2 "insecure" strata up --data none/c --nbd unix:none/n --nbd 0.0.0.0:0
is 2 "api-token-file" strata up --data none/c --api 0.0.0.0:0
is 2 "device-wait: '0' is less than 1ms" strata up --data none/c --device-wait 0
is 2 "takeover-after: 'soon' is not a duration" strata up --data none/c --takeover-after soon
is 1 "none/c" strata fsck --data none/c
is 2 "completion|bash" strata completion fish
nothing_in none

# ---- against a server: what only it can know ------------------------------------------------------------------------------
if [ "${BIN:-}" ]; then
	echo "$n cases"
	[ $failed = 0 ] || fail "$failed cases"
	exit 0
fi
cd "$top"
cluster_start --device-size 512M
strata volume create good --size 1G
for v in 0 4097 1K 90000T; do
	is 2 "size|4 KiB|4096|at most|large" strata volume create v --size "$v"
done
for v in "" "$x64" ../up "a b" a/b "new
line" "." "%00" "a%2fb" "?x" "ä"; do
	rc=0; out=$(strata volume create --size 1G -- "$v" 2>&1) || rc=$?
	n=$((n + 1))
	[ "$rc" != 0 ] && grep -qi "name" <<<"$out" || { echo "volume name '$v': $rc $out"; failed=$((failed + 1)); }
done
is 1 "exists|already" strata volume create good --size 1G
is 1 "no volume|not found|there is no" strata volume show missing
is 1 "no pool|there is no" strata volume create v --size 1G --pool missing
is 2 "grow|shrink|smaller" strata volume resize good --size 512M
is 2 "sector-size must be" strata volume create v --size 1G --sector-size 1000
is 2 "write-cache must be" strata volume create v --size 1G --write-cache sometimes
is 1 "no device|there is no|device" strata device remove missing
is 2 "job must be an integer" strata job show x
is 1 "no job|there is no" strata job show 99999
is 1 "no node|there is no" strata device add "$dir/new" --size 1G --node missing
is 2 "size|at least|128" strata device add "$dir/new" --size 1M
is 2 "overwrite" strata bench good --pattern randwrite
is 2 "pattern is .* not 'sideways'" strata bench good --pattern sideways
is 2 "absolute" strata meta backup relative/path
is 1 "in use|locked|already|runs" strata up --data "$dir/c"
is 1 "in use|locked|runs|running" strata fsck --data "$dir/c"
[ ! -e "$dir/new" ] || { echo "a device file was left behind"; failed=$((failed + 1)); }
[ "$(strata volume list --json | jq length)" = 1 ] || { strata volume list; failed=$((failed + 1)); }
echo "$n cases"
[ $failed = 0 ] || fail "$failed cases"
