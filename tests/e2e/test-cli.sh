#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The contract of the command line: help, JSON, errors and exit codes of every command; wrong use, a server that is silent or not there; what an operator
# reads of a volume in use; and README, the installed man pages, completion and units agree with the programs.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "$0")/lib.sh"
requires jq /usr/bin/python3

# exits CODE COMMAND...: its output is left in $dir/out
exits() {
	local want=$1 rc=0; shift
	"$@" >"$dir/out" 2>&1 || rc=$?
	[ "$rc" = "$want" ] || fail "'$*' gave exit code $rc, not $want: $(cat "$dir/out")"
}
says() { grep -qE -- "$1" "$dir/out" || fail "/$1/ is missing in: $(cat "$dir/out")"; }
is_error() { # CODE EXIT-CODE COMMAND...: with --json, what is wrong is the last line of stderr
	local code=$1 want=$2 rc=0; shift 2
	"$@" --json >"$dir/out" 2>"$dir/err" || rc=$?
	[ "$rc" = "$want" ] || fail "'$* --json' gave exit code $rc, not $want: $(cat "$dir/err")"
	tail -n 1 "$dir/err" | jq -e --arg c "$code" '.code == $c and (.message | length > 0) and has("hint")' >/dev/null || fail "'$*' should say $code: $(cat "$dir/err")"
}
commands() { strata --help | awk '/^commands:/{on=1;next} /^$/{on=0} on' | sed 's/^  //; s/   *.*//'; }

# Without a server: help, and wrong use. An empty directory, so that no ./strata-data is found.
unset STRATA_SERVER
cd "$dir"
commands >"$dir/commands"
[ "$(wc -l <"$dir/commands")" -ge 25 ] || fail "the list of commands: $(cat "$dir/commands")"
while read -r cmd; do
	# shellcheck disable=SC2086
	exits 0 strata $cmd --help
	says "^usage: strata $cmd"
done <"$dir/commands"
exits 2 strata volume list --nosuch; says "no option --nosuch in volume list"
exits 2 strata; exits 0 strata help volume; exits 0 strata --version
exits 2 strata volume; says "volume create, volume list"
exits 2 strata volume frob; says "no command 'volume frob'; there are volume create"
exits 2 strata volume list extra; says "one argument too many: 'extra'"
exits 2 strata volume create; says "an argument is missing"
exits 2 strata volume create v; says "--size SIZE is missing"
exits 2 strata events --last 0; says "how many"
exits 2 strata --timeout 0 status; says "one second"
exits 2 strata bench v --pattern randwrite; says "say --overwrite"
exits 2 strata meta backup relative; says "absolute"
exits 3 strata status; says "no server: start one with 'strata up"
exits 3 strata --server unix:/nonexistent status; says "nobody serves at unix:/nonexistent"
exits 3 strata --server no-such-host.invalid:1 status; says "no such host"
exits 1 strata fsck --data "$dir/nothing"; says "holds no cluster"
is_error invalid 2 strata frobnicate
is_error invalid 2 strata volume create v --size much
is_error invalid 2 strata volume list --nosuch
is_error unreachable 3 strata volume list
is_error failed 1 strata fsck --data "$dir/nothing"

cluster_start --device-size 1G
for list in volume device node pool export job; do strata $list list --json; done | jq -se 'length == 6 and all(type == "array")' >/dev/null
strata events --json | jq -e '.[0].code == "node_added"' >/dev/null
strata status --json | jq -e '.health == "ok" and .reasons == []' >/dev/null
strata pool show default --json | jq -e '.name == "default"' >/dev/null

exits 0 strata volume create v1 --size 10G
strata volume show v1 --json | jq -e '.owner_name == null and .open == false' >/dev/null
exits 1 strata volume create v1 --size 10G; says "there is a volume v1 already"
exits 1 strata volume show v2; says "'strata volume list' shows them"
exits 2 strata volume resize v1 --size 1G; says "volumes only grow"
exits 2 strata volume create v2 --size 1000; says "^strata: --size "
is_error invalid 2 strata volume create v2 --size 1000
is_error exists 1 strata volume create v1 --size 10G
is_error not_found 1 strata volume show v2
exits 0 strata volume release v1; says "^nobody had the volume open"
exits 1 strata map v2; [ "$(wc -l <"$dir/out")" = 2 ] || fail "a title without a map: $(cat "$dir/out")"
exits 1 sh -c 'strata status >/dev/full'; says "cannot write to standard output: No space left"
exits 1 sh -c 'strata volume list --json >/dev/full'
exits 1 sh -c 'strata status >&-'; says "cannot write to standard output: Bad file"
exits 1 strata device add "$dir/new"; says "--size SIZE"
exits 1 strata job show 77; says "there is no job 77"
exits 0 strata volume stats v1; says "nobody has the volume open"
exits 0 strata export show v1; says "open nowhere"; says "node-1: nbd\+unix:///v1"; says "qemu-system-x86_64 .* 'file=nbd"

