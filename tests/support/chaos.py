"""How long a chaos test runs, its seed, and the record of what it injected.

``--chaos short`` (default, part of ``make test``) or ``long`` (``make chaos``); ``--seed N`` throws
the same dice again. A test counts every fault it injects; what was never injected fails the test,
because a chaos run without faults proves nothing. The counts are printed at the end of the run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from _pytest.terminal import TerminalReporter

_INJECTED = "chaos injected"
DEFAULT_SEED = 20231116  # the day of the shipped trace


@dataclass
class ChaosRun:
    """One test's dice and its book of faults."""

    seed: int
    long: bool
    random: random.Random
    injected: dict[str, int] = field(default_factory=dict)

    def expect(self, *kinds: str) -> None:
        """Kinds that must be injected at least once before the test ends."""
        for kind in kinds:
            self.injected.setdefault(kind, 0)

    def count(self, kind: str, times: int = 1) -> None:
        """Record ``times`` injections of a kind."""
        self.injected[kind] = self.injected.get(kind, 0) + times

    def pick(self, *, short: int, long: int) -> int:
        """The size of something: faults, events, seconds."""
        return long if self.long else short

    @property
    def missing(self) -> list[str]:
        """Expected kinds that were not injected."""
        return [kind for kind, times in self.injected.items() if times == 0]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", choices=["short", "long"], default="short", help="length of chaos")
    parser.addoption("--seed", type=int, default=DEFAULT_SEED, help="seed of chaos tests")


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Iterator[ChaosRun]:
    """The run's dice; see ``ChaosRun``. Fails at the end if an expected kind was never injected."""
    config = request.config
    seed: int = config.getoption("--seed")
    run = ChaosRun(seed, config.getoption("--chaos") == "long", random.Random(seed))
    yield run
    counts = ", ".join(f"{kind} {times}" for kind, times in run.injected.items())
    # With the report, so that it comes home from another process too (pytest-xdist).
    request.node.user_properties.append((_INJECTED, f"seed {seed}: {counts or 'nothing'}"))
    assert run.injected, "a chaos test that counts no faults proves nothing"
    assert not run.missing, f"never injected: {', '.join(run.missing)}"


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    lines = dict.fromkeys(
        f"{report.nodeid}  {text}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport)
        for name, text in report.user_properties
        if name == _INJECTED
    )
    if lines:
        terminalreporter.section(_INJECTED)
        for line in lines:
            terminalreporter.write_line(line)
