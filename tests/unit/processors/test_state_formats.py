"""State of the format before is read and gone on with; state of a later one is refused."""

from __future__ import annotations

import json
import random

import pytest

from callmeter.errors import DataError, NewerSchemaError
from callmeter.log.position import encode_position
from callmeter_processors.meter import PartitionMeter
from callmeter_processors.rowformat import readable
from callmeter_processors.watch.step import PartitionWatch
from support.metering import (
    LOG,
    NOW_US,
    CrashingRuntime,
    TablePricer,
    call_end,
    deltas,
    envelope,
    record,
    source,
    totals_of_deltas,
)

#: The fields of each kind of row as the format before knew them; None: there was none.
BEFORE = {
    b"s:": (1, {"v", "log", "next", "seen_us", "last", "gaps", "floor", "given_up", "alerted"}),
}


def as_before(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The rows as a worker of the release before would have written them."""
    found = {}
    for key, value in rows.items():
        row = json.loads(value)
        if key[:2] in BEFORE:
            row["v"], fields = BEFORE[key[:2]]
            row = {name: row[name] for name in row if name in fields}
        found[key] = json.dumps(row).encode()
    return found


def traffic(rng: random.Random) -> list[bytes]:
    """Envelopes of five sources in some order, with gaps, duplicates and clean ends."""
    sent: list[tuple[int, int, bool]] = []
    for number in range(5):
        count = rng.randrange(3, 12)
        closes = rng.random() < 0.5
        sent += [(number, seq, closes and seq == count - 1) for seq in range(count)]
    rng.shuffle(sent)
    sent += rng.sample(sent, 8)
    return [
        envelope([call_end()] * rng.randrange(4), source=source(n), seq=seq, last=last)
        for n, seq, last in sent
    ]


@pytest.mark.parametrize("seed", range(12))
def test_a_newer_worker_goes_on_exactly_where_an_older_one_stopped(seed: int):
    rng = random.Random(seed)
    records = [
        record(value, offset=offset, key=json.loads(value.split(b"\n")[0])["source"].encode())
        for offset, value in enumerate(traffic(rng))
    ]
    straight, upgraded = CrashingRuntime(), CrashingRuntime()
    straight.run(records)
    for cut in sorted(rng.sample(range(1, len(records)), 3)):
        upgraded.run(records[:cut])
        upgraded.rows = as_before(upgraded.rows)
    upgraded.run(records)

    def verdicts(runtime: CrashingRuntime) -> list[str]:
        return [
            json.loads(out.value.split(b"\n")[0])["verdict"]
            for out in runtime.outputs
            if out.topic == "metered" and b'"type":"envelope"' in out.value
        ]

    assert verdicts(upgraded) == verdicts(straight)
    assert "duplicate" in verdicts(straight)
    assert totals_of_deltas(deltas(upgraded.outputs)) == totals_of_deltas(deltas(straight.outputs))


def test_rows_as_the_first_release_wrote_them():
    rows = {
        b"s:" + source(1).encode(): b'{"v":1,"log":"%s","next":4,"seen_us":%d,"gaps":[[1,1,%d]]}'
        % (LOG.encode(), NOW_US, NOW_US),
        b"s:" + source(2).encode(): b'{"v":1,"log":"%s","next":2,"seen_us":%d,"last":true}'
        % (LOG.encode(), NOW_US),
        b"o:" + source(1).encode(): b'{"v":1,"log":"%s","calls":[],"ended":["x"]}' % LOG.encode(),
        b"b:team": b'{"v":1,"log":"%s","basis":3,"next":17}' % LOG.encode(),
    }
    meter = PartitionMeter(LOG, 0, TablePricer())
    meter.restore(rows)
    assert meter.figures()["sources_open"] == 1
    assert meter.figures()["sources_closed"] == 1
    assert meter.figures()["missing_envelopes"] == 1
    for number, seq, verdict in ((1, 1, "accepted"), (1, 1, "duplicate"), (2, 1, "duplicate")):
        value = envelope([], source=source(number), seq=seq)
        meter.process(record(value, key=source(number).encode()))
        head = json.loads(meter.checkpoint().outputs[0].value.split(b"\n")[0])
        assert head["verdict"] == verdict


@pytest.mark.parametrize("key", [b"s:" + source(1).encode(), b"o:" + source(1).encode(), b"b:team"])
def test_a_meter_refuses_what_a_newer_one_wrote_whatever_is_in_it(key: bytes):
    rows = {key: b'{"v":9,"log":"%s","unheard":{"of":[1]}}' % LOG.encode()}
    with pytest.raises(NewerSchemaError, match="has format 9, this callmeter reads up to") as found:
        PartitionMeter(LOG, 0, TablePricer()).restore(rows)
    assert found.value.exit_code == 78
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("key", [b"j:%016x:0000" % 1, b"c:3:0"])
def test_a_watch_refuses_what_a_newer_one_wrote(key: bytes):
    rows = {key: b'{"v":9,"log":"%s","packed":"?"}' % LOG.encode()}
    with pytest.raises(NewerSchemaError, match="has format 9"):
        PartitionWatch(LOG, 0).restore(rows)


def test_rows_of_another_log_are_ignored_whatever_their_format():
    assert not readable(b"s:x", b'{"v":9,"log":"another"}', LOG, 1)
    meter = PartitionMeter(LOG, 0, TablePricer())
    meter.restore({b"s:" + source(1).encode(): b'{"v":9,"log":"another"}'})
    assert meter.figures()["state_rows"] == 0


def test_a_row_that_is_none_stops_the_worker():
    with pytest.raises(DataError, match="state row s:x cannot be read"):
        readable(b"s:x", b"\xff\xfe", LOG, 1)


def test_the_position_has_a_format_of_its_own():
    assert json.loads(encode_position(LOG, 4)) == {"v": 1, "log": LOG, "next": 4}
