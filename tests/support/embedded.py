"""The real pipeline for tests: one ``callmeter up`` a session, in a process of its own.

A chDB engine has one directory a process, so tests read through the port that ``up`` serves. Tests
keep apart by ``project``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from callmeter.embedded import running
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.progress import arrived
from callmeter_sinks.queries import Queries
from support.cli import started

_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Pipeline:
    """A running pipeline: send to ``url``, ask ``store`` and ``queries``."""

    url: str
    directory: Path
    store: Store

    @property
    def queries(self) -> Queries:
        return Queries(self.store)

    def settle(self, source: str, envelopes: int) -> None:
        """Wait until that many envelopes of a source are stored (``Stats.source, .envelopes``).

        An insert fills the ledger and the calls one after the other, so both are looked at.
        """
        self.wait(
            lambda: (
                arrived(self.store, [source])[source].envelopes >= envelopes
                and self._calls_are_there(source)
            )
        )

    def _calls_are_there(self, source: str) -> bool:
        mine = (
            "SELECT log_id, partition, origin FROM envelopes "
            "WHERE source = {source:UUID} AND verdict = 'accepted'"
        )
        sql = (
            f"SELECT (SELECT count() FROM calls WHERE (log_id, partition, origin) IN ({mine})) "
            "= (SELECT sum(call_ends) FROM envelopes "
            "WHERE source = {source:UUID} AND verdict = 'accepted')"
        )
        return bool(self.store.query(sql, {"source": source}).rows[0][0])

    def wait(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that the pipeline is about to bring about."""
        deadline = time.monotonic() + _PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"did not happen within {_PATIENCE_S:.0f} s"
            time.sleep(0.05)


@contextmanager
def up_in(directory: Path) -> Iterator[Pipeline]:
    """A ``callmeter up`` of its own on a directory, which must end well."""
    with started("up", "--dir", directory, "--port", 0) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        owner = running(directory)
        assert owner is not None, f"callmeter up did not come up: {line}"
        store = open_store(owner.store_url)
        try:
            yield Pipeline(owner.url, directory, store)
        finally:
            store.close()
        process.terminate()
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """One embedded pipeline for the session."""
    with up_in(tmp_path_factory.mktemp("embedded")) as pipeline:
        yield pipeline


@pytest.fixture
def project() -> str:
    """A project of the test's own, so that tests share a pipeline and not their figures."""
    return f"p-{uuid4().hex[:12]}"
