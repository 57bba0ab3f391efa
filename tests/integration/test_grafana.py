"""Every query of the dashboards over ClickHouse runs against real data and gives some."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import callmeter
from support.cli import callmeter as cli
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
def filled(embedded: Pipeline) -> Iterator[str]:
    project = "grafana-dashboards"
    callmeter.init(embedded.url, project=project)
    # A budget that the first call breaks: status, alerts and a running window for their tables.
    ran = cli("budget", "set", "grafana-limit", "--limit", "0.000001", "--scope",
              f"project={project}", "--dir", embedded.directory)  # fmt: skip
    assert ran.code == 0, ran.err
    embedded.wait(
        lambda: bool(embedded.store.query("SELECT 1 FROM budgets WHERE id = 'grafana-limit'").rows)
    )
    still_open = callmeter.generation("open", model="gpt-4o-mini", provider="openai")
    still_open.__enter__()
    with callmeter.generation("a", model="gpt-4o-mini", provider="openai") as call:
        call.usage(input=12, output=7)
    with suppress(TimeoutError), callmeter.generation("b", model="gpt-4o-mini", provider="openai"):
        raise TimeoutError
    # No series has a step beyond 64 bits, so the meter sets this line aside.
    callmeter.metric("loss", 0.5, step=2**70)
    callmeter.flush()
    stats = callmeter.stats()
    embedded.settle(stats.source, stats.envelopes)
    embedded.wait(lambda: embedded.queries.report(project=project).totals.calls == 2)
    embedded.wait(lambda: bool(embedded.queries.in_flight(project=project)))
    embedded.wait(lambda: bool(embedded.queries.alerts(rule="grafana-limit")))
    embedded.wait(lambda: bool(embedded.queries.budget_status(project=project)))
    yield project
    still_open.__exit__(None, None, None)
    callmeter.close()


@pytest.mark.acceptance(224)
@pytest.mark.parametrize(("title", "sql"), queries(), ids=lambda value: str(value)[:40])
def test_the_query_gives_data(embedded: Pipeline, filled: str, title: str, sql: str) -> None:
    rows = embedded.store.query(filled_in(sql, filled)).rows
    assert rows, title
    assert any(value not in (None, "") for value in rows[0])
