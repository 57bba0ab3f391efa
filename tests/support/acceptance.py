"""Records which rows of the acceptance table a passing test proves.

A test says ``@pytest.mark.acceptance(N)``: one row a mark. A row is proven when at least one test
marked with it passed and none failed. ``--acceptance-record FILE`` writes what was seen as JSON,
for ``scripts/acceptance.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROWS = 231
_SEEN = pytest.StashKey[dict[int, dict[str, str]]]()
_RANK = {"passed": 0, "skipped": 1, "failed": 2}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--acceptance-record", metavar="FILE", help="write the proven acceptance rows to FILE"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SEEN] = {}


def rows_of(item: pytest.Item) -> list[int]:
    """The rows an item proves; ``UsageError`` on a mark that is not exactly one row."""
    rows: list[int] = []
    for mark in item.iter_markers("acceptance"):
        row: Any = mark.args[0] if len(mark.args) == 1 and not mark.kwargs else None
        if type(row) is not int or not 1 <= row <= ROWS:
            raise pytest.UsageError(
                f"{item.nodeid}: acceptance takes one row, 1 to {ROWS}, not {mark.args}"
            )
        rows.append(row)
    return rows


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for row in rows_of(item):
            item.user_properties.append(("acceptance", row))


class _Recorder:
    """Keeps the worst outcome of each test: a test whose teardown fails proves nothing."""

    def __init__(self, seen: dict[int, dict[str, str]]) -> None:
        self.seen = seen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, row in report.user_properties:
            if name != "acceptance":
                continue
            tests = self.seen.setdefault(int(str(row)), {})
            before = tests.get(report.nodeid, "passed")
            outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
            tests[report.nodeid] = max(before, outcome, key=_RANK.__getitem__)


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.pluginmanager.register(_Recorder(session.config.stash[_SEEN]), "acceptance-rows")


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--acceptance-record")
    if target and not hasattr(session.config, "workerinput"):  # xdist: the controller has seen all
        seen = session.config.stash[_SEEN]
        text = json.dumps({str(row): seen[row] for row in sorted(seen)}, indent=1)
        Path(target).write_text(text + "\n")
