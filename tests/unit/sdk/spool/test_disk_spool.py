"""Envelopes on disk: kept, taken over, settled, torn, expired, bounded, and each loss counted."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from callmeter.clock import ManualClock
from callmeter.ids import uuid7
from callmeter.schema.envelope import Header, encode
from callmeter.schema.reasons import DropReason
from callmeter.sdk.spool import frames
from callmeter.sdk.spool.disk import HORIZON_US, DiskSpool
from callmeter.sdk.spool.segment import SEGMENT_BYTES
from callmeter.transports.protocol import Sealed

SOURCE = "019a0000-0000-7000-8000-000000000001"
OTHER = "019a0000-0000-7000-8000-000000000002"
LINE = b'{"kind":"annotation","ts_us":1,"text":"%s"}'


def envelope(
    clock: ManualClock, seq: int, *, source: str = SOURCE, events: int = 3, pad: int = 10
) -> Sealed:
    header = Header(source=source, seq=seq, n=events, sent_us=clock.now_us(), project="p")
    return Sealed(source, seq, events, encode(header, [LINE % (b"x" * pad)] * events))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def opened(tmp_path: Path, clock: ManualClock) -> Callable[..., DiskSpool]:
    def make(source: str = SOURCE, *, max_bytes: int = 2**30, drop: str = "oldest") -> DiskSpool:
        return DiskSpool(
            tmp_path,
            source,
            max_bytes=max_bytes,
            sync_interval_s=0.1,
            now_us=clock.now_us,
            drop=drop,
        )

    return make


def taken(spool: DiskSpool) -> list[Sealed]:
    found = []
    while (one := spool.take()) is not None:
        found.append(one)
    return found


def adopted(spool: DiskSpool) -> list[Sealed]:
    found = []
    while (one := spool.take_adopted()) is not None:
        found.append(one)
    return found


def segments(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("*/*.seg"))


def dies(spool: DiskSpool) -> None:
    """What kill -9 does: files and lock are let go as they are."""
    spool.forked()


def test_what_is_put_comes_out_in_order_and_unchanged(clock, opened) -> None:
    spool = opened()
    given = [envelope(clock, seq) for seq in range(5)]
    assert [spool.put(one) for one in given] == [None] * 5
    assert (spool.events(), spool.events_below(2)) == (15, 6)
    assert taken(spool) == given
    for one in given:
        spool.done(one)
    assert (spool.events(), spool.losses()) == (0, [])
    spool.close()


def test_what_came_back_is_taken_again_and_first(clock, opened) -> None:
    spool = opened()
    first, second = envelope(clock, 0), envelope(clock, 1)
    spool.put(first)
    spool.put(second)
    assert spool.take() == first
    spool.back(first)
    assert taken(spool) == [first, second]
    assert spool.take() is None
    spool.close()


def test_nothing_is_left_when_all_is_settled(clock, opened, tmp_path) -> None:
    spool = opened()
    given = [envelope(clock, seq, pad=60_000) for seq in range(40)]
    for one in given:
        spool.put(one)
    assert len(segments(tmp_path)) == 4
    for one in taken(spool):
        spool.done(one)
    assert [path.stat().st_size for path in segments(tmp_path)] == [0]
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_the_next_process_sends_what_a_dead_one_left_under_its_name(
    clock, opened, tmp_path
) -> None:
    dead = opened()
    given = [envelope(clock, seq) for seq in range(3)]
    for one in given:
        dead.put(one)
    assert dead.take() == given[0]
    dead.done(given[0])
    dies(dead)
    heir = opened(OTHER)
    heir.adopt()
    assert adopted(heir) == given  # an acknowledged one again: it counts once behind the meter
    assert heir.events() == 0
    for one in given[:2]:
        heir.done(one)
    heir.done(given[2], DropReason.REFUSED)
    assert (heir.recovered, heir.recovered_dropped) == (6, {DropReason.REFUSED: 3})
    assert heir.losses() == []
    heir.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_has_one_owner(clock, opened) -> None:
    owner = opened()
    owner.put(envelope(clock, 0))
    first, second = opened(OTHER), opened(uuid7())
    first.adopt()
    assert adopted(first) == []
    owner.close()
    first.adopt()
    second.adopt()
    assert len(adopted(first)) == 1
    assert adopted(second) == []
    first.close()
    second.adopt()
    assert len(adopted(second)) == 1
    second.close()


@pytest.mark.parametrize("lost_bytes", [1, 50, 400])
def test_a_torn_tail_costs_the_torn_envelope_only(clock, opened, tmp_path, lost_bytes) -> None:
    dead = opened()
    given = [envelope(clock, seq, pad=100) for seq in range(3)]
    for one in given:
        dead.put(one)
    dies(dead)
    (path,) = segments(tmp_path)
    os.truncate(path, path.stat().st_size - lost_bytes)
    heir = opened(OTHER)
    heir.adopt()
    assert adopted(heir) == given[:2]
    assert heir.broken == 1
    heir.close()


def test_reading_goes_on_behind_a_rotten_stretch(clock, opened, tmp_path) -> None:
    dead = opened()
    given = [envelope(clock, seq, pad=100) for seq in range(4)]
    for one in given:
        dead.put(one)
    dies(dead)
    (path,) = segments(tmp_path)
    content = bytearray(path.read_bytes())
    at = len(frames.pack(0, 3, given[0].data)) + 60
    content[at] ^= 0xFF
    path.write_bytes(content)
    heir = opened(OTHER)
    heir.adopt()
    assert adopted(heir) == [given[0], given[2], given[3]]
    assert heir.broken == 1
    heir.close()


def test_our_own_rotten_envelope_is_counted(clock, opened, tmp_path) -> None:
    spool = opened()
    for seq in range(2):
        spool.put(envelope(clock, seq, pad=100))
    (path,) = segments(tmp_path)
    with path.open("r+b") as file:
        file.seek(80)
        file.write(b"\0\0\0")
    assert [one.seq for one in taken(spool)] == [1]
    assert spool.losses() == [(DropReason.SPOOL_ERROR, 3)]
    assert spool.events() == 3
    spool.close()


def test_what_the_meter_would_refuse_as_too_late_is_dropped_and_counted(clock, opened) -> None:
    spool, dead = opened(), opened(OTHER)
    spool.put(envelope(clock, 0))
    dead.put(envelope(clock, 0, source=OTHER))
    dies(dead)
    clock.advance(HORIZON_US / 1e6 - 1)
    late = envelope(clock, 1)
    spool.put(late)
    clock.advance(2)
    spool.adopt()
    assert taken(spool) == [late]
    assert adopted(spool) == []
    assert spool.losses() == [(DropReason.SPOOL_EXPIRED, 3)]
    assert spool.recovered_dropped == {DropReason.SPOOL_EXPIRED: 3}
    spool.done(late)
    spool.close()


def test_the_oldest_segment_makes_room_and_is_counted(clock, opened) -> None:
    spool = opened(max_bytes=3 * SEGMENT_BYTES)
    count = 0
    while not (losses := spool.losses()):
        assert spool.put(envelope(clock, count, pad=60_000)) is None
        count += 1
        assert spool.disk_bytes() <= 3 * SEGMENT_BYTES + 200_000
    assert [reason for reason, _ in losses] == [DropReason.SPOOL_FULL] * len(losses)
    left = taken(spool)
    assert len(left) * 3 + sum(n for _, n in losses) == count * 3
    assert [one.seq for one in left] == list(range(count - len(left), count))
    spool.close()


def test_an_envelope_on_its_way_when_its_segment_goes_is_counted_once(clock, opened) -> None:
    spool = opened(max_bytes=SEGMENT_BYTES // 4)
    spool.put(envelope(clock, 0, pad=100_000))
    flying = spool.take()
    spool.put(envelope(clock, 1, pad=100_000))  # the first makes room
    assert (spool.losses(), spool.events()) == ([], 6)
    spool.back(flying)
    assert (spool.losses(), spool.events()) == ([(DropReason.SPOOL_FULL, 3)], 3)
    again = spool.take()
    spool.put(envelope(clock, 2, pad=100_000))
    assert spool.events() == 6
    spool.done(again)
    assert (spool.losses(), spool.events()) == ([], 3)
    spool.close()


def test_the_newest_is_not_kept_when_told_so(clock, opened) -> None:
    spool = opened(max_bytes=SEGMENT_BYTES // 4, drop="newest")
    assert spool.put(envelope(clock, 0, pad=100_000)) is None
    assert spool.put(envelope(clock, 1, pad=100_000)) is DropReason.SPOOL_FULL
    assert [one.seq for one in taken(spool)] == [0]
    spool.close()


def test_a_spool_that_cannot_be_made_says_so(clock, opened, tmp_path) -> None:
    (tmp_path / "file").touch()
    spool = DiskSpool(
        tmp_path / "file" / "below",
        SOURCE,
        max_bytes=2**30,
        sync_interval_s=0.1,
        now_us=clock.now_us,
    )
    assert spool.put(envelope(clock, 0)) is DropReason.SPOOL_ERROR
    assert spool.error is not None
    assert spool.events() == 0
    spool.adopt()
    spool.close()


def test_a_full_disk_keeps_what_it_has_and_takes_again_when_there_is_room(tmp_path) -> None:
    """The limit on the size of files stands in for the disk's: a write stops half-way."""
    program = """
        import resource, sys
        from pathlib import Path
        from callmeter.clock import SystemClock
        from callmeter.schema.envelope import Header, encode
        from callmeter.schema.reasons import DropReason
        from callmeter.sdk.spool.disk import DiskSpool
        from callmeter.transports.protocol import Sealed
        clock = SystemClock()
        source = "019a0000-0000-7000-8000-000000000001"
        spool = DiskSpool(Path(sys.argv[1]), source, max_bytes=2**30, sync_interval_s=0.1,
                          now_us=clock.now_us)
        def put(seq):
            head = Header(source=source, seq=seq, n=1, sent_us=clock.now_us(), project="p")
            data = encode(head, [b'{"kind":"annotation","text":"%s"}' % (b"x" * 3000)])
            return spool.put(Sealed(source, seq, 1, data))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        results = [put(seq) for seq in range(5)]
        assert results[:2] == [None, None] and results[4] is DropReason.SPOOL_ERROR, results
        kept = results.count(None)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert put(5) is None
        found = []
        while (one := spool.take()) is not None:
            found.append(one.seq)
        assert found == [*range(kept), 5], found
        spool.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_after_a_fork_the_child_lets_go(clock, opened, tmp_path) -> None:
    spool = opened()
    spool.put(envelope(clock, 0))
    lock = tmp_path / SOURCE / "lock"
    assert len(descriptors(lock)) == 1
    pid = os.fork()
    if pid == 0:
        spool.forked()
        os._exit(len(descriptors(lock)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(taken(spool)) == 1
    spool.close()


def descriptors(path: Path) -> list[Path]:
    """Those of this process that point to a file."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own is closed by now
            if each.readlink() == path:
                found.append(each)
    return found
