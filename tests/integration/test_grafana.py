"""Every query of the dashboards over ClickHouse runs against real data and gives some."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import callmeter
from support.embedded import Pipeline

DASHBOARDS = sorted((Path(__file__).parents[2] / "deploy/grafana/dashboards").glob("*.json"))


def queries() -> list[tuple[str, str]]:
    found = []
    for file in DASHBOARDS:
        board: dict[str, Any] = json.loads(file.read_text())
        for panel in board["panels"]:
            # Those over Prometheus are run in test_monitoring.py.
            found += [
                (panel["title"], target["rawSql"])
                for target in panel.get("targets", ())
                if "rawSql" in target
            ]
        found += [(v["name"], v["query"]) for v in board["templating"]["list"]]
    return found


def filled_in(sql: str, project: str) -> str:
    """The macros of Grafana's ClickHouse data source and the dashboard's variables."""
    sql = re.sub(r"\$__timeFilter\((\w+)\)", r"(\1 >= now() - INTERVAL 1 HOUR)", sql)
    sql = re.sub(r"\$__timeInterval\((\w+)\)", r"toStartOfInterval(\1, INTERVAL 60 SECOND)", sql)
    return sql.replace("${project:singlequote}", f"'{project}'")


@pytest.fixture(scope="module")
def filled(embedded: Pipeline) -> str:
    project = "grafana-dashboards"
    callmeter.init(embedded.url, project=project)
    with callmeter.generation("a", model="gpt-4o-mini", provider="openai") as call:
        call.usage(input=12, output=7)
    with suppress(TimeoutError), callmeter.generation("b", model="gpt-4o-mini", provider="openai"):
        raise TimeoutError
    # No series has a step beyond 64 bits, so the meter sets this line aside.
    callmeter.metric("loss", 0.5, step=2**70)
    callmeter.flush()
    stats = callmeter.stats()
    callmeter.close()
    embedded.settle(stats.source, stats.envelopes)
    embedded.wait(lambda: embedded.queries.report(project=project).totals.calls == 2)
    return project


@pytest.mark.acceptance(224)
@pytest.mark.parametrize(("title", "sql"), queries(), ids=lambda value: str(value)[:40])
def test_the_query_gives_data(embedded: Pipeline, filled: str, title: str, sql: str) -> None:
    rows = embedded.store.query(filled_in(sql, filled)).rows
    assert rows, title
    assert any(value not in (None, "") for value in rows[0])
