"""SynapseKit's facade metering into the session's pipeline, and what the pipeline has kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import callmeter
from callmeter.compat.synapsekit import configure
from callmeter.compat.synapsekit.switches import SWITCHES
from callmeter_sinks.queries.calls import CallRow
from support.embedded import Pipeline


class Stored:
    """Meters into the pipeline; ``rows`` reads this test's project back."""

    def __init__(self, pipeline: Pipeline, project: str) -> None:
        self.pipeline = pipeline
        self.project = project
        self.configure()

    def configure(self, **switches: object) -> None:
        configure(self.pipeline.url, project=self.project, **switches)

    def settle(self, calls: int) -> list[CallRow]:
        assert callmeter.flush(20.0).ok
        stats = callmeter.stats()
        self.pipeline.settle(stats.source, stats.envelopes)
        self.pipeline.wait(lambda: len(self.rows()) >= calls)
        return self.rows()

    def rows(self) -> list[CallRow]:
        return self.pipeline.queries.calls(project=self.project)

    def everything(self) -> str:
        """Every text of every table, and the log's file, as one."""
        found = []
        for (table,) in self.pipeline.store.query(
            "SELECT name FROM system.tables WHERE database = currentDatabase() "
            "AND engine LIKE '%MergeTree'"
        ).rows:
            rows = self.pipeline.store.query(f"SELECT toString(tuple(*)) FROM `{table}`").rows
            found += [row[0] for row in rows]
        log = b"".join(p.read_bytes() for p in self.pipeline.directory.glob("log.db*"))
        return "\n".join(found) + log.decode("latin-1")


@pytest.fixture
def stored(embedded: Pipeline, project: str) -> Iterator[Stored]:
    yield Stored(embedded, project)
    callmeter.close()
    SWITCHES.inputs = SWITCHES.outputs = True
