#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""usage: nbd_target.py URI SNAPSHOT-URI
What libnbd can ask for and other clients do not: commands in flight together, simple and structured replies, chunks, DF, FUA, errors one by
one, and that the connection is as good after them as before."""
import errno, os, socket, struct, sys, urllib.parse
import nbd

uri, snapshot = sys.argv[1:3]


def connect(u=uri, structured=True, strict=False):
    h = nbd.NBD()
    h.set_request_structured_replies(structured)
    if structured:
        h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    if not strict:
        h.set_strict_mode(0)
    h.connect_uri(u)
    return h


def refused(code, fn, *args, **kw):
    try:
        fn(*args, **kw)
    except nbd.Error as e:
        assert e.errnum == code, f"{fn.__name__}{args}: {e}"
        return
    raise AssertionError(f"{fn.__name__}{args} was not refused")


def patterns(h):
    size = h.get_size()
    data = os.urandom(1 << 20)
    for off in (0, 512, 4096 - 512, size - len(data)):
        h.pwrite(data, off, nbd.CMD_FLAG_FUA)
        assert h.pread(len(data), off) == data
    h.flush()


def many(h):
    """64 writes and reads in flight at once, in any order."""
    n, ln = 64, 65536
    bufs = [nbd.Buffer.from_bytearray(bytearray(os.urandom(ln))) for _ in range(n)]
    cookies = [h.aio_pwrite(b, i * ln) for i, b in enumerate(bufs)]
    back = [nbd.Buffer(ln) for _ in range(n)]
    while cookies:
        h.poll(-1)
        cookies = [c for c in cookies if not h.aio_command_completed(c)]
    cookies = [h.aio_pread(b, i * ln) for i, b in enumerate(back)]
    while cookies:
        h.poll(-1)
        cookies = [c for c in cookies if not h.aio_command_completed(c)]
    assert all(a.to_bytearray() == b.to_bytearray() for a, b in zip(bufs, back))


def errors(h):
    size = h.get_size()
    for _ in range(2):
        refused(errno.EINVAL, h.pread, 512, size)
        refused(errno.EINVAL, h.pread, 511, 0)
        refused(errno.EINVAL, h.pread, 512, 1)
        refused(errno.ENOSPC, h.pwrite, bytes(1024), size - 512)
        refused(errno.EINVAL, h.pwrite, bytes(100), 0)
        refused(errno.EINVAL, h.trim, 4096, size)
        refused(errno.ENOSPC, h.zero, 4096, size)
        refused(errno.EINVAL, h.cache, 4096, 0)
        assert len(h.pread(4096, 0)) == 4096


def chunks(h):
    h.zero(1 << 20, 0, 0)
    h.pwrite(b"x" * 4096, 65536)
    for flags, least in ((0, 3), (nbd.CMD_FLAG_DF, 1)):
        seen = []
        data = h.pread_structured(1 << 20, 0, lambda buf, off, s, err: seen.append((off, len(buf), s)), flags)
        assert data == bytes(65536) + b"x" * 4096 + bytes((1 << 20) - 65536 - 4096)
        assert len(seen) == least, seen
        if flags == 0:
            assert [s for _, _, s in seen].count(nbd.READ_HOLE) == 2, seen
    extents = []
    h.block_status(1 << 20, 0, lambda name, off, e, err: extents.extend(e))
    assert extents == [65536, 3, 4096, 0, (1 << 20) - 65536 - 4096, 3], extents
    one = []
    h.block_status(1 << 20, 0, lambda name, off, e, err: one.extend(e), nbd.CMD_FLAG_REQ_ONE)
    assert one == [65536, 3], one
    h.zero(65536, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
    one.clear()
    h.block_status(65536, 0, lambda name, off, e, err: one.extend(e))
    assert one == [65536, 2], one


for structured in (True, False):
    h = connect(structured=structured)
    assert h.get_structured_replies_negotiated() == structured
    patterns(h)
    many(h)
    errors(h)
    if structured:
        chunks(h)
    h.shutdown()

h = connect(snapshot)
assert h.is_read_only()
refused(errno.EPERM, h.pwrite, bytes(512), 0)
refused(errno.EPERM, h.trim, 512, 0)
assert h.pread(512, 0) == bytes(512)
h.flush()
h.shutdown()

# what one connection wrote another sees, and flushes
a, b = connect(), connect()
assert a.can_multi_conn()
a.pwrite(b"q" * 4096, 8192)
assert b.pread(4096, 8192) == b"q" * 4096
b.flush()
del a  # goes without a word
assert b.pread(4096, 8192) == b"q" * 4096
b.shutdown()


def half_closed():
    """A client that sends all it has and closes its side, as `nc -N` does, is still answered."""
    u = urllib.parse.urlsplit(uri)
    if u.scheme == "nbd+unix":
        s = socket.socket(socket.AF_UNIX)
        s.connect(urllib.parse.parse_qs(u.query)["socket"][0])
    else:
        s = socket.create_connection((u.hostname, u.port))
    name = u.path[1:].encode()
    request = lambda cmd, cookie, off, ln: struct.pack(">IHHQQI", 0x25609513, 0, cmd, cookie, off, ln)
    s.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
    s.sendall(request(1, 1, 0, 4096) + b"h" * 4096 + request(0, 2, 0, 4096) + request(3, 3, 0, 0))
    s.shutdown(socket.SHUT_WR)
    got = b""
    while part := s.recv(65536):
        got += part
    assert len(got) == 18 + 10 + 16 + 16 + 4096 + 16, len(got)
    assert b"h" * 4096 in got


half_closed()
