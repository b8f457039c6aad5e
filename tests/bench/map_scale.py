#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
# Measures what a large map costs, from outside, on running daemons (tests/bench/map-scale starts them).
#
#   map_scale.py start DIR                    from exec of the metadata server to "ready", and its memory then; the median of five
#   map_scale.py open URI                     how long a first client waits for the volume: connect, handshake, export
#   map_scale.py lookups URI SIZE COUNT SEED  COUNT reads of 4 KiB, each in another map page (256 MiB) that nobody asked for before, then each
#                                             again in another place of its page: the difference of the two is the lookup
#   map_scale.py list SOCKET                  all volumes, page by page, by the REST API
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import time

PAGE = 256 << 20
PREFETCHED = 256  # pages that a node fetches by itself at open


def quantiles(ns):
    ns = sorted(ns)
    pick = lambda q: ns[min(len(ns) - 1, int(len(ns) * q))] / 1000
    return (f"p50 {pick(0.5):.0f} us, p99 {pick(0.99):.0f} us, p99.9 {pick(0.999):.0f} us, "
            f"five worst {', '.join(f'{x / 1000:.0f}' for x in ns[-5:])} us")


def connect(uri):
    import nbd
    h = nbd.NBD()
    start = time.perf_counter_ns()
    h.connect_uri(uri)
    return h, time.perf_counter_ns() - start


def timed_reads(h, places):
    took = []
    for at in places:
        start = time.perf_counter_ns()
        h.pread(4096, at)
        took.append(time.perf_counter_ns() - start)
    return took


def cmd_start(data):
    took, memory = [], []
    for _ in range(5):
        start = time.perf_counter()
        p = subprocess.Popen(["strata-metad", "--data", data, "--foreground"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if not p.stdout.readline().startswith(b"ready"):
            sys.exit("the metadata server did not start")
        took.append(time.perf_counter() - start)
        memory += [int(line.split()[1]) // 1024 for line in open(f"/proc/{p.pid}/status") if line.startswith("VmRSS")]
        p.terminate()
        p.wait()
    print(f"start: {statistics.median(took) * 1000:.0f} ms (worst {max(took) * 1000:.0f}), then {max(memory)} MiB")


def cmd_open(uri):
    h, took = connect(uri)
    h.shutdown()
    print(f"open: {took / 1e6:.1f} ms")


def cmd_lookups(uri, size, count, seed):
    rnd = random.Random(int(seed))
    h, _ = connect(uri)
    pages = rnd.sample(range(PREFETCHED, int(size) // PAGE), int(count))
    place = lambda page: page * PAGE + rnd.randrange(PAGE // 4096) * 4096
    timed_reads(h, [place(page) for page in range(64)])  # wakes everything up
    cold = timed_reads(h, [place(page) for page in pages])
    known = timed_reads(h, [place(page) for page in pages])
    h.shutdown()
    print(f"{len(pages)} reads, cold map page:  {quantiles(cold)}")
    print(f"{len(pages)} reads, cached page:    {quantiles(known)}")
    print(f"cold above 1 ms: {sum(t > 1e6 for t in cold)}, cached above 1 ms: {sum(t > 1e6 for t in known)}")


def cmd_list(path):
    c = http.client.HTTPConnection("localhost")
    c.sock = socket.socket(socket.AF_UNIX)
    c.sock.connect(path)
    names, took, after = set(), [], ""
    while True:
        begin = time.perf_counter()
        c.request("GET", f"/v1/volumes?limit=1000{'&after=' + after if after else ''}")
        body = c.getresponse().read()
        took.append(time.perf_counter() - begin)
        answer = json.loads(body)  # the client's own time does not count
        items = answer["items"] if isinstance(answer, dict) else answer
        names.update(v["name"] for v in items)
        if len(items) < 1000:
            break
        after = items[-1]["name"]
    print(f"list: {len(names)} volumes in {len(took)} pages: {sum(took):.2f} s, worst page {max(took) * 1000:.0f} ms")


if __name__ == "__main__":
    {"start": cmd_start, "open": cmd_open, "lookups": cmd_lookups, "list": cmd_list}[sys.argv[1]](*sys.argv[2:])
