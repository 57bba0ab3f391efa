"""The runbook's way beyond a prefix's partitions: a second prefix into the same store."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.cli import PRICED, TRACE, callmeter, environment, started
from support.kafka_server import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
LINES = 400


def part(folder: Path, name: str, first: int) -> Path:
    """Some lines of the trace as a trace of its own."""
    head, *rows = TRACE.read_text().splitlines()
    path = folder / name
    path.write_text("\n".join([head, *rows[first : first + LINES]]) + "\n")
    return path


@contextmanager
def working(kafka_url: str) -> Iterator[None]:
    """A meter, stopped at the end."""
    with started("worker", "--kafka", kafka_url, env=environment()) as worker:
        yield
        worker.send_signal(signal.SIGTERM)
        out, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, out + err


def stored(kafka_url: str, store: str, calls: int) -> dict[str, Any]:
    """Drain the prefix into the store until it has so many calls; its totals."""
    deadline_s = time.monotonic() + 120
    while True:
        ran = callmeter("sink", "--kafka", kafka_url, "--store", store, "--drain", "-q")
        assert ran.code == 0, ran.err
        totals: dict[str, Any] = callmeter("report", "--store", store, "--json").json()["totals"]
        if totals["calls"] == calls:
            return totals
        assert time.monotonic() < deadline_s, totals


def test_a_second_prefix_goes_on_where_the_first_is_left(
    kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    old, new = f"{kafka.url}?prefix={topic_prefix}", f"{kafka.url}?prefix={topic_prefix}-2"
    store = f"chdb:{tmp_path / 'store'}"
    for url, partitions in ((old, "2"), (new, "3")):
        ran = callmeter("topics", "apply", "--kafka", url, "--partitions", partitions)
        assert ran.code == 0, ran.err
    for url, first in ((old, 0), (new, LINES)):
        file = part(tmp_path, f"{first}.csv", first)
        ran = callmeter("replay", file, *PRICED, "--kafka", url, "-q")
        assert ran.code == 0, ran.err
    # Both at once, as while programs move over; then the old one is left.
    with working(old), working(new):
        stored(old, store, LINES)
        totals = stored(new, store, 2 * LINES)
    assert totals["failures"] == 0
    verdict = callmeter("verify", "--store", store, "--json").json()
    assert verdict["equal"] is True
    assert verdict["gaps"] == []
    logs = callmeter("sink", "--kafka", old, "--store", store, "--drain")
    assert logs.out.startswith("0 events"), logs.out
