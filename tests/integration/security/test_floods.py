"""Bombs, drips and oversized headers: refused, in bounded memory, while others are served."""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Iterator

import orjson
import pytest
import zstandard

TEN_GB = 10 * 10**9
_PIECE = bytes(2**20)
#: Beyond what it had: its own limit of 8 MiB a body, packed and plain, and a decoder's window.
ROOM = 96 * 2**20


def zeros(encoding: str) -> Iterator[bytes]:
    """10 GB of zeros, packed as they are made: what is not asked for is never made."""
    packer = (
        zlib.compressobj(1, wbits=31)
        if encoding == "gzip"
        else zstandard.ZstdCompressor(level=1).compressobj()
    )
    for _ in range(TEN_GB // len(_PIECE)):
        if packed := packer.compress(_PIECE):
            yield packed
    yield packer.flush()


def watched(guarded, attack) -> int:
    """The most memory it had while the attack ran; another caller is served all the while."""
    peak, done = [guarded.rss()], threading.Event()
    served = []

    def watch() -> None:
        while not done.wait(0.002):
            peak.append(guarded.rss())

    def serve() -> None:
        while not done.is_set():
            guarded.serves()
            served.append(1)

    threads = [threading.Thread(target=watch), threading.Thread(target=serve)]
    for thread in threads:
        thread.start()
    try:
        attack()
    finally:
        while not served:
            time.sleep(0.01)
        done.set()
        for thread in threads:
            thread.join()
    return max(peak)


@pytest.mark.parametrize(
    ("encoding", "path"),
    [
        ("gzip", "/v1/envelopes"),
        ("zstd", "/v1/envelopes"),
        ("gzip", "/trace"),
        ("zstd", "/v1/traces"),
    ],
)
def test_a_bomb_of_ten_gigabytes_as_a_stream(guarded, encoding: str, path: str) -> None:
    guarded.serves()
    before = guarded.rss()
    statuses = []

    def attack() -> None:
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=60) as conn:
            conn.sendall(
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {guarded.keys['shop']}\r\nTransfer-Encoding: chunked\r\n"
                f"Content-Encoding: {encoding}\r\n\r\n".encode()
            )
            try:
                for piece in zeros(encoding):
                    conn.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                conn.sendall(b"0\r\n\r\n")
            except OSError:
                statuses.append("cut off")  # refused before the end: how it should be
            statuses.append(_status(conn))

    peak = watched(guarded, attack)
    assert "413" in statuses or statuses == ["cut off", ""]
    assert peak - before < ROOM
    _, _, metrics = guarded.ask("GET", "/metrics", None, guarded.keys["reads"])
    assert b'refused_total{reason="body_too_large"} 1\n' in metrics
    guarded.serves()


def test_a_bomb_that_is_small_on_the_wire(guarded) -> None:
    """Zstd names 10 GB in less than the limit of a body: all of it arrives, and nothing grows."""
    bomb = b"".join(zeros("zstd"))
    assert len(bomb) < 2**20
    guarded.serves()
    before = guarded.rss()
    answers = []

    def attack() -> None:
        for _ in range(5):
            shop = guarded.keys["shop"]
            status, _, _ = guarded.post("/v1/envelopes", bomb, shop, Content_Encoding="zstd")
            answers.append(status)  # one after the other

    peak = watched(guarded, attack)
    assert answers == [413] * 5
    assert peak - before < ROOM


def test_slow_loris(guarded) -> None:
    """Connections that bring their headers drop by drop are cut off; others are served."""
    conns = [socket.create_connection(("127.0.0.1", guarded.port), timeout=60) for _ in range(100)]
    started_s = time.monotonic()
    for conn in conns:
        conn.sendall(b"POST /v1/envelopes HTTP/1.1\r\nHost: x\r\nX-Drop: hunter2")
    cut = set()
    while len(cut) < len(conns):
        assert time.monotonic() - started_s < 60
        guarded.serves()
        for number, conn in enumerate(conns):
            if number not in cut:
                try:
                    conn.sendall(b"x")
                except OSError:
                    cut.add(number)
    for conn in conns:
        conn.close()
    assert guarded.dropped("slow_headers") == 100
    guarded.serves()


def test_connections_that_say_nothing_or_a_body_that_drips(guarded) -> None:
    silent = socket.create_connection(("127.0.0.1", guarded.port), timeout=60)
    slow = socket.create_connection(("127.0.0.1", guarded.port), timeout=60)
    slow.sendall(
        b"POST /v1/envelopes HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        b"Authorization: Bearer " + guarded.keys["shop"].encode() + b"\r\n\r\n"
    )
    dripping = threading.Event()

    def drip() -> None:
        while not dripping.wait(0.1):
            try:
                slow.sendall(b"{")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        assert _status(slow) == "408"
    finally:
        dripping.set()
        thread.join()
        slow.close()
    assert silent.recv(100) == b""
    silent.close()
    guarded.serves()


BROKEN = {
    "value": b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: " + b"hunter2" * 3000 + b"\r\n\r\n",
    "target": b"GET /healthz?hunter2=" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "count": b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-Many: hunter2\r\n" * 5000 + b"\r\n",
    "nul": b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hunter2\x00\r\n\r\n",
    "words": b"hunter2 hunter2 hunter2\r\n\r\n",
    "length": b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: hunter2\r\n\r\n",
    "smuggling": b"POST /v1/envelopes HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nhunter2",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hunter2\r\n\r\n",
}


def test_oversized_and_broken_headers(guarded) -> None:
    for done, head in enumerate(BROKEN.values(), 1):
        try:
            answered = guarded.raw(head)
        except ConnectionResetError:
            answered = b""  # closed while we were still sending: refused too
        if answered:
            line, _, rest = answered.partition(b"\r\n")
            assert line.split()[1] in (b"400", b"431")
            body = orjson.loads(rest.partition(b"\r\n\r\n")[2])
            assert body["reason"] in ("oversized_headers", "bad_http")
            assert b"Server: callmeter" in rest
        assert b"hunter2" not in answered
        guarded.wait(lambda expected=done: guarded.dropped("bad_http") == expected)
        guarded.serves()
    guarded.told()


def _status(conn: socket.socket) -> str:
    """The status of what is answered; "" if the connection was cut off without one."""
    answered = b""
    try:
        while b"\r\n" not in answered and (piece := conn.recv(4096)):
            answered += piece
    except OSError:
        return ""
    return answered.split(b" ")[1].decode() if answered else ""