# One unmapped stretch is one line, however many pages the server needs.
[ "$(strata map v1 | wc -l)" = 2 ] || fail "map of an empty volume: $(strata map v1)"
strata map v1 --json | jq -e 'length == 1 and .[0].length == 10737418240' >/dev/null

# Open: the owner by name, a delete refused, a place for every piece.
/usr/bin/python3 - "$(uri_of v1)" <<'PY'
import nbd, subprocess, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"x" * 8192, 3 << 20)
h.flush()
def run(rc, *words):
    p = subprocess.run(["strata", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert p.returncode == rc, (words, p)
    return p.stdout
assert "node-1" in run(0, "volume", "list")
assert "open on node-1" in run(0, "export", "show", "v1")
assert "connected: nbd unix" in run(0, "export", "show", "v1")
assert "node-1 1 no nbd+unix" in " ".join(run(0, "export", "list").split()), run(0, "export", "list")
assert h.can_multi_conn()
# one client at a time: those that are in stay, the next one is told who is in the way
second = nbd.NBD()
second.connect_uri(sys.argv[1])
run(0, "export", "set", "v1", "--exclusive", "yes")
h.pwrite(b"x" * 512, 3 << 20)
second.pread(512, 0)
second.shutdown()
third = nbd.NBD()
try:
    third.connect_uri(sys.argv[1])
    sys.exit("two clients of an exclusive export")
except nbd.Error as e:
    assert "in use exclusively by nbd unix" in e.string or "policy" in e.string.lower(), e.string
assert "one client at a time" in run(0, "export", "show", "v1")
run(0, "export", "set", "v1", "--exclusive", "no")
fourth = nbd.NBD()
fourth.connect_uri(sys.argv[1])
fourth.shutdown()
assert "yes or no, not" in run(2, "export", "set", "v1", "--exclusive", "maybe")
assert "is open" in run(1, "volume", "delete", "v1")
lines = run(0, "map", "v1").splitlines()
assert len(lines) == 4 and "chunk 3 layer 1  node-1 device 1 slot 0 offset " in lines[2] and " blocks 2 " in lines[2], lines
assert "write_requests" in run(0, "volume", "stats", "v1")
h.shutdown()
PY

exits 0 strata check; says "1 chunks, 1 slots: 0 problems"
exits 0 strata check --async; says "^job [0-9]+$"
exits 0 strata job show 1; says "^ended +20"; says "^result +.*\"problems_n\": 0"
strata check --json | jq -e '.state == "done" and .result.problems_n == 0' >/dev/null
closed() { [ "$(strata volume show v1 --json | jq .open)" = false ]; }
wait_until 20 closed
exits 0 strata bench v1 --secs 1; says "requests per second"; says "p99.9 ns +[0-9]"

# What README says to type, as it stands there, where it says so.
ln -s c "$dir/strata-data"
readme() { sed -n '/^## Using it/,/^## Where/s|^build/bin/\(strata [^#]*\).*|\1|p' "$top/README.md"; }
[ "$(readme | wc -l)" -ge 5 ] || fail "README: $(readme)"
readme | grep -v '^strata up' | while read -r cmd; do
	# shellcheck disable=SC2086
	(unset STRATA_SERVER && exits 0 $cmd) || exit 1
done
(export STRATA_SERVER= && exits 0 strata status)
rm "$dir/strata-data"

# A server that does not answer is not waited for endlessly; a node that is away is a reason.
metad=$(pid_of metad) node=$(pid_of node-1)
kill -STOP "$metad"
exits 3 strata --timeout 1 status; says "did not answer within 1 s"
kill -CONT "$metad"
wait_until 20 strata status
exits 0 strata volume delete v1 --async; says "^job [0-9]+$"
kill -STOP "$up_pid" # so that it is not started again
cleanup_fn "kill -CONT $up_pid 2>/dev/null"
kill -9 "$node"
unhealthy() { ! strata status >"$dir/out"; }
wait_until 30 unhealthy
exits 4 strata status; says "^(degraded|failed)"; says "node-1 is away - Start strata-noded there"
! grep -q "is full" "$dir/out" || fail "away is not full: $(cat "$dir/out")"
exits 4 strata status --json
jq -e '.reasons[] | select(.code == "node_away")' "$dir/out" >/dev/null
exits 1 strata check; says " 0 problems in what could be checked$"; says "^strata: not checked: device 1:"
is_error device_away 1 strata check
jq -e '.result.devices_away == [1] and .result.devices_away_n == 1' "$dir/out" >/dev/null || fail "$(cat "$dir/out")"
kill -CONT "$up_pid"
wait_until 20 strata status
exits 1 strata fsck --data "$dir/c"; says "runs \(pid $up_pid\)"
cluster_stop
exits 3 strata status; says "Is the cluster running"

# A server that has found much, and one that wants to see a long token.
cat >"$dir/server.py" <<'PY'
import http.server, json, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def address_string(self):
        return "unix"
    def answer(self, status, what):
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.answer(202, {"job": 1})
    def do_GET(self):
        if self.path == "/v1/jobs/1":
            self.answer(200, {"id": 1, "state": "done", "result": {"problems": ["problem %d" % i for i in range(8)], "problems_n": 5000, "chunks": 9000,
                "slots": 8000, "devices_away": list(range(1, 65)), "devices_away_n": 70}})
        else:
            self.answer(401, {"code": "unauthorized", "message": "%d bytes" % len(self.headers.get("Authorization", "")), "hint": ""})
server = socketserver.UnixStreamServer(sys.argv[1], Handler)
open(sys.argv[1] + ".there", "w").close()
server.serve_forever()
PY
/usr/bin/python3 "$dir/server.py" "$dir/fake.sock" >"$dir/server.out" 2>&1 &
cleanup_fn "kill $! 2>/dev/null"
wait_until 20 test -e "$dir/fake.sock.there"
exits 4 strata --server "unix:$dir/fake.sock" check; says "^and 4992 more"; says "^9000 chunks, 8000 slots: 5000 problems"; says "not checked: devices 1, 2, .* and [0-9]+ more"
token=$(printf 'x%.0s' {1..450})
STRATA_TOKEN=bearer-of-$token$token-end exits 1 strata --server "unix:$dir/fake.sock" status; says "^strata: 921 bytes$"; says "Set .STRATA_TOKEN"

# What `make install` copies.
cd "$top"
make -s install DESTDIR="$dir/root" PREFIX=/usr >/dev/null
man=$dir/root/usr/share/man
while read -r cmd; do grep -qF ".SS strata $cmd" "$man/man1/strata.1" || fail "strata(1) has no '$cmd'"; done <"$dir/commands"
for d in strata-metad strata-noded; do
	for o in $("$d" --help | grep -oE '^  --[a-z-]+' | tr -d ' '); do
		grep -qF -- "${o//-/\\-}" "$man/man8/$d.8" || fail "$d(8) has no $o"
	done
done
if command -v mandoc >/dev/null; then
	for page in "$man"/man?/*; do
		mandoc -T lint -W warning "$page" >"$dir/out" || fail "$(cat "$dir/out")"
	done
else
	leave_out "the man pages' language: mandoc is not installed"
fi
if command -v systemd-analyze >/dev/null; then
	sed -i "s|/usr/bin/strata|$dir/root/usr/bin/strata|" "$dir"/root/usr/lib/systemd/system/*.service
	exits 0 systemd-analyze verify --man=no "$dir"/root/usr/lib/systemd/system/*.service
	! grep -q strata "$dir/out" || fail "$(cat "$dir/out")"
else
	leave_out "the systemd units: systemd-analyze is not installed"
fi
# shellcheck disable=SC1091
. "$dir/root/usr/share/bash-completion/completions/strata"
completes() { # WANT WORD...: the words completed so far, the last one in the making
	local want=$1; shift
	COMP_WORDS=(strata "$@") COMP_CWORD=$# COMPREPLY=()
	_strata
	[ "${COMPREPLY[*]}" = "$want" ] || fail "completion of 'strata $*' is '${COMPREPLY[*]}', not '$want'"
}
completes "volume" vol
completes "create" --server unix:/x volume cr
completes "auto writeback writethrough" volume create v --write-cache ""
completes "--async" volume delete v --as
