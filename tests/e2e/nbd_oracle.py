#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""usage: nbd_oracle.py URI --ops N [--seed S]
Random writes, zeroes, trims and reads of an export, 512 bytes to 1 MiB, against a copy in memory; and block status against what was done: a block that was
written must not be reported as a hole or zero, what was never written or was trimmed or zeroed and is reported as data is counted and must not
happen for whole 4 KiB blocks."""
import argparse, random, sys, time
import nbd

ap = argparse.ArgumentParser()
ap.add_argument("uri")
ap.add_argument("--ops", type=int, default=1000)
ap.add_argument("--seed", type=int, default=int(time.time()))
a = ap.parse_args()
rng = random.Random(a.seed)
print("seed", a.seed)
h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(a.uri)
SIZE, SECTOR, BLOCK, AREA = h.get_size(), 512, 4096, 64 << 20
base = SIZE - AREA if SIZE > AREA else 0
area = min(AREA, SIZE)
h.trim(area, base)
h.zero(area, base, 0)
copy = bytearray(area)
DATA, ZERO, UNKNOWN = 1, 0, 2  # of each 4 KiB block
state = bytearray(area // BLOCK)


def pick():
    n = rng.choice([SECTOR, BLOCK, rng.randrange(1, 64) * SECTOR, rng.randrange(1, 2048) * SECTOR, rng.randrange(1, 16) * BLOCK])
    unit = rng.choice([SECTOR, BLOCK, BLOCK])
    off = rng.randrange((area - n) // unit + 1) * unit
    return off, n


def blocks(off, n):
    return range(off // BLOCK, (off + n + BLOCK - 1) // BLOCK)


def check_status():
    got = []

    def extent(context, offset, entries, err):
        at = offset - base
        for i in range(0, len(entries), 2):
            got.append((at, entries[i], entries[i + 1]))
            at += entries[i]

    at = 0
    while at < area:
        got.clear()
        h.block_status(area - at, base + at, extent)
        for off, length, flags in got:
            for b in range(off // BLOCK, (off + length) // BLOCK):
                zero = bool(flags & 2)
                if state[b] == DATA and zero and any(copy[b * BLOCK:(b + 1) * BLOCK]):
                    sys.exit(f"block {b} holds data but is reported as zero (flags {flags})")
                if state[b] == ZERO and not zero:
                    sys.exit(f"block {b} is zero or was never written but is reported as data (flags {flags})")
            at = off + length
        if not got:
            sys.exit("an empty block status")


for i in range(a.ops):
    off, n = pick()
    kind = rng.choices(["write", "read", "zero", "trim", "flush", "status"], [40, 30, 12, 12, 4, 2])[0]
    if kind == "write":
        data = rng.randbytes(n)
        h.pwrite(data, base + off, nbd.CMD_FLAG_FUA if rng.random() < 0.1 else 0)
        copy[off:off + n] = data
        for b in blocks(off, n):
            state[b] = DATA
    elif kind == "read":
        if h.pread(n, base + off) != copy[off:off + n]:
            sys.exit(f"op {i}: wrong data in {off}+{n}")
    elif kind in ("zero", "trim"):
        if kind == "zero":
            h.zero(n, base + off, rng.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA]))
            copy[off:off + n] = bytes(n)
        else:
            h.trim(n, base + off)
            now = h.pread(n, base + off)
            for s in range(0, n, SECTOR):  # a trim may keep the data, but nothing else than that or zeros
                if now[s:s + SECTOR] not in (bytes(SECTOR), bytes(copy[off + s:off + s + SECTOR])):
                    sys.exit(f"op {i}: trim left something foreign at {off + s}")
            copy[off:off + n] = now
        for b in blocks(off, n):
            whole = off <= b * BLOCK and (b + 1) * BLOCK <= off + n
            if whole and not any(copy[b * BLOCK:(b + 1) * BLOCK]):
                state[b] = ZERO
            else:  # a part of it: whoever serves it may have written the rest
                state[b] = DATA if any(copy[b * BLOCK:(b + 1) * BLOCK]) else UNKNOWN
    elif kind == "flush":
        h.flush()
    else:
        check_status()
check_status()
for off in range(0, area, 1 << 20):
    if h.pread(1 << 20, base + off) != copy[off:off + (1 << 20)]:
        sys.exit(f"wrong data at the end, in the MiB at {off}")
print("ok")
