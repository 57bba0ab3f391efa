"""Files of envelopes: whole ones, back to back, whatever happens to the disk or another writer."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

from callmeter.schema.envelope import split_envelopes
from callmeter.transports.jsonl import JsonlTransport
from callmeter.transports.protocol import Delivery, Outcome, Sealed


def sealed(seq: int, size: int = 50) -> Sealed:
    return Sealed("s", seq, 1, b'{"v":1,"seq":%d}\n{"kind":"%s"}\n' % (seq, b"x" * size))


def opened(path: Path) -> tuple[JsonlTransport, list[Delivery]]:
    transport, reports = JsonlTransport(str(path)), []
    transport.open(reports.append)
    return transport, reports


def write(path: Path, *seqs: int) -> list[Delivery]:
    transport, reports = opened(path)
    for seq in seqs:
        assert transport.send(sealed(seq))
    transport.close(1.0)
    return reports


def test_appends_to_what_is_there(tmp_path: Path) -> None:
    write(tmp_path / "f", 0, 1)
    write(tmp_path / "f", 2)
    assert (tmp_path / "f").read_bytes() == b"".join(sealed(seq).data for seq in range(3))


def test_nothing_sent_makes_no_file(tmp_path: Path) -> None:
    write(tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_torn_end_is_closed_so_the_next_header_begins_a_line(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(sealed(0).data + b'{"v":1,"seq":1}\n{"kind":"to')
    write(tmp_path / "f", 2)
    found = list(split_envelopes((tmp_path / "f").read_bytes()))
    assert found[0] == sealed(0).data
    assert found[2] == sealed(2).data


def test_a_full_disk_leaves_no_torn_envelope_and_says_retry(tmp_path: Path) -> None:
    write(tmp_path / "f", 0)
    size = (tmp_path / "f").stat().st_size
    transport, reports = opened(tmp_path / "f")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
        transport.send(sealed(1, 5000))
        transport.poll(0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [r.outcome for r in reports] == [Outcome.RETRY]
    assert str(tmp_path / "f") in (reports[0].error or "")
    assert (tmp_path / "f").stat().st_size == size
    transport.send(sealed(1, 5000))
    transport.close(1.0)
    assert [r.outcome for r in reports] == [Outcome.RETRY, Outcome.DELIVERED]
    assert (tmp_path / "f").read_bytes() == sealed(0).data + sealed(1, 5000).data


_WRITER = """
import sys
from callmeter.transports.jsonl import JsonlTransport
from callmeter.transports.protocol import Sealed
path, name = sys.argv[1:]
transport = JsonlTransport(path)
transport.open(lambda report: None)
for seq in range(200):
    data = b'{"v":1,"source":"%s","seq":%d}\\n{"kind":"%s"}\\n' % (name.encode(), seq, b"x" * 3000)
    transport.send(Sealed(name, seq, 1, data))
    transport.poll(0.0)
transport.close(1.0)
"""


def test_two_processes_write_whole_envelopes_into_one_file(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path / "f"), name])
        for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = list(split_envelopes((tmp_path / "f").read_bytes()))
    assert len(found) == 400
    assert {e.count(b"\n") for e in found} == {2}
    assert {len(e) for e in found if b'"seq":7}' in e} == {len(found[0])}


def test_home_is_understood(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert JsonlTransport("~/x.jsonl").path == tmp_path / "x.jsonl"
    assert JsonlTransport("x.jsonl").path.is_absolute()
