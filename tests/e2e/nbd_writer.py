#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A verifying NBD client that reconnects.

usage: nbd_writer.py URI --seconds S [--size BYTES] [--depth N] [--seed N] [--flush-every N] [--stop-file PATH]

Writes 4 KiB blocks with recognisable contents at random places and reads them back, N at a time. When the connection breaks it connects
again (for up to 60 s) and sends what was unanswered once more, as QEMU's reconnect-delay does. A read must return the last acknowledged
write of its block, or one that was sent later and is unanswered; a block never written must be zero. At the end every block it wrote is read. Prints a
summary line; exit 1 on a wrong byte or an error answer.
"""
import argparse, errno, os, random, select, struct, sys, time
import nbd

BLOCK = 4096


class Writer:
    def __init__(self, a):
        self.a, self.rng = a, random.Random(a.seed)
        self.acked = {}    # block -> stamp of the last acknowledged write
        self.maybe = {}    # block -> stamps sent after that and not acknowledged
        self.busy = set()
        self.buffers = [bytearray(BLOCK) for _ in range(a.depth)]  # used again and again: libnbd never drops its reference to one
        self.stamp, self.writes, self.reads, self.flushes, self.reconnects, self.longest_gap = 0, 0, 0, 0, 0, 0.0
        self.connect()

    def connect(self):
        began = time.monotonic()
        while True:
            try:
                self.h = nbd.NBD()
                self.h.set_strict_mode(0)
                self.h.connect_uri(self.a.uri)
                break
            except nbd.Error as e:
                if time.monotonic() - began > 60:
                    sys.exit(f"cannot connect for 60 s: {e.string}")
                time.sleep(0.02)
        size = self.h.get_size()
        self.blocks = min(size, self.a.size or size) // BLOCK
        self.slots = []  # in flight: (kind, cookie, buffer, block, stamp)
        return time.monotonic() - began

    def contents(self, block, stamp):
        return struct.pack("<QQ", block, stamp) * (BLOCK // 16)

    def check(self, block, data):
        legal = [self.acked.get(block)] + self.maybe.get(block, [])
        for stamp in legal:
            if bytes(data) == (bytes(BLOCK) if stamp is None else self.contents(block, stamp)):
                return
        got = struct.unpack("<QQ", bytes(data[:16]))
        sys.exit(f"WRONG DATA: block {block} holds block/stamp {got}, legal stamps {legal}")

    def submit(self, kind, block, stamp, buf=None):
        """A request that cannot be sent because the connection is gone has no cookie: it is sent with the next connection."""
        cookie, buf = None, buf or (self.buffers.pop() if kind != "flush" else None)
        try:
            if kind == "flush":
                cookie = self.h.aio_flush()
            elif kind == "write":
                buf[:] = self.contents(block, stamp)
                cookie = self.h.aio_pwrite(buf, block * BLOCK)
            else:
                cookie = self.h.aio_pread(buf, block * BLOCK)
        except nbd.Error as e:
            if not self.dead():
                sys.exit(f"CANNOT SEND: {e.string}")
        self.slots.append((kind, cookie, buf, block, stamp))

    def new_request(self):
        if self.a.flush_every and (self.writes + 1) % self.a.flush_every == 0:
            self.writes += 1
            return self.submit("flush", None, None)
        block = self.rng.randrange(self.blocks)
        if self.acked and self.rng.random() < 0.3:
            block = self.rng.choice(self.keys[-4096:]) if self.keys else block
        if block in self.busy:
            return
        self.busy.add(block)
        if self.rng.random() < 0.6:
            self.stamp += 1
            self.maybe.setdefault(block, []).append(self.stamp)
            self.submit("write", block, self.stamp)
        else:
            self.submit("read", block, None)

    def finish(self, slot):
        kind, _, buf, block, stamp = slot
        if kind == "flush":
            self.flushes += 1
            return
        self.busy.discard(block)
        if kind == "write":
            self.writes += 1
            if block not in self.acked:
                self.keys.append(block)
            self.acked[block] = stamp
            self.maybe[block] = [s for s in self.maybe[block] if s > stamp]
        else:
            self.reads += 1
            self.check(block, buf)
        self.buffers.append(buf)

    def reap(self):
        for slot in list(self.slots):
            try:
                done = slot[1] is not None and self.h.aio_command_completed(slot[1])
            except nbd.Error as e: # the server's answer, unless libnbd made it up for what the end of the connection left unanswered
                if e.errnum != errno.ENOTCONN or not self.dead():
                    sys.exit(f"ERROR ANSWER to {slot[0]} of block {slot[3]}: {e.string}")
                continue
            if done:
                self.slots.remove(slot)
                self.finish(slot)

    def again(self):
        pending = self.slots
        self.reconnects += 1
        self.longest_gap = max(self.longest_gap, self.connect())
        for kind, _, buf, block, stamp in pending:
            self.submit(kind, block, stamp, buf)

    def dead(self):
        return self.h.aio_is_dead() or self.h.aio_is_closed()

    def turn(self, fill):
        try:
            while fill and len(self.slots) < self.a.depth:
                before = len(self.slots)
                self.new_request()
                if len(self.slots) == before:
                    break
            if self.slots:
                self.h.poll(1000)
            self.reap()
        except nbd.Error as e:
            if not self.dead():
                sys.exit(f"THE CONNECTION: {e.string}")
        if self.dead():
            self.again()

    def run(self):
        self.keys = []
        end = time.monotonic() + self.a.seconds
        while time.monotonic() < end and not (self.a.stop_file and os.path.exists(self.a.stop_file)):
            self.turn(True)
        while self.slots:
            self.turn(False)
        for block in list(self.acked):
            self.busy.add(block)
            self.submit("read", block, None)
            while len(self.slots) >= self.a.depth:
                self.turn(False)
        while self.slots:
            self.turn(False)
        print(f"ok writes={self.writes} reads={self.reads} flushes={self.flushes} blocks={len(self.acked)} reconnects={self.reconnects} "
              f"longest_gap={self.longest_gap:.2f}s")


ap = argparse.ArgumentParser()
ap.add_argument("uri")
ap.add_argument("--seconds", type=float, default=5)
ap.add_argument("--size", type=int, default=0)
ap.add_argument("--depth", type=int, default=16)
ap.add_argument("--seed", type=int, default=int(time.time()))
ap.add_argument("--flush-every", type=int, default=0)
ap.add_argument("--stop-file")
Writer(ap.parse_args()).run()
